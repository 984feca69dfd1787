"""What tests without a cluster know of KServe: whom it refuses, which HTTPRoutes it makes.

That KServe's own manager agrees is shown in ``test_kserve_webhook`` and ``test_kserve_standard``.
"""

import pytest

from dwcp_ml.contract.models import MODELS
from dwcp_ml.kube.manifests import inference_service
from tests.cluster.services import CANDIDATE, MODEL, NAME, STABLE, uri
from tests.operator.fake_kserve_rules import rejection, route, variant_name

INGRESS = {"kserveIngressGateway": "kserve/ingress", "ingressDomain": "example.com"}


def canary_service(share=1, **changes):
    found = inference_service(MODEL, CANDIDATE, uri(CANDIDATE), uri(STABLE))
    found["metadata"].update(namespace="ours", uid="1")
    found["spec"]["canary"][0]["trafficPercent"] = share
    found["spec"]["canary"][0]["predictor"].update(changes)
    return found


def deployments(found):
    predictors = [found["spec"]["predictor"], found["spec"]["canary"][0]["predictor"]]
    return [{"metadata": {"name": variant_name(found, one)}} for one in predictors]


@pytest.mark.parametrize("spec", MODELS.values(), ids=lambda spec: spec.name)
@pytest.mark.parametrize("stable", ["", "pvc://dwcp-models/a/20260101-000000"])
def test_what_the_gate_writes_is_accepted(spec, stable):
    assert rejection(inference_service(spec, CANDIDATE, "pvc://dwcp-models/a/b", stable)) is None


def test_a_candidate_of_the_same_version_is_refused():
    found = inference_service(MODEL, STABLE, uri(STABLE), uri(STABLE))
    assert "another predictor" in rejection(found)


@pytest.mark.parametrize("field", ["maxReplicas", "scaleTarget", "scaleMetric", "autoScaling",
                                   "workerSpec"])  # fmt: skip
def test_a_canary_does_not_scale_itself(field):
    assert field in rejection(canary_service(**{field: 1}))


def test_a_canary_has_no_more_pods_than_the_stable():
    found = canary_service(minReplicas=2)
    assert "minReplicas" in rejection(found)
    found["spec"]["predictor"]["minReplicas"] = 2
    assert rejection(found) is None


@pytest.mark.parametrize(("name", "reason"), [
    ("", "required"), ("2026", "form"), ("V1", "form"), ("v1-", "form"), ("v" * 50, "63"),
])  # fmt: skip
def test_the_name_of_a_canary_is_checked(name, reason):
    assert reason in rejection(canary_service(name=name))


def test_shares_may_add_up_to_a_hundred_and_no_more():
    found = canary_service(60)
    (first,) = found["spec"]["canary"]
    second = {"predictor": {**first["predictor"], "name": "other"}, "trafficPercent": 40}
    found["spec"]["canary"].append(second)
    assert rejection(found) is None
    second["trafficPercent"] = 41
    assert "101" in rejection(found)


def test_a_canary_belongs_to_the_standard_mode():
    found = canary_service()
    found["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] = "Knative"
    assert "Standard" in rejection(found)


def weights(made):
    return [one.get("weight") for one in made["spec"]["rules"][0]["backendRefs"]]


@pytest.mark.parametrize("share", [0, 1, 50, 100])
def test_the_stable_keeps_what_ready_canaries_leave(share):
    found = canary_service(share)
    stable, canary = deployments(found)
    assert weights(route(found, NAME, INGRESS, stable, [canary])) == [100 - share, share]


def test_a_canary_that_is_not_ready_is_left_out():
    found = canary_service(50)
    stable, _ = deployments(found)
    assert weights(route(found, NAME, INGRESS, stable, [])) == [100]


def test_without_a_canary_there_is_no_weight():
    found = canary_service()
    stable, _ = deployments(found)
    del found["spec"]["canary"]
    assert weights(route(found, NAME, INGRESS, stable, [])) == [None]
