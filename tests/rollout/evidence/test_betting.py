from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ville.means import BettingCS, EmpiricalBernsteinCS

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.rollout.evidence import betting as b
from tests.matrix import examples
from tests.rollout.evidence import simulation as s

SHARES = st.lists(st.floats(0, 1), max_size=30)


def gathered(*blocks, bound=0.1):
    evidence = b.BettingEvidence(bound=bound)
    for block in blocks:
        evidence = evidence.update(block)
    return evidence


def capital(values, bound, above):
    """A gambler's purse, coin by coin, for every bet; then the mean of the purses."""
    purses = []
    for share in b.BETS:
        purse = 1.0
        for value in values:
            odds = share / bound if above else -share / (1 - bound)
            purse += purse * odds * (value - bound)
        purses.append(purse)
    return sum(purses) / len(purses)


def test_the_capital_is_that_of_a_gambler():
    values = np.random.default_rng(1).beta(1, 6, 40).tolist()
    evidence = gathered(values[:13], values[13:], bound=0.12)
    above, below = (capital(values, 0.12, side) for side in (True, False))
    assert math.exp(evidence.log_capital_above) == pytest.approx(above)
    assert math.exp(evidence.log_capital_below) == pytest.approx(below)


@pytest.mark.parametrize("make", [lambda r: r.random(800) < 0.03, lambda r: r.beta(2, 5, 800)])
def test_the_interval_is_that_of_an_independent_library(make):
    values = np.asarray(make(np.random.default_rng(2)), float)
    other = EmpiricalBernsteinCS(alpha=0.05, intersect=False).fit(values)
    for n in (1, 2, 30, 799, 800):
        cut = n // 3
        low, high = gathered(values[:cut], values[cut:n]).interval(0.05)
        assert (low, high) == pytest.approx((other.lower_[n - 1], other.upper_[n - 1]), abs=1e-12)


def test_hedged_betting_of_that_library_comes_to_the_same_decision():
    rng = np.random.default_rng(3)
    for mean, fails in ((0.3, True), (0.1, False)):
        values = rng.beta(mean * 10, (1 - mean) * 10, 400)
        low, high = BettingCS(alpha=0.05, intersect=False, grid=1000).fit(values).interval()
        evidence = gathered(values, bound=0.2)
        assert (low > 0.2) == fails
        assert (evidence.log_capital_above >= math.log(20)) == fails
        assert (high < 0.2) == (not fails)
        assert (evidence.log_capital_below >= math.log(20)) == (not fails)


@given(SHARES, SHARES, st.floats(0.001, 0.999))
@settings(deadline=None)
def test_blocks_may_be_merged_and_none_is_nothing(first, second, bound):
    apart, together = gathered(first, second, bound=bound), gathered(first + second, bound=bound)
    assert apart.log_above == pytest.approx(together.log_above, abs=1e-9)
    assert apart.log_below == pytest.approx(together.log_below, abs=1e-9)
    assert apart.interval(0.1) == pytest.approx(together.interval(0.1), abs=1e-9)
    assert apart.update([]) is apart


@given(st.lists(SHARES, max_size=4), st.floats(1e-6, 1 - 1e-6))
@settings(max_examples=examples(60), deadline=None)
def test_the_state_survives_json_and_any_values(blocks, bound):
    evidence = gathered(*blocks, bound=bound)
    assert b.BettingEvidence.model_validate_json(evidence.to_json()) == evidence
    assert len(evidence.to_json()) < 1500
    low, high = evidence.interval(0.05)
    assert 0 <= low <= high <= 1


@given(SHARES.filter(bool), st.floats(0.01, 0.99), st.data())
@settings(deadline=None)
def test_a_larger_value_never_lowers_the_capital_above(values, bound, data):
    place = data.draw(st.integers(0, len(values) - 1))
    worse = list(values)
    worse[place] = data.draw(st.floats(values[place], 1))
    more, before = gathered(worse, bound=bound), gathered(values, bound=bound)
    assert more.log_capital_above >= before.log_capital_above - 1e-9
    assert more.log_capital_below <= before.log_capital_below + 1e-9


@pytest.mark.parametrize("bad", [-0.01, 1.01, math.nan, math.inf])
def test_what_is_out_of_range_is_refused(bad):
    with pytest.raises(DwcpError, match="must be a number from 0 to 1"):
        gathered([0.5, bad])


def test_without_observations_nothing_is_known():
    evidence = gathered()
    assert evidence.interval(0.05) == (0, 1)
    assert evidence.sums.mean is None
    assert evidence.log_capital_above == evidence.log_capital_below == 0


@pytest.mark.slow
def test_a_million_equal_values_stay_finite():
    evidence = gathered(np.ones(1_000_000), bound=0.001)
    assert evidence.log_capital_above > 1e6
    assert evidence.log_capital_below < -1e3
    assert b.BettingEvidence.model_validate_json(evidence.to_json()) == evidence


DISTRIBUTIONS = {
    "coins": lambda rng, size: (rng.random(size) < 0.05).astype(float),
    "smooth": lambda rng, size: rng.beta(0.5, 9.5, size),
    "rare and large": lambda rng, size: np.where(rng.random(size) < 0.02, 1.0, 0.03061224489795918),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(DISTRIBUTIONS))
def test_a_mean_at_the_bound_is_decided_no_more_often_than_alpha(name):
    rng, runs = np.random.default_rng(4), 2000
    above, below = np.zeros((runs, len(b.BETS))), np.zeros((runs, len(b.BETS)))
    wrong = np.zeros((2, runs), bool)
    for _ in range(20):
        more, less = b.log_capital(DISTRIBUTIONS[name](rng, (runs, 25)), 0.05)
        above, below = above + more, below + less
        for side, logs in enumerate((above, below)):
            wrong[side] |= np.exp(logs).mean(axis=1) >= 20
    s.assert_at_most(wrong[0], 0.05)
    s.assert_at_most(wrong[1], 0.05)


@pytest.mark.slow
def test_the_interval_leaves_the_truth_out_no_more_often_than_alpha():
    rng = np.random.default_rng(5)
    wrong = np.zeros(1000, bool)
    for run in range(1000):
        sums = b.MeanInterval()
        for _ in range(15):
            sums = sums.update((rng.random(40) < 0.3).astype(float))
            low, high = sums.interval(0.1)
            wrong[run] |= not low <= 0.3 <= high
    s.assert_at_most(wrong, 0.1)
