"""A rollout in Knative mode by plain writes, on KServe's and Knative's own controllers."""

import pytest

from dwcp_ml.kube.manifests import STEPS_PERCENT, inference_service
from tests.cluster.control_plane import FAKE_PODS
from tests.cluster.processes import eventually
from tests.cluster.rest import RequestRejected
from tests.cluster.services import CANDIDATE, MODEL, NAME, STABLE, Service, uri
from tests.cluster.sockets import remote_addresses

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

KNATIVE = f"{NAME}-predictor"
OLD, NEW = f"{KNATIVE}-00001", f"{KNATIVE}-00002"
WINDOW = "autoscaling.knative.dev/window"


class KnativeService(Service):
    def knative(self):
        path = f"/apis/serving.knative.dev/v1/namespaces/{self.namespace}/services/{KNATIVE}"
        return self.rest.get(path)

    def desired(self):
        """Return (revision or LATEST, percent, tag) of each target that KServe wrote."""
        return [
            ("LATEST" if one.get("latestRevision") else one["revisionName"],
             one["percent"], one.get("tag"))
            for one in self.knative()["spec"]["traffic"]
        ]  # fmt: skip

    def component(self):
        return self.live().get("status", {}).get("components", {}).get("predictor", {})

    def rolled_out(self):
        """Return (previousRolledoutRevision, latestRolledoutRevision)."""
        found = self.component()
        return found.get("previousRolledoutRevision"), found.get("latestRolledoutRevision")

    def shares(self):
        """Return revision -> percent, as the InferenceService's status tells it."""
        found = {}
        for one in self.component().get("traffic", []):
            found[one["revisionName"]] = found.get(one["revisionName"], 0) + one["percent"]
        return {name: percent for name, percent in found.items() if percent}

    def replicas(self):
        """Return revision -> pods that its Deployment has been given."""
        return {
            name.removesuffix("-deployment"): one["spec"]["replicas"]
            for name, one in self.deployments().items()
        }

    def until(self, what, expected, seconds=30.0):
        def as_expected():
            found = what()
            assert found == expected, found
            return True

        eventually(as_expected, seconds, alive=self.cluster.check)

    def give(self, percent, version=CANDIDATE, **annotations):
        """Name a version and its share; None leaves the share out."""
        document = inference_service(MODEL, version, uri(version), uri(STABLE), "knative")
        predictor = document["spec"]["predictor"]
        predictor["canaryTrafficPercent"] = percent
        if annotations:
            predictor["annotations"] = annotations
        return self.patch({"spec": {"predictor": predictor}})


@pytest.fixture
def service(local_cluster, namespace):
    service = KnativeService(local_cluster, namespace)
    service.install_runtime()
    service.create(inference_service(MODEL, STABLE, uri(STABLE), mode="knative"))
    service.until_ready(60.0)
    service.until(service.rolled_out, (None, OLD))
    return service


def test_a_first_deployment_has_everything(service):
    assert service.desired() == [("LATEST", 100, None)]
    service.until(service.shares, {OLD: 100})
    assert list(service.deployments()) == [f"{OLD}-deployment"]
    assert service.weights() is None, "in Knative mode KServe makes no HTTPRoute"


def test_one_percent_stands_beside_the_one_that_was_rolled_out(service):
    service.give(1)
    service.until(service.desired, [("LATEST", 1, None), (OLD, 99, "prev")])
    service.until(service.shares, {NEW: 1, OLD: 99})
    service.until(service.rolled_out, (None, OLD))
    service.until_ready()


@pytest.mark.parametrize("last", [None, 100])
def test_a_candidate_rises_step_by_step_and_is_promoted(service, last):
    for percent in STEPS_PERCENT[:-1]:
        service.give(percent)
        service.until(service.shares, {NEW: percent, OLD: 100 - percent})
        service.until(service.rolled_out, (None, OLD))
    service.give(last)
    service.until(service.shares, {NEW: 100})
    service.until(service.rolled_out, (OLD, NEW))
    assert service.desired() == [("LATEST", 100, None)]


def test_a_candidate_is_rolled_back_before_it_was_promoted(service):
    service.give(25)
    service.until(service.shares, {NEW: 25, OLD: 75})
    service.give(0)
    service.until(service.desired, [("LATEST", 0, None), (OLD, 100, "prev")])
    service.until(service.shares, {OLD: 100})
    service.until(service.rolled_out, (None, OLD))


def test_a_candidate_that_was_promoted_is_rolled_back_in_two_passes(service):
    service.give(1)
    service.until(service.shares, {NEW: 1, OLD: 99})
    service.give(None)
    service.until(service.rolled_out, (OLD, NEW))
    service.give(0)
    # First KServe sends what is left to the one that was rolled out last, which is the candidate;
    # only when that is live does it remember who was there before.
    service.until(service.rolled_out, (OLD, OLD))
    service.until(service.desired, [("LATEST", 0, None), (OLD, 100, "prev")])
    service.until(service.shares, {OLD: 100})


def test_a_first_version_can_not_be_rolled_back(service):
    service.give(0, STABLE)
    service.until(service.desired, [("LATEST", 0, None), (OLD, 100, "prev")])
    service.until(service.shares, {OLD: 100})
    assert service.rolled_out() == (None, OLD)


def test_a_candidate_that_is_not_ready_has_no_share(service):
    service.give(1, **{FAKE_PODS: "pending"})
    service.until(lambda: service.component().get("latestCreatedRevision"), NEW)
    service.until(lambda: service.component().get("latestReadyRevision"), OLD)
    service.until(service.shares, {OLD: 100})
    assert service.condition("Ready") == "Unknown"


def test_a_revision_that_no_target_names_has_no_pods_until_one_does(service):
    """Knative's autoscaler does it, after a window that is 60 s by default."""
    service.give(1, STABLE, **{WINDOW: "6s"})
    service.until(service.shares, {NEW: 1, OLD: 99})
    service.give(1, CANDIDATE, **{WINDOW: "6s"})
    newest = f"{KNATIVE}-00003"
    service.until(service.shares, {newest: 1, OLD: 99})
    service.until(service.replicas, {OLD: 1, NEW: 0, newest: 1}, 120.0)
    addresses = remote_addresses(service.cluster.processes.ids().values())
    assert {address for address in addresses if not address.is_loopback} == set()


def test_knatives_webhooks_fill_in_and_reject(service):
    service.until(service.shares, {OLD: 100})
    template = service.knative()["spec"]["template"]["spec"]
    assert template["timeoutSeconds"] == 300
    path = f"/apis/serving.knative.dev/v1/namespaces/{service.namespace}/services/{KNATIVE}"
    with pytest.raises(RequestRejected, match="Traffic targets sum to 99"):
        service.rest.merge(path, {"spec": {"traffic": [{"latestRevision": True, "percent": 99}]}})
