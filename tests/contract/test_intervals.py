from __future__ import annotations

import math

import numpy as np
import pytest

from dwcp_ml.contract.intervals import bounds, conformal_quantile, conformity_scores


@pytest.mark.parametrize("n", [20, 50, 199])
@pytest.mark.parametrize("nominal", [0.8, 0.9])
def test_exchangeable_examples_are_covered_as_often_as_promised(n, nominal):
    rng = np.random.default_rng(n)
    trials = 4000
    scores = np.abs(rng.standard_t(3, (trials, n + 1)))
    covered = np.mean([conformal_quantile(row[:-1], nominal) >= row[-1] for row in scores])
    # Exactly ceil((n + 1) nominal) / (n + 1), whatever the distribution.
    expected = math.ceil(round((n + 1) * nominal, 9)) / (n + 1)
    assert nominal <= expected < nominal + 1 / (n + 1)
    assert covered == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / trials))


def test_too_few_scores_promise_nothing():
    assert conformal_quantile(np.arange(8.0), 0.9) == math.inf
    assert conformal_quantile(np.arange(9.0), 0.9) == 8.0
    assert conformal_quantile(np.array([]), 0.5) == math.inf


def test_the_bounds_are_where_the_score_reaches_the_half_width():
    prediction = np.array([0.0, 5.0, 100.0, 40_000.0], np.float32)
    lower, upper = bounds(prediction, 0.1)
    assert lower.dtype == upper.dtype == np.float32
    assert conformity_scores(upper, prediction) == pytest.approx(0.1, rel=1e-4)
    assert conformity_scores(lower[1:], prediction[1:]) == pytest.approx(0.1, rel=1e-4)
    assert lower[0] == 0.0  # and not below
    assert upper[3] - lower[3] > 300 * (upper[2] - lower[2])
