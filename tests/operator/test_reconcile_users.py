"""What people do to a rollout that is under way; what a deletion does: ``test_leaving``."""

import copy

import pytest

from dwcp_ml.kube.api import INFERENCE_SERVICE, MODEL_ROLLOUT
from tests.operator.fake_servers import NAME, NAMESPACE, shares_in, workload_of
from tests.operator.rules import ENDED
from tests.operator.scenario import (
    KEY,
    SHARES,
    Scenario,
    at,
    candidate,
    digest,
    rollout,
    state_of,
)

pytestmark = pytest.mark.slow


def asked(service):
    return shares_in(service).get(digest(2))


@pytest.mark.parametrize("share", SHARES)
def test_a_new_candidate_in_the_middle_of_a_step_begins_at_the_first(share):
    scenario = at(share)
    scenario.edit(lambda one: one["spec"].update(candidate=candidate(3)))
    scenario.rules.weights.clear()
    scenario.reconcile()
    assert scenario.status["candidate"]["version"] == "v3"
    assert state_of(scenario.resource)["rollout"]["exposed_requests"] == 0
    assert scenario.until_end() == "Promoted"
    assert scenario.rules.weights == list(SHARES)
    assert scenario.final[1] == digest(3)
    assert scenario.kserve.broken == []


def test_the_stable_as_a_new_candidate_takes_the_one_under_way_out():
    scenario = at(25)
    scenario.edit(lambda one: one["spec"].update(candidate=candidate(1)))
    assert scenario.until_end() == "Promoted"
    assert scenario.final[1:3] == (digest(1), [])
    assert scenario.kserve.broken == []


def misplaced(**spec):
    made = rollout(**spec)
    made["spec"]["template"]["predictor"]["nodeSelector"] = {"disk": "none"}
    return made


@pytest.mark.parametrize("mode", ["Standard", "Knative"])
@pytest.mark.parametrize("first", [True, False])
def test_what_is_taken_out_of_the_template_helps_a_candidate_that_is_not_ready(mode, first):
    """A field that is gone can't be told from one that KServe has filled in by looking at it."""
    scenario = Scenario(misplaced(), first=first, mode=mode)
    revision = f"{NAME}-predictor-0000{1 if first else 2}"
    scenario.kserve.unready.add(workload_of(2) if mode == "Standard" else revision)
    for _ in range(5):
        scenario.reconcile()
    assert "nodeSelector" in str(scenario.service["spec"])
    version = scenario.api.version
    scenario.reconcile()
    assert scenario.api.version == version, "nothing is written where all is as it is asked for"
    scenario.edit(lambda one: one["spec"]["template"]["predictor"].pop("nodeSelector"))
    for _ in range(2):
        scenario.reconcile()
    assert "nodeSelector" not in str(scenario.service["spec"])
    scenario.kserve.unready.discard(workload_of(2))
    assert scenario.until_end() == "Promoted"
    assert scenario.kserve.broken == []


def test_what_is_taken_out_of_the_template_at_100_percent_is_not_promoted():
    scenario = at(100, resource=misplaced())
    scenario.edit(lambda one: one["spec"]["template"]["predictor"].pop("nodeSelector"))
    assert scenario.until_end() == "Promoted"
    assert "nodeSelector" not in str(scenario.service["spec"])
    assert scenario.kserve.broken == []


def test_paused_it_does_not_rise_and_goes_on_afterwards():
    scenario = at(5)
    scenario.edit(lambda one: one["spec"].update(paused=True))
    for _ in range(100):
        scenario.reconcile()
    assert (scenario.phase, asked(scenario.service)) == ("Paused", 5)
    scenario.edit(lambda one: one["spec"].update(paused=False))
    assert scenario.until_end() == "Promoted"


def test_paused_before_it_began_nothing_is_created():
    scenario = Scenario(rollout(paused=True), first=True)
    for _ in range(10):
        scenario.reconcile()
    assert scenario.service is None
    scenario.edit(lambda one: one["spec"].update(paused=False))
    assert scenario.until_end() == "Promoted"


def test_a_step_can_be_let_pass_by_a_person():
    scenario = Scenario(rollout(requests=10**9))
    for _ in range(100):
        scenario.reconcile()
    assert asked(scenario.service) == 1
    skip = {"version": "v2", "trafficPercent": 1, "reason": "night"}
    scenario.edit(lambda one: one["spec"].update(skip=skip))
    for _ in range(10):
        scenario.reconcile()
    assert asked(scenario.service) == 5


def test_a_weight_that_somebody_lowered_is_not_raised_beyond_what_was_proved_below():
    scenario = at(25)
    scenario.api.edit(INFERENCE_SERVICE, *KEY, _share(3))
    scenario.rules.weights.clear()
    assert scenario.until_end() == "Promoted"
    assert scenario.rules.weights == list(SHARES[:]) or scenario.rules.weights[0] in (1, 5)


def test_a_weight_that_somebody_raised_is_taken_down():
    scenario = at(5)
    scenario.api.edit(INFERENCE_SERVICE, *KEY, _share(60))
    scenario.reconcile()
    scenario.reconcile()
    assert asked(scenario.service) == 5
    assert scenario.until_end() == "Promoted"


def _share(percent):
    def change(service):
        service["spec"]["canary"][0]["trafficPercent"] = percent

    return change


def test_steps_that_are_edited_lead_to_the_nearest_lower_one():
    scenario = at(25)
    scenario.edit(
        lambda one: one["spec"].update(steps=rollout(shares=(2, 10, 100))["spec"]["steps"])
    )
    scenario.reconcile()
    assert asked(scenario.service) == 10
    assert scenario.until_end() == "Promoted"


def test_a_stable_that_somebody_exchanged_makes_the_evidence_worthless():
    scenario = at(25)

    def exchange(service):
        made = candidate(9)
        model = service["spec"]["predictor"]["model"]
        service["spec"]["predictor"] |= {
            "name": "v9",
            "annotations": {"ml.dwcp.io/digest": made["digest"], "ml.dwcp.io/version": "v9"},
            "model": {**model, "storageUri": made["storageUri"]},
        }

    scenario.api.edit(INFERENCE_SERVICE, *KEY, exchange)
    scenario.rules.weights.clear()
    scenario.reconcile()
    assert scenario.status["stable"]["version"] == "v9"
    assert state_of(scenario.resource)["rollout"]["passed_percent"] == 0
    assert scenario.until_end() == "Promoted"
    assert scenario.rules.weights == list(SHARES)


# what is kept in the process


def test_a_process_that_forgets_at_every_look_comes_to_the_same_end():
    plain, forgetful = Scenario(), Scenario()
    plain.until_end()
    for _ in range(300):
        forgetful.restart()
        forgetful.reconcile()
    assert forgetful.final == plain.final
    assert forgetful.rules.weights == plain.rules.weights


def test_a_look_at_an_object_writes_nothing_to_another():
    scenario = Scenario()
    other = copy.deepcopy(rollout(5))
    other["metadata"]["name"] = other["spec"]["inferenceService"] = "consensus-latency"
    scenario.api.create(other)
    before = scenario.api.at(MODEL_ROLLOUT, NAMESPACE, "consensus-latency")
    scenario.until_end()
    assert scenario.api.at(MODEL_ROLLOUT, NAMESPACE, "consensus-latency") == before
    assert NAME != "consensus-latency"


# between a read and a write


def test_what_somebody_writes_between_a_read_and_a_write_stands():
    """A reconciliation that writes reads the InferenceService twice: before the second."""
    scenario = at(5)
    reads = []

    def interfere(call):
        if call.kind is INFERENCE_SERVICE and call.verb == "get":
            reads.append(call)
            if len(reads) == 2:
                scenario.api.edit(INFERENCE_SERVICE, *KEY, _share(3))

    while len(reads) < 2:
        reads.clear()
        scenario.api.before = interfere
        result = scenario.reconcile()
    assert "status" in result.wrote, "it was about to rise"
    assert asked(scenario.service) == 3
    assert result.requeue_after == scenario.intervals.conflict_seconds


@pytest.mark.parametrize("end", ["RolledBack", "Promoted"])
def test_a_candidate_that_somebody_puts_back_after_the_end_does_not_stay(end):
    scenario = at(25)
    before = scenario.service["spec"]
    if end == "RolledBack":
        scenario.edit(lambda one: one["spec"].update(abort=True))
    scenario.until_end()
    scenario.api.edit(INFERENCE_SERVICE, *KEY, lambda service: service.update(spec=before))
    scenario.reconcile()
    assert scenario.phase not in ENDED
    assert scenario.until_end() == end
    assert "canary" not in scenario.service["spec"]
    assert shares_in(scenario.service) == {digest(1 if end == "RolledBack" else 2): 100}
