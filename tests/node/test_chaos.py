"""What dies in mid-rollout: operator, candidate's pod, KServe's manager, API server."""

import pytest

from tests.cluster.processes import eventually
from tests.node.rollouts import SHORT
from tests.node.run import STORAGE, VERSION

pytestmark = [pytest.mark.node, pytest.mark.timeout(900)]

MODEL = "bandwidth_predictor"
AT = 25
"""Percent at which it happens."""


def _kill(node, selector):
    """Kill the first process of each container, as a crash would."""
    pods = node.pods(selector)
    assert pods
    before = {one["metadata"]["uid"]: _restarts(one) for one in pods}
    for pod in pods:
        for container in pod["status"]["containerStatuses"]:
            identity = container["containerID"].removeprefix("containerd://")
            node.control_plane.ctr("tasks", "kill", "--signal", "SIGKILL", identity)

    def noticed():
        now = {one["metadata"]["uid"]: _restarts(one) for one in node.pods(selector)}
        return all(now[uid] > count for uid, count in before.items())

    eventually(noticed, 60.0, every=0.5, alive=node.check)


def _restarts(pod):
    return sum(one["restartCount"] for one in pod["status"]["containerStatuses"])


def _operator(node, rollouts):
    _kill(node, "app.kubernetes.io/name=dwcp-ml-operator")


def _candidate(node, rollouts):
    (candidate,) = set(rollouts.weights()) - {rollouts.stable()}
    _kill(node, f"app=isvc.{candidate}")


def _kserve(node, rollouts):
    node.kserve.restart()


def _api_server(node, rollouts):
    node.restart_api_server()


CHAOS = {
    "operator": _operator, "candidate": _candidate, "kserve": _kserve, "api-server": _api_server,
}  # fmt: skip


@pytest.mark.parametrize("name", CHAOS)
def test_a_rollout_ends_right_though_something_dies(name, node, rollouts, traffic):
    version, stable, before = f"{VERSION}-{name}", rollouts.stable(), traffic.answers()
    rollouts.make(VERSION, version)
    rollouts.apply(version, SHORT)
    rollouts.until_live(version, AT)
    CHAOS[name](node, rollouts)
    rollouts.until(version, "Promoted")
    answers = traffic.answers() - before
    print(f"\n{name}: {dict(answers)}")
    assert rollouts.live() == (f"{STORAGE}/{MODEL}/{version}", [])
    failed = {key: count for key, count in answers.items() if key[1] != "2xx"}
    if name == "candidate":  # what was on its way to it is lost with it, and nothing else
        assert not any(service == stable for service, _ in failed)
        assert sum(failed.values()) < 0.05 * sum(answers.values())
    else:
        assert failed == {}


def test_a_bad_candidate_is_taken_back_though_the_operator_dies(node, rollouts, traffic):
    live, version = rollouts.live(), f"{VERSION}-bad-again"
    rollouts.make(VERSION, version, "nan")
    rollouts.apply(version)
    rollouts.until_live(version, 1)
    _operator(node, rollouts)
    rollouts.until(version, "RolledBack")
    assert rollouts.live() == live
