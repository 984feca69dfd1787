"""The played KServe's rules and objects, without a cluster: what it refuses, what it makes."""

import pytest

from dwcp_ml.contract.models import MODELS
from dwcp_ml.stages.manifests import inference_service, revision_name
from tests.cluster.desired import autoscaler, deployment, route, service, status
from tests.cluster.played_kserve import covers
from tests.cluster.played_webhook import refusal
from tests.cluster.players import _accepted as accepted
from tests.cluster.services import CANDIDATE, MODEL, NAME, STABLE, runtime, uri

INGRESS = {"kserveIngressGateway": "kserve/ingress", "ingressDomain": "example.com"}


def canary_service(share=1, **changes):
    found = inference_service(MODEL, CANDIDATE, uri(CANDIDATE), uri(STABLE))
    found["metadata"].update(namespace="ours", uid="1")
    found["spec"]["canary"][0]["trafficPercent"] = share
    found["spec"]["canary"][0]["predictor"].update(changes)
    return found


def workloads(found):
    predictors = [found["spec"]["predictor"], found["spec"]["canary"][0]["predictor"]]
    return [deployment(found, {**one, "minReplicas": 1}, runtime()) for one in predictors]


def available(wanted, is_available=True):
    condition = {"type": "Available", "status": "True" if is_available else "False"}
    return {**wanted, "status": {"observedGeneration": 7, "conditions": [condition]}}


@pytest.mark.parametrize("spec", MODELS.values(), ids=lambda spec: spec.name)
@pytest.mark.parametrize("stable", ["", "pvc://dwcp-models/a/20260101-000000"])
def test_what_the_gate_writes_is_accepted(spec, stable):
    assert refusal(inference_service(spec, CANDIDATE, "pvc://dwcp-models/a/b", stable)) is None


def test_a_candidate_of_the_same_version_is_refused():
    found = inference_service(MODEL, STABLE, uri(STABLE), uri(STABLE))
    assert "another predictor" in refusal(found)


@pytest.mark.parametrize("field", ["maxReplicas", "scaleTarget", "scaleMetric", "autoScaling",
                                   "workerSpec"])  # fmt: skip
def test_a_canary_does_not_scale_itself(field):
    assert field in refusal(canary_service(**{field: 1}))


@pytest.mark.parametrize(("name", "reason"), [
    ("", "required"), ("2026", "form"), ("V1", "form"), ("v1-", "form"), ("v" * 50, "63"),
])  # fmt: skip
def test_the_name_of_a_canary_is_checked(name, reason):
    assert reason in refusal(canary_service(name=name))


def test_shares_may_add_up_to_a_hundred_and_no_more():
    found = canary_service(60)
    (first,) = found["spec"]["canary"]
    second = {"predictor": {**first["predictor"], "name": "other"}, "trafficPercent": 40}
    found["spec"]["canary"].append(second)
    assert refusal(found) is None
    second["trafficPercent"] = 41
    assert "101" in refusal(found)


def test_a_canary_belongs_to_the_standard_mode():
    found = canary_service()
    found["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] = "Knative"
    assert "Standard" in refusal(found)


@pytest.mark.parametrize("field", ["transformer", "explainer"])
def test_what_is_not_played_is_refused(field):
    found = canary_service()
    found["spec"][field] = {"containers": [{"name": "kserve-container"}]}
    assert "real KServe" in refusal(found)


@pytest.mark.parametrize("share", [0, 1, 25, 100])
def test_the_shares_of_a_route_add_up_to_a_hundred(share):
    found = canary_service(share)
    stable, canary = workloads(found)
    made = route(found, NAME, INGRESS, stable, [canary])
    weights = [one["weight"] for one in made["spec"]["rules"][0]["backendRefs"]]
    assert weights == [100 - share, share]


def test_a_canary_that_is_not_ready_has_no_share():
    found = canary_service(25)
    stable, _ = workloads(found)
    made = route(found, NAME, INGRESS, stable, [])
    (only,) = made["spec"]["rules"][0]["backendRefs"]
    assert (only["name"], only["weight"]) == (stable["metadata"]["name"], 100)


def test_the_status_repeats_the_share_that_was_asked_for():
    found = canary_service(25)
    stable, canary = workloads(found)
    made = status(found, [available(stable), available(canary, False)], None)
    assert made["canaryStatuses"] == [
        {"name": revision_name(CANDIDATE), "ready": False, "trafficPercent": 25}
    ]
    assert made["observedGeneration"] == 7  # the Deployment's
    conditions = {one["type"]: one["status"] for one in made["conditions"]}
    assert conditions["CanaryPredictorReady"] == "False"
    assert conditions["Ready"] == "True"


def test_a_service_is_not_ready_before_a_parent_accepts_its_routes():
    found = canary_service()
    live = [available(one) for one in workloads(found)]
    made = route(found, NAME, INGRESS, *live[:1], live[1:])
    (parent,) = made["spec"]["parentRefs"]
    taken = {**made, "status": {"parents": [accepted(parent, 1)]}}

    def ready(routes):
        conditions = status(found, live, routes)["conditions"]
        return {one["type"]: one["status"] for one in conditions}["Ready"]

    assert ready([made, None]) == "False"
    assert ready([taken, made]) == "False"
    assert ready([taken, taken]) == "True"


def test_a_condition_keeps_the_time_of_its_last_change():
    found = canary_service()
    live = [available(one) for one in workloads(found)]
    before = status(found, live, None)
    for one in before["conditions"]:
        one["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    again = status({**found, "status": before}, live, None)
    assert again == before
    lost = status({**found, "status": before}, [available(live[0], False), live[1]], None)
    times = {one["type"]: one["lastTransitionTime"] for one in lost["conditions"]}
    assert times["CanaryPredictorReady"] == "2026-01-01T00:00:00Z"
    assert times["Ready"] > "2026-01-01T00:00:00Z"


def test_a_variant_is_told_apart_by_one_label():
    found = canary_service()
    stable, canary = workloads(found)
    assert stable["spec"]["selector"] != canary["spec"]["selector"]
    for one in (stable, canary):
        name = one["metadata"]["name"]
        labels = one["spec"]["template"]["metadata"]["labels"]
        assert labels["app"] == f"isvc.{name}"
        assert service(found, one)["spec"]["selector"] == {"app": labels["app"]}
        assert one["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_only_the_stable_variant_scales_and_only_where_nobody_says_no():
    found = canary_service()
    stable, _ = workloads(found)
    assert autoscaler(found, stable)["spec"]["scaleTargetRef"]["name"] == stable["metadata"]["name"]
    found["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] = "none"
    assert autoscaler(found, stable) is None


@pytest.mark.parametrize(("live", "wanted", "expected"), [
    ({"a": 1, "b": 2}, {"a": 1}, True),
    ({"a": 1}, {"a": 1, "b": 2}, False),
    ({"a": [{"b": 1, "c": 2}]}, {"a": [{"b": 1}]}, True),
    ({"a": [1, 2]}, {"a": [1]}, False),
    ({"a": [1]}, {"a": [2]}, False),
    ([], {}, False),
    (None, {}, False),
])  # fmt: skip
def test_what_the_server_added_is_no_difference(live, wanted, expected):
    assert covers(live, wanted) is expected
