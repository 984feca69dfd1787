"""The formulas of ``error_rate`` and ``promotion`` for one block: plain floats, no arrays.

A look at a rollout brings one block, and arrays of three or six numbers cost more than the numbers.
The tests hold the same formulas for many blocks at once, and compare the two to nine digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from math import log, log1p
from typing import Final

_STEPS: Final = 100
_CLOSE: Final = 1e-10
"""A Newton step of this relative size leaves an error of about its square."""

_ROUNDED: Final = 4e-16


def log_ratios(
    candidate: tuple[int, int],
    stable: tuple[int, int],
    rate_s: float,
    odds_ratios: list[float],
    margin: float = 0.0,
) -> list[float]:
    """Return log S_j of ``error_rate`` for each odds ratio; 0 where the block can't tell.

    Parameters
    ----------
    candidate, stable
        Requests and errors of the block.
    rate_s
        θs, strictly between 0 and 1, known before the block.
    odds_ratios
        exp(δ) for each δ.
    margin
        Excess probability that is no harm.
    """
    (n_c, e_c), (n_s, e_s) = candidate, stable
    edge = rate_s + margin
    if not (n_c and n_s and edge < 1.0):
        return [0.0] * len(odds_ratios)
    if margin:
        rates_c = (ratio * edge / (1.0 - edge + ratio * edge) for ratio in odds_ratios)
        return margin_log_ratios(candidate, stable, rate_s, margin, rates_c)
    found = []
    for ratio in odds_ratios:
        odds = ratio * rate_s
        rate_c = odds / (1.0 - rate_s + odds)
        rate_0 = (n_c * rate_c + n_s * rate_s) / (n_c + n_s)
        rest = 1.0 - rate_0
        found.append(
            (e_c * log(rate_c / rate_0) + (n_c - e_c) * log1p((rate_0 - rate_c) / rest))
            + (e_s * log(rate_s / rate_0) + (n_s - e_s) * log1p((rate_0 - rate_s) / rest))
        )
    return found


def margin_log_ratios(
    candidate: tuple[int, int],
    stable: tuple[int, int],
    rate_s: float,
    margin: float,
    rates_c: Iterable[float],
) -> list[float]:
    """Return log S_j against the null whose edge is θc = θs + margin, for each alternative.

    Parameters
    ----------
    candidate, stable
        Requests and errors of the block, neither without requests.
    rate_s
        θs, strictly between 0 and 1, known before the block, with θs + margin < 1.
    margin
        Excess probability.
    rates_c
        The alternatives' θc: below the edge against "worse by the margin or more" (``promotion``),
        above it against "worse by the margin at most" (``error_rate`` with a margin).
    """
    (n_c, e_c), (n_s, e_s) = candidate, stable
    found = []
    for rate_c in rates_c:
        null_s = projected(rate_c, rate_s, n_c, n_s, margin)
        null_c = null_s + margin
        in_c = e_c * log(rate_c / null_c) + (n_c - e_c) * log1p((null_c - rate_c) / (1.0 - null_c))
        in_s = e_s * log(rate_s / null_s) + (n_s - e_s) * log1p((null_s - rate_s) / (1.0 - null_s))
        found.append(in_c + in_s)
    return found


def projected(
    rate_c: float, rate_s: float, weight_c: float, weight_s: float, margin: float
) -> float:
    """Return θs° on the edge θc° = θs° + margin, the closest to (θc, θs) in divergence.

    It is the one root between θs and θc - margin of the derivative of the divergence; times both
    variances that is a cubic. Newton's steps find it, inside a bracket that halves where a step
    would leave it.
    """
    above = rate_c > rate_s + margin
    low, high = (rate_s, rate_c - margin) if above else (0.0, rate_s)
    pull_c = weight_c / ((rate_s + margin) * (1.0 - rate_s - margin))
    pull_s = weight_s / (rate_s * (1.0 - rate_s))
    root = rate_s - pull_c * (rate_s + margin - rate_c) / (pull_c + pull_s)
    if not low < root < high:
        root = 0.5 * (low + high)
    for _ in range(_STEPS):
        excess_c, excess_s = root + margin - rate_c, root - rate_s
        spread_c = (root + margin) * (1.0 - root - margin)
        spread_s = root * (1.0 - root)
        value = weight_c * excess_c * spread_s + weight_s * excess_s * spread_c
        if value < 0.0:
            low = root
        else:
            high = root
        slope = weight_c * (spread_s + excess_c * (1.0 - 2.0 * root))
        slope += weight_s * (spread_c + excess_s * (1.0 - 2.0 * (root + margin)))
        step = root - value / slope if slope > 0.0 else -1.0
        if not low <= step <= high:
            step = 0.5 * (low + high)
        if abs(step - root) <= _CLOSE * root:
            return step
        root = step
    return root


def likelihood_edge(errors: int, answered: int, level: float, upper: bool) -> float:
    """Return where errors log p + answered log(1-p) falls to a level below its maximum.

    Newton's steps in log p: there the function is concave, so every step but the first comes from
    outside and stays there, and the edge that is returned is rounded outwards.

    Parameters
    ----------
    errors, answered
        Counts, not both 0.
    level
        Below the maximum over p.
    upper
        The edge above errors / (errors + answered), or the one below.
    """
    if not errors:
        return min(1.0, -math.expm1(level / answered) * (1.0 + _ROUNDED)) if upper else 0.0
    if not answered:
        return 1.0 if upper else math.exp(level / errors) * (1.0 - _ROUNDED)
    requests = errors + answered
    few = errors < answered
    centre = math.log(errors / requests) if few else math.log1p(-answered / requests)
    highest = errors * centre + answered * math.log(-math.expm1(centre))
    width = math.sqrt(2.0 * max(highest - level, 0.0) * answered / (float(errors) * requests))
    place = centre + width if upper else centre - width
    for _ in range(_STEPS):
        if place >= 0.0:
            place = 0.5 * centre
        rest = math.expm1(place)
        value = errors * place + answered * math.log(-rest) - level
        slope = errors + answered * (1.0 + rest) / rest
        step = place - value / slope if slope else place
        if abs(step - place) <= _CLOSE * abs(place):
            place = step
            break
        if step >= 0.0:
            step = 0.5 * place
        place = step
    away = _ROUNDED * (1.0 - place)
    return min(1.0, math.exp(place + (away if upper else -away)))
