"""The main paths of a rollout on a cluster, in virtual time; the rules hold at each write."""

import pytest

from dwcp_ml.kube.api import MODEL_ROLLOUT
from dwcp_ml.operator.settings import FINALIZER
from tests.operator.fake_servers import digest_of, shares_in, workload_of
from tests.operator.scenario import KEY, SHARES, Scenario, at, digest, rollout, stalled


def test_a_good_candidate_rises_step_by_step_and_takes_the_stables_place():
    scenario = Scenario()
    assert scenario.until_end() == "Promoted"
    assert scenario.rules.weights == list(SHARES)
    assert digest_of(scenario.service["spec"]["predictor"]) == digest(2)
    assert "canary" not in scenario.service["spec"]
    assert scenario.kserve.broken == [], "nobody had traffic who could not take it"
    assert scenario.conditions["Promoted"]["status"] == "True"
    assert scenario.status["observedGeneration"] == 1


def test_a_bad_candidate_goes_to_0_and_then_away():
    scenario = Scenario()
    scenario.fleet.errors[digest(2)] = 0.8
    assert scenario.until_end() == "RolledBack"
    assert scenario.final[1:] == (digest(1), [], [digest(2)])
    assert scenario.conditions["Promoted"]["status"] == "False"
    assert scenario.kserve.broken == []
    assert any(one.warning for one in scenario.events)


def test_a_first_deployment_is_created_whole_and_promoted_when_it_is_ready():
    scenario = Scenario(first=True)
    scenario.kserve.unready.add(workload_of(2))
    scenario.reconcile()
    assert scenario.phase == "FirstDeployment"
    assert shares_in(scenario.service) == {digest(2): 100}
    assert not scenario.service["metadata"].get("ownerReferences"), "it outlives the ModelRollout"
    for _ in range(5):
        scenario.reconcile()
    assert scenario.phase == "FirstDeployment"
    scenario.kserve.unready.clear()
    assert scenario.until_end() == "Promoted"
    assert "stable" not in scenario.status


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
        word = "model is required"
    scenario = Scenario(resource)
    conditions = stalled(scenario)
    assert conditions["Stalled"]["reason"] == "InvalidSpec"
    assert word in conditions["Stalled"]["message"]
    assert "\n" not in conditions["Stalled"]["message"]
    assert scenario.phase == "Pending"


def test_a_service_that_can_not_split_its_traffic_is_refused_and_left_alone():
    scenario = Scenario(gateway=False)
    conditions = stalled(scenario)
    assert conditions["Stalled"]["reason"] == "SplitNotSupported"
    assert "HTTPRoute" in conditions["Stalled"]["message"]
    assert scenario.phase == "Pending"
    assert shares_in(scenario.service) == {digest(1): 100}


def test_deleted_it_leaves_serving_as_it_is():
    scenario = at(25)
    before = scenario.service
    assert FINALIZER not in scenario.resource["metadata"].get("finalizers", [])
    scenario.api.delete(MODEL_ROLLOUT, *KEY)
    assert scenario.reconcile().requeue_after is None
    assert (scenario.resource, scenario.service) == (None, before)
