"""What people do to a rollout that is under way; what a deletion does: ``test_leaving``."""

import copy

import pytest

from dwcp_ml.kube.api import INFERENCE_SERVICE, MODEL_ROLLOUT
from dwcp_ml.operator.api.state import Sealer
from tests.operator.fake_servers import NAME, NAMESPACE, shares_in, workload_of
from tests.operator.rules import ENDED
from tests.operator.scenario import (
    KEY,
    SHARES,
    Scene,
    at,
    candidate,
    digest,
    memory_of,
    rollout,
)

pytestmark = pytest.mark.slow


def asked(service):
    return shares_in(service).get(digest(2))


@pytest.mark.parametrize("share", SHARES)
def test_a_new_candidate_in_the_middle_of_a_step_begins_at_the_first(share):
    scene = at(share)
    scene.edit(lambda one: one["spec"].update(candidate=candidate(3)))
    scene.rules.weights.clear()
    scene.look()
    assert scene.status["candidate"]["version"] == "v3"
    assert memory_of(scene.resource)["rollout"]["touched_requests"] == 0
    assert scene.until_end() == "Promoted"
    assert scene.rules.weights == list(SHARES)
    assert scene.final[1] == digest(3)
    assert scene.kserve.broken == []


def test_the_stable_as_a_new_candidate_takes_the_one_under_way_out():
    scene = at(25)
    scene.edit(lambda one: one["spec"].update(candidate=candidate(1)))
    assert scene.until_end() == "Promoted"
    assert scene.final[1:3] == (digest(1), [])
    assert scene.kserve.broken == []


def misplaced(**spec):
    made = rollout(**spec)
    made["spec"]["template"]["predictor"]["nodeSelector"] = {"disk": "none"}
    return made


@pytest.mark.parametrize("mode", ["Standard", "Knative"])
@pytest.mark.parametrize("first", [True, False])
def test_what_is_taken_out_of_the_template_helps_a_candidate_that_is_not_ready(mode, first):
    """A field that is gone can't be told from one that KServe has filled in by looking at it."""
    scene = Scene(misplaced(), first=first, mode=mode)
    revision = f"{NAME}-predictor-0000{1 if first else 2}"
    scene.kserve.unready.add(workload_of(2) if mode == "Standard" else revision)
    for _ in range(5):
        scene.look()
    assert "nodeSelector" in str(scene.service["spec"])
    version = scene.api.version
    scene.look()
    assert scene.api.version == version, "nothing is written where all is as it is asked for"
    scene.edit(lambda one: one["spec"]["template"]["predictor"].pop("nodeSelector"))
    for _ in range(2):
        scene.look()
    assert "nodeSelector" not in str(scene.service["spec"])
    scene.kserve.unready.discard(workload_of(2))
    assert scene.until_end() == "Promoted"
    assert scene.kserve.broken == []


def test_what_is_taken_out_of_the_template_at_100_percent_is_not_promoted():
    scene = at(100, resource=misplaced())
    scene.edit(lambda one: one["spec"]["template"]["predictor"].pop("nodeSelector"))
    assert scene.until_end() == "Promoted"
    assert "nodeSelector" not in str(scene.service["spec"])
    assert scene.kserve.broken == []


def test_paused_it_does_not_rise_and_goes_on_afterwards():
    scene = at(5)
    scene.edit(lambda one: one["spec"].update(paused=True))
    for _ in range(100):
        scene.look()
    assert (scene.phase, asked(scene.service)) == ("Paused", 5)
    scene.edit(lambda one: one["spec"].update(paused=False))
    assert scene.until_end() == "Promoted"


def test_paused_before_it_began_nothing_is_created():
    scene = Scene(rollout(paused=True), first=True)
    for _ in range(10):
        scene.look()
    assert scene.service is None
    scene.edit(lambda one: one["spec"].update(paused=False))
    assert scene.until_end() == "Promoted"


def test_a_step_can_be_let_pass_by_a_person():
    scene = Scene(rollout(requests=10**9))
    for _ in range(100):
        scene.look()
    assert asked(scene.service) == 1
    skip = {"version": "v2", "trafficPercent": 1, "reason": "night"}
    scene.edit(lambda one: one["spec"].update(skip=skip))
    for _ in range(10):
        scene.look()
    assert asked(scene.service) == 5


def test_a_weight_that_somebody_lowered_is_not_raised_beyond_what_was_proved_below():
    scene = at(25)
    scene.api.edit(INFERENCE_SERVICE, *KEY, _share(3))
    scene.rules.weights.clear()
    assert scene.until_end() == "Promoted"
    assert scene.rules.weights == list(SHARES[:]) or scene.rules.weights[0] in (1, 5)


def test_a_weight_that_somebody_raised_is_taken_down():
    scene = at(5)
    scene.api.edit(INFERENCE_SERVICE, *KEY, _share(60))
    scene.look()
    scene.look()
    assert asked(scene.service) == 5
    assert scene.until_end() == "Promoted"


def _share(percent):
    def change(service):
        service["spec"]["canary"][0]["trafficPercent"] = percent

    return change


def test_steps_that_are_edited_lead_to_the_nearest_lower_one():
    scene = at(25)
    scene.edit(lambda one: one["spec"].update(steps=rollout(shares=(2, 10, 100))["spec"]["steps"]))
    scene.look()
    assert asked(scene.service) == 10
    assert scene.until_end() == "Promoted"


def test_a_stable_that_somebody_exchanged_makes_the_evidence_worthless():
    scene = at(25)

    def exchange(service):
        made = candidate(9)
        model = service["spec"]["predictor"]["model"]
        service["spec"]["predictor"] |= {
            "name": "v9",
            "annotations": {"ml.dwcp.io/digest": made["digest"], "ml.dwcp.io/version": "v9"},
            "model": {**model, "storageUri": made["storageUri"]},
        }

    scene.api.edit(INFERENCE_SERVICE, *KEY, exchange)
    scene.rules.weights.clear()
    scene.look()
    assert scene.status["stable"]["version"] == "v9"
    assert memory_of(scene.resource)["rollout"]["passed_percent"] == 0
    assert scene.until_end() == "Promoted"
    assert scene.rules.weights == list(SHARES)


# what is kept in the process


def test_a_process_that_forgets_at_every_look_comes_to_the_same_end():
    plain, forgetful = Scene(), Scene()
    plain.until_end()
    for _ in range(300):
        forgetful.restart()
        forgetful.look()
    assert forgetful.final == plain.final
    assert forgetful.rules.weights == plain.rules.weights


def test_a_replaced_key_is_believed_while_the_old_one_is_given():
    scene = at(5)
    old = scene.operator.memories.sealer
    scene.operator.memories.sealer = scene.operator.sealer = Sealer(b"n" * 32, b"k" * 32)
    assert old is not scene.operator.sealer
    assert scene.until_end() == "Promoted"


def test_a_look_at_an_object_writes_nothing_to_another():
    scene = Scene()
    other = copy.deepcopy(rollout(5))
    other["metadata"]["name"] = other["spec"]["inferenceService"] = "consensus-latency"
    scene.api.create(other)
    before = scene.api.at(MODEL_ROLLOUT, NAMESPACE, "consensus-latency")
    scene.until_end()
    assert scene.api.at(MODEL_ROLLOUT, NAMESPACE, "consensus-latency") == before
    assert NAME != "consensus-latency"


# between a read and a write


def test_what_somebody_writes_between_a_read_and_a_write_stands():
    """The operator reads the InferenceService twice in a look that writes: before the second."""
    scene = at(5)
    reads = []

    def interfere(call):
        if call.kind is INFERENCE_SERVICE and call.verb == "get":
            reads.append(call)
            if len(reads) == 2:
                scene.api.edit(INFERENCE_SERVICE, *KEY, _share(3))

    while len(reads) < 2:
        reads.clear()
        scene.api.before = interfere
        result = scene.look()
    assert "status" in result.wrote, "it was about to rise"
    assert asked(scene.service) == 3
    assert result.requeue_after == scene.pace.conflict_seconds


@pytest.mark.parametrize("end", ["RolledBack", "Promoted"])
def test_a_candidate_that_somebody_puts_back_after_the_end_does_not_stay(end):
    scene = at(25)
    before = scene.service["spec"]
    if end == "RolledBack":
        scene.edit(lambda one: one["spec"].update(abort=True))
    scene.until_end()
    scene.api.edit(INFERENCE_SERVICE, *KEY, lambda service: service.update(spec=before))
    scene.look()
    assert scene.phase not in ENDED
    assert scene.until_end() == end
    assert "canary" not in scene.service["spec"]
    assert shares_in(scene.service) == {digest(1 if end == "RolledBack" else 2): 100}
