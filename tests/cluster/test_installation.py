"""``kubectl apply -k`` installs what ``manifests/`` holds: built by kustomize, taken by a server.

Its pods are made under the restricted Pod Security Standard, which a real API server enforces.
"""

import subprocess

import pytest
import yaml

from tests.cluster.build import ROOT
from tests.cluster.processes import eventually
from tests.cluster.rest import RequestRejected
from tests.manifests.argocd import CHECKS, scripts

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

MANIFESTS = ROOT / "manifests"
SPACE = "dwcp-ml"
_DEPLOYMENT = f"/apis/apps/v1/namespaces/{SPACE}/deployments/dwcp-ml-operator"


@pytest.fixture
def kubectl(local_cluster):
    def ask(*words):
        program = local_cluster.control_plane.built.program("kubectl")
        command = [program, f"--kubeconfig={local_cluster.kubeconfig}", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return ask


@pytest.fixture
def installed(local_cluster, kubectl):
    words = ("apply", "--server-side", "--force-conflicts", "-k")
    # The second time as on a cluster where the definitions were not served yet at the first.
    program = local_cluster.control_plane.built.program("kubectl")
    first = subprocess.run(
        [program, f"--kubeconfig={local_cluster.kubeconfig}", *words, MANIFESTS / "base"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    yield first.stdout + kubectl(*words, MANIFESTS / "base")
    local_cluster.rest.delete(_DEPLOYMENT)


def kustomizations():
    """Return the directories that can be applied, not those that are a part of another."""
    files = sorted(MANIFESTS.rglob("kustomization.yaml"))
    return [one.parent for one in files if yaml.safe_load(one.read_text())["kind"] != "Component"]


@pytest.mark.parametrize("path", kustomizations(), ids=lambda path: path.name)
def test_every_kustomization_builds(kubectl, path):
    assert "kind: CustomResourceDefinition" in kubectl("kustomize", path)


def test_the_base_is_taken_and_its_pods_start_under_the_restricted_standard(
    local_cluster, installed
):
    assert "deployment.apps/dwcp-ml-operator serverside-applied" in installed
    assert "servingruntime.serving.kserve.io/dwcp-ml-server serverside-applied" in installed

    def both_run():
        return local_cluster.rest.get(_DEPLOYMENT).get("status", {}).get("availableReplicas") == 2

    eventually(both_run, 60.0, alive=local_cluster.check)


def test_the_namespace_takes_no_other_pods(local_cluster, installed):
    pod = {
        "metadata": {"name": "privileged"},
        "spec": {"containers": [{"name": "a", "image": "a"}]},
    }
    with pytest.raises(RequestRejected, match="violates PodSecurity"):
        local_cluster.rest.create(f"/api/v1/namespaces/{SPACE}/pods", pod)


def test_the_kinds_explain_themselves(kubectl, installed):
    told = kubectl("explain", "modelrollout.spec.steps.trafficPercent")
    assert "the candidate's weight" in told
    names = kubectl("api-resources", "--api-group=ml.dwcp.io", "--no-headers")
    assert {line.split()[0] for line in names.splitlines()} == {"modelrollouts", "trainingruns"}


ARGO_CD = {
    "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "argocd-cm"},
    "data": {"resource.customizations.health.example.com_Other": "return {}", "url": "https://a"},
}  # fmt: skip


def test_argo_cd_gets_the_health_checks_by_a_patch(local_cluster, kubectl, namespace):
    """As docs/health.md has it; the settings that are there stay."""
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    local_cluster.rest.create(path, ARGO_CD)
    kubectl("patch", "configmap", "argocd-cm", "-n", namespace, "--type", "merge",
            "--patch-file", CHECKS)  # fmt: skip
    patched = local_cluster.rest.get(f"{path}/argocd-cm")
    assert scripts(patched) == scripts()
    assert patched["data"].items() > ARGO_CD["data"].items()


def test_argo_cd_gets_the_health_checks_as_a_component(kubectl, tmp_path):
    (tmp_path / "argocd-cm.yaml").write_text(yaml.safe_dump(ARGO_CD))
    (tmp_path / "dwcp-ml").symlink_to(ROOT)
    kustomization = {"resources": ["argocd-cm.yaml"], "components": ["dwcp-ml/manifests/argocd"]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    built = yaml.safe_load(kubectl("kustomize", tmp_path))
    assert scripts(built) == scripts()
    assert built["data"].items() > ARGO_CD["data"].items()
