"""Every path of a rollout on a cluster, in virtual time; the rules hold at each write.

The first ones of all are in test_reconcile_first, and are fast.
"""

import re
import sys
from pathlib import Path

import pytest

import dwcp_ml
from dwcp_ml.operator.metrics import Metrics
from dwcp_ml.operator.settings import Intervals
from dwcp_ml.rollout.verdict import Outcome, Verdict
from tests.operator.fake_servers import digest_of, shares_in, workload_of
from tests.operator.scenario import (
    KEY,
    SHARES,
    Scenario,
    at,
    candidate,
    digest,
    rollout,
    stalled,
)

pytestmark = pytest.mark.slow


MAX_WRITES = 2 * (len(SHARES) + 2) + 1
"""Of the status and the InferenceService: docs/operator.md."""


def asked(service):
    return shares_in(service).get(digest(2))


# where everything is well


@pytest.mark.parametrize("shares", [(1, 5, 25, 50, 100), (10, 100), (2, 3, 50, 100)])
def test_the_writes_of_a_rollout_are_bounded(shares):
    """Status and InferenceService together; Events and Leases are not counted."""
    scenario = Scenario(rollout(shares=shares))
    assert scenario.until_end() == "Promoted"
    assert sum(scenario.rules.writes.values()) <= 2 * (len(shares) + 2) + 1


def test_nothing_is_written_once_it_has_ended():
    scenario = Scenario()
    scenario.until_end()
    version = scenario.api.version
    for _ in range(20):
        scenario.reconcile(300)
    assert scenario.api.version == version


def test_how_long_it_takes_does_not_change_how_often_is_written():
    """Ten times as slow a rollout, reconciled as often: evidence alone is not worth a write."""
    scenario = Scenario(rollout(requests=20_000))
    assert scenario.until_end(rounds=4000) == "Promoted"
    assert sum(scenario.rules.writes.values()) <= MAX_WRITES


def test_evidence_can_be_stored_more_often_if_somebody_wants_to_see_it():
    scenario = Scenario(intervals=Intervals(evidence_seconds=20))
    scenario.until_end()
    assert scenario.rules.writes["status"] > 2 * len(SHARES)


def test_what_is_live_already_is_said_to_be():
    scenario = Scenario(rollout(1))
    before = scenario.service
    assert scenario.until_end() == "Promoted"
    assert scenario.service == before


# back


@pytest.mark.parametrize("share", SHARES)
def test_it_is_rolled_back_from_every_step(share):
    scenario = at(share)
    scenario.edit(lambda one: one["spec"].update(abort=True))
    assert scenario.until_end() == "RolledBack"
    assert scenario.final[1:] == (digest(1), [], [digest(2)])
    assert scenario.kserve.broken == []
    assert sum(scenario.rules.writes.values()) <= MAX_WRITES + 1


@pytest.mark.parametrize(
    "predictions",
    [{"20": 1.0}, {"0": 0.5, "10": 0.125, "20": 0.125, "50": 0.125, "100": 0.125}],
    ids=["a constant", "zero for half"],
)
def test_a_candidate_whose_responses_are_fine_and_whose_predictions_are_not(predictions):
    scenario = Scenario()
    scenario.fleet.predictions[digest(2)] = predictions
    assert scenario.until_end() == "RolledBack"
    status = scenario.status
    assert (status["reason"], status["message"].count("quantile")) == ("TestFailed", 1)
    (failed,) = [one for one in status["verdicts"] if one["outcome"] == "Fail"]
    assert failed["test"] == "prediction_distribution"
    assert max(scenario.rules.weights) <= 25


def test_a_candidate_that_does_not_report_its_predictions_does_not_rise():
    scenario = Scenario()
    scenario.fleet.predictions[digest(2)] = None
    for _ in range(10):
        scenario.reconcile()
    assert stalled(scenario)["Stalled"]["reason"] == "TestUnavailable"
    assert max(scenario.rules.weights) == SHARES[0]
    scenario.edit(lambda one: one["spec"].update(abort=True))
    assert scenario.until_end() == "RolledBack"


def test_servers_of_an_older_release_report_none_and_rise():
    scenario = Scenario()
    scenario.fleet.predictions.update({digest(1): None, digest(2): None})
    assert scenario.until_end() == "Promoted"


def test_the_evidence_of_each_test_can_be_watched_until_the_end():
    scenario, metrics = at(5), Metrics()
    metrics.reconciled(KEY, scenario.operator.reconcile(KEY))
    page = metrics.page().decode()
    shown = {
        match["test"]: float(match["value"])
        for match in re.finditer(r'rollout_evidence{.*test="(?P<test>\w+)"} (?P<value>.*)', page)
    }
    assert shown.keys() == {"error_rate", "rejection_rate", "latency", "prediction_distribution"}
    assert all(0.0 <= value <= 1.0 for value in shown.values())
    assert scenario.until_end() == "Promoted"
    metrics.reconciled(KEY, scenario.operator.reconcile(KEY))
    assert "rollout_evidence{" not in metrics.page().decode()


@pytest.mark.parametrize(
    ("evidence", "progress"), [(None, 0.0), (0.3, 0.0), (1.0, 0.0), (10.0, 0.5), (1e9, 1.0)]
)
def test_evidence_is_shown_as_the_way_to_its_bound(evidence, progress):
    verdict = Verdict(
        test="t", outcome=Outcome.INSUFFICIENT_DATA, evidence=evidence, needed=100.0, sentence=""
    )
    assert verdict.progress == pytest.approx(progress)


SMALL, LARGE = {"0.01": 0.7, "0.1": 0.28, "1": 0.02}, {"0.01": 0.4, "0.1": 0.5, "1": 0.1}


@pytest.mark.parametrize(("of_candidate", "end"), [(SMALL, "Promoted"), (LARGE, "RolledBack")])
def test_what_callers_report_decides_though_it_reaches_the_stable_only(of_candidate, end):
    scenario = Scenario(rollout(analysis={"reportedLoss": {"required": True}}))
    scenario.fleet.losses.update({digest(1): SMALL, digest(2): of_candidate})
    assert scenario.until_end() == end
    verdicts = {one["test"]: one["outcome"] for one in scenario.status["verdicts"]}
    assert verdicts["reported_loss"] == ("Pass" if end == "Promoted" else "Fail")


def test_a_required_test_waits_for_reports():
    scenario = Scenario(rollout(analysis={"reportedLoss": {"required": True}}))
    for _ in range(80):
        scenario.reconcile()
    assert max(scenario.rules.weights) == SHARES[0]
    scenario.fleet.losses.update({digest(1): SMALL, digest(2): SMALL})
    assert scenario.until_end() == "Promoted"


def test_a_candidate_that_crashes_before_it_has_traffic_is_taken_out():
    scenario = Scenario()
    scenario.kserve.unready.add(workload_of(2))
    scenario.reconcile()
    scenario.reconcile()
    scenario.kserve.crashes[workload_of(2)] = 3
    assert scenario.until_end() == "RolledBack"
    assert scenario.final[1:] == (digest(1), [], [digest(2)])
    assert scenario.rules.weights == []


def test_a_first_deployment_that_crashes_stays_and_is_removed_by_an_abort():
    """Nothing else could serve; whether the bundle or the cluster is at fault is not known."""
    scenario = Scenario(first=True)
    scenario.kserve.unready.add(workload_of(2))
    scenario.reconcile()
    scenario.reconcile()
    scenario.kserve.crashes[workload_of(2)] = 3
    assert stalled(scenario)["Stalled"]["reason"] == "FirstDeploymentUnhealthy"
    assert scenario.service is not None
    assert scenario.status.get("blockedDigests", []) == []
    scenario.edit(lambda one: one["spec"].update(abort=True))
    assert scenario.until_end() == "RolledBack"
    assert scenario.service is None


def test_a_first_deployment_that_never_became_ready_makes_room_for_the_next():
    scenario = Scenario(first=True)
    scenario.kserve.unready.add(workload_of(2))
    for _ in range(3):
        scenario.reconcile()
    scenario.edit(lambda one: one["spec"].update(candidate=candidate(3)))
    assert scenario.until_end() == "Promoted"
    assert scenario.final[1] == digest(3)


def test_a_candidate_that_was_rolled_back_never_rises_again():
    scenario = at(5)
    scenario.edit(lambda one: one["spec"].update(abort=True))
    scenario.until_end()
    for number, phase in ((3, "Promoted"), (2, "RolledBack")):
        changed = {"candidate": candidate(number), "abort": False}
        scenario.edit(lambda one, changed=changed: one["spec"].update(changed))
        scenario.reconcile()
        assert scenario.until_end() == phase
    assert digest_of(scenario.service["spec"]["predictor"]) == digest(3)


# the other mode


@pytest.mark.parametrize("slow", [False, True])
def test_a_good_candidate_rises_in_knative_mode_too(slow):
    scenario = Scenario(mode="Knative", slow=slow)
    assert scenario.until_end() == "Promoted"
    assert scenario.rules.weights == list(SHARES)
    assert shares_in(scenario.service) == {digest(2): 100}
    assert "canaryTrafficPercent" not in scenario.service["spec"]["predictor"]
    assert scenario.fleet.routed() == {digest(2): 100}
    assert sum(scenario.rules.writes.values()) <= MAX_WRITES


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("share", SHARES)
def test_it_is_rolled_back_from_every_step_in_knative_mode_too(share, slow):
    scenario = at(share, mode="Knative", slow=slow)
    scenario.edit(lambda one: one["spec"].update(abort=True))
    assert scenario.until_end() == "RolledBack"
    assert shares_in(scenario.service) == scenario.fleet.routed() == {digest(1): 100}
    assert "canaryTrafficPercent" not in scenario.service["spec"]["predictor"]


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("share", SHARES)
def test_a_new_candidate_in_the_middle_of_a_step_begins_anew_in_knative_mode_too(share, slow):
    """Also at 100, where KServe takes the former candidate for the stable."""
    scenario = at(share, mode="Knative", slow=slow)
    scenario.edit(lambda one: one["spec"].update(candidate=candidate(3)))
    scenario.rules.weights.clear()
    assert scenario.until("Progressing") == "Progressing"
    while not scenario.fleet.routed().get(digest(3)):
        scenario.reconcile()
    assert digest(2) not in scenario.fleet.routed(), "the rest is the stable's"
    assert scenario.until_end() == "Promoted"
    assert scenario.rules.weights == list(SHARES)
    assert scenario.fleet.routed() == {digest(3): 100}


# how much of the code it takes


def test_one_reconciliation_executes_few_files():
    """In mid-rollout, with the API server and the metrics simulated.

    The goal is about 20: one for each thing that is read, decided or written; two of them are the
    check of the platform's allow-lists, one is the retry of a candidate, and two compare
    predictions. A file counts when the product calls a function of it, a fake does not.
    """
    scenario = at(5)
    scenario.pass_time(10.0)
    package, files = str(Path(dwcp_ml.__file__).parent), set()

    def note(frame, event, argument):
        caller = frame.f_back.f_code.co_filename if frame.f_back is not None else ""
        if event == "call" and "/tests/" not in caller:
            files.add(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        scenario.operator.reconcile(KEY)
    finally:
        sys.setprofile(None)
    executed = {name for name in files if name.startswith(package)}
    assert "reconcile.py" in {Path(name).name for name in executed}
    assert len(executed) <= 28, sorted(executed)
