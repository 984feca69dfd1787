"""The simulated pods count every request once, and behave as the scenarios say."""

import numpy as np
import pytest

from benchmarks.rollout_scenarios import EQUAL, ERRORS, MANY_ERRORS, WORSE
from dwcp_ml.contract.errors import UsageError
from dwcp_ml.rollout.simulated_environment import EDGES, SimulatedEnvironment, Traffic
from dwcp_ml.rollout.simulated_pods import RETRY_FAILS, Pods
from dwcp_ml.rollout.simulation import run_once
from dwcp_ml.rollout.spec import any_rollout
from tests.matrix import few

HOUR = 3600.0
SOME = [*EQUAL, *WORSE][::9]


def passed(traffic, *, seed=5, percent=50, seconds=HOUR, tick=20.0):
    """Return an environment in which time has passed at one weight."""
    world = SimulatedEnvironment(
        any_rollout(), traffic, np.random.default_rng(seed), live_percent=percent
    )
    for _ in range(round(seconds / tick)):
        world.pass_time(tick)
    return world


def total(samples, what="requests"):
    return sum(getattr(pod, what) for pod in samples)


def share(observations, arm, what):
    pods = [pod for seen in observations for pod in getattr(seen, arm).replicas]
    return what(pods) / total(pods)


def error_share(observations, arm):
    return share(observations, arm, lambda pods: total(pods, "errors"))


def slow_share(observations, arm, edge):
    place = next(number for number, each in enumerate(EDGES) if each >= edge)

    def above(pods):
        counts = [pod.latency.counts for pod in pods]
        return sum(each[-1] - each[place] for each in counts)

    return share(observations, arm, above)


@pytest.mark.parametrize(
    "pods",
    [
        Pods(stable=3, candidate=10),
        Pods(candidate=10, candidate_at_start=1, cold_answers=2),
        Pods(stable=3, candidate=3, clients=100, failing_clients=2),
        Pods(stable=3, candidate=3, outage_every=1800.0, error_spread=0.5, speed_spread=0.2),
    ],
)
def test_every_request_is_counted_by_one_pod(pods):
    alone = passed(Traffic()).observe()
    seen = passed(Traffic(pods=pods)).observe()
    arms = seen.stable.replicas + seen.candidate.replicas
    assert total(arms) == total(alone.stable.replicas + alone.candidate.replicas)
    assert [len(seen.stable.replicas), len(seen.candidate.replicas)] == [
        pods.stable,
        pods.candidate,
    ]
    assert len({pod.replica for pod in arms}) == len(arms)
    for pod in arms:
        assert pod.errors <= pod.requests == pod.latency.counts[-1]
        assert list(pod.latency.counts) == sorted(pod.latency.counts)


def test_requests_are_balanced_over_the_pods_of_an_arm():
    seen = passed(Traffic(pods=Pods(stable=2, candidate=5)), percent=25).observe()
    requests = [pod.requests for pod in seen.candidate.replicas]
    assert requests == pytest.approx([0.25 * 360_000 / 5] * 5, rel=0.03)
    assert total(seen.stable.replicas) == pytest.approx(0.75 * 360_000, rel=0.01)


@pytest.mark.parametrize("name", few([*EQUAL, *WORSE], *SOME))
def test_the_same_seed_gives_the_same_rollout(name):
    scenario = (EQUAL | WORSE)[name]
    spec = scenario.spec(60.0)
    first, second = (
        run_once(spec, scenario.traffic, 7, reconcile_seconds=30.0, limit_seconds=1200.0)
        for _ in range(2)
    )
    assert first == second


RATES = {
    "iid, 2 % errors": 0.02,
    "retries": MANY_ERRORS
    * (1 + RETRY_FAILS + RETRY_FAILS**2)
    / (1 + MANY_ERRORS * (1 + RETRY_FAILS)),
    "outages of a pod, 1 and 1 pods": ERRORS + 5 / 1800 / 2,
    "outages of a pod, 3 and 3 pods": ERRORS + 5 / 1800 / 6,
    "shared bursts": MANY_ERRORS * (19 + 10) / 20,
    "pods differ in errors, 1 and 10 pods": MANY_ERRORS,
    "pods differ in errors, 10 and 1 pods": MANY_ERRORS,
    "pinned clients, 1 and 1 pods": ERRORS + 0.02,
    "pinned clients, 3 and 3 pods": ERRORS + 0.02,
    "storm": MANY_ERRORS * (1 + 5) / 2,
    "0.2 requests/s": ERRORS,
}
"""Name -> share of errors of each arm over two hours of an equal candidate; else 0.1 %."""


@pytest.mark.parametrize("name", few(EQUAL, *list(EQUAL)[::9]))
def test_an_equal_candidate_fails_as_often_as_the_stable(name):
    seeds = range(30)
    traffic = EQUAL[name].traffic
    seen = [passed(traffic, seed=seed, seconds=2 * HOUR, tick=60.0).observe() for seed in seeds]
    expected = RATES.get(name, ERRORS)
    # What differs by pod or client differs by seed: the mean of 30 of them has an error.
    rough = any(word in name for word in ("outages", "differ", "pinned", "0.2 requests"))
    tolerance = 0.35 if rough else 0.1
    for arm in ("stable", "candidate"):
        assert error_share(seen, arm) == pytest.approx(expected, rel=tolerance)
    slow = [slow_share(seen, arm, 0.0045) for arm in ("stable", "candidate")]
    assert slow[1] == pytest.approx(slow[0], rel=0.6 if "speed" in name else 0.2)


def test_the_first_answers_of_new_pods_are_cold():
    slow, fast = (
        passed(Traffic(pods=Pods(candidate=10, candidate_at_start=1, cold_answers=cold)))
        for cold in (2, 0)
    )
    above_30_ms = EDGES.index(min(edge for edge in EDGES if edge > 0.02))
    for world, cold in ((slow, 2), (fast, 0)):
        pods = world.observe().candidate.replicas
        counts = [pod.latency.counts[-1] - pod.latency.counts[above_30_ms] for pod in pods]
        assert sum(counts) == pytest.approx(10 * cold, abs=3)
        assert max(counts) <= cold


def test_cold_answers_may_fail():
    pods = Pods(candidate=10, candidate_at_start=1, cold_answers=2, cold_slower=None)
    seen = passed(Traffic(stable_errors=0.0, candidate_errors=0.0, pods=pods)).observe()
    assert [pod.errors for pod in seen.candidate.replicas] == [2] * 10
    assert total(seen.stable.replicas, "errors") == 0


def test_the_candidates_other_pods_start_after_its_first_traffic():
    pods = Pods(candidate=4, candidate_at_start=1, scale_up_seconds=20.0)
    world = passed(Traffic(pods=pods), percent=0, seconds=60.0)
    began = world.now + 20.0
    for percent in (1, 5):
        world.live_percent = percent
        world.pass_time(10.0)
        assert len(world.observe().candidate.replicas) == 1
    world.pass_time(10.0)
    started = [pod.started_at for pod in world.observe().candidate.replicas]
    assert started == [1_000_000.0, began, began, began]


def test_a_client_stays_at_its_pod_until_the_weight_changes():
    pods = Pods(stable=3, candidate=3, clients=100, failing_clients=2)
    world = SimulatedEnvironment(
        any_rollout(),
        Traffic(stable_errors=0.0, candidate_errors=0.0, pods=pods),
        np.random.default_rng(3),
        live_percent=5,
    )

    def failing():
        seen = world.observe()
        return {p.replica for p in seen.stable.replicas + seen.candidate.replicas if p.errors}

    world.pass_time(60.0)
    first = failing()
    assert 1 <= len(first) <= 2
    world.pass_time(1200.0)
    assert failing() == first
    for percent in (25, 50, 5, 25, 50):
        world.live_percent = percent
        world.pass_time(60.0)
    assert len(failing()) > 2


@pytest.mark.parametrize(
    ("traffic", "errors", "above_all"),
    [
        (WORSE["everything fails"].traffic, 1.0, 0.0),
        (WORSE["errors ×5"].traffic, 0.005, 0.0),
        (WORSE["2 % take seconds"].traffic, ERRORS, 0.02),
    ],
)
def test_a_worse_candidate_is_as_bad_as_it_says(traffic, errors, above_all):
    seen = [passed(traffic).observe()]
    assert error_share(seen, "candidate") == pytest.approx(errors, rel=0.1)
    assert error_share(seen, "stable") == pytest.approx(ERRORS, rel=0.1)
    assert slow_share(seen, "candidate", EDGES[-1]) == pytest.approx(above_all, rel=0.1)


def test_a_candidate_that_rejects_everything_counts_4xx_and_no_errors():
    seen = passed(Traffic(stable_errors=0.0, candidate_errors=0.0, rejected=1.0)).observe()
    (candidate,) = seen.candidate.replicas
    assert (candidate.rejected, candidate.errors) == (candidate.requests, 0)
    assert total(seen.stable.replicas, "rejected") == 0


def test_harm_begins_when_it_is_said_to():
    late = passed(Traffic(candidate_errors=1.0, harm_after_seconds=1800.0), tick=10.0)
    seen = [late.observe()]
    assert error_share(seen, "candidate") == pytest.approx(0.5, rel=0.03)
    assert late.harm_began[0] == 1_001_800.0
    assert late.exposed_requests - late.harm_began[1] == pytest.approx(90_000, rel=0.03)
    below = passed(Traffic(candidate_errors=1.0, harm_from_percent=100), percent=99)
    assert error_share([below.observe()], "candidate") < 0.01
    assert below.harm_began is None


def test_a_ramp_grows_tenfold():
    world = passed(EQUAL["ramp"].traffic, seconds=60.0, tick=60.0)
    first = total(world.observe().stable.replicas)
    for _ in range(90):
        world.pass_time(60.0)
    before = total(world.observe().stable.replicas)
    world.pass_time(60.0)
    assert total(world.observe().stable.replicas) - before == pytest.approx(10 * first, rel=0.15)


def test_pods_that_start_later_are_none_the_worse():
    early, late = (
        passed(Traffic(pods=Pods(candidate=10, candidate_at_start=1, scale_up_seconds=seconds)))
        for seconds in (0.0, 600.0)
    )
    assert early.exposed_requests == pytest.approx(late.exposed_requests, rel=0.01)


@pytest.mark.parametrize(
    "wrong", [{"candidate": 0}, {"candidate_at_start": 2}, {"attempts": 0}, {"failing_clients": 1}]
)
def test_pods_that_cannot_be_are_refused(wrong):
    with pytest.raises(UsageError):
        Pods(**wrong)
