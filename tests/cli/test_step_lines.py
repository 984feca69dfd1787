"""Without a terminal, long work prints a line for each step and at least every 30 s."""

import re
import threading
from types import SimpleNamespace as given

from dwcp_ml.cli import step_lines, terminal
from dwcp_ml.cli.rollout_progress import StepLines
from dwcp_ml.cli.run_progress import Lines
from dwcp_ml.kubeflow.client import RunState, TaskState
from dwcp_ml.training_run.progress import ProgressEvent, ProgressTask


def printed(capsys):
    lines = capsys.readouterr().err.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\dZ  ", line) for line in lines), lines
    return [" ".join(line.split()[1:]) for line in lines]


def wait_for(condition):
    for _ in range(500):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not happen")


def test_a_line_for_each_step_and_for_a_long_one_more(capsys):
    seen = []
    with step_lines.printing(interval_seconds=0.05, quiet_seconds=0.0) as report:
        with ProgressTask("validate", report) as task:
            task.advance(0.5, "half")
            wait_for(lambda: seen.extend(printed(capsys)) or "validate running 50% half" in seen)
            task.finish("10 rows")
        report(ProgressEvent("train", "running"))
        report(ProgressEvent("train", "failed", "No window."))
        wait_for(lambda: seen.extend(printed(capsys)) or "train failed" in seen)
    assert "validate running" in seen
    assert "validate done 10 rows" in seen
    assert not [line for line in seen if "No window." in line], "the last line says it, once"


def test_short_work_prints_nothing(capsys):
    with terminal.drawing() as report, ProgressTask("validate", report) as task:
        task.advance(0.5)
    assert printed(capsys) == []


def test_lines_of_the_first_seconds_are_printed_later_in_order(capsys):
    with step_lines.printing(interval_seconds=60.0, quiet_seconds=0.3) as report:
        for name in ("a", "b"):
            report(ProgressEvent(name, "running"))
            report(ProgressEvent(name, "done", "well", 1.0))
        assert printed(capsys) == []
        seen = []
        wait_for(lambda: seen.extend(printed(capsys)) or len(seen) == 4)
    assert seen == ["a running", "a done well", "b running", "b done well"]


def test_the_time_between_two_steps_is_not_silent(capsys):
    with step_lines.printing(interval_seconds=0.05, quiet_seconds=0.0):
        seen = []
        wait_for(lambda: seen.extend(printed(capsys)) or seen)
    assert seen[0] == "next step not started yet"


def test_a_run_on_kubeflow_prints_every_30_seconds(capsys):
    now = [0.0]
    lines = Lines({"train": "train bandwidth"}, lambda: now[0])
    run = RunState("r", "RUNNING", tasks=(TaskState("train", "RUNNING"),))
    for second in range(0, 100, 5):
        now[0] = float(second)
        lines.show(run)
    assert printed(capsys) == ["train bandwidth RUNNING", "run RUNNING"] + 3 * [
        "run RUNNING train bandwidth"
    ]


def test_a_rollout_prints_each_step_and_every_30_seconds(capsys):
    now = [0.0]
    show = StepLines(given(model="m", candidate=given(version="2")), lambda: now[0])
    status = given(
        phase=given(value="Progressing"), cause=given(sentence="Waiting."), exposed_requests=1234
    )
    for second in range(0, 65, 5):
        now[0] = float(second)
        show(status, given(live_percent=5 if second < 40 else 25))
    assert printed(capsys) == [
        f"m 2 Progressing, {percent} %: Waiting. 1,234 requests." for percent in (5, 5, 25)
    ]
