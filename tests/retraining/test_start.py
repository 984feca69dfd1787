"""A run of a retraining is created on a cluster, once, and old ones are deleted."""

import json
import threading
from dataclasses import replace

import pytest

from dwcp_ml.cli import main
from dwcp_ml.kube import client
from dwcp_ml.kube.api import MODEL_ROLLOUT, TRAINING_RUN, AccessDenied, ApiUnavailable, Conflict
from dwcp_ml.operator.settings import SYSTEM_CLOCK
from dwcp_ml.retraining.decide import Skip
from dwcp_ml.retraining.settings import LABEL
from dwcp_ml.retraining.start import start
from tests.operator.memory_api import MemoryApi
from tests.retraining.retrainings import (
    DAY,
    FAILED,
    HOUR,
    NAMESPACE,
    NOW,
    REJECTED,
    RUNNING,
    SUCCEEDED,
    document,
    put,
    retraining,
    rollout,
    training_run,
)

CLOCK = replace(SYSTEM_CLOCK, wall=NOW.timestamp)


@pytest.fixture
def api():
    return MemoryApi(now=lambda: NOW.strftime("%Y-%m-%dT%H:%M:%SZ"))


def started(api, **changes):
    options = {"dry_run": changes.pop("dry_run", False)}
    return start(api, NAMESPACE, retraining(**changes), "schedule", CLOCK, **options)


def names(api):
    return sorted(one["metadata"]["name"] for one in api.list(TRAINING_RUN, NAMESPACE))


def test_a_run_is_created_and_the_next_waits_for_it(api):
    assert started(api).skip is None
    made = api.get(TRAINING_RUN, NAMESPACE, "nightly-1")
    assert made["spec"]["data"]["endTime"] == "2026-03-20T11:00:00Z"
    again = started(api)
    assert (again.skip, again.run) == (Skip.RUN_UNDER_WAY, "nightly-1")
    assert names(api) == ["nightly-1"]


def test_a_dry_run_creates_nothing(api):
    assert started(api, dry_run=True).skip is None
    assert names(api) == []


@pytest.mark.parametrize(
    ("status", "skip"),
    [
        (SUCCEEDED, None),
        (REJECTED, None),
        (FAILED, None),
        (RUNNING, Skip.RUN_UNDER_WAY),
        ({}, Skip.RUN_UNDER_WAY),
        ({"phase": "Suspended", "reason": "Suspended"}, Skip.RUN_UNDER_WAY),
        # Of a newer operator: what it means is unknown, so nothing is started.
        ({"phase": "Archived", "reason": "Archived"}, Skip.RUN_UNDER_WAY),
    ],
)
def test_the_state_of_the_last_run_decides(api, status, skip):
    put(api, training_run(1, 2 * DAY, **status), NOW - 2 * DAY)
    assert started(api).skip is skip


@pytest.mark.parametrize(
    ("status", "skip"), [(SUCCEEDED, Skip.TOO_LITTLE_NEW_DATA), (FAILED, None)]
)
def test_the_window_of_a_run_is_read_from_its_spec(api, status, skip):
    put(api, training_run(1, 3 * HOUR, **status), NOW - 3 * HOUR)
    assert started(api, cooldownHours=1).skip is skip


@pytest.mark.parametrize(
    ("version", "phase", "skip"),
    [
        ("v1", "RolledBack", Skip.TOO_LITTLE_NEW_DATA),
        ("v1", "Promoted", None),
        ("v1", "Progressing", Skip.ROLLOUT_UNDER_WAY),
        ("v2", "RolledBack", None),
    ],
)
def test_a_rollout_of_the_last_run_counts(api, version, phase, skip):
    put(api, training_run(1, 2 * DAY, **SUCCEEDED), NOW - 2 * DAY)
    put(api, rollout(version, phase))
    assert started(api).skip is skip


def test_a_candidate_that_a_user_replaced_counts_as_rolled_back(api):
    status = {**SUCCEEDED, "rollouts": ["bandwidth-predictor"]}
    put(api, training_run(1, 2 * DAY, **status), NOW - 2 * DAY)
    put(api, rollout("v0", "Promoted"))
    found = started(api)
    assert (found.skip, found.needed_new_data) == (Skip.TOO_LITTLE_NEW_DATA, 0.5)


def test_a_status_about_another_candidate_says_nothing(api):
    put(api, rollout("v1", "Promoted"))

    def set_candidate(body):
        body["spec"]["candidate"]["version"] = "v2"

    api.edit(MODEL_ROLLOUT, NAMESPACE, "bandwidth-predictor", set_candidate)
    assert started(api).skip is Skip.ROLLOUT_UNDER_WAY


def test_runs_of_others_do_not_count(api):
    other = training_run(1, HOUR, **RUNNING)
    other["metadata"]["labels"] = {}
    other["metadata"]["name"] = "nightly-by-hand"
    put(api, other)
    assert started(api).run == "nightly-1"


def test_a_name_that_another_run_has_is_not_chosen(api):
    """A run whose label was removed, or that has another's, is none of the retraining's."""
    put(api, training_run(1, 2 * DAY, **SUCCEEDED), NOW - 2 * DAY)
    for number, labels in ((2, {}), (7, {LABEL: "weekly"})):
        other = training_run(number, HOUR, **RUNNING)
        other["metadata"]["labels"] = labels
        put(api, other)
    found = started(api)
    assert (found.skip, found.run) == (None, "nightly-8")
    assert started(api).run == "nightly-8"  # it is under way
    assert names(api) == ["nightly-1", "nightly-2", "nightly-7", "nightly-8"]


@pytest.mark.parametrize(
    ("start", "end", "skip"),
    [
        ("2026-03-08t11:00:00z", "2026-03-20T16:30:00+05:30", Skip.TOO_LITTLE_NEW_DATA),
        ("2026-03-08", "2026-03-20", None),  # not a time of the API: the run has no window
        ("2026-03-20T11:00:00Z", "2026-03-08T11:00:00Z", None),
    ],
)
def test_a_window_is_read_as_the_operator_reads_it(api, start, end, skip):
    run = training_run(1, 2 * DAY, **SUCCEEDED)
    run["spec"]["data"].update(startTime=start, endTime=end)
    put(api, run, NOW - 2 * DAY)
    assert started(api).skip is skip


def test_two_at_the_same_moment_start_one_run(api):
    """Both have read the same runs before either writes."""
    barrier = threading.Barrier(2)

    def wait(call):
        if call.verb == "create":
            barrier.wait(10)

    api.before = wait
    found = []

    def both():
        found.append(started(api))

    threads = [threading.Thread(target=both) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((one.skip for one in found), key=str) == [None, Skip.RUN_UNDER_WAY]
    assert names(api) == ["nightly-1"]


def test_a_lost_response_starts_no_second_run(api):
    def lose(call):
        if call.verb == "create":
            raise ApiUnavailable("The API server gives no response.")

    api.after = lose
    with pytest.raises(ApiUnavailable):
        started(api)
    api.after = lambda call: None
    assert started(api).skip is Skip.RUN_UNDER_WAY
    assert names(api) == ["nightly-1"]


def test_old_runs_are_deleted_and_a_denied_deletion_is_no_error(api):
    for number in range(1, 6):
        ago = (40 - number) * DAY
        put(api, training_run(number, ago, **FAILED), NOW - ago)

    def deny(call):
        if call.verb == "delete":
            raise AccessDenied("No.")

    api.before = deny
    assert started(api, historyLimit=2).skip is None
    assert len(names(api)) == 6
    api.before = lambda call: None
    started(api, historyLimit=2)
    assert names(api) == ["nightly-4", "nightly-5", "nightly-6"]
    with pytest.raises(Conflict):
        api.create(training_run(6))


@pytest.fixture
def command(api, monkeypatch, tmp_path, capsys):
    """Run ``dwcp-ml retraining start`` on the server in memory; return exit code and output."""
    monkeypatch.setattr(client, "connect", lambda *names, **options: api)
    path = tmp_path / "retraining.yaml"
    path.write_text(json.dumps(document()))

    def run(*words, config=path):
        code = main(
            ["retraining", "start", "--config", str(config), "--namespace", NAMESPACE, *words]
        )
        return code, *capsys.readouterr()

    return run


def test_the_command_creates_a_run(command, api):
    code, out, _ = command("--trigger", "schedule", "--json")
    assert (code, json.loads(out)["skip"], names(api)) == (0, None, ["nightly-1"])
    code, out, _ = command("--json")
    assert (code, json.loads(out)["skip"]) == (0, "RunUnderWay")
    code, out, _ = command()
    assert (code, len(out.splitlines())) == (0, 1)


def test_the_command_says_what_is_wrong(command, api, tmp_path):
    assert command("--trigger", "-x")[0] == 2
    assert command("--trigger", "x\n")[0] == 2
    assert command("--name", "weekly")[0] == 2
    assert command(config=tmp_path / "missing.yaml")[0] == 2

    def unavailable(call):
        raise ApiUnavailable("The API server gives no response.")

    api.before = unavailable
    code, _, err = command()
    assert (code, len(err.splitlines())) == (1, 1)
