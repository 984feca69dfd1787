"""Killed in mid-rollout: operator, candidate's container, KServe's manager, API server."""

import pytest

from tests.kind.live.gateway import GATEWAY
from tests.kind.live.rollouts import SHORT
from tests.kind.live.run import VERSION

pytestmark = [pytest.mark.kind, pytest.mark.timeout(900, func_only=True)]

AT = 25
"""Weight of the candidate, percent, at which it is killed."""


def _operator(node, rollouts):
    node.kill("app.kubernetes.io/name=dwcp-ml-operator")


def _candidate(node, rollouts):
    (candidate,) = set(rollouts.weights()) - {rollouts.stable()}
    node.kill(f"app=isvc.{candidate}")


def _kserve(node, rollouts):
    node.kill("control-plane=kserve-controller-manager", "kserve")


def _api_server(node, rollouts):
    node.kill("component=kube-apiserver", "kube-system")
    node.await_api_server()


CHAOS = {
    "operator": _operator, "candidate": _candidate, "kserve": _kserve, "api-server": _api_server,
}  # fmt: skip


@pytest.mark.parametrize("name", CHAOS)
def test_a_rollout_ends_right_though_something_is_killed(name, node, rollouts, traffic):
    stable, version = rollouts.stable(), f"{VERSION}-{name}"
    rollouts.make(VERSION, version)
    with traffic.watched(rollouts.weights) as watched:
        rollouts.apply(version, SHORT)
        rollouts.until_live(version, AT)
        (candidate,) = rollouts.until_candidates()
        CHAOS[name](node, rollouts)
        rollouts.until(version, "Promoted")
    watched.check(stable)
    assert rollouts.live() == (rollouts.uri(version), [])
    if name != "candidate":
        assert watched.failed() == {}
        return
    # Requests to it fail until its container runs again, or until KServe has taken it out of the
    # route: Envoy itself responds with 503, or the connection is reset. No other request fails.
    assert {service for service, _ in watched.failed()} <= {candidate, GATEWAY}
    assert sum(watched.failed().values()) < 0.1 * sum(watched.responses.values())


def test_a_bad_candidate_is_rolled_back_though_the_operator_is_killed(node, rollouts, traffic):
    live, version = rollouts.live(), f"{VERSION}-bad-again"
    rollouts.make(VERSION, version, "nan")
    rollouts.apply(version)
    rollouts.until_candidates()
    assert rollouts.status()["phase"] == "Progressing", "it ended before the kill"
    _operator(node, rollouts)
    rollouts.until(version, "RolledBack")
    assert rollouts.live() == live
