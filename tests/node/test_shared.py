"""The tests that `make kind-test` runs on its cluster, on this one, before the operator comes."""

import re
import subprocess
import sys

import pytest

from tests.cluster.build import ROOT

pytestmark = [pytest.mark.node, pytest.mark.timeout(900)]


def shared_tests():
    """Return what ``tests/kind/run.sh`` names."""
    text = (ROOT / "tests/kind/run.sh").read_text()
    return re.search(r"CLUSTER_TESTS=\(([^)]*)\)", text)[1].split()


def test_what_kind_test_runs_passes_here(bare):
    command = [
        sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "cluster", "-p", "no:cacheprovider",
        "--kubeconfig", str(bare.kubeconfig), *shared_tests(),
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=800, check=False
    )
    print(done.stdout[-300:])
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    assert re.search(r"\b\d\d+ passed", done.stdout), done.stdout
