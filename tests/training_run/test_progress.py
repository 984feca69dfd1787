"""Progress events cross process boundaries unchanged."""

import io

import pytest

from dwcp_ml.contract.errors import DataRefused
from dwcp_ml.training_run.progress import PREFIX, ProgressEvent, ProgressTask, parse, reporter_of


def test_an_event_is_parsed_from_its_line():
    stream = io.StringIO()
    event = ProgressEvent("train x", "running", "epoch 3 of 9, [loss] 0.1", 0.25)
    reporter_of({"DWCP_PROGRESS": "events"}, stream)(event)
    assert parse(stream.getvalue()) == event


@pytest.mark.parametrize("line", ["", "loss 0.3", PREFIX, PREFIX + "{", PREFIX + '{"who": 1}'])
def test_other_lines_are_no_events(line):
    assert parse(line) is None


def test_a_log_line_has_task_state_share_and_text():
    stream = io.StringIO()
    reporter_of({}, stream)(ProgressEvent("gate", "running", "judging", 0.5))
    assert stream.getvalue() == "gate: running  50% judging\n"


def test_nothing_is_printed_in_mode_none():
    stream = io.StringIO()
    reporter_of({"DWCP_PROGRESS": "none"}, stream)(ProgressEvent("gate", "done"))
    assert stream.getvalue() == ""


def test_a_task_reports_its_failure_with_the_exit_code_and_lets_it_propagate():
    events = []
    with pytest.raises(DataRefused), ProgressTask("validate", events.append) as task:
        task.advance(0.5, "half")
        raise DataRefused("the file is empty.")
    assert [event.state for event in events] == ["running", "running", "failed"]
    assert (events[-1].text, events[-1].exit_code) == ("the file is empty.", 4)


def test_a_task_that_ends_well_is_complete():
    events = []
    with ProgressTask("gate", events.append) as task:
        task.finish("APPROVED")
    assert events[-1] == ProgressEvent("gate", "done", "APPROVED", 1.0)
