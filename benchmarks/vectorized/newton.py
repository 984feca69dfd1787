"""The two roots that the tests search, by Newton's steps on whole arrays.

Each element takes the same steps as in ``evidence.error_rate``, and leaves the arrays when it is
close enough.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from benchmarks.vectorized.rows import Floats, Ints
from dwcp_ml.rollout.evidence.error_rate import _CLOSE, _ROUNDED, _STEPS
from dwcp_ml.rollout.evidence.promotion import _LOG_PRIOR, PRIOR_SHAPE


def projected(
    rate_c: Floats, rate_s: Floats, weight_c: Floats, weight_s: Floats, margin: Floats
) -> Floats:
    """Return θs° of ``error_rate.projected``; all arrays have one shape."""
    shape = rate_c.shape
    rate_c, rate_s, margin = rate_c.ravel(), rate_s.ravel(), margin.ravel()
    weight_c, weight_s = weight_c.ravel(), weight_s.ravel()
    edge = rate_s + margin
    above = rate_c > edge
    low, high = np.where(above, rate_s, 0.0), np.where(above, rate_c - margin, rate_s)
    pull_c = weight_c / (edge * (1.0 - edge))
    pull_s = weight_s / (rate_s * (1.0 - rate_s))
    root = rate_s - pull_c * (edge - rate_c) / (pull_c + pull_s)
    root = np.where((low < root) & (root < high), root, 0.5 * (low + high))
    found, left = np.empty_like(root), np.arange(root.size)
    for _ in range(_STEPS):
        value, slope = _cubic(root, rate_c, rate_s, weight_c, weight_s, margin)
        negative = value < 0.0
        low, high = np.where(negative, root, low), np.where(negative, high, root)
        step = root - value / np.where(slope > 0.0, slope, 1.0)
        outside = (slope <= 0.0) | (step < low) | (step > high)
        step = np.where(outside, 0.5 * (low + high), step)
        going = np.abs(step - root) > _CLOSE * root
        if not going.all():
            found[left[~going]] = step[~going]
            if not going.any():
                return found.reshape(shape)
            left, step, low, high = left[going], step[going], low[going], high[going]
            rate_c, rate_s, margin = rate_c[going], rate_s[going], margin[going]
            weight_c, weight_s = weight_c[going], weight_s[going]
        root = step
    found[left] = root
    return found.reshape(shape)


def _cubic(
    root: Floats, rate_c: Floats, rate_s: Floats, weight_c: Floats, weight_s: Floats, margin: Floats
) -> tuple[Floats, Floats]:
    """Return the derivative of the divergence times both variances, and its slope."""
    other = root + margin
    excess_c, excess_s = other - rate_c, root - rate_s
    spread_c, spread_s = other * (1.0 - other), root * (1.0 - root)
    value = weight_c * excess_c * spread_s + weight_s * excess_s * spread_c
    slope = weight_c * (spread_s + excess_c * (1.0 - 2.0 * root))
    slope += weight_s * (spread_c + excess_s * (1.0 - 2.0 * other))
    return value, slope


def bound(errors: Ints, requests: Ints, alpha: float, *, upper: bool) -> Floats:
    """Return a bound of a probability that holds at every look, as ``promotion.bounds``.

    Parameters
    ----------
    errors, requests
        Counts so far, of one shape.
    alpha
        Probability that the bound ever leaves the truth out.
    upper
        The upper bound, or the lower one.
    """
    answered = requests - errors
    a, b = PRIOR_SHAPE + errors, PRIOR_SHAPE + answered
    marginal = special.gammaln(a) + special.gammaln(b) - special.gammaln(a + b) - _LOG_PRIOR
    level = marginal + np.log(alpha)
    found = np.full(errors.shape, 1.0 if upper else 0.0)
    none, only = (errors == 0) & (requests > 0), (answered == 0) & (requests > 0)
    if upper:
        found[none] = -np.expm1(level[none] / answered[none]) * (1.0 + _ROUNDED)
    else:
        found[only] = np.exp(level[only] / errors[only]) * (1.0 - _ROUNDED)
    some = (errors > 0) & (answered > 0)
    found[some] = _edge(errors[some], answered[some], level[some], upper)
    bounds: Floats = np.minimum(found, 1.0)
    return bounds


def _edge(errors: Ints, answered: Ints, level: Floats, upper: bool) -> Floats:
    """Return ``error_rate.likelihood_edge`` where there are errors and other answers, 1-d."""
    requests = errors + answered
    few = errors < answered
    centre = np.where(few, np.log(errors / requests), np.log1p(-answered / requests))
    highest = errors * centre + answered * np.log(-np.expm1(centre))
    width = np.sqrt(2.0 * np.maximum(highest - level, 0.0) * answered / (1.0 * errors * requests))
    place = centre + width if upper else centre - width
    found, left = place.copy(), np.arange(place.size)
    for _ in range(_STEPS):
        place = np.where(place >= 0.0, 0.5 * centre, place)
        rest = np.expm1(place)
        value = errors * place + answered * np.log(-rest) - level
        slope = errors + answered * (1.0 + rest) / rest
        flat = slope == 0.0
        step = place - np.where(flat, 0.0, value / np.where(flat, 1.0, slope))
        going = np.abs(step - place) > _CLOSE * np.abs(place)
        found[left] = step
        if not going.any():
            break
        place = np.where(step >= 0.0, 0.5 * place, step)[going]
        left, centre, level = left[going], centre[going], level[going]
        errors, answered = errors[going], answered[going]
        found[left] = place
    away = _ROUNDED * (1.0 - found)
    edge: Floats = np.exp(found + (away if upper else -away))
    return edge
