"""The formulas of ``error_rate`` and ``promotion`` for many blocks at once.

The product computes one block at a time, in plain floats (``error_rate``). These arrays are written
apart from it, with another way to the root, so they check it and simulate thousands of rollouts.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dwcp_ml.rollout.evidence.error_rate import DELTAS
from dwcp_ml.rollout.evidence.promotion import MARGIN_SHARES

_HALVINGS: Final = 80

Floats = NDArray[np.float64]


def log_ratios(
    candidate_requests: Floats,
    candidate_errors: Floats,
    stable_requests: Floats,
    stable_errors: Floats,
    stable_rate: Floats,
    margin: float = 0.0,
) -> Floats:
    """Return log S_j for each δ.

    Parameters
    ----------
    candidate_requests, candidate_errors, stable_requests, stable_errors
        Counts of the block, all of one shape (...).
    stable_rate
        θs, strictly between 0 and 1, known before the block; shape (...).
    margin
        Excess probability that is no harm.

    Returns
    -------
    ndarray of shape (..., len(DELTAS))
        0 where an arm has no requests, or where the stable's rate leaves no space for the margin.
    """
    counts = (candidate_requests, candidate_errors, stable_requests, stable_errors)
    n_c, e_c, n_s, e_s, rate_s, weight_c, weight_s, defined = _block(counts, stable_rate, margin)
    odds = np.exp(np.array(DELTAS)) * (rate_s + margin)
    rate_c = odds / (1.0 - rate_s - margin + odds)
    if margin:
        null_s = projected(rate_c, rate_s, weight_c, weight_s, margin)
    else:
        null_s = (weight_c * rate_c + weight_s * rate_s) / (weight_c + weight_s)
    sums = log_likelihood_ratio(n_c, e_c, rate_c, null_s + margin)
    sums = sums + log_likelihood_ratio(n_s, e_s, rate_s, null_s)
    return np.where(defined, sums, 0.0)


def _block(
    counts: tuple[Floats, Floats, Floats, Floats], stable_rate: Floats, margin: float
) -> tuple[Floats, ...]:
    """Return the counts, θs, the weights of both arms, and where a ratio is defined.

    Each has an axis more, for the alternatives. Where no ratio is defined, θs and the weights are
    placeholders that keep the logarithms finite.
    """
    n_c, e_c, n_s, e_s = (each[..., None] for each in counts)
    defined = (n_c > 0) & (n_s > 0) & (stable_rate[..., None] + margin < 1.0)
    rate_s = np.where(defined, stable_rate[..., None], 0.5 * (1.0 - margin))
    weight_c, weight_s = np.where(defined, n_c, 1.0), np.where(defined, n_s, 1.0)
    return n_c, e_c, n_s, e_s, rate_s, weight_c, weight_s, defined


def projected(
    rate_c: Floats, rate_s: Floats, weight_c: Floats, weight_s: Floats, margin: float
) -> Floats:
    """Return θs° on the edge θc° = θs° + margin: the root of a derivative that rises with θs°."""
    shape = np.broadcast_shapes(rate_c.shape, rate_s.shape, weight_c.shape)
    above = rate_c > rate_s + margin
    low = np.broadcast_to(np.where(above, rate_s, 0.0), shape)
    high = np.broadcast_to(np.where(above, rate_c - margin, rate_s), shape)
    for _ in range(_HALVINGS):
        null_s = 0.5 * (low + high)
        null_c = null_s + margin
        slope = weight_c * (null_c - rate_c) / (null_c * (1.0 - null_c))
        slope = slope + weight_s * (null_s - rate_s) / (null_s * (1.0 - null_s))
        low, high = np.where(slope < 0, null_s, low), np.where(slope < 0, high, null_s)
    root: Floats = 0.5 * (low + high)
    return root


def log_likelihood_ratio(requests: Floats, errors: Floats, rate: Floats, null: Floats) -> Floats:
    """Return the log likelihood ratio of two rates strictly between 0 and 1."""
    failed = np.log(rate / null)
    # log1p keeps the difference of two rates near 0 that a billion requests multiply.
    answered = np.log1p((null - rate) / (1.0 - null))
    ratio: Floats = errors * failed + (requests - errors) * answered
    return ratio


def noninferiority_log_ratios(
    candidate_requests: Floats,
    candidate_errors: Floats,
    stable_requests: Floats,
    stable_errors: Floats,
    stable_rate: Floats,
    margin: float,
) -> Floats:
    """Return log S_j against "worse by the margin or more", for each alternative.

    Parameters
    ----------
    candidate_requests, candidate_errors, stable_requests, stable_errors
        Counts of the block, all of one shape (...).
    stable_rate
        θs, strictly between 0 and 1, known before the block; shape (...).
    margin
        Excess probability.

    Returns
    -------
    ndarray of shape (..., len(MARGIN_SHARES))
        0 where an arm has no requests, or where the stable's rate leaves no space for the margin.
    """
    counts = (candidate_requests, candidate_errors, stable_requests, stable_errors)
    n_c, e_c, n_s, e_s, rate_s, weight_c, weight_s, defined = _block(counts, stable_rate, margin)
    rate_c = rate_s + np.array(MARGIN_SHARES) * margin
    null_s = projected(rate_c, rate_s, weight_c, weight_s, margin)
    sums = log_likelihood_ratio(n_c, e_c, rate_c, null_s + margin)
    sums = sums + log_likelihood_ratio(n_s, e_s, rate_s, null_s)
    return np.where(defined, sums, 0.0)
