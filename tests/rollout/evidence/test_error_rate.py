from __future__ import annotations

import math
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import optimize, stats

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.rollout.evidence import error_rate as e
from dwcp_ml.rollout.evidence.error_rate import CountBlock, Counts
from dwcp_ml.rollout.verdict import Outcome
from tests.matrix import examples
from tests.rollout.evidence import arrays
from tests.rollout.evidence import simulation as s

COUNTS = st.one_of(st.integers(0, 50), st.integers(0, 1_000_000_000)).flatmap(
    lambda n: st.builds(Counts, requests=st.just(n), errors=st.integers(0, n))
)
BLOCKS = st.lists(st.builds(CountBlock, candidate=COUNTS, stable=COUNTS), max_size=6)


def block(n_c, e_c, n_s, e_s):
    return CountBlock(
        candidate=Counts(requests=n_c, errors=e_c), stable=Counts(requests=n_s, errors=e_s)
    )


def gathered(blocks):
    evidence = e.ErrorRateEvidence()
    for one in blocks:
        evidence = evidence.update(one)
    return evidence


def by_hand(blocks):
    """The e-value as the formula has it: products of probabilities, no logarithm."""
    values = []
    for delta in e.DELTAS:
        past_n, past_e, capital = 500.0, 0.5, 0.0
        for number, (n_c, e_c, n_s, e_s) in enumerate(blocks):
            value = 1.0
            stable = past_e / past_n
            odds = stable / (1 - stable) * math.exp(delta)
            candidate = odds / (1 + odds)
            both = (n_c * candidate + n_s * stable) / (n_c + n_s)
            for n, k, p in ((n_c, e_c, candidate), (n_s, e_s, stable)):
                value *= (p / both) ** k * ((1 - p) / (1 - both)) ** (n - k)
            past_n, past_e = past_n + n_s, past_e + e_s
            invested = e.reserve(number) - e.reserve(number + 1)
            capital = (capital + invested) * min(value, 3.0)
        values.append(capital)
    return sum(values) / len(values) + e.reserve(len(blocks))


def test_it_is_the_formula():
    blocks = [(60, 0, 5940, 6), (60, 2, 5940, 5), (300, 4, 5700, 7), (3, 1, 10, 0)]
    evidence = gathered(block(*counts) for counts in blocks)
    assert math.exp(evidence.log_e) == pytest.approx(by_hand(blocks), rel=1e-9)


@pytest.mark.parametrize("rate", [0.001, 0.03, 0.4, 0.97])
@pytest.mark.parametrize(("n_c", "n_s"), [(1, 1), (3, 8), (6, 2), (5, 40)])
def test_the_mean_of_a_block_is_at_most_one_whatever_the_shared_rate(n_c, n_s, rate):
    outcomes = np.array(list(product(range(n_c + 1), range(n_s + 1))), float).T
    e_c, e_s = outcomes
    full = np.ones_like(e_c)
    ratios = np.exp(arrays.log_ratios(n_c * full, e_c, n_s * full, e_s, rate * full))
    for shared in np.linspace(0, 1, 41):
        weights = stats.binom.pmf(e_c, n_c, shared) * stats.binom.pmf(e_s, n_s, shared)
        assert (weights @ ratios <= 1 + 1e-9).all()


@pytest.mark.parametrize("margin", [0.001, 0.03, 0.4])
@pytest.mark.parametrize(("n_c", "n_s"), [(1, 1), (6, 2), (3, 12)])
def test_with_a_margin_the_mean_is_at_most_one_for_every_excess_up_to_it(n_c, n_s, margin):
    outcomes = np.array(list(product(range(n_c + 1), range(n_s + 1))), float).T
    e_c, e_s = outcomes
    full = np.ones_like(e_c)
    for expected in (0.004, 0.3):
        counts = (n_c * full, e_c, n_s * full, e_s)
        ratios = np.exp(arrays.log_ratios(*counts, expected * full, margin))
        for rate_s in np.linspace(0, 1 - margin, 31):
            for excess in (-rate_s, 0.0, 0.5 * margin, margin):
                weights = stats.binom.pmf(e_c, n_c, rate_s + excess)
                weights = weights * stats.binom.pmf(e_s, n_s, rate_s)
                assert (weights @ ratios <= 1 + 1e-9).all()
        odds = np.exp(e.DELTAS) * (expected + margin) / (1 - expected - margin)
        for its, rate_c in enumerate(odds / (1 + odds)):
            alternative = stats.binom.pmf(e_c, n_c, rate_c) * stats.binom.pmf(e_s, n_s, expected)
            assert alternative @ ratios[:, its] > 1


def test_the_closest_pair_of_the_null_is_what_a_general_optimizer_finds():
    n_c, n_s, rate_c, rate_s, margin = 60.0, 5940.0, 0.12, 0.01, 0.03

    def divergence(null_s):
        pairs = ((n_c, rate_c, null_s + margin), (n_s, rate_s, null_s))
        return sum(n * stats.entropy([p, 1 - p], [q, 1 - q]) for n, p, q in pairs)

    found = optimize.minimize_scalar(divergence, bounds=(1e-9, 0.9), options={"xatol": 1e-12})
    values = [np.array(value) for value in (rate_c, rate_s, n_c, n_s)]
    assert float(arrays.projected(*values, margin)) == pytest.approx(found.x, rel=1e-6)


def test_an_empty_block_changes_nothing():
    evidence = gathered([block(60, 1, 5940, 6)])
    assert evidence.update(CountBlock()) is evidence


def test_a_block_without_the_candidate_only_teaches_the_stables_rate():
    evidence = gathered([block(0, 0, 10_000, 50)])
    assert evidence.log_e == 0.0
    assert evidence.past.rate() == pytest.approx(50.5 / 10_500)


def test_a_block_without_the_stable_says_nothing():
    evidence = gathered([block(100, 100, 0, 0)])
    assert evidence.log_e == 0.0
    verdict = evidence.verdict(0.05)
    assert verdict.outcome == Outcome.INSUFFICIENT_DATA
    assert "no request to compare with" in verdict.sentence


def test_the_past_fades():
    evidence = gathered([block(0, 0, 10**8, 10**7), block(0, 0, 200_000, 0)])
    assert evidence.past.requests == pytest.approx(e.MEMORY_REQUESTS)
    assert evidence.past.rate() == pytest.approx(0.05, rel=0.01)


def test_the_verdict_says_what_a_person_understands():
    blocks = [block(105, 4, 2750, 5), block(105, 4, 2750, 6)] * 3
    evidence = gathered([block(0, 0, 30_000, 60), *blocks])
    verdict = evidence.verdict(0.05 / 3)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.evidence >= verdict.needed == pytest.approx(60)
    assert verdict.value == pytest.approx(24 / 630)
    assert verdict.samples == 630
    assert verdict.sentence.startswith(
        "Candidate 3.8 % of 630 requests failed, stable 0.2 % of 46,500: e-value "
    )
    assert verdict.sentence.endswith(", rolled back at 60.")


@given(BLOCKS, st.sampled_from([0.2, 0.05, 1e-6]))
@settings(max_examples=examples(150), deadline=None)
def test_it_fails_exactly_when_the_evidence_is_reached(blocks, alpha):
    verdict = gathered(blocks).verdict(alpha)
    assert verdict.needed == 1 / alpha
    assert (verdict.outcome is Outcome.FAIL) == (verdict.evidence >= verdict.needed)


def test_health_is_no_pass():
    verdict = gathered([block(10**6, 0, 10**6, 10**4)] * 3).verdict(0.05)
    assert verdict.outcome == Outcome.INSUFFICIENT_DATA


def test_no_traffic_is_no_data():
    verdict = e.ErrorRateEvidence().verdict(0.05)
    assert verdict.outcome == Outcome.INSUFFICIENT_DATA
    assert verdict.value is None
    assert "no request yet" in verdict.sentence


def test_more_errors_than_requests_are_refused():
    with pytest.raises(ValidationError, match="5 errors are more than 3 requests"):
        Counts(requests=3, errors=5)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_alpha_is_a_probability(alpha):
    with pytest.raises(UsageError, match="alpha must lie strictly between 0 and 1"):
        e.ErrorRateEvidence().verdict(alpha)


@given(BLOCKS)
@settings(max_examples=examples(150), deadline=None)
def test_the_state_and_the_verdict_survive_json_and_any_counts(blocks):
    evidence = gathered(blocks)
    assert e.ErrorRateEvidence.model_validate_json(evidence.to_json()) == evidence
    assert len(evidence.to_json()) < 2000
    verdict = evidence.verdict(0.01)
    assert type(verdict).model_validate_json(verdict.to_json()) == verdict


@given(BLOCKS.filter(bool), st.data())
@settings(max_examples=examples(150), deadline=None)
def test_one_more_error_of_the_candidate_never_lowers_the_evidence(blocks, data):
    place = data.draw(st.integers(0, len(blocks) - 1))
    arm = blocks[place].candidate
    if arm.errors == arm.requests:
        return
    worse = list(blocks)
    worse[place] = CountBlock(
        candidate=Counts(requests=arm.requests, errors=arm.errors + 1), stable=blocks[place].stable
    )
    more, before = gathered(worse).log_e, gathered(blocks).log_e
    assert more >= before - 1e-9 * max(1.0, abs(before))


def test_a_state_with_another_grid_is_refused():
    with pytest.raises(ValidationError):
        e.ErrorRateEvidence(log_capitals=(0.0,))


def test_the_simulation_is_the_state():
    rng = np.random.default_rng(5)
    counts = s.draws(rng, 3, 0.004, 0.006, shares=s.SHARES[::8])
    expected = s.log_evidence(counts)
    for run in range(3):
        evidence = gathered(block(*map(int, column)) for column in counts[:, run].T)
        assert evidence.log_e == pytest.approx(expected[run, -1], rel=1e-9)


@pytest.mark.parametrize("rate", [0.0005, 0.005, 0.008, 0.1])
def test_equal_arms_are_rolled_back_no_more_often_than_alpha(rate):
    counts = s.draws(np.random.default_rng(1), 2000, rate, rate)
    s.assert_at_most(s.ever(s.log_evidence(counts), 0.05), 0.05)


def test_looks_that_were_lost_do_no_harm():
    rng = np.random.default_rng(2)
    counts = s.merged(rng, s.draws(rng, 2000, 0.005, 0.005))
    s.assert_at_most(s.ever(s.log_evidence(counts), 0.05), 0.05)


def test_a_rate_that_wanders_in_both_arms_does_no_harm():
    rng = np.random.default_rng(3)
    steps = rng.normal(0, 0.4, (2000, len(s.SHARES)))
    rate = 1 / (1 + np.exp(5 - np.cumsum(steps, axis=1)))
    counts = s.draws(rng, 2000, rate, rate)
    s.assert_at_most(s.ever(s.log_evidence(counts), 0.05), 0.05)


def test_a_stable_without_a_past_and_with_little_traffic_does_no_harm():
    counts = s.draws(np.random.default_rng(4), 2000, 0.02, 0.02, requests=40)
    s.assert_at_most(s.ever(s.log_evidence(counts), 0.05), 0.05)


@pytest.mark.parametrize(
    ("stable", "candidate", "earliest", "latest"),
    [(0.001, 0.005, 16, 23), (0.001, 0.02, 4, 7)],
)
def test_bad_candidates_are_caught_early(stable, candidate, earliest, latest):
    counts = s.draws(np.random.default_rng(6), 1000, stable, candidate)
    windows = s.first(s.log_evidence(counts), 0.05)
    assert (windows <= len(s.SHARES)).mean() >= 0.99
    assert earliest <= np.median(windows) <= latest


@pytest.mark.parametrize("rate", [0.005, 0.008])
def test_equal_arms_of_the_published_table_are_left_alone(rate):
    counts = s.draws(np.random.default_rng(7), 1000, rate, rate)
    assert s.ever(s.log_evidence(counts), 0.05).mean() <= 0.05


def bursts(rng, runs):
    """Windows in which half of one arm's requests fail: one bad node, 1 window in 100."""
    return np.where(rng.random((runs, len(s.SHARES))) < 0.01, 0.5, 0.0)


def test_a_burst_in_one_arm_is_one_block_and_decides_nothing():
    rng = np.random.default_rng(8)
    counts = s.draws(rng, 2000, 0.005, 0.005 + bursts(rng, 2000))
    assert s.ever(s.log_evidence(counts, reserved=False), 0.05).mean() > 0.2, "the plain products"
    s.assert_at_most(s.ever(s.log_evidence(counts), 0.05), 0.05)


def test_the_largest_factor_is_three_and_what_fails_everything_takes_five_blocks():
    evidence = e.ErrorRateEvidence()
    for number in range(1, 6):
        evidence = evidence.update(block(10, 10, 990, 1))
        expected = 0.5 * 3.0**number
        assert math.exp(evidence.log_e) >= expected
        assert math.exp(evidence.log_e) <= 1.2 * expected + 1.0
        assert (evidence.verdict(0.05 * 0.33).outcome is Outcome.FAIL) == (number >= 5)


@pytest.mark.parametrize(("blocks", "latest"), [(30, 9), (360, 12), (2160, 16)])
def test_harm_that_begins_late_is_found_in_about_as_many_blocks(blocks, latest):
    """A single product would first have to make up for hours of good blocks."""
    evidence = e.ErrorRateEvidence()
    for _ in range(blocks):
        evidence = evidence.update(block(500, 0, 500, 1))
    taken = 0
    while evidence.verdict(0.05 * 0.33).outcome is not Outcome.FAIL:
        evidence = evidence.update(block(500, 500, 500, 1))
        taken += 1
    assert taken <= latest


def test_the_reserve_only_falls_and_is_never_used_up():
    left = [e.reserve(number) for number in range(100_000)]
    assert left[:2] == [1.0, 1.0 - e.FIRST_SHARE]
    assert all(one > other > 0.0 for one, other in pairwise(left))
