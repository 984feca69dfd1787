"""The main paths of a rollout on a cluster, in virtual time; the rules hold at each write."""

import pytest

from dwcp_ml.kube.api import MODEL_ROLLOUT
from dwcp_ml.operator.settings import FINALIZER
from tests.operator.fake_servers import digest_of, shares_in, workload_of
from tests.operator.scenario import KEY, SHARES, Scene, at, digest, held, rollout


def test_a_good_candidate_rises_step_by_step_and_takes_the_stables_place():
    scene = Scene()
    assert scene.until_end() == "Promoted"
    assert scene.rules.weights == list(SHARES)
    assert digest_of(scene.service["spec"]["predictor"]) == digest(2)
    assert "canary" not in scene.service["spec"]
    assert scene.kserve.broken == [], "nobody had traffic who could not take it"
    assert scene.conditions["Promoted"]["status"] == "True"
    assert scene.status["observedGeneration"] == 1


def test_a_bad_candidate_goes_to_0_and_then_away():
    scene = Scene()
    scene.fleet.errors[digest(2)] = 0.8
    assert scene.until_end() == "RolledBack"
    assert scene.final[1:] == (digest(1), [], [digest(2)])
    assert scene.conditions["Promoted"]["status"] == "False"
    assert scene.kserve.broken == []
    assert any(one.warning for one in scene.told)


def test_a_first_deployment_is_created_whole_and_promoted_when_it_is_ready():
    scene = Scene(first=True)
    scene.kserve.unready.add(workload_of(2))
    scene.look()
    assert scene.phase == "FirstDeployment"
    assert shares_in(scene.service) == {digest(2): 100}
    assert not scene.service["metadata"].get("ownerReferences"), "it outlives the ModelRollout"
    for _ in range(5):
        scene.look()
    assert scene.phase == "FirstDeployment"
    scene.kserve.unready.clear()
    assert scene.until_end() == "Promoted"
    assert "stable" not in scene.status


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda spec: spec.pop("candidate"), "candidate"),
        (lambda spec: spec.update(steps=[{"trafficPercent": 50}, {"trafficPercent": 5}]), "rise"),
        (lambda spec: spec.update(inferenceService="another"), "bandwidth"),
        (lambda spec: spec["candidate"].update(digest="sha256:abc"), "digest"),
        (lambda spec: spec.update(surprise=1), "surprise"),
    ],
)
def test_an_object_that_is_none_gets_one_sentence(change, word):
    resource = rollout()
    change(resource["spec"])
    if word == "bandwidth":
        word = "model is needed"
    scene = Scene(resource)
    conditions = held(scene)
    assert conditions["Refused"]["reason"] == "Malformed"
    assert word in conditions["Refused"]["message"]
    assert "\n" not in conditions["Refused"]["message"]
    assert scene.phase == "Pending"


def test_a_service_that_can_not_split_its_traffic_is_refused_and_left_alone():
    scene = Scene(gateway=False)
    conditions = held(scene)
    assert conditions["Refused"]["reason"] == "NoSplit"
    assert "HTTPRoute" in conditions["Refused"]["message"]
    assert scene.phase == "Pending"
    assert shares_in(scene.service) == {digest(1): 100}


def test_deleted_it_leaves_serving_as_it_is():
    scene = at(25)
    before = scene.service
    assert FINALIZER not in scene.resource["metadata"].get("finalizers", [])
    scene.api.delete(MODEL_ROLLOUT, *KEY)
    assert scene.look().requeue_after is None
    assert (scene.resource, scene.service) == (None, before)
