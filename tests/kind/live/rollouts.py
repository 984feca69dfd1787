"""ModelRollouts of the bandwidth predictor on the cluster: apply one, wait for its end."""

from dwcp_ml.contract.models import BANDWIDTH
from dwcp_ml.kube.api import INFERENCE_SERVICE, MODEL_ROLLOUT
from dwcp_ml.kube.kserve import deployment_name
from dwcp_ml.local_rollout.broken_bundles import break_bundle
from tests.cluster.processes import eventually
from tests.kind.bundles import VOLUME, rollout
from tests.kind.live.cluster import SPACE

NAME = BANDWIDTH.kubernetes_name
STEPS = (1, 5, 25, 50, 100)
ENDED = ("Promoted", "RolledBack")


def spec(*steps, watch):
    """Return the steps of a rollout, given as (percent, requests to the candidate at least)."""
    return {
        "steps": [
            {"trafficPercent": percent, "minimumRequests": requests, "dwellSeconds": 8}
            for percent, requests in steps
        ],
        "watchSeconds": watch,
    }


GATES = spec((1, 8), (5, 40), (25, 200), (50, 300), (100, 300), watch=10)
"""The gate's steps, faster, with enough requests at each to compare the split with the weight."""

SHORT = spec((25, 200), (100, 300), watch=5)


def path_of(kind, name=NAME):
    return f"/apis/{kind.api_version}/namespaces/{SPACE}/{kind.plural}/{name}"


class Rollouts:
    """The ModelRollout of the bandwidth predictor, and its live traffic.

    Parameters
    ----------
    cluster
        A ``KindCluster``.
    models
        The directory of the volume that the servers read: ``<model>/<version>``.
    """

    def __init__(self, cluster, models):
        self._cluster, self._rest, self._models = cluster, cluster.rest, models

    def bundle(self, version):
        return self._models / BANDWIDTH.name / version

    def make(self, source, version, fault=None):
        """Make a bundle from another one: the same model under another version, or broken."""
        return break_bundle(self.bundle(source), self.bundle(version), fault)

    def apply(self, version, how=GATES):
        """Make a bundle the candidate."""
        document = rollout(self.bundle(version))
        document["spec"] |= how
        self._cluster.apply(document)

    def status(self):
        found = self._rest.find(path_of(MODEL_ROLLOUT)) or {}
        return found.get("status") or {}

    def until(self, version, *phases, seconds=300.0):
        """Wait until this candidate is in one of the phases; return the status."""

        def there():
            status = self.status()
            assert status.get("candidate", {}).get("version") == version, status
            assert status.get("phase") in phases, self.description()
            return status

        return eventually(there, seconds, every=0.5, alive=self._cluster.check)

    def until_live(self, version, percent, seconds=240.0):
        """Wait until this candidate has a live weight of at least ``percent``."""

        def there():
            status = self.status()
            assert status.get("candidate", {}).get("version") == version, status
            assert status.get("phase") not in ENDED, self.description()
            assert (status.get("livePercent") or 0) >= percent, status
            return status

        return eventually(there, seconds, every=0.5, alive=self._cluster.check)

    def live(self):
        """Return what the InferenceService specifies: the stable's URI, the canaries' names."""
        spec = self._rest.get(path_of(INFERENCE_SERVICE))["spec"]
        uri = spec["predictor"]["model"]["storageUri"]
        return uri, [one["predictor"]["name"] for one in spec.get("canary") or []]

    def uri(self, version):
        return f"{VOLUME}/{BANDWIDTH.name}/{version}"

    def until_candidates(self):
        """Return the Services of candidates, once the route has one."""
        return eventually(
            lambda: set(self.weights() or ()) - {self.stable()}, 120.0, alive=self._cluster.check
        )

    def stable(self):
        """Return the Service that the stable's pods are behind."""
        predictor = self._rest.get(path_of(INFERENCE_SERVICE))["spec"]["predictor"]
        return deployment_name(NAME, predictor.get("name", ""))

    def weights(self):
        """Return Service -> weight of the route that the traffic takes."""
        path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{SPACE}/httproutes/{NAME}"
        found = self._rest.find(path)
        if found is None:
            return None
        backends = found["spec"]["rules"][0]["backendRefs"]
        return {one["name"]: one.get("weight", 1) for one in backends}

    def description(self):
        """Return what ``kubectl describe`` prints."""
        return self._cluster.kubectl("describe", "modelrollout", NAME, "-n", SPACE)
