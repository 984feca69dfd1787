from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats
from ville.proportions import BernoulliCS

from dwcp_ml.rollout.evidence import error_rate as e
from dwcp_ml.rollout.evidence import promotion as p
from dwcp_ml.rollout.evidence.error_rate import CountBlock, Counts
from dwcp_ml.rollout.verdict import Outcome
from tests.matrix import examples
from tests.rollout.evidence import arrays
from tests.rollout.evidence import simulation as s

COUNTS = st.one_of(st.integers(0, 50), st.integers(0, 1_000_000_000)).flatmap(
    lambda n: st.builds(Counts, requests=st.just(n), errors=st.integers(0, n))
)


def block(n_c, e_c, n_s, e_s):
    return CountBlock(
        candidate=Counts(requests=n_c, errors=e_c), stable=Counts(requests=n_s, errors=e_s)
    )


def gathered(*blocks, margin=0.01):
    evidence = p.PromotionEvidence(margin=margin)
    for counts in blocks:
        evidence = evidence.update(block(*counts))
    return evidence


@pytest.mark.parametrize("stable", [691, 70_000])
def test_without_an_error_691_requests_are_needed_for_a_margin_of_one_percent(stable):
    assert gathered((690, 0, stable, 0)).verdict(0.05).outcome == Outcome.INSUFFICIENT_DATA
    verdict = gathered((691, 0, stable, 0)).verdict(0.05)
    assert verdict.outcome is Outcome.PASS
    assert verdict.bound < verdict.threshold == pytest.approx(0.01)
    assert verdict.evidence >= verdict.needed == pytest.approx(20)


def test_the_number_is_that_of_the_mixture_for_nine_tenths_of_alpha():
    def excess(n):
        marginal = special.betaln(0.5, 0.5 + n) - special.betaln(0.5, 0.5)
        return marginal - n * math.log(0.99) - math.log(1 / 0.045)

    assert math.ceil(optimize.brentq(excess, 10, 10_000)) == 691
    # A fixed-sample bound needs ln(20)/-ln(0.99) = 299: 2.3 times fewer, for a single look.
    assert 2.2 < 691 / (math.log(20) / -math.log(0.99)) < 2.4


@pytest.mark.parametrize("rate", [0.002, 0.3, 0.99])
def test_the_bounds_are_those_of_an_independent_library(rate):
    values = np.random.default_rng(1).random(2500) < rate
    other = BernoulliCS(alpha=0.03, prior=(0.5, 0.5), intersect=False).fit(values)
    for n in (1, 2, 40, 500, 2500):
        counts = Counts(requests=n, errors=int(values[:n].sum()))
        expected = (other.lower_[n - 1], other.upper_[n - 1])
        assert p.bounds(counts, 0.03) == pytest.approx(expected, abs=1e-9)


def test_the_bounds_are_wider_than_those_of_one_look():
    counts = Counts(requests=5000, errors=40)
    low, high = p.bounds(counts, 0.05)
    exact = stats.binomtest(40, 5000).proportion_ci(0.95, method="exact")
    assert low < exact.low < counts.rate < exact.high < high
    assert high - low < 2.2 * (exact.high - exact.low)


@given(COUNTS, st.sampled_from([0.5, 0.05, 1e-6]))
@settings(deadline=None)
def test_the_bounds_hold_the_rate_between_them_for_any_counts(counts, alpha):
    low, high = p.bounds(counts, alpha)
    assert 0 <= low <= counts.rate <= high <= 1
    assert low == 0 or counts.errors
    assert high == 1 or counts.errors < counts.requests


@given(COUNTS.filter(lambda counts: counts.errors < counts.requests))
@settings(deadline=None)
def test_one_more_error_never_lowers_a_bound(counts):
    worse = Counts(requests=counts.requests, errors=counts.errors + 1)
    slack = 1e-12
    assert p.bounds(worse, 0.05)[1] >= p.bounds(counts, 0.05)[1] - slack
    assert p.bounds(worse, 0.05)[0] >= p.bounds(counts, 0.05)[0] - slack


def by_hand(blocks, margin):
    """Products of probabilities; the projection by a general minimiser."""
    values = []
    for share in p.MARGIN_SHARES:
        past_n, past_e, capital = 500.0, 0.5, 0.0
        for number, (n_c, e_c, n_s, e_s) in enumerate(blocks):
            stable, value = past_e / past_n, 1.0
            candidate = stable + share * margin

            def distance(null, n_c=n_c, n_s=n_s, candidate=candidate, stable=stable):
                pairs = ((n_c, candidate, null + margin), (n_s, stable, null))
                return sum(n * stats.entropy([a, 1 - a], [b, 1 - b]) for n, a, b in pairs)

            null = optimize.minimize_scalar(
                distance, bounds=(0, stable), method="bounded", options={"xatol": 1e-13}
            ).x
            pairs = ((n_c, e_c, candidate, null + margin), (n_s, e_s, stable, null))
            for n, k, a, b in pairs:
                value *= (a / b) ** k * ((1 - a) / (1 - b)) ** (n - k)
            past_n, past_e = past_n + n_s, past_e + e_s
            capital = (capital + e.reserve(number) - e.reserve(number + 1)) * value
        values.append(capital)
    return sum(values) / len(values) + e.reserve(len(blocks))


def test_block_by_block_it_is_the_formula():
    blocks = [(60, 0, 940, 4), (60, 1, 940, 5), (200, 0, 800, 2)]
    evidence = gathered(*blocks)
    assert evidence.verdict(0.05).evidence == pytest.approx(by_hand(blocks, 0.01), rel=1e-4)


@pytest.mark.parametrize("rate", [0.001, 0.05, 0.6])
@pytest.mark.parametrize(("n_c", "n_s"), [(1, 1), (5, 3), (4, 30)])
@pytest.mark.parametrize("margin", [0.01, 0.2])
def test_the_mean_of_a_block_is_at_most_one_for_every_worse_candidate(n_c, n_s, rate, margin):
    e_c, e_s = np.array(list(product(range(n_c + 1), range(n_s + 1))), float).T
    full = np.ones_like(e_c)
    ratios = np.exp(
        arrays.noninferiority_log_ratios(n_c * full, e_c, n_s * full, e_s, rate * full, margin)
    )
    for stable in np.linspace(0, 1 - margin, 25):
        for candidate in np.linspace(stable + margin, 1, 10):
            weights = stats.binom.pmf(e_c, n_c, candidate) * stats.binom.pmf(e_s, n_s, stable)
            assert (weights @ ratios <= 1 + 1e-6).all()


def test_a_bad_hour_of_both_arms_passes_nobody():
    # Early on both fail, and nearly all requests are the stable's. Then the candidate is worse by
    # 3 percentage points, and pooled it still looks better.
    evidence = gathered((60, 6, 5940, 594), *[(3000, 93, 3000, 3)] * 2)
    assert evidence.candidate.rate < evidence.stable.rate
    verdict = evidence.verdict(0.05)
    assert verdict.bound < verdict.threshold
    assert verdict.outcome == Outcome.INSUFFICIENT_DATA
    assert "within equal windows of time" in verdict.sentence


def test_a_candidate_as_good_as_the_stable_passes():
    verdict = gathered(*[(300, 1, 5700, 17)] * 6).verdict(0.05)
    assert verdict.outcome is Outcome.PASS
    assert verdict.sentence.endswith("is allowed.")


def test_a_worse_candidate_does_not_pass():
    verdict = gathered(*[(300, 6, 5700, 17)] * 20).verdict(0.05)
    assert verdict.outcome == Outcome.INSUFFICIENT_DATA
    assert "it must be below" in verdict.sentence


@pytest.mark.parametrize("counts", [(0, 0, 0, 0), (0, 0, 9000, 9), (9000, 0, 0, 0)])
def test_an_arm_without_requests_passes_nothing(counts):
    assert gathered(counts).verdict(0.05).outcome == Outcome.INSUFFICIENT_DATA


def test_below_the_minimum_nothing_passes():
    verdict = gathered((900, 0, 50_000, 0)).verdict(0.05, minimum_requests=901)
    assert verdict.outcome == Outcome.INSUFFICIENT_DATA
    assert "901 requests are needed" in verdict.sentence


def test_an_empty_block_changes_nothing():
    evidence = gathered((60, 0, 5940, 6))
    assert evidence.update(CountBlock()) is evidence


def test_a_stable_that_always_fails_is_no_yardstick():
    evidence = gathered(*[(100, 100, 10**9, 10**9)] * 3)
    assert evidence.verdict(0.05).outcome == Outcome.INSUFFICIENT_DATA


@given(
    st.lists(st.builds(CountBlock, candidate=COUNTS, stable=COUNTS), max_size=5),
    st.sampled_from([1e-4, 0.01, 0.5, 0.999]),
)
@settings(max_examples=examples(60), deadline=None)
def test_the_state_and_the_verdict_survive_json_and_any_counts(blocks, margin):
    evidence = p.PromotionEvidence(margin=margin)
    for one in blocks:
        evidence = evidence.update(one)
    assert p.PromotionEvidence.model_validate_json(evidence.to_json()) == evidence
    verdict = evidence.verdict(0.05)
    assert type(verdict).model_validate_json(verdict.to_json()) == verdict


def blockwise(margin):
    return lambda *counts: arrays.noninferiority_log_ratios(*counts, margin)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.001, 0.02])
def test_a_candidate_worse_by_the_margin_passes_no_more_often_than_alpha(rate):
    counts = s.draws(np.random.default_rng(1), 2000, rate, rate + 0.01)
    s.assert_at_most(s.ever(s.log_evidence(counts, blockwise(0.01), capped=False), 0.05), 0.05)


@pytest.mark.slow
def test_neither_if_both_wander_and_looks_are_lost():
    rng = np.random.default_rng(2)
    steps = rng.normal(0, 0.4, (2000, len(s.SHARES)))
    rate = 0.3 / (1 + np.exp(3 - np.cumsum(steps, axis=1)))
    counts = s.merged(rng, s.draws(rng, 2000, rate, rate + 0.01))
    s.assert_at_most(s.ever(s.log_evidence(counts, blockwise(0.01), capped=False), 0.05), 0.05)


def test_the_bounds_leave_the_truth_out_no_more_often_than_alpha():
    rng = np.random.default_rng(3)
    outside = np.zeros(2000, bool)
    errors = rng.binomial(100, 0.02, (2000, 30)).cumsum(axis=1)
    known = {}
    for look in range(30):
        for count in set(errors[:, look].tolist()):
            known[look, count] = p.bounds(Counts(requests=100 * (look + 1), errors=count), 0.1)
        limits = np.array([known[look, count] for count in errors[:, look].tolist()])
        outside |= (limits[:, 0] > 0.02) | (limits[:, 1] < 0.02)
    s.assert_at_most(outside, 0.1)
    assert outside.any()


@pytest.mark.slow
def test_good_candidates_pass_while_they_have_one_percent():
    # 100 requests a second, 60 in a window at 1 %: a quarter of an hour for a margin of 1 %.
    counts = s.draws(np.random.default_rng(4), 200, 0.001, 0.001, shares=np.full(40, 0.01))
    windows = []
    for run in range(200):
        evidence, window = p.PromotionEvidence(margin=0.01), 0
        while window < 40 and evidence.verdict(0.05).outcome is not Outcome.PASS:
            evidence = evidence.update(block(*map(int, counts[:, run, window])))
            window += 1
        windows.append(window)
    assert 12 <= np.median(windows) <= 20
