"""What ``make kind-test`` applies of ours is taken by a real API server and KServe's webhook.

The manifests are made by the script's own function, and the ModelRollouts by its own module, so
that what is tried here is what it applies there.
"""

import json
import shutil
import subprocess
from types import SimpleNamespace

import pytest
import yaml

from dwcp_ml import __version__
from dwcp_ml.contract.models import BANDWIDTH
from dwcp_ml.kube.manifests import inference_service
from dwcp_ml.local_rollout.broken_bundles import break_bundle
from tests.cluster.build import ROOT
from tests.kind.bundles import VOLUME, rollout
from tests.kind.live.rollouts import GATES, LONG_WATCH, KnativeRollouts
from tests.serving.bundles import make_bundle

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

HERE = ROOT / "tests" / "kind"
SPACE = "dwcp-ml"


@pytest.fixture(scope="module")
def kubectl(cluster):
    if not cluster.is_local:
        pytest.skip("only on a cluster that the tests start")

    def ask(*words, given=None, fails=False):
        program = cluster.control_plane.built.program("kubectl")
        command = [program, f"--kubeconfig={cluster.kubeconfig}", *map(str, words)]
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode != 0) == fails, done.stderr
        return done.stdout + done.stderr

    return ask


@pytest.fixture(scope="module")
def installed(cluster, kubectl):
    """The overlay of the step ``operator``; the second time its definitions are served."""
    words = ("apply", "--server-side", "--force-conflicts", "-k", ROOT / "manifests/overlays/kind")
    program = cluster.control_plane.built.program("kubectl")
    subprocess.run(
        [program, f"--kubeconfig={cluster.kubeconfig}", *words],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    yield kubectl(*words)
    cluster.rest.delete(f"/apis/apps/v1/namespaces/{SPACE}/deployments/dwcp-ml-operator")


def rendered(name):
    """Return a manifest as the script's ``render`` gives it."""
    script = f'. "{HERE}/lib.sh"; render {name}'
    environment = {
        "HERE": str(HERE), "VOLUMES": "/somewhere", "GATEWAY_PORT": "18081",
        "KUBECONFIG_FILE": "none", "PATH": "/usr/bin:/bin",
    }  # fmt: skip
    done = subprocess.run(
        [shutil.which("bash"), "-euc", script],
        env=environment, capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert "@" not in done.stdout
    return done.stdout


def test_the_overlay_runs_images_that_were_loaded(cluster, kubectl, installed):
    assert "servingruntime.serving.kserve.io/dwcp-ml-server serverside-applied" in installed
    deployment = cluster.rest.get(f"/apis/apps/v1/namespaces/{SPACE}/deployments/dwcp-ml-operator")
    path = f"/apis/serving.kserve.io/v1alpha1/namespaces/{SPACE}/servingruntimes/dwcp-ml-server"
    containers = [
        deployment["spec"]["template"]["spec"]["containers"][0],
        cluster.rest.get(path)["spec"]["containers"][0],
    ]
    names = [f"dwcp-ml-{one}:{__version__}" for one in ("operator", "server")]
    assert [one["image"] for one in containers] == names
    assert [one["imagePullPolicy"] for one in containers] == ["Never", "Never"]


def test_the_gateway_is_taken(kubectl):
    """Of the kinds of Envoy Gateway itself, kind alone has the definitions."""
    documents = yaml.safe_load_all(rendered("gateway.yaml"))
    given = [one for one in documents if one["apiVersion"] == "gateway.networking.k8s.io/v1"]
    said = kubectl("apply", "--server-side", "--dry-run=server", "-f", "-",
                   given=yaml.safe_dump_all(given))  # fmt: skip
    assert "gatewayclass.gateway.networking.k8s.io/envoy serverside-applied" in said
    assert "gateway.gateway.networking.k8s.io/kserve-ingress-gateway serverside-applied" in said


def test_the_settings_fit_kserves_own(cluster, kubectl):
    path = "/api/v1/namespaces/kserve/configmaps/inferenceservice-config"
    before = cluster.rest.get(path)["data"]
    said = kubectl("patch", "configmap", "inferenceservice-config", "-n", "kserve", "--type=merge",
                   f"--patch-file={HERE}/manifests/kserve-settings.yaml", "--dry-run=server",
                   "-o", "json")  # fmt: skip
    after = json.loads(said)["data"]
    ours = yaml.safe_load((HERE / "manifests" / "kserve-settings.yaml").read_text())["data"]
    changed = {key for key in after if after[key] != before.get(key)}
    assert changed <= ours.keys() <= before.keys()
    assert json.loads(after["deploy"])["defaultDeploymentMode"] == "Standard"
    # The manager of these tests has read the same settings, and works with them.
    local, kind = json.loads(before["ingress"]), json.loads(after["ingress"])
    assert {key: local[key] for key in kind} == kind
    assert kind["enableGatewayApi"]


def test_the_rollouts_of_good_and_bad_candidates_are_taken(kubectl, installed, tmp_path):
    source = make_bundle(tmp_path, BANDWIDTH.name, reports=True)
    bundles = [source]
    for suffix, fault in (("again", None), ("broken", "nan")):
        target = source.with_name(f"{source.name}-{suffix}")
        bundles.append(break_bundle(source, target, fault))
    for bundle in bundles:
        document = rollout(bundle)
        said = kubectl("apply", "--server-side", "--dry-run=server", "-f", "-",
                       given=json.dumps(document))  # fmt: skip
        assert f"modelrollout.ml.dwcp.io/{BANDWIDTH.kubernetes_name} serverside-applied" in said
        assert document["spec"]["candidate"]["storageUri"].startswith(f"{VOLUME}/{BANDWIDTH.name}/")
    wrong = {**document, "spec": {**document["spec"], "steps": [{"trafficPercent": 10}]}}
    kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", given=json.dumps(wrong),
            fails=True)  # fmt: skip


def test_the_rollouts_in_knative_mode_are_taken(kubectl, installed, tmp_path):
    documents = []
    rollouts = KnativeRollouts(SimpleNamespace(rest=None, apply=documents.append), tmp_path)
    source = make_bundle(tmp_path, BANDWIDTH.name, reports=True)
    longest = f"{source.name}-knative-aborted"
    rollouts.make(source.name, longest)
    for how in (GATES, LONG_WATCH, {**LONG_WATCH, "abort": True}):
        rollouts.apply(longest, how)
    for document in documents:
        said = kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", "-o", "json",
                       given=json.dumps(document))  # fmt: skip
        assert json.loads(said)["spec"]["template"]["deploymentMode"] == "Knative"


def test_a_service_over_the_volume_passes_kserves_webhook(kubectl, installed):
    stable, candidate = ("20261123-000000", "20261123-000000-again")
    document = inference_service(
        BANDWIDTH, candidate, f"{VOLUME}/{BANDWIDTH.name}/{candidate}",
        f"{VOLUME}/{BANDWIDTH.name}/{stable}",
    )  # fmt: skip
    document["metadata"]["namespace"] = SPACE
    said = kubectl("apply", "--server-side", "--dry-run=server", "-f", "-",
                   given=json.dumps(document))  # fmt: skip
    assert "inferenceservice.serving.kserve.io/bandwidth-predictor serverside-applied" in said
