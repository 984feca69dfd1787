"""Who may connect to a model server, by the NetworkPolicies of the base."""

import copy
import functools
from pathlib import Path

import pytest
import yaml

from tests.docs.pages import blocks_of
from tests.documents import document_of, documents_of

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/production.md"
SPACE = "dwcp-ml"
NAME = "kubernetes.io/metadata.name"
PREDICTOR = {"component": "predictor", "app": "isvc.bandwidth-predictor-predictor"}
OPERATOR = {"app.kubernetes.io/name": "dwcp-ml-operator"}
ENVOY = {"app.kubernetes.io/name": "envoy", "app.kubernetes.io/component": "proxy"}
PROMETHEUS = {"app.kubernetes.io/name": "prometheus"}


@functools.cache
def policies():
    """Return the policies of the base by name, as they are applied."""
    kustomization = document_of(ROOT / "manifests/base/kustomization.yaml")
    files = [name for name in kustomization["resources"] if name.endswith(".yaml")]
    documents = [
        document for name in files for document in documents_of(ROOT / "manifests/base" / name)
    ]
    return {one["metadata"]["name"]: one for one in documents if one["kind"] == "NetworkPolicy"}


def selects(selector, labels):
    """Return whether a selector of ours selects; an empty one selects everything."""
    assert selector.keys() <= {"matchLabels"}
    return selector.get("matchLabels", {}).items() <= labels.items()


def is_peer(peer, namespace, labels):
    assert peer, "an empty peer is rejected by the API server"
    assert peer.keys() <= {"namespaceSelector", "podSelector"}
    if "namespaceSelector" in peer:
        inside = selects(peer["namespaceSelector"], {NAME: namespace})
    else:
        inside = namespace == SPACE
    return inside and selects(peer.get("podSelector", {}), labels)


def may_connect(applied, namespace, labels, port):
    """Return whether a pod may connect to a port of a predictor.

    Where a policy has no ``from`` or no ``ports``, everybody may, to every port.
    """
    about = [
        one["spec"]
        for one in applied.values()
        if "Ingress" in one["spec"]["policyTypes"]
        and selects(one["spec"]["podSelector"], PREDICTOR)
    ]
    assert about, "without a policy everybody may"
    return any(
        ("from" not in rule or any(is_peer(peer, namespace, labels) for peer in rule["from"]))
        and ("ports" not in rule or port in [each["port"] for each in rule["ports"]])
        for spec in about
        for rule in spec.get("ingress", [])
    )


@pytest.mark.parametrize(
    ("namespace", "labels", "ports"),
    [
        ("envoy-gateway-system", ENVOY, {8080, 8081, 8012, 8013, 8112}),
        ("envoy-gateway-system", {"control-plane": "envoy-gateway"}, set()),
        ("kourier-system", {"app": "3scale-kourier-gateway"}, {8012, 8013, 8112}),
        ("knative-serving", {"app": "activator"}, {8012, 8013, 8112, 9090}),
        ("knative-serving", {"app": "autoscaler"}, {8012, 8013, 8112, 9090}),
        (SPACE, OPERATOR, {8080}),
        ("monitoring", PROMETHEUS, {8080}),
        # Nobody else, whatever labels it gives itself.
        ("default", {}, set()),
        ("default", OPERATOR, set()),
        ("default", ENVOY, set()),
        ("default", PROMETHEUS, set()),
        ("monitoring", {"app.kubernetes.io/name": "grafana"}, set()),
        (SPACE, {}, set()),
        (SPACE, PREDICTOR, set()),
        (SPACE, ENVOY, set()),
        ("kserve", {"control-plane": "kserve-controller-manager"}, set()),
    ],
)
def test_predictions_come_from_the_gateway_and_metrics_go_to_two(namespace, labels, ports):
    applied = policies()
    asked = {8080, 8081, 8012, 8013, 8112, 9090, 8022, 22}
    assert {port for port in asked if may_connect(applied, namespace, labels, port)} == ports


def test_the_port_of_the_policies_is_that_of_the_servers():
    runtime = yaml.safe_load((ROOT / "manifests/base/serving-runtime-grpc.yaml").read_text())
    (container,) = runtime["spec"]["containers"]
    assert [one["containerPort"] for one in container["ports"]] == [8080, 8081]
    for probe in ("readinessProbe", "livenessProbe"):
        # The kubelet connects from the node, which NetworkPolicies always let in.
        assert container[probe]["httpGet"]["port"] == 8080


def test_the_operator_may_send_what_the_predictors_let_in():
    egress = policies()["dwcp-ml-operator"]["spec"]["egress"]
    to_predictors = [
        rule["ports"]
        for rule in egress
        for peer in rule.get("to", [])
        if peer.get("podSelector", {}).get("matchLabels") == {"component": "predictor"}
    ]
    assert to_predictors == [[{"port": 8080}, {"port": 8082}]]


def test_nobody_but_the_operator_may_read_the_requests_that_predictors_keep():
    """Whatever else is applied beside it: a policy can only allow more."""
    readers = []
    for name, policy in policies().items():
        for rule in policy["spec"].get("ingress", ()):
            if "ports" not in rule or {"port": 8082} in rule["ports"]:
                readers += [(name, *peer) for peer in map(peer_labels, rule.get("from", [{}]))]
    assert readers == [("dwcp-ml-predictors", ("app.kubernetes.io/name", "dwcp-ml-operator"))]


def peer_labels(peer):
    """Return the labels of a peer in the policy's own namespace; a ``*`` for any other peer."""
    if peer.keys() != {"podSelector"}:
        return ("*",)
    return tuple(peer["podSelector"]["matchLabels"].items())


@pytest.mark.parametrize(
    ("namespace", "labels", "ports"),
    [
        ("kubeflow", {"app": "ml-pipeline"}, {8887, 8888}),
        ("kubeflow", {"component": "metadata-grpc-server"}, {8080}),
        ("kubeflow", {"app": "seaweedfs"}, {8333, 9000}),
        # A user writes the address of the telemetry: nothing else can be reached there.
        ("kubeflow", {"app": "mysql"}, set()),
        ("kubeflow", {"app": "ml-pipeline-ui"}, set()),
        ("kubeflow", {}, set()),
        ("default", {"app": "ml-pipeline"}, set()),
        (SPACE, {"app": "seaweedfs"}, set()),
        (SPACE, PREDICTOR, set()),
        ("kube-system", {"k8s-app": "kube-dns"}, {53}),
    ],
)
def test_a_run_reaches_of_kubeflow_what_it_needs(namespace, labels, ports):
    egress = policies()["dwcp-ml-pipeline"]["spec"]["egress"]
    reached = {
        each["port"]
        for rule in egress
        if any(is_peer(peer, namespace, labels) for peer in rule.get("to", []))
        for each in rule["ports"]
    }
    assert reached == ports
    anywhere = [rule["ports"] for rule in egress if "to" not in rule]
    assert anywhere == [[{"port": 443}, {"port": 6443}]]


def patched(applied, patches):
    """Return what is applied, with the patches of a kustomization that replace some of it."""
    applied = copy.deepcopy(applied)
    for patch in patches:
        found = applied[patch["target"]["name"]]
        assert patch["target"]["kind"] == found["kind"]
        for operation in yaml.safe_load(patch["patch"]):
            assert operation["op"] == "replace"
            *path, last = operation["path"].removeprefix("/").split("/")
            place = found
            for part in path:
                place = place[int(part) if isinstance(place, list) else part]
            assert last in place
            place[last] = operation["value"]
    return applied


def test_the_patches_of_the_page_name_another_gateway_and_prometheus():
    documents = [yaml.safe_load(block.text) for block in blocks_of(PAGE, "yaml")]
    (overlay,) = [one for one in documents if one.keys() == {"patches"}]
    applied = patched(policies(), overlay["patches"])
    may = [("istio-ingress", {"app": "istio-ingressgateway"}), ("observability", PROMETHEUS)]
    may_not = [("envoy-gateway-system", ENVOY), ("monitoring", PROMETHEUS), ("default", PROMETHEUS)]
    assert all(may_connect(applied, *who, 8080) for who in may)
    assert not any(may_connect(applied, *who, 8080) for who in may_not)
