"""Envoy Gateway on the node, as its own Helm chart installs it, and which Service responded."""

import json
import subprocess

import yaml

from dwcp_ml.local_rollout.envoy_config import ARM_HEADER
from tests.cluster.build import ROOT
from tests.cluster.fake_controllers import FakeController
from tests.cluster.processes import ClusterFailed, eventually
from tests.kind.without_gateway_api import without_gateway_api
from tests.node.images import ENVOY, ENVOY_GATEWAY
from tests.node.inside import GATEWAY_ADDRESS

PORT = 80
GATEWAY = "gateway"
"""Stands for Envoy, where it responded itself instead of the pod that it had chosen."""

_UPSTREAM = "%UPSTREAM_HOST% %RESPONSE_FLAGS%"
_NO_FLAGS = "-"
"""Of a response that came from the pod."""

_MODULE = "envoy-gateway"
SPACE = "envoy-gateway-system"
_XDS_ADDRESS = "198.19.0.81"
_XDS = (
    '$.static_resources.clusters[?(@.name=="xds_cluster")]'
    ".load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address"
)
"""The field of Envoy's bootstrap configuration with the address of its controller."""

_OF_KIND = ROOT / "tests/kind/manifests/gateway.yaml"
_READY_SECONDS = 180.0
_HELM_SECONDS = 60

_SERVICE_OF_PODS = "serving.kserve.io/inferenceservice"


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
            self._services[address] = pod["metadata"]["labels"]["app"].removeprefix("isvc.")

    def service(self, upstream):
        """Return the Service that responded, given what Envoy reports; an unknown pod unchanged."""
        address, _, flags = upstream.partition(" ")
        if flags not in ("", _NO_FLAGS):
            return GATEWAY
        return self._services.get(address.partition(":")[0], upstream)


def install(cluster):
    """Install Envoy Gateway and the gateway of ``tests/kind``; return when it is programmed.

    Parameters
    ----------
    cluster
        A ``NodeCluster``.

    Raises
    ------
    ClusterFailed
        If the chart can't be rendered.
    """
    built = cluster.control_plane.built
    documents = chart(built)
    definitions = [one for one in documents if one["kind"] == "CustomResourceDefinition"]
    names = [f"crd/{one['metadata']['name']}" for one in definitions]
    cluster.apply(namespace(SPACE), *built.objects(_MODULE), *definitions)
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)
    cluster.apply(*[one for one in documents if one not in definitions])
    cluster.apply(*yaml.safe_load_all(_OF_KIND.read_text()), report_upstream())
    eventually(lambda: _is_programmed(cluster), _READY_SECONDS, every=0.5, alive=cluster.check)


def chart(built):
    """Return what ``helm install`` would create, without the Gateway API, which is there."""
    words = [
        "template", "eg", str(built.chart(_MODULE)), "--namespace", SPACE, "--include-crds",
        "--values", str(built.chart(_MODULE) / "values.tmpl.yaml"), "--values", "-",
    ]  # fmt: skip
    done = subprocess.run(
        [built.program("helm"), *words], input=json.dumps(values()), capture_output=True, text=True,
        timeout=_HELM_SECONDS, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise ClusterFailed(f"helm template failed: {' '.join(done.stderr.split())[-600:]}")
    documents = without_gateway_api(done.stdout)
    for one in documents:
        if one["kind"] == "Service":
            one["spec"]["clusterIP"] = _XDS_ADDRESS
    return documents


def values():
    """Return the chart's values: local images, and addresses in place of names.

    This cluster has no DNS server.
    """
    repository, _, tag = ENVOY_GATEWAY.partition(":")
    kubernetes = {
        "envoyDeployment": {"container": {"image": ENVOY, "imagePullPolicy": "Never"}},
        "envoyService": {
            "type": "ClusterIP", "patch": {"value": {"spec": {"clusterIP": GATEWAY_ADDRESS}}},
        },
    }  # fmt: skip
    address = {"op": "replace", "jsonPath": _XDS, "path": "address", "value": _XDS_ADDRESS}
    proxy = {
        "provider": {"type": "Kubernetes", "kubernetes": kubernetes},
        "bootstrap": {"type": "JSONPatch", "jsonPatches": [address]},
    }
    return {
        "topologyInjector": {"enabled": False},  # there is one zone
        "global": {"images": {"envoyGateway": {"pullPolicy": "Never"}}},
        "deployment": {"envoyGateway": {"image": {"repository": repository, "tag": tag}}},
        "config": {"envoyGateway": {"envoyProxy": proxy}},
    }  # fmt: skip


def report_upstream():
    """Return a policy: Envoy names the pod that it chose, and any error, in a header."""
    target = {
        "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "kserve-ingress-gateway",
    }  # fmt: skip
    headers = {"set": [{"name": ARM_HEADER, "value": _UPSTREAM}]}
    return {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "ClientTrafficPolicy",
        "metadata": {"name": "report-upstream", "namespace": "kserve"},
        "spec": {"targetRefs": [target], "headers": {"lateResponseHeaders": headers}},
    }  # fmt: skip


def namespace(name):
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _is_programmed(cluster):
    path = "/apis/gateway.networking.k8s.io/v1/namespaces/kserve/gateways/kserve-ingress-gateway"
    conditions = cluster.rest.get(path).get("status", {}).get("conditions", [])
    found = {one["type"]: one["status"] for one in conditions}
    assert found.get("Programmed") == "True", conditions
    return True
