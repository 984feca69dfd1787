"""Services that can't split their traffic, and KServes that don't: never silently everything."""

from typing import get_args

import pytest

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.kube.api import HTTP_ROUTE, INFERENCE_SERVICE
from dwcp_ml.kube.kserve import ROUTERS, ChangeRejected
from dwcp_ml.operator.api.parts import DeploymentMode
from tests.kube.kserve.fakes import CANDIDATE, NAME, NEXT, SPACE, STABLE, RouterScenario, bundle

LOCAL = {"networking.kserve.io/visibility": "cluster-local"}


def test_an_ingress_class_is_refused_once_kserve_is_done():
    scenario = RouterScenario(gateway=False)
    scenario.router.set(scenario.read(STABLE), STABLE, 100)
    assert scenario.read(STABLE).unsupported == ""
    scenario.kserve.settle()
    live = scenario.read(CANDIDATE)
    assert (live.percent, live.promoted) == (None, False)
    assert "has made no HTTPRoute" in live.unsupported
    assert scenario.read(STABLE).promoted is False


def test_a_service_that_is_local_to_the_cluster_is_refused_before_it_is_made():
    scenario = RouterScenario()
    local = bundle(1, labels=LOCAL)
    assert "cluster-local" in scenario.read(local).unsupported
    with pytest.raises(ChangeRejected, match="cluster-local"):
        scenario.router.set(scenario.read(local), local, 100)
    assert scenario.writes() == 0


def test_a_service_that_became_local_is_refused_and_can_still_be_rolled_back():
    scenario = RouterScenario()
    scenario.deploy()
    scenario.raise_to(5)
    scenario.api.edit(
        INFERENCE_SERVICE, SPACE, NAME, lambda found: found["metadata"]["labels"].update(LOCAL)
    )
    live = scenario.read()
    assert (live.percent, "cluster-local" in live.unsupported) == (None, True)
    with pytest.raises(ChangeRejected):
        scenario.router.set(live, CANDIDATE, 25)
    scenario.router.set(live, CANDIDATE, 0)
    assert scenario.canary["trafficPercent"] == 0
    live = scenario.read()
    scenario.router.set(live, CANDIDATE, 0)
    scenario.router.drop(live)
    assert scenario.read().resource_version == live.resource_version  # its HTTPRoutes still say 5
    for route in (NAME, f"{NAME}-predictor"):
        scenario.api.aside().delete(HTTP_ROUTE, SPACE, route)
    scenario.router.set(live, CANDIDATE, 0)
    scenario.router.drop(scenario.read())
    assert "canary" not in scenario.service["spec"]


def test_a_kserve_that_is_too_old_never_reports_a_share():
    scenario = RouterScenario(splits=False)
    scenario.deploy()
    for percent in (0, 1):
        live = scenario.set(percent)
        assert live.percent is None
        assert "older than 0.21" in live.error
        assert live.unsupported == ""


def test_a_candidate_that_is_not_ready_has_no_share():
    scenario = RouterScenario()
    scenario.deploy()
    scenario.kserve.unready = {f"{NAME}-v20260102-000000-predictor"}
    live = scenario.set(25)
    assert (live.percent, live.error, live.candidate_ready) == (0, "", False)
    assert live.pods["candidate"] == ()
    scenario.kserve.unready = set()
    scenario.kserve.settle()
    assert scenario.read().percent == 25


def test_no_gateway_accepts_the_routes():
    scenario = RouterScenario(accepts=False)
    live = scenario.set(100, STABLE)
    assert (live.percent, live.promoted) == (None, False)
    assert "the gateway does not accept the HTTPRoute" in live.error
    assert "no listener has this hostname" in live.error


@pytest.mark.parametrize(("mode", "found"), [
    ("Standard", "Knative"), ("Standard", "Serverless"), ("Standard", "ModelMesh"),
    ("Knative", "Standard"), ("Knative", "RawDeployment"),
])  # fmt: skip
def test_another_mode_than_the_service_has(mode, found):
    scenario = RouterScenario(mode)
    scenario.deploy()

    def change(service):
        service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] = found

    scenario.api.edit(INFERENCE_SERVICE, SPACE, NAME, change)
    live = scenario.read()
    assert live.percent is None
    assert live.unsupported == (
        f"the InferenceService is in the mode {found}, and the rollout asks for {mode}."
    )
    with pytest.raises(ChangeRejected, match="in the mode"):
        scenario.router.set(live, CANDIDATE, 0)


def test_the_mode_that_kserve_chose_by_default_counts_too():
    scenario = RouterScenario()
    scenario.deploy()
    service = scenario.service
    service["status"]["deploymentMode"] = "Knative"
    del service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"]
    scenario.api.replace(scenario.api.replace(service) | {"status": service["status"]}, status=True)
    assert "in the mode Knative" in scenario.read().unsupported


def test_a_transformer_would_be_bypassed():
    scenario = RouterScenario()
    scenario.deploy()
    scenario.api.admit = lambda obj: None  # the fake rejects it, KServe does not
    scenario.api.edit(
        INFERENCE_SERVICE, SPACE, NAME, lambda found: found["spec"].update(transformer={"a": 1})
    )
    assert "transformer" in scenario.read().unsupported
    with pytest.raises(ChangeRejected, match="transformer"):
        scenario.router.set(scenario.read(), CANDIDATE, 0)


def test_a_candidate_at_the_address_of_the_stable():
    scenario = RouterScenario()
    scenario.deploy()
    same = bundle(2, storage_uri=STABLE.storage_uri)
    live = scenario.read(same)
    assert "give it one of its own" in live.unsupported
    with pytest.raises(ChangeRejected, match="one of its own"):
        scenario.router.set(live, same, 0)


def test_a_knative_service_whose_stable_is_unknown():
    """As the gate's manifest makes it, applied by hand."""
    scenario = RouterScenario("Knative")
    scenario.deploy()

    def change(found):
        model = {**found["spec"]["predictor"]["model"], "storageUri": CANDIDATE.storage_uri}
        found["spec"]["predictor"] = {"model": model, "canaryTrafficPercent": 1}

    scenario.api.edit(INFERENCE_SERVICE, SPACE, NAME, change)
    scenario.kserve.settle()
    live = scenario.read(NEXT)
    assert (live.exists, live.percent, live.stable) == (True, None, None)
    assert "remove canaryTrafficPercent" in live.error
    with pytest.raises(ChangeRejected, match="no annotation"):
        scenario.router.set(live, NEXT, 0)


@pytest.mark.parametrize("percent", [-1, 101])
@pytest.mark.parametrize("mode", ["Standard", "Knative"])
def test_a_share_is_a_share(mode, percent):
    scenario = RouterScenario(mode)
    live = scenario.deploy()
    with pytest.raises(UsageError, match="0 to 100 percent"):
        scenario.router.set(live, CANDIDATE, percent)


def test_each_deployment_mode_of_the_resource_has_a_router():
    assert ROUTERS.keys() == set(get_args(DeploymentMode))


def test_a_canary_made_by_hand_is_adopted():
    """The gate's InferenceService, applied by hand, before there was a ModelRollout."""
    scenario = RouterScenario()
    scenario.deploy()

    def change(found):
        by_hand = {"name": "by-hand", "model": {"storageUri": CANDIDATE.storage_uri,
                                                "modelFormat": {"name": "x"}}}  # fmt: skip
        found["spec"]["canary"] = [{"predictor": by_hand, "trafficPercent": 1}]
        found["spec"]["predictor"].pop("annotations")

    scenario.api.edit(INFERENCE_SERVICE, SPACE, NAME, change)
    scenario.kserve.settle()
    live = scenario.read()
    assert (live.percent, live.candidate.version, live.candidate.digest) == (
        1, CANDIDATE.version, "",
    )  # fmt: skip
    assert (live.stable.version, live.stable.digest) == (STABLE.version, "")
    live = scenario.set(5)
    assert (live.percent, live.candidate.digest) == (5, CANDIDATE.digest.removeprefix("sha256:"))
    assert scenario.canary["predictor"]["name"] == "by-hand"
