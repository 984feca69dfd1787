"""A fake of KServe's controller on a real API server, for more InferenceServices than the real one
can keep up with on two cores. The webhooks are real, and so are Deployments and pods.
"""

from dwcp_ml.kube.api import DEPLOYMENT, HTTP_ROUTE, Conflict, Gone
from dwcp_ml.kube.client import KubeApi
from tests.cluster.fake_controllers import FakeController
from tests.cluster.rest import RequestRejected
from tests.operator import fake_kserve
from tests.operator.fake_kserve_rules import variant_name
from tests.operator.fake_workloads import SERVICE, SOURCE

_SERVICES = "/apis/serving.kserve.io/v1beta1/inferenceservices"
_DEPLOYMENTS = "/apis/apps/v1/deployments"


class FakeKServeController(FakeController):
    """Looks at an InferenceService when it, or one of its Deployments, has changed."""

    name = "fake KServe"

    def __init__(self, rest, client):
        super().__init__(rest)
        self._passes = _Passes(KubeApi(client))
        self.services = self.watch(_SERVICES)
        self.deployments = self.watch(_DEPLOYMENTS, self._service_of, SERVICE)

    def reconcile(self, key):
        found = self.services.objects.get(key)
        if found is None or "deletionTimestamp" in found["metadata"]:
            return
        try:
            self._passes._standard_pass(found)
        except (Conflict, Gone) as error:
            raise RequestRejected(409, str(error)) from error  # it is reconciled again

    def _service_of(self, key):
        one = self.deployments.objects.get(key)
        return [] if one is None else [(key[0], one["metadata"]["labels"][SERVICE])]


class _Passes(fake_kserve.FakeKServe):
    """The passes of the one without a cluster; what real controllers do here is left to them."""

    def __init__(self, api):
        self.api = api
        self.splits = self.gateway = self.accepts = True
        self.broken = []
        self.gap, self.now = 0.0, lambda: 0.0
        self._written_at = {}

    def _deployment(self, found, predictor):
        name, space = variant_name(found, predictor), found["metadata"]["namespace"]
        desired = _deployment(found, predictor, name)
        live = self.api.get(DEPLOYMENT, space, name)
        if live is None:
            return self.api.create(desired)
        if live["spec"]["replicas"] != desired["spec"]["replicas"]:
            return self.api.replace({**live, "spec": {**live["spec"], "replicas":
                                                      desired["spec"]["replicas"]}})  # fmt: skip
        return live

    def _route(self, desired):
        live = self.api.get(HTTP_ROUTE, *_key(desired))
        if live is None:
            self.api.create(desired)
        elif _weights(live) != _weights(desired):
            self.api.replace({**live, "spec": desired["spec"]})

    def _note_what_is_broken(self, found):
        """Somebody else's test."""


def _deployment(found, predictor, name):
    labels = {
        "app": f"isvc.{name}", SERVICE: found["metadata"]["name"], "component": "predictor",
    }  # fmt: skip
    annotations = {**predictor.get("annotations", {}), SOURCE: predictor["model"]["storageUri"]}
    owner = {
        "apiVersion": found["apiVersion"], "kind": found["kind"],
        "name": found["metadata"]["name"], "uid": found["metadata"]["uid"], "controller": True,
    }  # fmt: skip
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name, "namespace": found["metadata"]["namespace"], "labels": labels,
            "ownerReferences": [owner],
        },
        "spec": {
            "replicas": predictor.get("minReplicas", 1),
            "selector": {"matchLabels": {"app": labels["app"]}},
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": {"containers": [{"name": "kserve-container", "image": "fake"}]},
            },
        },
    }  # fmt: skip


def _key(one):
    return one["metadata"]["namespace"], one["metadata"]["name"]


def _weights(route):
    backends = route["spec"]["rules"][0]["backendRefs"]
    return [(one["name"], one.get("weight", 1)) for one in backends]
