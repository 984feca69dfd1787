"""The labels that the operator asks a Prometheus for are those that our PodMonitor makes.

A real Prometheus relabels; what Kubernetes would tell it of the pods stands in its configuration.
"""

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from dwcp_ml.kube.kserve import DeployedRevision
from dwcp_ml.kube.kserve.objects import (
    RUNTIME,
    SERVICE_LABEL,
    SOURCE,
    TEMPLATE_RUNTIME,
    VERSION,
)
from dwcp_ml.kube.kserve.router import no_inference_service
from dwcp_ml.metrics_sources.samples import Expected
from dwcp_ml.operator.app import matchers
from dwcp_ml.operator.observation import Place, PrometheusArms
from tests.metrics_sources.fakes import FakeServer
from tests.metrics_sources.metrics import MODEL, lines
from tests.metrics_sources.real_prometheus import START_SECONDS, Prometheus

MONITORS = Path(__file__).parents[2] / "manifests/overlays/prometheus/pod-monitors.yaml"
PLACE = Place("models", "bandwidth-predictor")
STABLE = DeployedRevision("s3://models/bandwidth_predictor/v1/", "v1", "")
CANDIDATE = DeployedRevision("s3://models/bandwidth_predictor/v2", "v2", "d" * 64)
OTHER_RUNTIME = replace(CANDIDATE, runtime="dwcp-ml-60303ae2")
LIVE = replace(no_inference_service(), exists=True, stable=STABLE, candidate=CANDIDATE)

pytestmark = pytest.mark.server


def meta(kind, name):
    """Return the label under which Prometheus knows a label or an annotation of a pod."""
    return f"__meta_kubernetes_pod_{kind}_{re.sub('[^a-zA-Z0-9_]', '_', name)}"


def pod(server, served, place=PLACE, *, annotated=True):
    """Return a target as the discovery of pods would tell of it."""
    labels = {
        "__meta_kubernetes_namespace": place.namespace,
        meta("label", SERVICE_LABEL): place.inference_service,
        meta("annotation", SOURCE): served.uri,
    }
    if annotated:
        labels[meta("annotation", VERSION)] = served.version
        labels[meta("annotation", RUNTIME)] = served.runtime or TEMPLATE_RUNTIME
    return {"targets": [server.address], "labels": labels}


def relabelings():
    """Return the rules of our PodMonitor as Prometheus itself writes them."""
    monitors = list(yaml.safe_load_all(MONITORS.read_text(encoding="utf-8")))
    (ours,) = [one for one in monitors if one["metadata"]["name"] == "dwcp-ml-predictors"]
    (endpoint,) = ours["spec"]["podMetricsEndpoints"]
    snake = lambda name: re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", name)  # noqa: E731
    return [{snake(key): value for key, value in rule.items()} for rule in endpoint["relabelings"]]


def serving(version):
    return FakeServer((200, lines().replace(b"20260101-000000", version.encode())))


@pytest.fixture(scope="module")
def arms(prometheus_binary, tmp_path_factory):
    """Two replicas of the stable, one of the candidate, and others who are called alike."""
    servers = [serving("v1"), serving("v1"), *(serving("v2") for _ in range(4))]
    first, second, candidate, in_other_runtime, elsewhere, another = servers
    pods = [
        pod(first, STABLE, annotated=False), pod(second, STABLE), pod(candidate, CANDIDATE),
        pod(in_other_runtime, OTHER_RUNTIME),
        pod(elsewhere, CANDIDATE, Place("other", "bandwidth-predictor")),
        pod(another, CANDIDATE, Place("models", "bandwidth-eu")),
    ]  # fmt: skip
    job = {"job_name": "p", "static_configs": pods, "relabel_configs": relabelings()}
    with Prometheus(prometheus_binary, tmp_path_factory.mktemp("labels"), [job]) as started:
        yield PrometheusArms(started.address, matchers), servers
    for server in servers:
        server.stop()


@pytest.mark.parametrize(("arm", "served", "replicas"), [
    ("stable", STABLE, slice(0, 2)), ("candidate", CANDIDATE, slice(2, 3)),
    ("candidate", OTHER_RUNTIME, slice(3, 4)),
])  # fmt: skip
def test_each_arm_is_all_of_its_pods_and_no_others(arms, arm, served, replicas):
    source, servers = arms
    live = replace(LIVE, candidate=served) if arm == "candidate" else LIVE
    expected = {server.address for server in servers[replicas]}
    deadline = time.monotonic() + START_SECONDS
    while True:
        told = source.read(arm, Expected(MODEL, served.version), live, PLACE)
        if not told.error and {one.replica for one in told.replicas} == expected:
            break
        assert time.monotonic() < deadline, told
        time.sleep(0.05)
    assert all(one.requests == 9 for one in told.replicas)
