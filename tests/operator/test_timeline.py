"""The timeline and the status of a rollout on a cluster, against an API server in memory."""

import json
import sys
from datetime import UTC, datetime

import pytest

from dwcp_ml.cli import main
from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.kube import client
from dwcp_ml.kube.api import EVENT, MODEL_ROLLOUT, AccessDenied, ApiUnavailable
from dwcp_ml.operator.events import KubernetesRecorder
from dwcp_ml.operator.settings import Intervals
from dwcp_ml.operator.timeline import cluster_timeline
from dwcp_ml.rollout.timeline import FORMATS, KubernetesEvents
from dwcp_ml.rollout.verdict import Outcome, Verdict
from tests.errors import about
from tests.operator.fake_servers import NAME, NAMESPACE
from tests.operator.scenario import SHARES, Scenario, candidate, digest


def recorded(**how):
    """Return a scenario whose events are Kubernetes Events."""
    scenario = Scenario(**how)
    scenario.record = KubernetesRecorder(scenario.api, scenario.time.clock).record
    return scenario


def rolled_back():
    scenario = recorded()
    scenario.until("Progressing")
    scenario.fleet.errors[digest(2)] = 1.0
    scenario.until_end()
    return scenario


def timeline(scenario, name=NAME):
    return cluster_timeline(scenario.api, NAMESPACE, name, scenario.time.now)


def forget(scenario, keep=0):
    """Delete the Events, as Kubernetes does after an hour, but for some of the newest."""
    events = scenario.api.list(EVENT, NAMESPACE)
    events.sort(key=lambda one: (one["lastTimestamp"], int(one["metadata"]["resourceVersion"])))
    for event in events[: len(events) - keep]:
        scenario.api.delete(EVENT, NAMESPACE, event["metadata"]["name"])


@pytest.fixture
def command(monkeypatch):
    """Return a function that runs the command against the API of a scenario."""

    def run(api, *words):
        monkeypatch.setattr(client, "connect", lambda *_: api)
        return main(["rollout", *words, "--namespace", NAMESPACE])

    return run


def under_way():
    """Return a scenario at 5 %, whose tests are not all decided, and whose status is new."""
    scenario = recorded(intervals=Intervals(evidence_seconds=1.0))
    while scenario.status.get("livePercent") != 5 or not scenario.status.get("verdicts"):
        scenario.reconcile()
    return scenario


def test_a_promotion_is_shown_step_by_step():
    scenario = recorded()
    scenario.until_end()
    found = timeline(scenario)
    assert found.outcome == "Promoted"
    assert found.kubernetes_events is KubernetesEvents.ALL
    risen = [event.percent for event in found.events if event.reason == "StepStarted"]
    assert [share for share in SHARES if share in risen] == list(SHARES[1:])
    assert [event.at for event in found.events] == sorted(event.at for event in found.events)
    assert all(event.phase is not None for event in found.events), "each change is shown once"
    assert found.candidate_requests == scenario.status["exposedRequests"]
    assert found.stable.digest == digest(1)


def test_a_stall_is_shown_from_its_event_among_the_changes():
    scenario = recorded()
    scenario.until("Progressing")
    scenario.edit(lambda one: one["spec"]["analysis"].update(groundTruth={"required": True}))
    scenario.reconcile()
    found = timeline(scenario)
    assert found.outcome == "Stalled"
    assert found.reason == "TestNotSupported"
    (stall,) = [event for event in found.events if event.phase is None]
    assert (stall.reason, stall.percent) == ("TestNotSupported", None)
    assert "TestNotSupported: " in found.render("md")


def test_it_says_what_it_rests_on_when_events_are_gone():
    scenario = rolled_back()
    whole = timeline(scenario)
    forget(scenario, keep=1)
    part = timeline(scenario)
    forget(scenario)
    bare = timeline(scenario)
    assert [one.kubernetes_events for one in (whole, part, bare)] == [
        KubernetesEvents.ALL, KubernetesEvents.SOME, KubernetesEvents.NONE
    ]  # fmt: skip
    changes = [event for event in whole.events if event.phase is not None]
    assert list(bare.events) == changes
    assert len({one.sources for one in (whole, part, bare)}) == 3
    assert bare.sources[-1] in bare.render("md")


def test_without_the_right_to_list_events_it_rests_on_the_state():
    scenario = rolled_back()
    whole = timeline(scenario)

    def deny(call):
        if call.kind == EVENT:
            raise AccessDenied("events is forbidden")

    scenario.api.before = deny
    found = timeline(scenario)
    assert found.kubernetes_events is KubernetesEvents.FORBIDDEN
    assert list(found.events) == [event for event in whole.events if event.phase is not None]


def test_events_of_an_earlier_candidate_and_of_another_object_are_left_out():
    scenario = rolled_back()
    scenario.time.pass_time(1000)
    scenario.fleet.errors.clear()
    scenario.edit(lambda one: one["spec"].update(candidate=candidate(3)))
    scenario.until("Progressing")
    event = scenario.api.list(EVENT, NAMESPACE)[-1]
    name = f"{NAME}.other"
    other = {**event, "metadata": {"namespace": NAMESPACE, "name": name}, "reason": "Other",
             "involvedObject": {**event["involvedObject"], "uid": "another"}}  # fmt: skip
    scenario.api.create(other)
    found = timeline(scenario)
    assert found.candidate.version == "v3"
    assert {event.reason for event in found.events}.isdisjoint({"TestFailed", "Other"})
    assert {event.reason for event in found.events} <= {"CandidateNotReady", "StepStarted"}


def test_a_repeated_event_is_one_line_with_its_count():
    scenario = rolled_back()
    moments = [scenario.time.now + seconds for seconds in (10, 700)]
    first, last = (f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}" for at in moments)
    event = scenario.api.list(EVENT, NAMESPACE)[-1]
    changed = {"reason": "WriteForbidden", "message": "No.", "count": 3,
               "firstTimestamp": first, "lastTimestamp": last}  # fmt: skip
    name = f"{NAME}.again"
    again = {**event, **changed, "metadata": {"namespace": NAMESPACE, "name": name}}
    scenario.api.create(again)
    found = timeline(scenario)
    assert (found.events[-1].reason, found.events[-1].count) == ("WriteForbidden", 3)
    assert found.events[-1].at == moments[0]
    assert "(3 times)" in found.render("html")


@pytest.mark.parametrize("state", ["", "not JSON"])
def test_without_a_state_it_names_the_candidate_and_says_so(state):
    scenario = recorded()
    scenario.until("Progressing")
    scenario.edit_status(lambda status: status.update(state=state))
    found = timeline(scenario)
    assert found.candidate.version == "v2"
    assert found.events
    assert found.kubernetes_events is KubernetesEvents.NONE
    assert "no state" in found.sources[0]


def test_a_newer_operator_has_changes_that_it_can_not_read():
    scenario = rolled_back()
    scenario.edit_status(
        lambda status: status.update(state=status["state"].replace("CandidateNotReady", "New"))
    )
    found = timeline(scenario)
    assert "newer release" in found.sources[0]
    assert "TestFailed" in {event.reason for event in found.events}
    assert found.candidate_requests > 0


def test_the_command_prints_and_writes_it_while_the_rollout_runs(command, tmp_path, capsys):
    scenario = recorded()
    scenario.until("Progressing")
    assert command(scenario.api, "timeline", NAME) == 0
    assert capsys.readouterr().out.startswith("# Rollout\n")
    assert command(scenario.api, "timeline", NAME, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["outcome"] == "Progressing"
    assert command(scenario.api, "timeline", NAME, "--output", str(tmp_path / "new")) == 0
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        f"timeline.{form}" for form in FORMATS
    }
    page = (tmp_path / "new" / "timeline.html").read_text()
    assert 'points="' in page
    assert "Progressing" in page


def test_what_the_api_server_says_is_no_markup():
    scenario = recorded()
    scenario.until("Progressing")
    scenario.edit_status(lambda status: status.update(message="<script>"))
    assert "<script>" not in timeline(scenario).render("html")


def test_a_wrong_name_is_one_sentence(command, capsys):
    scenario = recorded()
    with pytest.raises(UsageError, check=about(ErrorCode.UNKNOWN_NAME, "other")):
        timeline(scenario, "other")
    assert command(scenario.api, "timeline", "other") == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("what", ["timeline", "status"])
@pytest.mark.parametrize("error", [AccessDenied, ApiUnavailable])
def test_without_access_or_a_response_it_is_one_sentence(command, capsys, error, what):
    scenario = recorded()

    def fail(call):
        assert call.kind == MODEL_ROLLOUT
        raise error("The API server does not read it.")

    scenario.api.before = fail
    assert command(scenario.api, what, NAME) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_without_a_cluster_it_is_one_sentence(tmp_path, capsys):
    words = ["rollout", "timeline", NAME, "--kubeconfig", str(tmp_path / "none")]
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_namespace_is_that_of_the_context(tmp_path):
    cluster = {"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}
    contexts = [
        {"name": "a", "context": {"cluster": "c", "user": "u", "namespace": "models"}},
        {"name": "b", "context": {"cluster": "c", "user": "u"}},
    ]
    path = tmp_path / "config"
    config = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": contexts,
              "users": [{"name": "u", "user": {}}], "current-context": "a"}  # fmt: skip
    path.write_text(json.dumps(config))
    assert client.namespace_of(path) == "models"
    assert client.namespace_of(path, "b") == "default"


def test_the_status_shows_the_evidence_of_each_test_as_text(command, capsys):
    scenario = under_way()
    verdicts = [Verdict(**one) for one in scenario.status["verdicts"]]
    assert {one.outcome.value for one in verdicts} >= {"InsufficientData"}
    assert command(scenario.api, "status", NAME) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{NAME} v2: Progressing, step 2/5, weight 5 %, target 5 %, ")
    for one in verdicts:
        (line,) = [line for line in lines if line.startswith(f"{one.test}: {one.outcome.value}")]
        assert one.sentence in line
        assert f"({100 * one.progress:.0f} %)" in line
    assert "█" not in "".join(lines)
    assert lines[-1].startswith("Written 1970-01-12 ")


def test_the_status_shows_the_evidence_as_bars_on_a_terminal(command, capsys, monkeypatch):
    scenario = under_way()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    assert command(scenario.api, "status", NAME) == 0
    rows = capsys.readouterr().out.splitlines()
    for one in scenario.status["verdicts"]:
        (row,) = [row for row in rows if f" {one['test']} " in row]
        assert row.count("█") == round(20 * Verdict(**one).progress)
        assert row.count("█") + row.count("░") == 20


def test_the_status_of_an_object_that_the_operator_has_not_seen(command, capsys):
    scenario = recorded()
    assert command(scenario.api, "status", NAME) == 0
    assert capsys.readouterr().out.startswith(f"{NAME} v2: Pending, step none, weight unknown")


def test_the_object_has_the_evidence_of_each_test_for_kubectl():
    scenario = under_way()
    parts = scenario.status["evidence"].split(", ")
    for part, one in zip(parts, scenario.status["verdicts"], strict=True):
        verdict = Verdict(**one)
        decided = verdict.outcome is not Outcome.INSUFFICIENT_DATA
        shown = verdict.outcome.value if decided else f"{int(100 * verdict.progress)} %"
        assert part == f"{verdict.test} {shown}"
