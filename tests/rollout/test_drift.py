from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.rollout import drift as d
from dwcp_ml.rollout.observation import Histogram

EDGES = tuple(float(edge) for edge in np.linspace(0, 10, 21))


def histogram(values, edges=EDGES):
    counts = [int((np.asarray(values) <= edge).sum()) for edge in (*edges, np.inf)]
    return Histogram(edges=edges, counts=tuple(counts))


def rounded_up(values):
    """Values as the buckets know them: at their upper edge, at most the last one."""
    places = np.searchsorted(EDGES, values, side="left")
    return np.array(EDGES)[np.minimum(places, len(EDGES) - 1)]


def test_the_distances_are_those_of_scipy():
    rng = np.random.default_rng(1)
    newer, reference = rng.gamma(3, 1.2, 4000), rng.gamma(2, 1.2, 7000)
    found = d.drift("feature:rtt_ms", histogram(newer), histogram(reference))
    a, b = rounded_up(newer), rounded_up(reference)
    above = [np.where(values > 10, 11, rounded_up(values)) for values in (newer, reference)]
    assert found.ks == pytest.approx(stats.ks_2samp(*above).statistic)
    assert found.ks <= stats.ks_2samp(newer, reference).statistic + 1e-12
    assert found.wasserstein == pytest.approx(stats.wasserstein_distance(a, b))
    p = np.diff(histogram(newer).counts, prepend=0) + 0.5
    q = np.diff(histogram(reference).counts, prepend=0) + 0.5
    kept = (p > 0.5) | (q > 0.5)
    p, q = p[kept] / p[kept].sum(), q[kept] / q[kept].sum()
    assert found.psi == pytest.approx(stats.entropy(p, q) + stats.entropy(q, p))
    assert found.level == "large"
    assert (found.samples, found.reference_samples) == (4000, 7000)


def test_ks_is_exact_on_whole_numbers():
    rng = np.random.default_rng(2)
    edges = tuple(float(value) for value in range(10))
    newer, reference = rng.integers(0, 8, 300), rng.integers(0, 10, 500)
    found = d.drift("output:level", histogram(newer, edges), histogram(reference, edges))
    assert found.ks == pytest.approx(stats.ks_2samp(newer, reference).statistic)
    assert found.wasserstein == pytest.approx(stats.wasserstein_distance(newer, reference))
    p, q = (np.bincount(values, minlength=10) + 0.5 for values in (newer, reference))
    assert found.psi == pytest.approx(
        stats.entropy(p / p.sum(), q / q.sum()) + stats.entropy(q / q.sum(), p / p.sum())
    )


def test_equal_distributions_lie_nowhere_apart():
    same = histogram(np.linspace(0, 9, 5000))
    found = d.drift("x", same, same)
    assert (found.psi, found.ks, found.wasserstein) == (0, 0, 0)
    assert found.level == "little"
    assert "advice and stops nothing" in found.sentence


@pytest.mark.parametrize("degrees", [1, 2, 5, 20, 40])
def test_the_point_of_chi_square_is_near_enough(degrees):
    assert d._chi_square_95(degrees) == pytest.approx(stats.chi2.ppf(0.95, degrees), rel=0.03)


def test_chance_alone_stays_below_its_limit_95_times_of_100():
    rng = np.random.default_rng(3)
    over = 0
    for _ in range(500):
        newer, reference = (rng.multinomial(n, np.full(10, 0.1)).astype(float) for n in (800, 900))
        psi, chance = d.stability_index(newer, reference)
        over += psi > chance
    assert 10 <= over <= 42


def test_few_values_are_insufficient():
    rng = np.random.default_rng(4)
    found = d.drift("x", histogram(rng.random(30) * 9), histogram(rng.random(30) * 9))
    assert found.level == "insufficient data"
    assert "too few values" in found.sentence
    nothing = d.drift("x", histogram([]), histogram([1.0]))
    assert nothing.level == "insufficient data"
    assert nothing.psi is None


def test_some_drift():
    newer = histogram(np.repeat([1, 2], [6000, 4000]))
    found = d.drift("x", newer, histogram(np.repeat([1, 2], [7700, 2300])))
    assert found.level == "some"


def test_other_buckets_are_refused():
    with pytest.raises(DwcpError, match="x can't be compared"):
        d.drift("x", histogram([1.0]), histogram([1.0], (0.0, 1.0)))


def test_there_is_no_outcome_that_could_stop_anything():
    assert "outcome" not in d.Drift.model_fields


HISTOGRAMS = st.lists(st.integers(0, 10**9), min_size=4, max_size=4).map(
    lambda single: Histogram(edges=(1.0, 2.0, 4.0), counts=tuple(np.cumsum(single).tolist()))
)


@given(HISTOGRAMS, HISTOGRAMS)
@settings(deadline=None)
def test_it_is_symmetric_finite_and_survives_json(newer, reference):
    found, back = d.drift("x", newer, reference), d.drift("x", reference, newer)
    assert d.Drift.model_validate_json(found.to_json()) == found
    assert (found.psi is None) == (not (newer.counts[-1] and reference.counts[-1]))
    if found.psi is not None:
        assert found.psi == pytest.approx(back.psi, abs=1e-12)
        assert found.ks == pytest.approx(back.ks, abs=1e-12)
        assert found.wasserstein == pytest.approx(back.wasserstein, abs=1e-12)
        assert found.psi >= 0
        assert 0 <= found.ks <= 1
        assert 0 <= found.wasserstein <= 3 + 1e-9
