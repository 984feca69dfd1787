"""``make kind-test`` among fakes: the order of what it does, and how it ends when something fails.

That the manifests are accepted is shown in ``tests/cluster/test_kind_manifests.py``; that all of it
works on kind takes kind.
"""

import os
import re
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from dwcp_ml import __version__
from tests.kind.fakes import RUN, Machine

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
ALL = re.search(r'^ALL="(.*)"$', RUN.read_text(), re.MULTILINE)[1].split()
VERSIONS = dict(
    re.findall(r'^: "\$\{(\w+):=(\S+)\}"$', (HERE / "versions.env").read_text(), re.MULTILINE)
)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def position(calls, fragment):
    found = [number for number, call in enumerate(calls) if fragment in call]
    assert found, f"nothing called {fragment}"
    return found[0]


def test_a_dry_run_shows_every_step_in_order_and_touches_nothing(machine):
    done = machine(DRY_RUN=1, check=0)
    assert done.steps == [*ALL, "remove"]
    assert done.calls == []
    assert not machine.work.exists()
    assert not done.stderr
    assert "nothing was run" in done.stdout


def test_a_dry_run_needs_none_of_the_programs(tmp_path):
    done = Machine(tmp_path, missing=("docker", "kind"))(DRY_RUN=1, check=0)
    assert "not on this machine: docker kind" in done.stdout


@pytest.mark.parametrize("name", VERSIONS)
def test_every_pinned_version_is_used_and_stands_nowhere_else(machine, name):
    assert VERSIONS[name] in machine(DRY_RUN=1).stdout
    files = {*HERE.glob("*.sh"), *HERE.glob("*.yaml"), *HERE.glob("manifests/*")}
    files.remove(HERE / "names.yaml")  # says of which version each name is (test_names.py)
    holders = [path.name for path in files if VERSIONS[name] in path.read_text()]
    assert holders == []


def test_nothing_but_pinned_versions_is_fetched(machine):
    addresses = re.findall(r"\S*github\.com/\S+", machine(DRY_RUN=1).stdout)
    assert len(addresses) == 9
    for one in addresses:
        assert any(version in one for version in VERSIONS.values()), one


def test_everything_goes_well(machine):
    done = machine(check=0)
    assert done.steps == [*ALL, "remove"]
    order = [
        "docker info", "kind create cluster", "make", "kind load docker-image dwcp-ml-trainer:",
        "gateway-api", "cert-manager.yaml", "without_gateway_api", "envoy-gateway.yaml",
        "serving-crds.yaml", "serving-core.yaml", "net-gateway-api.yaml", "knative-settings.yaml",
        "kserve.yaml", "patch configmap inferenceservice-config", "wait gateway/", " -m cluster ",
        "cluster-scoped-resources", "platform-agnostic", "manifests/overlays/kind",
        "pipeline compile", "pipeline submit",
        "tests.kind.bundles", " -m kind ", "kind delete cluster",
    ]  # fmt: skip
    positions = [position(done.calls, one) for one in order]
    assert positions == sorted(positions)
    assert any("svc/seaweedfs" in call for call in done.calls)
    assert done.calls[-1].startswith("kind delete cluster --name dwcp-ml ")
    assert not any("export logs" in call for call in done.calls)


def test_every_call_of_the_cluster_names_it(machine):
    calls = [call for call in machine(check=0).calls if call.startswith("kubectl ")]
    named = f"kubectl --kubeconfig={machine.work}/kubeconfig "
    assert calls
    assert all(call.startswith(named) for call in calls)


def test_no_secret_is_in_the_log_or_left_in_a_file(machine):
    machine(check=0)
    assert "minio " not in (machine.work / "kind-test.log").read_text()


FAILURES = {
    "docker info": "docker does not respond",
    "kind create": "kind could not make a cluster",
    "^make": "the images could not be built",
    "kind load": "the images could not be loaded",
    "standard-install": "the Gateway API could not be installed",
    "cert-manager.yaml": "cert-manager could not be installed",
    "rollout status deployment/cert-manager-webhook": "was not available within 300 s",
    "without_gateway_api": "Envoy Gateway could not be downloaded",
    "apply .*envoy-gateway.yaml": "Envoy Gateway could not be installed",
    "serving-crds.yaml": "Knative's definitions could not be installed",
    "serving-core.yaml": "Knative could not be installed",
    "net-gateway-api.yaml": "Knative's part for the Gateway API could not be installed",
    "rollout status deployment/activator": "deployment/activator in knative-serving",
    "knative-settings": "Knative's settings could not be changed",
    "apply .*kserve.yaml": "KServe could not be installed",
    "patch configmap": "KServe's settings could not be changed",
    "wait gateway": "Envoy Gateway did not take the gateway",
    "wait node": "the node was not ready within 180 s",
    "apply .*kserve-namespace": "the namespace kserve could not be made",
    "^pytest .* cluster": "the cluster tests failed",
    "cluster-scoped": "Kubeflow's definitions could not be installed",
    "rollout status deployment/ml-pipeline ": "deployment/ml-pipeline in kubeflow",
    "overlays/kind": "manifests/overlays/kind could not be applied",
    "pipeline compile": "the pipeline could not be compiled",
    "pipeline submit": "failed (exit code 1)",
    "go-template": "Kubeflow's object store has no keys",
    "tests.kind.bundles": "could not be taken out of Kubeflow's object store",
    "^pytest .* kind .*test_canary": "a rollout on the cluster failed",
    "^pytest .* kind .*test_knative": "a rollout in Knative mode failed",
}


@pytest.mark.parametrize("pattern", FAILURES)
def test_a_step_that_fails_ends_with_one_sentence_and_the_cluster_goes(machine, pattern):
    done = machine(FAIL=pattern, check=1)
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("kind-test: ")]
    assert done.stderr.splitlines()[-1] == sentence
    assert FAILURES[pattern] in sentence
    assert str(machine.work / "kind-test.log") in sentence
    if pattern != "docker info":
        assert done.calls[-1].startswith("kind delete cluster")
        assert position(done.calls, "kind export logs") == len(done.calls) - 4
        assert f"the logs of the node and of all pods are in {machine.work}/logs" in done.stdout


def test_a_failure_shows_the_end_of_the_output_and_the_pods_that_have_not_started(machine):
    waiting = "kserve  manager-1  0/1  ImagePullBackOff"
    done = machine(FAIL="wait gateway", WHY="it timed out", PENDING=waiting, check=1)
    (line,) = [line for line in done.stdout.splitlines() if "it timed out" in line]
    assert line.startswith("  | fake: kubectl ")
    assert f"pods that have not started:\n  | {waiting}\n" in done.stdout
    assert "a disk is full" not in done.stdout


def test_a_full_disk_is_named(machine):
    done = machine(FAIL="kind load", WHY="write layer.tar: no space left on device", check=1)
    assert "a disk is full, of the machine or of the node" in done.stdout


def test_the_logs_of_an_earlier_failure_are_not_taken_for_this_one(machine):
    earlier = machine.work / "logs" / "journal.log"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("no space left on device")
    done = machine(FAIL="wait gateway", check=1)
    assert not earlier.exists()
    assert "a disk is full" not in done.stdout


def test_where_no_logs_can_be_had_none_are_promised(machine):
    done = machine(FAIL="kind create|export logs", check=1)
    assert "the logs of the node" not in done.stdout


def test_what_needs_a_moment_is_tried_five_times(machine):
    calls = machine(FAIL="apply .*kserve.yaml", check=1).calls
    assert sum("kserve.yaml" in call for call in calls) == 5


@pytest.mark.parametrize(
    ("code", "sentence"), [(3, "the gate said REJECTED"), (6, "exit code 6"), (7, "two hours")]
)
def test_what_the_gate_said_is_told(machine, code, sentence):
    done = machine(FAIL="pipeline submit", CODE=code, check=1)
    assert sentence in done.stderr


@pytest.mark.parametrize("settings", [{}, {"FAIL": "wait gateway"}])
def test_a_cluster_that_is_to_be_kept_is_kept(machine, settings):
    done = machine(KEEP=1, **settings)
    assert not any("kind delete" in call for call in done.calls)
    assert f"export KUBECONFIG={machine.work}/kubeconfig" in done.stdout


def test_a_cluster_that_can_not_be_removed_is_told_of(machine):
    assert "the cluster stays; remove it" in machine(FAIL="kind delete").stderr


def test_ctrl_c_removes_the_cluster(machine):
    with ExitStack() as stack:
        environment = machine.environment(stack, SLOW="^make")
        process = subprocess.Popen(
            [str(machine.bin / "bash"), str(RUN)], env=environment, text=True,
            start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            # A process in the background starts with SIGINT ignored, and bash keeps that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )  # fmt: skip
        deadline = time.monotonic() + 30.0
        while not any(call.startswith("make") for call in machine.calls):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode != 0
    assert machine.calls[-1].startswith("kind delete cluster")
    assert said.splitlines()[-1].startswith("kind-test: it was ended in the step images. ")


@pytest.mark.parametrize("missing", ["docker", "kind", "kubectl", "git", "make", "tar"])
def test_a_missing_program_is_named(tmp_path, missing):
    done = Machine(tmp_path, missing=(missing,))(check=1)
    assert f"not on this machine: {missing};" in done.stderr
    assert done.steps == ["tools"]


def test_another_version_of_kind_is_told(machine):
    done = machine("tools", FAKE_KIND="v0.20.0", check=0)
    assert f"this was written for {VERSIONS['KIND_VERSION']}" in done.stdout


def test_a_cluster_of_that_name_is_not_touched(machine):
    done = machine(CLUSTERS="dwcp-ml", check=1)
    assert "there is a cluster dwcp-ml already" in done.stderr
    assert not any("delete" in call or "create" in call for call in done.calls)


def test_named_steps_run_on_the_cluster_that_is_there(machine):
    done = machine("kserve", "operator", check=0)
    assert done.steps == ["kserve", "operator"]
    assert not any(call.startswith("kind ") for call in done.calls)


def test_somebodys_cluster_is_never_made_or_removed(machine):
    path = machine.directory / "mine"
    done = machine("cluster", "operator", KUBECONFIG_FILE=path, check=0)
    assert not any(call.startswith("kind ") for call in done.calls)
    assert all(f"--kubeconfig={path} " in call for call in done.calls)
    assert machine(KUBECONFIG_FILE=path, check=2).steps == []
    assert "bring the images" in machine("images", KUBECONFIG_FILE=path, check=1).stderr


def test_a_step_that_there_is_not_is_named(machine):
    done = machine("canry", check=2)
    assert "there is no step canry; the steps are: tools cluster" in done.stderr


def test_the_bundles_of_no_run_are_not_looked_for(machine):
    assert "run the step train first" in machine("store", check=1).stderr


def test_a_version_and_a_mirror_can_be_named_in_the_environment(machine):
    done = machine(DRY_RUN=1, KSERVE_VERSION="v0.22.0", GITHUB="https://mirror.example", check=0)
    assert (
        "https://mirror.example/kserve/kserve/releases/download/v0.22.0/kserve.yaml" in done.stdout
    )


OFFLINE = {
    "OFFLINE": 1, "SITE": "/nowhere", "KUBE_ROUTER_IMAGE": "router:1", "ENVOY_IMAGE": "envoy:1",
    "OTHER_IMAGES": "envoy:1 manager:1",
}  # fmt: skip


def test_offline_every_stand_in_is_named_and_nothing_is_fetched(machine):
    done = machine(**OFFLINE, check=0)
    assert done.steps == [*ALL, "remove"]
    stand_ins = [line for line in done.stdout.splitlines() if "stand-in" in line]
    assert [line.split()[1].rstrip(":") for line in stand_ins] == [
        "cert-manager",
        "kserve",
        "kubeflow",
    ]
    addresses = {one for call in done.calls for one in re.findall(r"https?://[^/ ]+", call)}
    assert addresses == {"http://127.0.0.1:18082"}
    assert not any(name in call for call in done.calls for name in ("kubeflow", "cert-manager"))
    for one in ("envoy:1 manager:1 --name dwcp-ml", "daemonset/kube-router", "test_pipeline"):
        position(done.calls, one)


def test_the_help_names_every_step_and_setting(machine):
    help_text = machine("--help", check=0).stdout
    settings = (
        "DRY_RUN", "KEEP", "CLUSTER", "KUBECONFIG_FILE", "UI_PORT", "S3_PORT", "GATEWAY_PORT",
        "GITHUB", "OFFLINE",
    )  # fmt: skip
    for word in (*ALL, *settings):
        assert word in help_text
    assert "set -euo" not in help_text
    assert machine.calls == []


def test_the_make_target_calls_it():
    makefile = (ROOT / "Makefile").read_text()
    (line,) = re.findall(r"^kind-test: .*## .+\n\t@(.+) \$\(STEPS\)$", makefile, re.MULTILINE)
    assert line.startswith("$(if $(OFFLINE),$(BIN)/python -m tests.kind.offline ")
    assert line.endswith(",tests/kind/run.sh)")
    assert os.access(RUN, os.X_OK)


def test_the_manifests_name_the_images_that_are_loaded():
    base = ROOT / "manifests" / "base"
    (tag,) = yaml.safe_load((base / "kustomization.yaml").read_text())["images"]
    runtime = yaml.safe_load((base / "serving-runtime.yaml").read_text())
    assert (tag["name"], tag["newTag"]) == ("dwcp-ml-operator", __version__)
    assert runtime["spec"]["containers"][0]["image"] == f"dwcp-ml-server:{__version__}"


def test_the_documentation_names_every_step():
    text = (ROOT / "docs" / "kind.md").read_text()
    for step in ALL:
        assert f"`{step}`" in text, step


def test_the_tests_that_run_on_it_exist():
    named = re.findall(r"^  (tests/cluster/\S+)$", RUN.read_text(), re.MULTILINE)
    assert len(named) >= 5
    for one in named:
        path, _, function = one.partition("::")
        assert f"def {function or 'test_'}" in (ROOT / path).read_text()
