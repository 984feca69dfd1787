"""``kubectl apply -k`` installs what ``manifests/`` holds: built by kustomize, taken by a server.

Its pods are made under the restricted Pod Security Standard, which a real API server enforces.
"""

import subprocess

import pytest

from tests.cluster.build import ROOT
from tests.cluster.processes import eventually
from tests.cluster.rest import Refused

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

MANIFESTS = ROOT / "manifests"
SPACE = "dwcp-ml"
_DEPLOYMENT = f"/apis/apps/v1/namespaces/{SPACE}/deployments/dwcp-ml-operator"


@pytest.fixture
def kubectl(played):
    def ask(*words):
        program = played.control_plane.built.program("kubectl")
        command = [program, f"--kubeconfig={played.kubeconfig}", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return ask


@pytest.fixture
def installed(played, kubectl):
    words = ("apply", "--server-side", "--force-conflicts", "-k")
    # The second time as on a cluster where the definitions were not served yet at the first.
    first = subprocess.run(
        [played.control_plane.built.program("kubectl"), f"--kubeconfig={played.kubeconfig}",
         *words, MANIFESTS / "base"], capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    yield first.stdout + kubectl(*words, MANIFESTS / "base")
    played.rest.delete(_DEPLOYMENT)


@pytest.mark.parametrize(
    "path", sorted(one.parent for one in MANIFESTS.rglob("kustomization.yaml")),
    ids=lambda path: path.name,
)  # fmt: skip
def test_every_kustomization_builds(kubectl, path):
    assert "kind: CustomResourceDefinition" in kubectl("kustomize", path)


def test_the_base_is_taken_and_its_pods_start_under_the_restricted_standard(played, installed):
    assert "deployment.apps/dwcp-ml-operator serverside-applied" in installed
    assert "servingruntime.serving.kserve.io/dwcp-ml-server serverside-applied" in installed

    def both_run():
        return played.rest.get(_DEPLOYMENT).get("status", {}).get("availableReplicas") == 2

    eventually(both_run, 60.0, alive=played.check)


def test_the_namespace_takes_no_other_pods(played, installed):
    pod = {
        "metadata": {"name": "privileged"},
        "spec": {"containers": [{"name": "a", "image": "a"}]},
    }
    with pytest.raises(Refused, match="violates PodSecurity"):
        played.rest.create(f"/api/v1/namespaces/{SPACE}/pods", pod)


def test_the_kinds_explain_themselves(kubectl, installed):
    told = kubectl("explain", "modelrollout.spec.steps.trafficPercent")
    assert "the candidate's share, percent" in told
    names = kubectl("api-resources", "--api-group=ml.dwcp.io", "--no-headers")
    assert {line.split()[0] for line in names.splitlines()} == {"modelrollouts", "trainingruns"}
