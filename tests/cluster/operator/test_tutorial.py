"""docs/tutorials/platform-engineer.md works as it is pasted, on a real API server with KServe.

The operator's pods are simulated, so the test starts its process in place of the Deployment's; the
counters of the three versions' servers follow the weights of the routes. Nothing else is changed.
"""

import subprocess

import pytest

from tests.cluster.build import ROOT
from tests.cluster.operator.installed import SYSTEM
from tests.cluster.operator.page import Counters, Operator, kubectl_on_path, write_runs
from tests.docs.pages import blocks_of
from tests.docs.pasting import Pasted, alike_but_for, paste_page
from tests.operator.fake_servers import NAME

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

PAGE = ROOT / "docs/tutorials/platform-engineer.md"
VERSIONS = ("20260101-000000", "20260102-000000", "20260103-000000")
alike = alike_but_for(
    (r"\b(\d+m)?\d+s\b", "9s"),
    (r"[ \t]+", " "),
)


@pytest.fixture
def operator(local_cluster, tmp_path):
    digests = write_runs(tmp_path, VERSIONS, "s3://models")
    counters = Counters(local_cluster.api, SYSTEM, digests)
    found = Operator(local_cluster, tmp_path, counters.address)
    yield found
    found.stop()
    counters.end()
    clean(local_cluster.rest)


def clean(rest):
    """Take away what the page leaves where it failed; the definitions are for other tests, too."""
    gone = (
        f"/apis/ml.dwcp.io/v1alpha1/namespaces/{SYSTEM}/modelrollouts/{NAME}",
        f"/apis/serving.kserve.io/v1beta1/namespaces/{SYSTEM}/inferenceservices/{NAME}",
        f"/apis/apps/v1/namespaces/{SYSTEM}/deployments/dwcp-ml-operator",
        f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/dwcp-ml-operator",
    )
    for path in gone:
        rest.delete(path)
    storage = "/apis/serving.kserve.io/v1alpha1/clusterstoragecontainers/default"
    rest.merge(storage, {"spec": {"container": {"securityContext": None}}})


def test_it_works_as_it_is_pasted(local_cluster, operator, tmp_path):
    def change(text):
        if "--replicas=2" in text:
            operator.start()
        return text.replace("manifests/base", str(ROOT / "manifests/base"))

    def after(block):
        if block.heading == "1. Install" and "kubectl apply" in block.text:
            operator.start()
        if "--replicas=0" in block.text:
            operator.stop("SIGKILL")

    path = kubectl_on_path(local_cluster, tmp_path)
    with Pasted(tmp_path, tmp_path, PATH=path) as shell:
        left_out = paste_page(PAGE, shell, change=change, alike=alike, after=after)
    assert len(left_out) == 3
    assert all(len(reason) > 20 for reason in left_out)


def test_what_removes_everything_would(local_cluster, tmp_path):
    (last,) = [block for block in blocks_of(PAGE, "bash") if "kubectl delete -k" in block.text]
    assert "--dry-run=server" in last.not_run
    done = subprocess.run(
        ["bash", "-c", last.text.rstrip() + " --dry-run=server --ignore-not-found"], cwd=ROOT,
        env={"PATH": kubectl_on_path(local_cluster, tmp_path)}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'customresourcedefinition.apiextensions.k8s.io "modelrollouts.ml.dwcp.io"' in done.stdout
