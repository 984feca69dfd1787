"""How far two distributions lie apart, from histograms with equal buckets. Advice, not a verdict.

With p_i and q_i the shares of bucket i, P and Q their sums up to it::

    PSI = Σ (p_i - q_i) log(p_i / q_i)          half a count is added to each occupied bucket
    KS  = max |P_i - Q_i|                       over the edges
    W_1 = Σ |P_i - Q_i| (edge_(i+1) - edge_i)   between the first and the last edge

PSI is the population stability index (Siddiqi, Credit Risk Scorecards, 2006: 0.1 and 0.25 are his
limits); Jeffreys's divergence is an older name for it. KS is the two-sample distance of Kolmogorov
and Smirnov, at the edges only, so never above that of the raw values. W_1 is the first Wasserstein
distance, in the units of the edges, of values that are rounded up to their edge; what is above the
last edge counts as the last edge.

Without any drift PSI is about (1/n + 1/m) χ² with one degree of freedom less than occupied buckets
(Yurdakul, Statistical properties of population stability index, 2018). What lies below the 95 %
point of that is chance, and where the point itself is above 0.1 there are too few samples.
Traffic drifts for reasons that are no fault of a candidate: none of this stops a rollout.
"""

from __future__ import annotations

import math
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.contract.record import Record
from dwcp_ml.rollout.evidence.promotion import check_histogram
from dwcp_ml.rollout.observation import Histogram

SOME_PSI: Final = 0.1
LARGE_PSI: Final = 0.25

_NORMAL_95: Final = 1.6448536269514722

Level = Literal["little", "some", "large", "insufficient data"]
Floats = NDArray[np.float64]


class Drift(Record):
    """How far one distribution lies from another; it has no outcome, so it can't stop anything."""

    name: str = Field(description="what is distributed, e.g. 'feature:rtt_ms'")
    level: Level
    psi: FiniteFloat | None = Field(description="population stability index")
    chance_psi: FiniteFloat | None = Field(description="PSI that chance alone stays below, 95 %")
    ks: FiniteFloat | None = Field(description="Kolmogorov-Smirnov distance, 0 to 1")
    wasserstein: FiniteFloat | None = Field(description="first Wasserstein distance, in units")
    samples: int = Field(ge=0, description="values of the newer distribution")
    reference_samples: int = Field(ge=0, description="values of the reference")
    sentence: str = Field(description="one sentence that a person understands")


def drift(name: str, newer: Histogram, reference: Histogram) -> Drift:
    """Compare two histograms.

    Parameters
    ----------
    newer, reference
        Cumulative counts over the same edges.

    Returns
    -------
    Drift
        ``insufficient data`` while chance alone can make a PSI of 0.1.

    Raises
    ------
    DwcpError
        If a histogram is malformed, or the edges differ.
    """
    for histogram in (newer, reference):
        check_histogram(histogram)
    if newer.edges != reference.edges:
        raise DwcpError(f"{name} can't be compared: the two histograms have other buckets.")
    n, m = newer.counts[-1], reference.counts[-1]
    if not (n and m):
        return Drift(
            name=name, level="insufficient data", psi=None, chance_psi=None, ks=None,
            wasserstein=None, samples=n, reference_samples=m,
            sentence=f"{name}: nothing to compare ({n:,} values beside {m:,} before).",
        )  # fmt: skip
    above, before = np.array(newer.counts, float), np.array(reference.counts, float)
    psi, chance = stability_index(_single(above), _single(before))
    gap = np.abs(above / n - before / m)
    ks = float(gap.max())
    wasserstein = float((gap[:-2] * np.diff(np.array(newer.edges))).sum())
    level = _level(psi, chance)
    texts = {
        "little": "hardly any drift",
        "some": "some drift",
        "large": "large drift",
        "insufficient data": "too few values to tell drift from chance",
    }
    return Drift(
        name=name,
        level=level,
        psi=psi,
        chance_psi=chance,
        ks=ks,
        wasserstein=wasserstein,
        samples=n,
        reference_samples=m,
        sentence=f"{name}: {texts[level]}, PSI {psi:.2g} (chance stays below {chance:.2g}), KS "
        f"{ks:.2g}, Wasserstein {wasserstein:.3g}, {n:,} values beside {m:,} before; this is "
        "advice and stops nothing.",
    )


def stability_index(newer: Floats, reference: Floats) -> tuple[float, float]:
    """Return PSI, and the PSI that chance alone stays below with 95 % probability.

    Parameters
    ----------
    newer, reference
        Counts in each bucket, shape (buckets,); each has at least one value.
    """
    occupied = (newer + reference) > 0
    a, b = newer[occupied] + 0.5, reference[occupied] + 0.5
    p, q = a / a.sum(), b / b.sum()
    psi = float(((p - q) * np.log(p / q)).sum())
    chance = (1.0 / newer.sum() + 1.0 / reference.sum()) * _chi_square_95(len(a) - 1)
    return psi, float(chance)


def _level(psi: float, chance: float) -> Level:
    if chance > SOME_PSI:
        return "insufficient data"
    if psi < SOME_PSI:
        return "little"
    return "some" if psi < LARGE_PSI else "large"


def _chi_square_95(degrees: int) -> float:
    """Return the 95 % point of chi-square (Wilson and Hilferty, PNAS 17, 1931)."""
    if degrees == 0:
        return 0.0
    spread = 2.0 / (9.0 * degrees)
    return degrees * (1.0 - spread + _NORMAL_95 * math.sqrt(spread)) ** 3


def _single(cumulative: Floats) -> Floats:
    return np.diff(cumulative, prepend=0.0)
