"""Replicas while there are two predictors: nobody has too few, and no pod is lost on the way."""

import pytest

from dwcp_ml.kube.api import DEPLOYMENT, INFERENCE_SERVICE
from dwcp_ml.kube.kserve.canary import beside
from dwcp_ml.kube.kserve.predictors import predictor_of
from tests.kube.kserve.fakes import (
    CANDIDATE,
    MODEL,
    NAME,
    SPACE,
    STABLE,
    Playing,
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
    spec = beside((SPACE, NAME), stable(**bounds), CANDIDATE, percent, running)
    assert spec["canary"][0]["predictor"]["minReplicas"] == canary
    kept = {key: value for key, value in spec["predictor"].items() if key.endswith("Replicas")}
    assert kept == left


def test_a_candidate_that_wants_more_replicas_gets_them():
    wanted = bundle(2, predictor=replicas(5, 9))
    spec = beside((SPACE, NAME), stable(minReplicas=2), wanted, 5, 2)
    assert spec["canary"][0]["predictor"]["minReplicas"] == 5
    assert spec["predictor"]["minReplicas"] == 7
    assert "maxReplicas" not in spec["canary"][0]["predictor"]


@pytest.mark.parametrize("minimum", [None, 0, 1, 2])
def test_a_candidate_with_many_replicas_beside_a_small_stable(minimum):
    playing = Playing()
    small = {"model": dict(MODEL)} if minimum is None else replicas(minimum)
    playing.deploy(bundle(1, predictor={**small, "minReplicas": minimum or 1}))
    if minimum in (None, 0):

        def change(found):
            found["spec"]["predictor"].pop("minReplicas")
            if minimum == 0:
                found["spec"]["predictor"]["minReplicas"] = 0

        playing.api.edit(INFERENCE_SERVICE, SPACE, NAME, change)
    wanted = bundle(2, predictor=replicas(5))
    playing.raise_to(100, wanted)
    assert playing.promote(wanted).promoted
    assert playing.kserve.broken == []


@pytest.mark.parametrize("percent", [0, 1, 100])
def test_the_stable_keeps_its_replicas_and_its_pods_through_it_all(percent):
    playing = Playing()
    playing.deploy(bundle(1, predictor=replicas(3)))
    before, pods = playing.predictor, set(playing.read(STABLE).pods["candidate"])
    playing.raise_to(percent)
    live = playing.read()
    assert set(live.pods["stable"]) >= pods
    assert len(live.pods["stable"]) == 3
    assert len(live.pods["candidate"]) == (3 if percent else 1)
    playing.take_back()
    assert playing.predictor == before
    assert set(playing.read(STABLE).pods["candidate"]) == pods


def test_a_candidate_without_traffic_keeps_the_replicas_it_had():
    playing = Playing()
    playing.deploy(bundle(1, predictor=replicas(3)))
    playing.raise_to(25)
    playing.set(0)
    before = playing.writes()
    assert len(playing.set(0).pods["candidate"]) == 3
    assert playing.writes() == before


def test_a_stable_that_was_scaled_up_is_matched():
    playing = Playing()
    playing.deploy(bundle(1, predictor=replicas(1, 9)))
    playing.kserve.scaled = {f"{NAME}-v20260101-000000-predictor": 7}
    playing.kserve.settle()
    wanted = bundle(2, predictor=replicas(1, 9))
    live = playing.raise_to(100, wanted)
    assert len(live.pods["candidate"]) == len(live.pods["stable"]) == 7
    playing.take_back(wanted)
    assert (playing.predictor["minReplicas"], playing.predictor["maxReplicas"]) == (1, 9)


@pytest.mark.parametrize("minimum", [1, 3])
def test_promotion_keeps_the_pods(minimum):
    playing = Playing()
    playing.deploy(bundle(1, predictor=replicas(minimum)))
    for day in (2, 3):
        wanted = bundle(day, predictor=replicas(minimum))
        pods = playing.raise_to(100, wanted).pods["candidate"]
        assert playing.promote(wanted).pods["candidate"] == pods


def test_the_stable_stays_until_the_candidate_is_whole():
    playing = Playing()
    playing.deploy(bundle(1, predictor=replicas(3)))
    playing.raise_to(100)
    name = f"{NAME}-v20260102-000000-predictor"
    playing.kserve.unready = {name}
    playing.kserve.step()
    before = playing.writes()
    playing.router.promote(playing.read(), CANDIDATE)
    assert playing.writes() == before
    playing.kserve.unready = set()
    assert playing.promote().promoted


def test_the_stable_stays_while_a_replica_of_the_candidate_is_missing():
    playing = Playing()
    playing.deploy(bundle(1, predictor=replicas(3)))
    playing.raise_to(100)
    found = playing.api.at(DEPLOYMENT, SPACE, f"{NAME}-v20260102-000000-predictor")
    status = {**found["status"], "availableReplicas": 2,
              "conditions": [{"type": "Available", "status": "False"}]}  # fmt: skip
    playing.api.aside().replace({**found, "status": status}, status=True)
    live = playing.read()
    assert (live.percent, live.candidate_ready) == (100, True)
    playing.router.promote(live, CANDIDATE)
    assert playing.read().resource_version == live.resource_version


def test_a_candidate_goes_to_nothing_together_with_another_one():
    playing = Playing()
    playing.deploy()
    playing.raise_to(25)
    other = {"predictor": {**predictor_of(bundle(9), "v9"), "minReplicas": 1}, "trafficPercent": 10}
    playing.api.edit(
        INFERENCE_SERVICE, SPACE, NAME, lambda found: found["spec"]["canary"].append(other)
    )
    playing.kserve.settle()
    assert playing.read().percent == 25
    playing.router.set(playing.read(), CANDIDATE, 0)
    assert [one["trafficPercent"] for one in playing.service["spec"]["canary"]] == [0, 0]
    playing.kserve.settle()
    assert playing.set(0).percent == 0
    assert playing.canary["predictor"]["name"] == "v20260102-000000"
    assert playing.kserve.broken == []
