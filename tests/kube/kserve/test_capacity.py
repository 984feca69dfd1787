"""Replicas while there are two predictors: neither has too few, and no pod is restarted."""

import pytest

from dwcp_ml.kube.api import DEPLOYMENT, INFERENCE_SERVICE
from dwcp_ml.kube.kserve.predictors import predictor_of, with_canary
from tests.kube.kserve.fakes import (
    CANDIDATE,
    MODEL,
    NAME,
    SPACE,
    STABLE,
    RouterScenario,
    bundle,
    replicas,
)


def stable(**bounds):
    return {"predictor": {**predictor_of(STABLE, "v1"), **bounds}}


@pytest.mark.parametrize(("bounds", "running", "percent", "canary", "left"), [
    ({}, 1, 0, 1, {}),
    ({}, 1, 50, 1, {}),
    ({"minReplicas": 0}, 0, 0, 1, {"minReplicas": 2}),
    ({"minReplicas": 1, "maxReplicas": 1}, 1, 50, 1, {"minReplicas": 1, "maxReplicas": 1}),
    ({"minReplicas": 3}, 3, 0, 1, {"minReplicas": 4}),
    ({"minReplicas": 3}, 3, 1, 3, {"minReplicas": 6}),
    ({"minReplicas": 3, "maxReplicas": 4}, 3, 1, 3, {"minReplicas": 6, "maxReplicas": 6}),
    ({"minReplicas": 1, "maxReplicas": 20}, 7, 1, 7, {"minReplicas": 14, "maxReplicas": 20}),
])  # fmt: skip
def test_replicas_while_there_are_two(bounds, running, percent, canary, left):
    spec = with_canary((SPACE, NAME), stable(**bounds), CANDIDATE, percent, running)
    assert spec["canary"][0]["predictor"]["minReplicas"] == canary
    kept = {key: value for key, value in spec["predictor"].items() if key.endswith("Replicas")}
    assert kept == left


def test_a_candidate_that_wants_more_replicas_gets_them():
    desired = bundle(2, predictor=replicas(5, 9))
    spec = with_canary((SPACE, NAME), stable(minReplicas=2), desired, 5, 2)
    assert spec["canary"][0]["predictor"]["minReplicas"] == 5
    assert spec["predictor"]["minReplicas"] == 7
    assert "maxReplicas" not in spec["canary"][0]["predictor"]


@pytest.mark.parametrize("minimum", [None, 0, 1, 2])
def test_a_candidate_with_many_replicas_beside_a_small_stable(minimum):
    scenario = RouterScenario()
    small = {"model": dict(MODEL)} if minimum is None else replicas(minimum)
    scenario.deploy(bundle(1, predictor={**small, "minReplicas": minimum or 1}))
    if minimum in (None, 0):

        def change(found):
            found["spec"]["predictor"].pop("minReplicas")
            if minimum == 0:
                found["spec"]["predictor"]["minReplicas"] = 0

        scenario.api.edit(INFERENCE_SERVICE, SPACE, NAME, change)
    desired = bundle(2, predictor=replicas(5))
    scenario.raise_to(100, desired)
    assert scenario.promote(desired).promoted
    assert scenario.kserve.broken == []


@pytest.mark.parametrize("percent", [0, 1, 100])
def test_the_stable_keeps_its_replicas_and_its_pods_through_a_whole_rollout(percent):
    scenario = RouterScenario()
    scenario.deploy(bundle(1, predictor=replicas(3)))
    before, pods = scenario.predictor, set(scenario.read(STABLE).pods["candidate"])
    scenario.raise_to(percent)
    live = scenario.read()
    assert set(live.pods["stable"]) >= pods
    assert len(live.pods["stable"]) == 3
    assert len(live.pods["candidate"]) == (3 if percent else 1)
    scenario.roll_back()
    assert scenario.predictor == before
    assert set(scenario.read(STABLE).pods["candidate"]) == pods


def test_a_candidate_without_traffic_keeps_the_replicas_it_had():
    scenario = RouterScenario()
    scenario.deploy(bundle(1, predictor=replicas(3)))
    scenario.raise_to(25)
    scenario.set(0)
    before = scenario.writes()
    assert len(scenario.set(0).pods["candidate"]) == 3
    assert scenario.writes() == before


def test_a_stable_that_was_scaled_up_is_matched():
    scenario = RouterScenario()
    scenario.deploy(bundle(1, predictor=replicas(1, 9)))
    scenario.kserve.scaled = {f"{NAME}-v20260101-000000-predictor": 7}
    scenario.kserve.settle()
    desired = bundle(2, predictor=replicas(1, 9))
    live = scenario.raise_to(100, desired)
    assert len(live.pods["candidate"]) == len(live.pods["stable"]) == 7
    scenario.roll_back(desired)
    assert (scenario.predictor["minReplicas"], scenario.predictor["maxReplicas"]) == (1, 9)


@pytest.mark.parametrize("minimum", [1, 3])
def test_promotion_keeps_the_pods(minimum):
    scenario = RouterScenario()
    scenario.deploy(bundle(1, predictor=replicas(minimum)))
    for day in (2, 3):
        desired = bundle(day, predictor=replicas(minimum))
        pods = scenario.raise_to(100, desired).pods["candidate"]
        assert scenario.promote(desired).pods["candidate"] == pods


def test_the_stable_stays_until_the_candidate_is_whole():
    scenario = RouterScenario()
    scenario.deploy(bundle(1, predictor=replicas(3)))
    scenario.raise_to(100)
    name = f"{NAME}-v20260102-000000-predictor"
    scenario.kserve.unready = {name}
    scenario.kserve.step()
    before = scenario.writes()
    scenario.router.promote(scenario.read(), CANDIDATE)
    assert scenario.writes() == before
    scenario.kserve.unready = set()
    assert scenario.promote().promoted


def test_the_stable_stays_while_a_replica_of_the_candidate_is_missing():
    scenario = RouterScenario()
    scenario.deploy(bundle(1, predictor=replicas(3)))
    scenario.raise_to(100)
    found = scenario.api.at(DEPLOYMENT, SPACE, f"{NAME}-v20260102-000000-predictor")
    status = {**found["status"], "availableReplicas": 2,
              "conditions": [{"type": "Available", "status": "False"}]}  # fmt: skip
    scenario.api.aside().replace({**found, "status": status}, status=True)
    live = scenario.read()
    assert (live.percent, live.candidate_ready) == (100, True)
    scenario.router.promote(live, CANDIDATE)
    assert scenario.read().resource_version == live.resource_version


def test_a_candidate_goes_to_nothing_together_with_another_one():
    scenario = RouterScenario()
    scenario.deploy()
    scenario.raise_to(25)
    other = {"predictor": {**predictor_of(bundle(9), "v9"), "minReplicas": 1}, "trafficPercent": 10}
    scenario.api.edit(
        INFERENCE_SERVICE, SPACE, NAME, lambda found: found["spec"]["canary"].append(other)
    )
    scenario.kserve.settle()
    assert scenario.read().percent == 25
    scenario.router.set(scenario.read(), CANDIDATE, 0)
    assert [entry["trafficPercent"] for entry in scenario.service["spec"]["canary"]] == [0, 0]
    scenario.kserve.settle()
    assert scenario.set(0).percent == 0
    assert scenario.canary["predictor"]["name"] == "v20260102-000000"
    assert scenario.kserve.broken == []
