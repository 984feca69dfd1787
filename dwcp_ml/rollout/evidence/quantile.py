"""Where is each arm's 99th percentile? From raw latencies: a quantile confidence sequence.

Howard and Ramdas, Sequential estimation of quantiles with applications to A/B testing and best-arm
identification (Bernoulli 28(3), 2022; arXiv 1906.09712), with the beta-binomial mixture as the
boundary. Of t independent values the number K up to the true q-quantile is a sum of Bernoulli(q)
variables (ties are broken at random), so with

    E_t(k) = B(a + t - k, b + k) / B(a, b) / [q^k (1-q)^(t-k)],   a = 50 (1-q), b = 50 q

E_t(K) is a martingale of mean 1, and k_low <= K <= k_high with E_t < 1/alpha holds at every t with
probability 1 - alpha. So the quantile lies between the order statistics k_low and k_high + 1.

Raw values are not kept, they would grow without end: they are counted in buckets 5 % wide, and the
interval is rounded outwards to the edges, which keeps what it promises. The values of an arm must
come from one distribution: where latency follows the hour of the day, use ``latency``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, Self

import numpy as np
from pydantic import Field, model_validator

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.contract.records import Record
from dwcp_ml.rollout.evidence.promotion import log_marginal
from dwcp_ml.rollout.verdict import Outcome, Verdict, check_alpha

TEST: Final = "latency quantile"

PRIOR_VALUES: Final = 50.0

EDGES: Final = tuple(float(f"{1e-5 * 10 ** (step / 48):.6g}") for step in range(8 * 48 + 1))
"""Upper bounds of the buckets, seconds: 10 µs to 1000 s, each 4.9 % above the last."""


class QuantileArm(Record):
    """The latencies of one arm, counted in the buckets of ``EDGES``."""

    counts: tuple[int, ...] = Field(
        default=(0,) * (len(EDGES) + 1), description="values in each bucket; the last is above all"
    )

    @model_validator(mode="after")
    def _one_count_a_bucket(self) -> Self:
        if len(self.counts) != len(EDGES) + 1 or min(self.counts) < 0:
            raise ValueError(f"a count of 0 or more is needed for each of {len(EDGES) + 1} buckets")
        return self

    @property
    def values(self) -> int:
        """Values counted so far."""
        return sum(self.counts)

    def update(self, seconds: Sequence[float]) -> Self:
        """Return the arm with these latencies added, seconds.

        Raises
        ------
        DwcpError
            If one is negative or not finite.
        """
        values = np.asarray(seconds, dtype=np.float64).reshape(-1)
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise DwcpError("a latency must be a finite number of seconds, 0 or more.")
        if not len(values):
            return self
        places = np.searchsorted(np.array(EDGES), values, side="left")
        added = np.bincount(places, minlength=len(self.counts))
        counts = tuple(a + b for a, b in zip(self.counts, added.tolist(), strict=True))
        return self.replace(counts=counts)

    def interval(self, quantile: float, alpha: float) -> tuple[float, float | None]:
        """Return an interval of the quantile that holds at every look.

        Parameters
        ----------
        quantile
            In (0, 1).
        alpha
            Probability that the interval ever leaves the truth out.

        Returns
        -------
        tuple of float and (float or None)
            Seconds; the upper bound is None while there is none.
        """
        total = self.values
        if not total:
            return 0.0, None
        low, high = ranks(total, quantile, alpha)
        cumulative = np.cumsum(self.counts)
        at_low = int(np.searchsorted(cumulative, low, side="left"))
        lower = EDGES[at_low - 1] if low > 0 and at_low > 0 else 0.0
        at_high = int(np.searchsorted(cumulative, high + 1, side="left"))
        upper = EDGES[at_high] if high < total and at_high < len(EDGES) else None
        return lower, upper


class QuantileEvidence(Record):
    """The latencies of both arms so far."""

    quantile: float = Field(default=0.99, gt=0, lt=1)
    candidate: QuantileArm = QuantileArm()
    stable: QuantileArm = QuantileArm()

    def update(self, candidate: Sequence[float], stable: Sequence[float]) -> Self:
        """Return the evidence with the latencies since the last update, seconds.

        Raises
        ------
        DwcpError
            If a latency is negative or not finite.
        """
        return self.replace(
            candidate=self.candidate.update(candidate), stable=self.stable.update(stable)
        )

    def verdict(self, alpha: float, tolerance: float = 0.2) -> Verdict:
        """Compare the intervals of the two arms, each of which spends half of alpha.

        Parameters
        ----------
        alpha
            Probability that the verdict is ever wrong.
        tolerance
            How much above the stable's quantile the candidate's may be to pass, as a share of it;
            the buckets alone take up to 0.1 of it.

        Returns
        -------
        Verdict
            ``fail`` if the candidate's quantile surely lies above the stable's, ``pass`` if it
            surely lies at most the tolerance above, else ``insufficient data``.
        """
        low_c, high_c = self.candidate.interval(self.quantile, check_alpha(alpha) / 2)
        low_s, high_s = self.stable.interval(self.quantile, alpha / 2)
        outcome: Outcome = "insufficient data"
        if high_s is not None and low_c > high_s:
            outcome = "fail"
        elif high_c is not None and high_c <= low_s * (1.0 + tolerance):
            outcome = "pass"
        name = f"p{100 * self.quantile:g}"
        return Verdict(
            test=TEST,
            outcome=outcome,
            bound=low_c if outcome == "fail" else high_c,
            threshold=high_s if outcome == "fail" else low_s * (1.0 + tolerance),
            samples=self.candidate.values,
            sentence=f"{name} of the candidate is {_between(low_c, high_c)} "
            f"({self.candidate.values:,} requests), of the stable {_between(low_s, high_s)} "
            f"({self.stable.values:,}).",
        )


def ranks(total: int, quantile: float, alpha: float) -> tuple[int, int]:
    """Return k_low and k_high: how many of the values may lie up to the true quantile."""
    a, b = PRIOR_VALUES * (1.0 - quantile), PRIOR_VALUES * quantile
    level = math.log(1.0 / alpha)

    def inside(below: int) -> bool:
        above = total - below
        likelihood = below * math.log(quantile) + above * math.log1p(-quantile)
        return log_marginal(above, below, a, b) - likelihood < level

    middle = round(total * quantile)
    return _last(inside, middle, -1), _last(inside, middle, total + 1)


def _last(inside: Callable[[int], bool], middle: int, beyond: int) -> int:
    """Return the number nearest to ``beyond`` that is inside; E_t is convex in it."""
    while abs(beyond - middle) > 1:
        between = (beyond + middle) // 2
        middle, beyond = (between, beyond) if inside(between) else (middle, between)
    return middle


def _between(low: float, high: float | None) -> str:
    if high is None:
        return f"above {1000 * low:.3g} ms" if low else "not known yet"
    return f"between {1000 * low:.3g} and {1000 * high:.3g} ms"
