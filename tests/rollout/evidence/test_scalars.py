"""The formulas for one block are those for many blocks, and roots are roots."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from dwcp_ml.rollout.evidence import error_rate, promotion
from dwcp_ml.rollout.evidence.error_rate import CountBlock, Counts
from tests.matrix import examples
from tests.rollout.evidence import arrays

ARMS = st.one_of(st.integers(0, 50), st.integers(0, 10**6)).flatmap(
    lambda n: st.tuples(st.just(n), st.integers(0, n))
)
RATES = st.floats(-6.0, -0.01).map(lambda power: 10.0**power)


def as_arrays(candidate, stable, rate):
    return [np.array(float(value)) for value in (*candidate, *stable, rate)]


def rounding(candidate, stable, edge):
    """Return the tolerance: both ways round θ°, and the counts multiply what is lost.

    Near 1 it is 1 - θ° that is rounded, and most is lost with the largest odds ratio.
    """
    odds = math.exp(error_rate.DELTAS[-1]) * edge / max(1.0 - edge, 1e-12)
    return 1e-9 + (1e-14 + 4e-16 * (1.0 + odds)) * (candidate[0] + stable[0])


@pytest.mark.slow
@given(ARMS, ARMS, RATES, st.sampled_from([0.0, 1e-3, 0.03, 0.3]))
@settings(max_examples=examples(300), deadline=None)
def test_the_error_rate_of_one_block(candidate, stable, rate, margin):
    ratios = np.exp(np.array(error_rate.DELTAS)).tolist()
    one = error_rate.log_ratios(candidate, stable, rate, ratios, margin)
    many = arrays.log_ratios(*as_arrays(candidate, stable, rate), margin)
    assert one == pytest.approx(
        many.tolist(), rel=1e-9, abs=rounding(candidate, stable, rate + margin)
    )


@given(ARMS, ARMS, RATES, st.sampled_from([1e-3, 0.01, 0.3]))
@settings(max_examples=examples(300), deadline=None)
def test_the_promotion_of_one_block(candidate, stable, rate, margin):
    block = CountBlock(
        candidate=Counts(requests=candidate[0], errors=candidate[1]),
        stable=Counts(requests=stable[0], errors=stable[1]),
    )
    one = promotion.promotion_log_ratios(block, rate, margin)
    many = arrays.noninferiority_log_ratios(*as_arrays(candidate, stable, rate), margin)
    assert one == pytest.approx(
        many.tolist(), rel=1e-9, abs=rounding(candidate, stable, rate + margin)
    )


@given(
    st.integers(0, 10**6).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))),
    st.sampled_from([0.5, 0.05, 1e-6]),
    st.booleans(),
)
@settings(max_examples=examples(300), deadline=None)
def test_an_edge_is_where_the_likelihood_falls_to_the_level(counts, alpha, upper):
    requests, errors = counts
    if not requests:
        return
    answered = requests - errors
    level = promotion.log_marginal(errors, answered) + math.log(alpha)

    def excess(rate):
        failed = errors * math.log(rate) if errors else 0.0
        return failed + (answered * math.log1p(-rate) if answered else 0.0) - level

    edge = error_rate.likelihood_edge(errors, answered, level, upper)
    if edge in (0.0, 1.0):
        assert (answered if edge else errors) == 0
        return
    rate = errors / requests
    inside = min(max(rate, 1e-12), 1.0 - 1e-12)
    end = 1.0 - 1e-15 if upper else 1e-15
    if excess(end) > 0.0:
        return  # beyond what this check can bracket
    expected = optimize.brentq(excess, inside, end, xtol=1e-15, rtol=1e-14)
    assert edge == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("weights", [(10, 990), (500, 500), (10**9, 1), (1, 10**9)])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.2, 30.0])
def test_the_projection_is_where_the_divergence_stops_falling(weights, share):
    margin, rate_s = 0.01, 0.001
    rate_c = rate_s + share * margin
    null = error_rate.projected(rate_c, rate_s, *weights, margin)

    def slope(x):
        pull_c = weights[0] * (x + margin - rate_c) / ((x + margin) * (1 - x - margin))
        return pull_c + weights[1] * (x - rate_s) / (x * (1 - x))

    low, high = (0.0, rate_s) if share < 1.0 else (rate_s, rate_c - margin)
    assert low < null < high
    assert slope(null * (1 - 1e-6)) < 0.0 < slope(null * (1 + 1e-6))
