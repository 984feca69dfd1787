"""Services that can't split their traffic, and KServes that don't: never silently everything."""

import pytest

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.kube.api import HTTP_ROUTE, INFERENCE_SERVICE
from dwcp_ml.kube.kserve import Refused, router_of
from tests.kube.kserve.fakes import CANDIDATE, NAME, NEXT, SPACE, STABLE, Playing, bundle

LOCAL = {"networking.kserve.io/visibility": "cluster-local"}


def test_an_ingress_class_is_refused_once_kserve_is_done():
    playing = Playing(gateway=False)
    playing.router.set(playing.read(STABLE), STABLE, 100)
    assert playing.read(STABLE).refused == ""
    playing.kserve.settle()
    live = playing.read(CANDIDATE)
    assert (live.percent, live.promoted) == (None, False)
    assert "has made no HTTPRoute" in live.refused
    assert playing.read(STABLE).promoted is False


def test_a_service_that_is_local_to_the_cluster_is_refused_before_it_is_made():
    playing = Playing()
    local = bundle(1, labels=LOCAL)
    assert "cluster-local" in playing.read(local).refused
    with pytest.raises(Refused, match="cluster-local"):
        playing.router.set(playing.read(local), local, 100)
    assert playing.writes() == 0


def test_a_service_that_became_local_is_refused_and_can_still_be_taken_back():
    playing = Playing()
    playing.deploy()
    playing.raise_to(5)
    playing.api.edit(
        INFERENCE_SERVICE, SPACE, NAME, lambda found: found["metadata"]["labels"].update(LOCAL)
    )
    live = playing.read()
    assert (live.percent, "cluster-local" in live.refused) == (None, True)
    with pytest.raises(Refused):
        playing.router.set(live, CANDIDATE, 25)
    playing.router.set(live, CANDIDATE, 0)
    assert playing.canary["trafficPercent"] == 0
    live = playing.read()
    playing.router.set(live, CANDIDATE, 0)
    playing.router.drop(live)
    assert playing.read().resource_version == live.resource_version  # its HTTPRoutes still say 5
    for route in (NAME, f"{NAME}-predictor"):
        playing.api.aside().delete(HTTP_ROUTE, SPACE, route)
    playing.router.set(live, CANDIDATE, 0)
    playing.router.drop(playing.read())
    assert "canary" not in playing.service["spec"]


def test_a_kserve_that_is_too_old_never_tells_a_share():
    playing = Playing(splits=False)
    playing.deploy()
    for asked in (0, 1):
        live = playing.set(asked)
        assert live.percent is None
        assert "older than 0.21" in live.error
        assert live.refused == ""


def test_a_candidate_that_is_not_ready_has_no_share():
    playing = Playing()
    playing.deploy()
    playing.kserve.unready = {f"{NAME}-v20260102-000000-predictor"}
    live = playing.set(25)
    assert (live.percent, live.error, live.candidate_ready) == (0, "", False)
    assert live.pods["candidate"] == ()
    playing.kserve.unready = set()
    playing.kserve.settle()
    assert playing.read().percent == 25


def test_no_gateway_takes_the_routes():
    playing = Playing(accepts=False)
    live = playing.set(100, STABLE)
    assert (live.percent, live.promoted) == (None, False)
    assert "the gateway does not take the HTTPRoute" in live.error
    assert "no listener has this hostname" in live.error


@pytest.mark.parametrize(("mode", "found"), [
    ("Standard", "Knative"), ("Standard", "Serverless"), ("Standard", "ModelMesh"),
    ("Knative", "Standard"), ("Knative", "RawDeployment"),
])  # fmt: skip
def test_another_mode_than_the_service_has(mode, found):
    playing = Playing(mode)
    playing.deploy()

    def change(service):
        service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] = found

    playing.api.edit(INFERENCE_SERVICE, SPACE, NAME, change)
    live = playing.read()
    assert live.percent is None
    assert live.refused == (
        f"the InferenceService is in the mode {found}, and the rollout asks for {mode}."
    )
    with pytest.raises(Refused, match="in the mode"):
        playing.router.set(live, CANDIDATE, 0)


def test_the_mode_that_kserve_took_by_itself_counts_too():
    playing = Playing()
    playing.deploy()
    service = playing.service
    service["status"]["deploymentMode"] = "Knative"
    del service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"]
    playing.api.replace(playing.api.replace(service) | {"status": service["status"]}, status=True)
    assert "in the mode Knative" in playing.read().refused


def test_a_transformer_would_be_bypassed():
    playing = Playing()
    playing.deploy()
    playing.api.admit = lambda obj: None  # what is played refuses it, KServe does not
    playing.api.edit(
        INFERENCE_SERVICE, SPACE, NAME, lambda found: found["spec"].update(transformer={"a": 1})
    )
    assert "transformer" in playing.read().refused
    with pytest.raises(Refused, match="transformer"):
        playing.router.set(playing.read(), CANDIDATE, 0)


def test_a_candidate_at_the_address_of_the_stable():
    playing = Playing()
    playing.deploy()
    same = bundle(2, storage_uri=STABLE.storage_uri)
    live = playing.read(same)
    assert "give it one of its own" in live.refused
    with pytest.raises(Refused, match="one of its own"):
        playing.router.set(live, same, 0)


def test_a_knative_service_whose_stable_nobody_knows():
    """As the gate's manifest makes it, applied by hand."""
    playing = Playing("Knative")
    playing.deploy()

    def change(found):
        model = {**found["spec"]["predictor"]["model"], "storageUri": CANDIDATE.storage_uri}
        found["spec"]["predictor"] = {"model": model, "canaryTrafficPercent": 1}

    playing.api.edit(INFERENCE_SERVICE, SPACE, NAME, change)
    playing.kserve.settle()
    live = playing.read(NEXT)
    assert (live.exists, live.percent, live.stable) == (True, None, None)
    assert "take canaryTrafficPercent away" in live.error
    with pytest.raises(Refused, match="no annotation"):
        playing.router.set(live, NEXT, 0)


@pytest.mark.parametrize("percent", [-1, 101])
@pytest.mark.parametrize("mode", ["Standard", "Knative"])
def test_a_share_is_a_share(mode, percent):
    playing = Playing(mode)
    live = playing.deploy()
    with pytest.raises(UsageError, match="0 to 100 percent"):
        playing.router.set(live, CANDIDATE, percent)


def test_there_are_two_modes():
    with pytest.raises(UsageError, match="did you mean 'Standard'"):
        router_of(Playing().api, SPACE, NAME, "Standart")


def test_a_canary_made_by_hand_is_taken_over():
    """The gate's InferenceService, applied by hand, before there was a ModelRollout."""
    playing = Playing()
    playing.deploy()

    def change(found):
        by_hand = {"name": "by-hand", "model": {"storageUri": CANDIDATE.storage_uri,
                                                "modelFormat": {"name": "x"}}}  # fmt: skip
        found["spec"]["canary"] = [{"predictor": by_hand, "trafficPercent": 1}]
        found["spec"]["predictor"].pop("annotations")

    playing.api.edit(INFERENCE_SERVICE, SPACE, NAME, change)
    playing.kserve.settle()
    live = playing.read()
    assert (live.percent, live.candidate.version, live.candidate.digest) == (
        1, CANDIDATE.version, "",
    )  # fmt: skip
    assert (live.stable.version, live.stable.digest) == (STABLE.version, "")
    live = playing.set(5)
    assert (live.percent, live.candidate.digest) == (5, CANDIDATE.digest.removeprefix("sha256:"))
    assert playing.canary["predictor"]["name"] == "by-hand"
