from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from ville.quantiles import QuantileCS

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.rollout.evidence import quantile as q
from tests.rollout.evidence import simulation as s


def lognormal(rng, size, median=0.004, spread=0.5):
    return median * np.exp(spread * rng.normal(size=size))


@pytest.mark.parametrize("total", [1, 7, 100, 901, 20_000])
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_the_ranks_are_where_the_mixture_leaves_the_binomial(total, share):
    # The e-value of k values up to the quantile, as a ratio of two distributions.
    below = np.arange(total + 1)
    mixture = stats.betabinom.logpmf(total - below, total, 50 * (1 - share), 50 * share)
    log_e = mixture - stats.binom.logpmf(below, total, share)
    inside = below[log_e < math.log(1 / 0.025)]
    assert q.ranks(total, share, 0.025) == (inside[0], inside[-1])
    assert len(inside) == inside[-1] - inside[0] + 1


def test_the_interval_is_of_order_statistics_rounded_outwards():
    values = np.sort(lognormal(np.random.default_rng(1), 3000))
    low, high = q.ranks(3000, 0.99, 0.05)
    lower, upper = q.QuantileArm().update(values.tolist()).interval(0.99, 0.05)
    assert values[low - 1] / 1.05 <= lower < values[low - 1]
    assert values[high] <= upper <= values[high] * 1.05


def test_the_upper_bound_is_one_rank_above_the_highest():
    # One value a bucket around the upper rank, so that a rank more or less is another edge.
    _, high = q.ranks(3000, 0.99, 0.05)
    counts = [0] * (len(q.EDGES) + 1)
    counts[100:103] = [high, 1, 2999 - high]
    assert q.QuantileArm(counts=tuple(counts)).interval(0.99, 0.05)[1] == q.EDGES[101]


def test_it_is_tighter_than_a_library_that_ignores_the_variance_and_agrees_with_it():
    values = lognormal(np.random.default_rng(2), 20_000)
    other = QuantileCS(q=0.99, alpha=0.05, t_opt=20_000, intersect=False).fit(values)
    low, high = other.interval()
    lower, upper = q.QuantileArm().update(values.tolist()).interval(0.99, 0.05)
    assert low < lower < other.estimate_[-1] < upper < high
    truth = 0.004 * math.exp(0.5 * stats.norm.ppf(0.99))
    assert lower < truth < upper


def test_few_values_bound_nothing_above():
    assert q.QuantileArm().interval(0.99, 0.05) == (0.0, None)
    arm = q.QuantileArm().update([0.004] * 200)
    assert arm.interval(0.99, 0.05)[1] is None
    assert arm.update([0.004] * 500).interval(0.99, 0.05)[1] == pytest.approx(0.004, rel=0.05)


def test_values_beyond_the_buckets_have_no_upper_bound():
    lower, upper = q.QuantileArm().update([5000.0] * 2000).interval(0.99, 0.05)
    assert lower == q.EDGES[-1]
    assert upper is None


def test_a_value_on_an_edge_is_in_the_bucket_below_it():
    arm = q.QuantileArm().update([q.EDGES[100]])
    assert arm.counts[100] == 1


@pytest.mark.parametrize("bad", [-0.001, math.nan, math.inf])
def test_what_is_no_latency_is_refused(bad):
    with pytest.raises(DwcpError, match="finite number of seconds, 0 or more"):
        q.QuantileEvidence().update([bad], [])


def test_verdicts():
    rng = np.random.default_rng(3)
    stable = lognormal(rng, 20_000)
    nothing = q.QuantileEvidence()
    assert nothing.verdict(0.05).outcome == "insufficient data"
    assert "not known yet" in nothing.verdict(0.05).sentence
    slow = nothing.update(lognormal(rng, 2000, median=0.008), stable).verdict(0.05)
    assert slow.outcome == "fail"
    assert slow.bound > slow.threshold
    arm = q.QuantileArm().update(stable)
    assert slow.threshold == arm.interval(0.99, 0.025)[1] < arm.interval(0.99, 1e-9)[1]
    few = nothing.update(lognormal(rng, 100), stable).verdict(0.05)
    assert few.outcome == "insufficient data"
    equal = nothing.update(lognormal(rng, 200_000), lognormal(rng, 200_000)).verdict(0.05)
    assert equal.outcome == "pass"
    assert equal.bound <= equal.threshold


def test_each_arm_spends_half_of_alpha():
    arm = q.QuantileArm().update(lognormal(np.random.default_rng(6), 5000))
    slower = q.QuantileArm().update(lognormal(np.random.default_rng(14), 5000, median=0.1))
    verdict = q.QuantileEvidence(candidate=slower, stable=arm).verdict(0.002)
    half, whole = slower.interval(0.99, 0.001), slower.interval(0.99, 0.002)
    assert half[0] < whole[0]
    assert verdict.bound == half[0]
    assert verdict.threshold == arm.interval(0.99, 0.001)[1]


@pytest.mark.slow
@given(st.lists(st.lists(st.floats(0, 1e9), max_size=20), max_size=4))
@settings(deadline=None)
def test_the_state_survives_json_and_blocks_may_be_merged(blocks):
    evidence = q.QuantileEvidence()
    for block in blocks:
        evidence = evidence.update(block, block[:3])
    assert q.QuantileEvidence.model_validate_json(evidence.to_json()) == evidence
    candidate = [value for block in blocks for value in block]
    stable = [value for block in blocks for value in block[:3]]
    merged = q.QuantileEvidence().update(candidate, stable)
    assert merged == evidence
    verdict = evidence.verdict(0.05)
    assert type(verdict).model_validate_json(verdict.to_json()) == verdict


def test_the_true_quantile_is_left_out_no_more_often_than_alpha():
    rng = np.random.default_rng(4)
    below = rng.binomial(50, 0.99, (2000, 100)).cumsum(axis=1)
    limits = np.array([q.ranks(50 * look, 0.99, 0.1) for look in range(1, 101)])
    outside = ((below < limits[:, 0]) | (below > limits[:, 1])).any(axis=1)
    s.assert_at_most(outside, 0.1)
    assert outside.any()


def test_ties_do_no_harm():
    # 98.5 % of the values are equal, and the next larger one is the quantile.
    rng = np.random.default_rng(5)
    wrong = np.zeros(200, bool)
    for run in range(200):
        arm = q.QuantileArm()
        for _ in range(15):
            arm = arm.update(np.where(rng.random(200) < 0.985, 0.001, 0.01))
            lower, upper = arm.interval(0.99, 0.1)
            wrong[run] |= lower > 0.01 or (upper is not None and upper < 0.01)
    s.assert_at_most(wrong, 0.1)
