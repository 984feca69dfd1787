"""The gate's own InferenceServices on a cluster: apply one, read what became of it."""

from dwcp_ml.contract.models import COMPRESSION
from dwcp_ml.kube.manifests import RUNTIME, inference_service
from tests.cluster.processes import eventually

MODEL = COMPRESSION
NAME = MODEL.kubernetes_name
STABLE, CANDIDATE = "20260101-000000", "20260102-000000"

_ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes/{}"
_SERVICES = "/apis/serving.kserve.io/v1beta1/namespaces/{}/inferenceservices"
_RUNTIMES = "/apis/serving.kserve.io/v1alpha1/namespaces/{}/servingruntimes"
_VOLUME = "dwcp-models"


def runtime():
    """Return a ServingRuntime for bundles, fit for a namespace with restricted pods."""
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": RUNTIME},
        "spec": {
            "supportedModelFormats": [{"name": "dwcp-ml-bundle", "version": "1"}],
            "protocolVersions": ["v1", "v2"],
            "containers": [
                {
                    "name": "kserve-container",
                    "image": "dwcp-ml-server:test",
                    "args": ["serve", "--model_dir=/mnt/models"],
                    "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                        "runAsNonRoot": True,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                }
            ],
        },
    }


def uri(version):
    return f"pvc://{_VOLUME}/{MODEL.name}/{version}"


def add_volume(rest, namespace):
    """Create the volume of the bundles, already bound: no pod is scheduled without it."""
    size = {"storage": "1Gi"}
    modes = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
    volume = f"{namespace}-{_VOLUME}"
    claim = {"kind": "PersistentVolumeClaim", "namespace": namespace, "name": _VOLUME}
    spec = {**modes, "capacity": size, "claimRef": claim, "hostPath": {"path": "/nonexistent"}}
    rest.create("/api/v1/persistentvolumes", {"metadata": {"name": volume}, "spec": spec})
    spec = {**modes, "volumeName": volume, "resources": {"requests": size}}
    path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
    rest.create(path, {"metadata": {"name": _VOLUME}, "spec": spec})


class Service:
    """One InferenceService of a namespace, first with nothing but a stable version."""

    def __init__(self, cluster, namespace):
        self.cluster, self.rest, self.namespace = cluster, cluster.rest, namespace
        self.path = f"{_SERVICES.format(namespace)}/{NAME}"

    def install_runtime(self):
        """Create what a service needs to get ready: the runtime, and the volume of the bundles."""
        self.rest.create(_RUNTIMES.format(self.namespace), runtime())
        add_volume(self.rest, self.namespace)

    def create(self, document=None, change=lambda document: None):
        """Create the gate's first deployment, or another document, changed before it is sent."""
        document = document or inference_service(MODEL, STABLE, uri(STABLE))
        change(document)
        return self.rest.create(_SERVICES.format(self.namespace), document)

    def patch(self, body):
        return self.rest.merge(self.path, body)

    def live(self):
        return self.rest.get(self.path)

    def condition(self, kind):
        """Return the status of a condition, ``None`` where there is none."""
        conditions = self.live().get("status", {}).get("conditions", [])
        return next((one["status"] for one in conditions if one["type"] == kind), None)

    def canary_status(self):
        """Return what the status tells of the one canary, nothing where it tells of none."""
        return next(iter(self.live().get("status", {}).get("canaryStatuses", [])), {})

    def is_ready(self):
        return self.condition("Ready") == "True"

    def until_ready(self, seconds=30.0):
        eventually(self.is_ready, seconds, alive=self.cluster.check)

    def told(self):
        """Return what was told of it as Events, in one text."""
        events = self.rest.get(f"/api/v1/namespaces/{self.namespace}/events")["items"]
        return "\n".join(
            one["message"] for one in events if one["involvedObject"]["kind"] == "InferenceService"
        )

    def weights(self, route=NAME):
        """Return Service name -> weight of the live HTTPRoute.

        A single one has 1, as it gets everything whatever its weight is.
        """
        found = self.rest.find(_ROUTES.format(self.namespace, route))
        if found is None:
            return None
        backends = found["spec"]["rules"][0]["backendRefs"]
        return {one["name"]: one.get("weight", 1) if len(backends) > 1 else 1 for one in backends}

    def until_weights(self, expected, seconds=30.0):
        """Wait until both routes have these weights."""
        for route in (NAME, f"{NAME}-predictor"):

            def as_expected(route=route):
                found = self.weights(route)
                assert found == expected, f"{route}: {found}"
                return True

            eventually(as_expected, seconds, alive=self.cluster.check)

    def deployments(self):
        """Return name -> Deployment."""
        path = f"/apis/apps/v1/namespaces/{self.namespace}/deployments"
        return {one["metadata"]["name"]: one for one in self.rest.get(path)["items"]}

    def pods(self, deployment):
        path = f"/api/v1/namespaces/{self.namespace}/pods?labelSelector=app%3Disvc.{deployment}"
        return self.rest.get(path)["items"]
