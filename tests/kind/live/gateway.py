"""Which Service responded to a request that went through the gateway."""

from tests.cluster.fake_controllers import FakeController

GATEWAY = "gateway"
"""Stands for Envoy, where it responded itself instead of the pod that it had chosen."""

_NO_FLAGS = "-"
"""Of a response that came from the pod."""

_SERVICE_OF_PODS = "serving.kserve.io/inferenceservice"
_REVISION = "serving.knative.dev/revision"


class ServiceOfPods(FakeController):
    """The Service of every pod of a model that ever existed, by its address."""

    name = "Services of pods"

    def __init__(self, rest):
        super().__init__(rest)
        self._pods = self.watch("/api/v1/pods", selector=_SERVICE_OF_PODS)
        self._services = {}

    def reconcile(self, key):
        pod = self._pods.objects.get(key) or {"status": {}}
        address = pod["status"].get("podIP")
        if address:
            labels = pod["metadata"]["labels"]
            self._services[address] = labels.get(_REVISION) or labels["app"].removeprefix("isvc.")

    def service(self, upstream):
        """Return the Service that responded, given what Envoy reports; an unknown pod unchanged."""
        address, _, flags = upstream.partition(" ")
        if flags not in ("", _NO_FLAGS):
            return GATEWAY
        return self._services.get(address.partition(":")[0], upstream)
