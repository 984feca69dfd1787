"""kstatus, ``kubectl wait`` and Argo CD read each phase of a rollout as docs/health.md says.

The object is as a real API server returns it; the operator runs in this process, in virtual time.
tests/operator/test_phases.py has the same phases in memory.
"""

import subprocess

import pytest

from tests.cluster.kstatus import statuses
from tests.cluster.operator.in_process import ClusterScenario
from tests.manifests.argocd import health, scripts
from tests.operator.fake_servers import NAME
from tests.operator.phases import PATHS, SPEC

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

_WAIT_SECONDS = 1


@pytest.fixture
def wait(local_cluster, namespace):
    """Return whether ``kubectl wait`` for a condition of the ModelRollout succeeds at once."""

    def wait(condition):
        program = local_cluster.control_plane.built.program("kubectl")
        command = [
            program, f"--kubeconfig={local_cluster.kubeconfig}", "wait", f"modelrollout/{NAME}",
            "-n", namespace, f"--for=condition={condition}", f"--timeout={_WAIT_SECONDS}s",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0 or "timed out waiting for the condition" in done.stderr, done
        return done.returncode == 0

    return wait


@pytest.mark.parametrize("name", PATHS)
def test_tools_read_each_phase(local_cluster, installed, namespace, wait, name):
    path, how = PATHS[name]
    rollout = ClusterScenario(local_cluster, namespace, **SPEC, **how)
    rollout.max_seconds = 60.0
    for phase, expected in path(rollout):
        obj = rollout.resource
        assert statuses(local_cluster.control_plane.built, [obj]) == [expected.kstatus], (
            phase,
            obj,
        )
        assert health(obj, scripts()["ModelRollout"])[0] == expected.health, (phase, obj)
        true = expected.true or frozenset()
        for condition in ("Ready", "Stalled"):
            assert wait(condition) == (condition in true), (phase, condition, obj)
