"""Prediction intervals of a throughput: how wide, and where their ends lie.

The conformity score of an example is its error on the model's own scale, |log(1 + y) - log(1 + p)|
of truth y and prediction p, in Mbit/s. The half width q is a quantile of the scores of examples
that chose nothing else (split conformal prediction: Papadopoulos et al., ECML 2002; Lei et al.,
JASA 113, 2018). On the scale of the throughput the interval is proportional to 1 + p, so that a
large link has a wide one.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from dwcp_ml.contract.arrays import Array, Floats

LOWER: Final = "lower"
UPPER: Final = "upper"
"""The optional outputs of a model with prediction intervals."""

MAX_HALF_WIDTH: Final = 20.0
"""A wider interval says nothing, and its end may be beyond float32."""


def conformity_scores(truth: Array, prediction: Array) -> Floats:
    """Return the error of each prediction on the logarithmic scale; all of shape (n,), Mbit/s."""
    error: Floats = np.log1p(truth.astype(np.float64)) - np.log1p(prediction.astype(np.float64))
    return np.abs(error)


def conformal_quantile(scores: Floats, coverage: float) -> float:
    """Return the half width that covers a new, exchangeable example with at least ``coverage``.

    It is the ceil((n + 1) coverage)-th smallest of the n scores, and infinite where n is too small
    for any finite width.

    >>> conformal_quantile(np.arange(1.0, 20.0), 0.9)
    18.0
    """
    rank = math.ceil((len(scores) + 1) * coverage - 1e-9)
    if rank > len(scores):
        return math.inf
    return float(np.partition(scores, rank - 1)[rank - 1])


def bounds(prediction: Array, half_width: float) -> tuple[Array, Array]:
    """Return both ends of the interval of each prediction, (n,), in its dtype; at least 0."""
    factor = math.exp(half_width)
    above = prediction.astype(np.float64) + 1.0
    lower = np.maximum(above / factor - 1.0, 0.0)
    upper = above * factor - 1.0
    return lower.astype(prediction.dtype), upper.astype(prediction.dtype)
