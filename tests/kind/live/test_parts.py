"""What the tests on the cluster are made of, without a cluster."""

import re
import shutil
from collections import Counter

import pytest

from tests.cluster.build import ROOT, module_version
from tests.kind.live import load as traffic
from tests.kind.live.gateway import GATEWAY, ServiceOfPods
from tests.kind.live.load import Shares, Window
from tests.kind.offline import __main__ as command
from tests.kind.offline import knative, needs

SPACE = "models"


_STANDARD = {"stable": {"app": "isvc.stable"}, "candidate": {"app": "isvc.candidate"}}
_KNATIVE = {
    name: {"app": "isvc.one-predictor", "serving.knative.dev/revision": name} for name in _STANDARD
}


class Pods:
    """A fake informer."""

    def __init__(self, labels, **addresses):
        self.objects = {
            (SPACE, name): {
                "metadata": {"labels": labels.get(name, {})}, "status": {"podIP": address},
            }
            for name, address in addresses.items()
        }  # fmt: skip


@pytest.mark.parametrize("labels", [_STANDARD, _KNATIVE])
def test_the_service_that_responded_is_known_by_the_address_of_the_pod_also_after_it_is_deleted(
    labels,
):
    services = ServiceOfPods(None)
    services._pods = Pods(labels, stable="198.18.0.5", candidate="198.18.0.6", starting=None)
    for key in list(services._pods.objects):
        services.reconcile(key)
    del services._pods.objects[SPACE, "candidate"]
    services.reconcile((SPACE, "candidate"))
    known = {
        "198.18.0.5:8080 -": "stable", "198.18.0.6:8080 -": "candidate",
        "- NR": GATEWAY, "198.18.0.6:8080 UF": GATEWAY,
        "unknown": "unknown", "198.18.0.7:8080 -": "198.18.0.7:8080 -",
    }  # fmt: skip
    assert {upstream: services.service(upstream) for upstream in known} == known


def test_a_response_is_counted_for_the_service_of_the_pod(monkeypatch, tmp_path):
    monkeypatch.setenv("KIND_TEST_GATEWAY", "127.0.0.1:9")
    monkeypatch.setattr(traffic, "telemetry", lambda directory: None)
    monkeypatch.setattr(traffic, "predict_requests", lambda spec, asked: [])
    services = {"198.18.0.5:1": "a", "198.18.0.6:1": "a", "-": GATEWAY}
    load = traffic.Traffic(tmp_path, services.get, traffic.HOST)
    load._replay.responses |= {
        ("198.18.0.5:1", "2xx"): 2, ("198.18.0.6:1", "2xx"): 3, ("-", "5xx"): 4,
    }  # fmt: skip
    assert load.responses() == {("a", "2xx"): 5, (GATEWAY, "5xx"): 4}


@pytest.mark.parametrize(
    ("module", "source", "version"),
    [
        ("envoy-gateway", "github.com/envoyproxy/gateway", "ENVOY_GATEWAY_VERSION"),
        ("envoy-gateway", "sigs.k8s.io/gateway-api", "GATEWAY_API_VERSION"),
        ("gateway", "sigs.k8s.io/gateway-api", "GATEWAY_API_VERSION"),
    ],
)
def test_what_is_built_is_what_kind_installs(module, source, version):
    assert module_version(module, source) == _installed(version)


@pytest.mark.parametrize(
    ("source", "version"),
    [(knative.SERVING, "KNATIVE_VERSION"), (knative.GATEWAY, "KNATIVE_GATEWAY_VERSION")],
)
def test_what_is_built_of_knative_is_what_kind_installs(source, version):
    assert knative.release(module_version(knative.MODULE, source)) == _installed(version)


def _installed(version):
    said = (ROOT / "tests/kind/versions.env").read_text()
    (found,) = re.findall(rf"^: \"\${{{version}:=(.+)}}\"$", said, re.MULTILINE)
    return found


@pytest.mark.parametrize(
    ("percent", "candidate", "total", "agrees"),
    [
        (0, 0, 1000, True), (0, 3, 1000, False), (1, 11, 1000, True), (1, 45, 1000, False),
        (5, 52, 1000, True), (25, 50, 1000, False), (50, 480, 1000, True), (50, 380, 1000, False),
        (100, 1000, 1000, True), (100, 980, 1000, False), (5, 0, 1000, False), (5, 0, 10, True),
    ],
)  # fmt: skip
def test_a_split_agrees_with_a_weight_or_does_not(percent, candidate, total, agrees):
    assert Window(percent, candidate, total).agrees() is agrees


def test_a_window_leaves_out_what_may_belong_to_other_weights():
    shares = Shares(None, None)
    steps = [(0, {"a": 100}), (10, {"a": 90, "b": 10}), (50, {"a": 50, "b": 50})]
    counts = Counter()
    for number in range(90):
        percent, weights = steps[number // 30]
        counts = counts + Counter({"a": 100 - percent, "b": percent})
        shares._samples.append((number * 0.2, weights, counts))
    found = shares.windows("a")
    assert [(one.percent, one.candidate, one.total) for one in found] == [
        (0, 0, 1800), (10, 180, 1800), (50, 900, 1800),
    ]  # fmt: skip


def test_what_is_missing_is_said_in_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(needs.os, "geteuid", lambda: 0)
    found = {name: f"/bin/{name}" for name in needs.NEEDS}
    del found["containerd"], found["dockerd"]
    monkeypatch.setattr(shutil, "which", found.get)
    assert command.main([]) == command.CAN_NOT
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "apt-get install containerd" in said
    assert "docker.io" in said
    monkeypatch.setattr(needs.os, "geteuid", lambda: 1000)
    assert "root" in needs.missing()
