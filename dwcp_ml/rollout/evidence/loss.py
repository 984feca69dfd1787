"""Are the candidate's predictions further from what came true? E-processes on counted losses.

Callers learn what came true a minute later and report it to any replica, which counts the loss of
the prediction by the version that made it. So the losses of the two arms come as two histograms,
unpaired. As of slow responses, the share above an edge is compared, with a margin: above the 75th
and the 95th percentile of the stable's earlier losses, the test of ``error_rate`` looks for harm
and that of ``promotion`` for its absence. A mean would be moved by a few losses near zero
throughput; a share is not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Self

from pydantic import Field, FiniteFloat

from dwcp_ml.contract.record import Record
from dwcp_ml.rollout.evidence.buckets import BucketPast, at_or_below, complement
from dwcp_ml.rollout.evidence.error_rate import (
    CountBlock,
    ShareEvidence,
    log_mean,
    rate_verdict,
)
from dwcp_ml.rollout.evidence.promotion import PromotionEvidence
from dwcp_ml.rollout.verdict import Outcome, Verdict, check_alpha

TEST: Final = "reported_loss"

QUANTILES: Final = (0.75, 0.95)
"""Of the stable's earlier losses."""


class LossPart(Record):
    """Both tests on the share of losses above one edge."""

    edge: FiniteFloat | None = Field(default=None, description="of the next block")
    harm: ShareEvidence
    promotion: PromotionEvidence

    def update(
        self,
        candidate: Mapping[str, int],
        stable: Mapping[str, int],
        past: BucketPast,
        quantile: float,
        only_harm: bool,
    ) -> Self:
        """Return it with one more block; ``only_harm`` if it counts against the candidate only."""
        if self.edge is None:
            return self
        above = CountBlock(
            candidate=complement(at_or_below(candidate, self.edge)),
            stable=complement(at_or_below(stable, self.edge)),
        )
        rate = 1.0 - past.share(self.edge, quantile)
        promotion = self.promotion if only_harm else self.promotion.update(above, rate)
        return self.replace(harm=self.harm.plus(above, rate), promotion=promotion)


class LossEvidence(Record):
    """The evidence so far that the candidate's losses are larger, and that they are not."""

    margin: float = Field(gt=0, lt=1, description="excess share of large losses that is no harm")
    past: BucketPast = BucketPast()
    parts: tuple[LossPart, ...] = Field(min_length=len(QUANTILES), max_length=len(QUANTILES))

    @classmethod
    def start(cls, margin: float) -> Self:
        """Return no evidence yet.

        Parameters
        ----------
        margin
            Excess share of losses above an edge that is no harm and may pass, in (0, 1).
        """
        part = LossPart(
            harm=ShareEvidence(margin=margin), promotion=PromotionEvidence(margin=margin)
        )
        return cls(margin=margin, parts=(part,) * len(QUANTILES))

    def update(
        self, candidate: Mapping[str, int], stable: Mapping[str, int], *, only_harm: bool = False
    ) -> Self:
        """Return the evidence with the losses that were reported since the last update.

        Parameters
        ----------
        candidate, stable
            Upper bound of a bucket -> losses in it.
        only_harm
            A part of the reports is missing: they count against the candidate, and not for it.
        """
        parts = tuple(
            part.update(candidate, stable, self.past, quantile, only_harm)
            for part, quantile in zip(self.parts, QUANTILES, strict=True)
        )
        past = self.past.with_block(stable)
        return self.replace(
            past=past,
            parts=tuple(
                part.replace(edge=past.edge(quantile))
                for part, quantile in zip(parts, QUANTILES, strict=True)
            ),
        )

    @property
    def log_e(self) -> float:
        """The logarithm of the mean of the e-processes on harm."""
        return log_mean(tuple(part.harm.log_e for part in self.parts))

    def verdict(self, alpha: float, promotion_alpha: float) -> Verdict:
        """Return ``FAIL`` once harm is shown, ``PASS`` once its absence is, at every quantile.

        Parameters
        ----------
        alpha, promotion_alpha
            Probability that a candidate with the same losses fails, and that one with larger ones
            passes.
        """
        if self.log_e >= -math.log(check_alpha(alpha)):
            shown, quantile = max(
                zip(self.parts, QUANTILES, strict=True), key=lambda each: each[0].harm.log_e
            )
            needed = alpha * len(QUANTILES)  # a mean of two: the larger has half of it at least
            return rate_verdict(TEST, _what(quantile), shown.harm, min(needed, 0.5))
        passes = [
            part.promotion.verdict(promotion_alpha, TEST, _what(quantile))
            for part, quantile in zip(self.parts, QUANTILES, strict=True)
        ]
        return next((one for one in passes if one.outcome is not Outcome.PASS), passes[0])


def _what(quantile: float) -> str:
    """Say what a large loss did, as a verb."""
    return f"were further off than {100.0 * quantile:g} % of the stable's before"
