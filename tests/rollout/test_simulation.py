"""Simulated rollouts: seeded, honest about shares, right about good and bad candidates."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import stats

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.rollout.analysis import Evidence, update_evidence, verdicts_of
from dwcp_ml.rollout.cause import Cause
from dwcp_ml.rollout.counters import ArmBlock
from dwcp_ml.rollout.observation import Observation
from dwcp_ml.rollout.reason import Reason
from dwcp_ml.rollout.simulated_environment import EDGES, SimulatedEnvironment, Traffic
from dwcp_ml.rollout.simulation import Share, run_once, simulate, summarise
from dwcp_ml.rollout.spec import Analysis, Revision, RolloutSpec
from dwcp_ml.rollout.status import Phase
from dwcp_ml.rollout.verdict import Outcome

SPEC = RolloutSpec(
    model="m",
    candidate=Revision(version="2", digest="b" * 64),
    stable=Revision(version="1", digest="a" * 64),
)


def test_the_same_seed_gives_the_same_rollout():
    bad = Traffic(candidate_errors=0.02)
    assert run_once(SPEC, bad, 3) == run_once(SPEC, bad, 3)
    assert run_once(SPEC, bad, 3) != run_once(SPEC, bad, 4)


def test_bad_candidates_are_caught_at_the_first_step_and_touch_few_requests():
    found = summarise(list(simulate(SPEC, Traffic(candidate_errors=0.02), 20)))
    assert found.rolled_back.count == 20
    assert found.caught_at_percent == {1: 20}
    assert found.median_exposed_requests_when_caught < 500


def test_without_traffic_everything_is_held():
    found = summarise(
        list(simulate(SPEC, Traffic(requests_per_second=0.0), 2, limit_seconds=3600.0))
    )
    assert (found.held.count, found.promoted.count, found.rolled_back.count) == (2, 0, 0)
    assert found.median_seconds_to_catch is None


@pytest.mark.parametrize(("count", "total"), [(0, 10), (3, 10), (10, 10), (19, 2000)])
def test_the_interval_is_wilsons(count, total):
    share = Share.of_counts(count, total)
    expected = stats.binomtest(count, total).proportion_ci(0.95, method="wilson")
    assert share.low == pytest.approx(expected.low, abs=1e-12)
    assert share.high == pytest.approx(expected.high, abs=1e-12)


def test_nothing_to_run_is_refused():
    with pytest.raises(UsageError, match="at least one rollout"):
        list(simulate(SPEC, Traffic(), 0))


@pytest.mark.slow
def test_a_pool_gives_the_same_outcomes_in_the_same_order():
    bad = Traffic(candidate_errors=0.05)
    alone = list(simulate(SPEC, bad, 45))
    with ThreadPoolExecutor(2) as pool:
        assert list(simulate(SPEC, bad, 45, pool=pool)) == alone
    assert alone[3] == run_once(SPEC, bad, 45)


class Counting:
    """Rolls back at its third reconciliation; counts them, so shared state would show."""

    def __init__(self):
        self.reconciliations = 0

    def fresh(self):
        return Counting()

    def __call__(self, spec, status, observation, now):
        self.reconciliations += 1
        phase = Phase.ROLLED_BACK if self.reconciliations == 3 else Phase.PENDING
        return status.transition(now, phase, Cause(reason=Reason.ABORTED)), None


def test_a_rule_that_remembers_is_fresh_in_every_rollout():
    found = list(simulate(SPEC, Traffic(), 3, rule=Counting()))
    assert [one.seconds for one in found] == [30.0, 30.0, 30.0]


@pytest.mark.parametrize("shape", ["constant", "diurnal"])
def test_a_minute_has_the_same_arrivals_whoever_looks(shape):
    def arrivals(reconcile_seconds, percent):
        world = SimulatedEnvironment(
            SPEC, Traffic(shape=shape), np.random.default_rng(5), live_percent=percent
        )
        totals = []
        for _ in range(3):
            for _ in range(round(60.0 / reconcile_seconds)):
                world.pass_time(reconcile_seconds)
            seen = world.observe()
            totals.append(sum(a.replicas[0].requests for a in (seen.stable, seen.candidate)))
        return totals

    assert arrivals(60.0, 1) == arrivals(10.0, 50) == arrivals(7.5, 100)


def test_latencies_are_log_normal():
    world = SimulatedEnvironment(
        SPEC, Traffic(requests_per_second=50_000.0), np.random.default_rng(6)
    )
    world.pass_time(60.0)
    counts = world.observe().stable.replicas[0].latency.counts
    expected = stats.lognorm(s=0.35, scale=0.002).cdf(EDGES)
    assert np.array(counts[:-1]) / counts[-1] == pytest.approx(expected, abs=2e-3)
    assert list(counts) == sorted(counts)


def block(requests, errors):
    return ArmBlock(requests=requests, errors=errors)


def watched(bad_minute):
    """The verdict of the watch when all traffic meets a bad minute that the stable met before."""
    analysis, evidence = Analysis(latency=None), Evidence()
    half, seen = Observation(live_percent=50), Observation(live_percent=100)
    for minute in range(20):
        rate = bad_minute if minute == 7 else 0.02
        for _ in range(6):
            stable, candidate = block(900, round(900 * rate)), block(100, round(100 * rate))
            evidence = update_evidence(analysis, evidence, stable, candidate, half)
    for _ in range(6):
        candidate = block(1000, 200)
        evidence = update_evidence(analysis, evidence, ArmBlock(), candidate, seen)
    return next(one for one in verdicts_of(analysis, evidence, seen, 300.0) if one.test == "watch")


def test_a_bad_minute_that_the_stable_had_too_is_not_the_candidates():
    assert watched(bad_minute=0.2).outcome is Outcome.PASS
    assert watched(bad_minute=0.02).outcome is Outcome.FAIL


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_shared_bursts_take_no_more_than_alpha_back():
    traffic = Traffic(shape="bursts", stable_errors=0.02, candidate_errors=0.02)
    found = summarise(list(simulate(SPEC, traffic, 60, reconcile_seconds=30.0)))
    assert found.rolled_back.low <= SPEC.analysis.alpha, found
    assert found.promoted.count > 45


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("errors", [0.001, 0.02])
def test_a_candidate_like_the_stable_is_taken_back_in_no_more_than_alpha(errors):
    """The binomial lower bound of the share must not lie above alpha."""
    traffic = Traffic(stable_errors=errors, candidate_errors=errors)
    found = summarise(list(simulate(SPEC, traffic, 200, reconcile_seconds=30.0)))
    assert found.rolled_back.low <= SPEC.analysis.alpha, found
    assert found.promoted.count > 160
