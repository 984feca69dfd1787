"""Is the candidate slow more often than the stable, by more than a margin? From histograms.

For each block τ is the edge of the bucket that held the 99th percentile of the stable's previous
block: the smallest edge that at least 99 % of it did not pass, or the last edge if none did. Then
the tests of ``error_rate`` and ``promotion`` run on P(latency > τ), both with the same margin: the
excess share of slow answers that harms nobody. Without one, whatever made the candidate slower by
a hair (a colder cache, a core shared with another program) would be proved in time and taken back.
Any τ that is known before the block keeps the tests valid: an arm that is no slower exceeds every τ
no more often than the other. A block before there is a τ only teaches one.

θs, the stable's share above τ, comes from all of its past blocks, not only the previous one; they
are kept as a histogram that fades, so that a τ that moves has a past, too.
"""

from __future__ import annotations

import math
from functools import lru_cache
from operator import add, le, lt
from typing import Final, Self

from pydantic import Field, FiniteFloat

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.contract.records import Record
from dwcp_ml.rollout.evidence.counts import CountBlock, Counts
from dwcp_ml.rollout.evidence.error_rate import (
    MEMORY_REQUESTS,
    ErrorRateEvidence,
    rate_verdict,
)
from dwcp_ml.rollout.evidence.promotion import PromotionEvidence
from dwcp_ml.rollout.observation import Histogram
from dwcp_ml.rollout.verdict import Verdict

TEST: Final = "latency"

QUANTILE: Final = 0.99
PRIOR_REQUESTS: Final = 50.0
"""θs starts at 1 %, the share above a 99th percentile, with the weight of so many requests."""


class LatencyEvidence(Record):
    """The evidence so far that the candidate is slow too often, and that it is not."""

    edges: tuple[FiniteFloat, ...] = Field(
        default=(), description="upper bounds of the buckets, seconds, without +Inf"
    )
    past: tuple[FiniteFloat, ...] = Field(
        default=(), description="cumulative counts of the stable's past, fading"
    )
    tau: FiniteFloat | None = Field(default=None, description="what is slow now, seconds")
    harm: ErrorRateEvidence
    promotion: PromotionEvidence

    @classmethod
    def start(cls, margin: float) -> Self:
        """Return no evidence yet.

        Parameters
        ----------
        margin
            Excess share of slow answers that is no harm and may pass, in (0, 1).
        """
        harm = ErrorRateEvidence(margin=margin)
        return cls(harm=harm, promotion=PromotionEvidence(margin=margin))

    def update(self, candidate: Histogram | None, stable: Histogram | None) -> Self:
        """Return the evidence with the latencies since the last update.

        Parameters
        ----------
        candidate, stable
            Cumulative counts of this block; None is an arm without requests.

        Raises
        ------
        DwcpError
            If the histograms are malformed, or their buckets are not those of before.
        """
        given = [histogram for histogram in (candidate, stable) if histogram is not None]
        for histogram in given:
            check_histogram(histogram)
            if histogram.edges != (self.edges or given[0].edges):
                raise DwcpError(
                    "latency can't be compared: its buckets are not those of the other arm or of "
                    "before; start the rollout again with equal buckets."
                )
        if not any(histogram.counts[-1] for histogram in given):
            return self
        known = self if self.edges else self.replace(edges=given[0].edges)
        if known.tau is not None:
            known = known._with_block(candidate, stable, known.tau)
        return known._with_stable(stable) if stable is not None and stable.counts[-1] else known

    def harm_verdict(self, alpha: float) -> Verdict:
        """Return ``fail`` once it is shown to be slow more often by the margin; never a pass."""
        return rate_verdict(TEST, self._slower(), self.harm, alpha)

    def promotion_verdict(self, alpha: float, minimum_requests: int = 0) -> Verdict:
        """Return ``pass`` once the candidate is shown not to be slow more often by the margin."""
        return self.promotion.verdict(alpha, TEST, self._slower(), minimum_requests)

    def _slower(self) -> str:
        return "were slow" if self.tau is None else f"took longer than {1000 * self.tau:.3g} ms"

    def _with_block(
        self, candidate: Histogram | None, stable: Histogram | None, tau: float
    ) -> Self:
        place = self.edges.index(tau)
        block = CountBlock(candidate=_above(candidate, place), stable=_above(stable, place))
        total = self.past[-1]
        prior = PRIOR_REQUESTS * (1.0 - QUANTILE)
        rate = (total - self.past[place] + prior) / (total + PRIOR_REQUESTS)
        harm = self.harm.plus(block, rate)
        promotion = self.promotion.update(block, rate)
        return self.replace(harm=harm, promotion=promotion)

    def _with_stable(self, stable: Histogram) -> Self:
        past = tuple(map(add, self.past or (0.0,) * len(stable.counts), stable.counts))
        if past[-1] > MEMORY_REQUESTS:
            fade = MEMORY_REQUESTS / past[-1]
            past = tuple(count * fade for count in past)
        return self.replace(past=past, tau=slow_edge(stable, QUANTILE))


def slow_edge(histogram: Histogram, quantile: float) -> float:
    """Return the smallest edge with at least this share up to it, or the last edge.

    Parameters
    ----------
    histogram
        With at least one value.
    quantile
        Share, in (0, 1).
    """
    total = histogram.counts[-1]
    for edge, count in zip(histogram.edges, histogram.counts, strict=False):
        if count >= quantile * total:
            return edge
    return histogram.edges[-1]


def check_histogram(histogram: Histogram) -> None:
    """Refuse a histogram that is none.

    Raises
    ------
    DwcpError
        If its edges do not ascend, or its counts are not cumulative, or their number is wrong.
    """
    edges, counts = histogram.edges, histogram.counts
    if not edges or len(counts) != len(edges) + 1:
        raise DwcpError(
            f"a histogram has {len(edges)} edges and {len(counts)} counts; it needs at least one "
            "edge, and one count more than edges."
        )
    if not _ascend(edges):
        raise DwcpError("the edges of a histogram must be finite and ascend.")
    if counts[0] < 0 or not all(map(le, counts, counts[1:])):
        raise DwcpError("the counts of a histogram must be cumulative: they never descend.")


@lru_cache(maxsize=64)
def _ascend(edges: tuple[float, ...]) -> bool:
    # The same edges come with every block.
    return all(map(math.isfinite, edges)) and all(map(lt, edges, edges[1:]))


def _above(histogram: Histogram | None, place: int) -> Counts:
    if histogram is None:
        return Counts()
    total = histogram.counts[-1]
    return Counts(requests=total, errors=total - histogram.counts[place])
