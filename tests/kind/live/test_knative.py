"""Candidates in KServe's Knative mode, on Knative Serving over the same gateway."""

import pytest

from tests.cluster.processes import eventually
from tests.kind.live.rollouts import LONG_WATCH, STEPS
from tests.kind.live.run import VERSION

pytestmark = [pytest.mark.kind, pytest.mark.timeout(900, func_only=True)]

_ENOUGH = 200
"""Requests that a window has at least, for its split to be compared with the weight."""


def _failed_at_servers(watched):
    """Return what failed, but for the few that Envoy had no cluster for.

    Each change of the traffic is another route, and Envoy Gateway gives it to Envoy a moment before
    the cluster that it leads to. "NC" is Envoy's flag for that; no server has failed.
    """
    failed = watched.failed()
    missed = {key: count for key, count in failed.items() if key[0] == "NC"}
    assert sum(missed.values()) < 0.002 * sum(watched.responses.values()), failed
    return {key: count for key, count in failed.items() if key not in missed}


def test_a_good_candidate_goes_to_a_hundred_percent(knative_rollouts, knative_traffic):
    rollouts, version = knative_rollouts, f"{VERSION}-knative-good"
    stable = rollouts.stable()
    rollouts.make(VERSION, version)
    with knative_traffic.watched(rollouts.weights) as watched:
        rollouts.apply(version)
        rollouts.until(version, "Promoted")
    found = watched.check(stable)
    assert {one.percent for one in found if one.total >= _ENOUGH} >= set(STEPS)
    assert _failed_at_servers(watched) == {}
    assert rollouts.live() == (rollouts.uri(version), [])
    assert rollouts.stable() > stable
    assert rollouts.weights() == {rollouts.stable(): 100}


def test_a_bad_candidate_is_rolled_back(knative_rollouts, knative_traffic):
    """Above 100 Mbit/s its prediction is not a number: the server responds with 500."""
    rollouts, version = knative_rollouts, f"{VERSION}-knative-bad"
    stable, live = rollouts.stable(), rollouts.live()
    rollouts.make(VERSION, version, "nan")
    with knative_traffic.watched(rollouts.weights) as watched:
        rollouts.apply(version, live_tests_only=True)
        (candidate,) = rollouts.until_candidates()
        status = rollouts.until(version, "RolledBack")
    # At the end the stable has all traffic again, as a revision of its own.
    shares = [one.percent for one in watched.check(stable)]
    assert max(one for one in shares if one < 100) <= 5
    assert status["reason"] == "TestFailed"
    assert rollouts.live() == live
    failed = _failed_at_servers(watched)
    assert set(failed) == {(candidate, "5xx")}
    assert sum(failed.values()) < 0.02 * sum(watched.responses.values())
    assert rollouts.weights().keys().isdisjoint({stable, candidate})


def test_a_fault_of_serving_is_stopped_before_any_live_request(knative_rollouts, knative_traffic):
    rollouts, version = knative_rollouts, f"{VERSION}-knative-constant"
    live = rollouts.live()
    rollouts.make(VERSION, version, "constant")
    with knative_traffic.watched(rollouts.weights) as watched:
        rollouts.apply(version)
        status = rollouts.until(version, "RolledBack")
    (failed,) = [one for one in status["verdicts"] if one["outcome"] == "Fail"]
    assert (status["reason"], failed["test"]) == ("TestFailed", "divergence")
    assert rollouts.live() == live
    assert _failed_at_servers(watched) == {}


def test_a_candidate_that_has_all_traffic_is_rolled_back(knative_rollouts, knative_traffic, node):
    """By then the stable has no pods: Knative's activator holds requests until it has one."""
    rollouts, version = knative_rollouts, f"{VERSION}-knative-aborted"
    stable, live = rollouts.stable(), rollouts.live()
    rollouts.make(VERSION, version)
    with knative_traffic.watched(rollouts.weights) as watched:
        rollouts.apply(version, LONG_WATCH)
        rollouts.until_live(version, 100)
        revision = f"serving.knative.dev/revision={stable}"
        eventually(lambda: not node.pods(revision), 180.0, every=1.0, alive=node.check)
        rollouts.apply(version, {**LONG_WATCH, "abort": True})
        status = rollouts.until(version, "RolledBack")
    assert status["reason"] == "Aborted"
    assert rollouts.live() == live
    assert _failed_at_servers(watched) == {}
