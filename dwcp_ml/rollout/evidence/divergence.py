"""Do the two arms answer the same requests differently? Betting tests on paired differences.

The same requests are answered by both arms. Two models that were trained apart differ by design, so
what is tested is how much they differ:

*Against the gate's record*, where the candidate's bundle has one of this stable: the share of
signed differences above, and below, their quantiles on the gate's test split. A wrong scale, stale
features or a constant move these shares; retraining does not, because the record has it. Traffic
may come from one link for a while, so a share may be as large as in the run of consecutive examples
of a link where it is largest.

*Against a tolerance*, where there is no such record: the mean absolute difference, from 0, the
same, to 1.

Both tests of ``betting`` run on each: "mean <= bound" is doubted to fail, "mean >= bound" to pass.
They need the mean of each observation, given the past, on one side of the bound. Consecutive
requests are alike, and so are their differences: an observation is therefore the mean of ten pairs,
by which a stretch of requests on which two good models differ is not evidence many times over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, Literal, Self

import numpy as np
from pydantic import Field

from dwcp_ml.contract.champion import SAME, DifferenceRecord
from dwcp_ml.contract.record import Record
from dwcp_ml.rollout.evidence.betting import BettingEvidence
from dwcp_ml.rollout.evidence.error_rate import log_mean
from dwcp_ml.rollout.observation import Pair
from dwcp_ml.rollout.verdict import Outcome, Verdict, check_alpha, evidence_of, figure, percent

TEST: Final = "divergence"

DEFAULT_MARGIN: Final = 0.1

Side = Literal["above", "below", "changed"]


class SharePart(Record):
    """Both tests on one share of the signed differences."""

    side: Side
    edge: float = Field(description="a quantile of the record; 0 for `changed`")
    recorded: float = Field(
        ge=0, le=1, description="the share on the gate's test split, of the run with the largest"
    )
    betting: BettingEvidence

    def holds(self, signed: float | None) -> bool:
        """Return whether a difference counts for this share; no prediction counts for each."""
        if signed is None:
            return True
        if self.side == "changed":
            return signed != 0.0
        # Rounding is no difference: of two equal models half the differences would be above 0.
        if self.side == "above":
            return signed > self.edge + SAME
        return signed < self.edge - SAME


class DivergenceEvidence(Record):
    """The evidence so far that the answers differ by more, and by less, than they may."""

    margin: float = Field(default=DEFAULT_MARGIN, gt=0, lt=1)
    pairs: int = Field(default=0, ge=0, description="requests that were compared")
    record: DifferenceRecord | None = Field(
        default=None, description="what the gate measured; null for the tolerance"
    )
    betting: BettingEvidence
    parts: tuple[SharePart, ...] = ()

    @classmethod
    def start(cls, tolerance: float, margin: float, record: DifferenceRecord | None = None) -> Self:
        """Return no evidence yet.

        Parameters
        ----------
        tolerance, margin
            Those of ``DivergenceTest``.
        record
            What the gate measured between candidate and stable; ``None`` for the tolerance.
        """
        parts = () if record is None else tuple(_parts(record, margin))
        betting = BettingEvidence(bound=tolerance)
        return cls(margin=margin, record=record, betting=betting, parts=parts)

    def is_of(self, tolerance: float, margin: float, record: DifferenceRecord | None) -> bool:
        """Return whether it is the evidence for these settings."""
        return (self.betting.bound, self.margin, self.record) == (tolerance, margin, record)

    def update(self, pairs: Sequence[Pair]) -> Self:
        """Return the evidence with more pairs.

        Raises
        ------
        DwcpError
            If a difference is outside [0, 1] or not a number.
        """
        parts = tuple(
            part.replace(
                betting=part.betting.update(_means([part.holds(pair.signed) for pair in pairs]))
            )
            for part in self.parts
        )
        return self.replace(
            pairs=self.pairs + len(pairs),
            betting=self.betting.update(_means([pair.difference for pair in pairs])),
            parts=parts,
        )

    def verdict(self, alpha: float, promotion_alpha: float | None = None) -> Verdict:
        """Return ``FAIL`` or ``PASS`` once it is shown, else ``INSUFFICIENT_DATA``.

        Parameters
        ----------
        alpha
            Probability of a false alarm that this test may spend.
        promotion_alpha
            Probability of a wrong pass; alpha if None.
        """
        if self.record is not None:
            return self._verdict_by_record(alpha, promotion_alpha)
        betting = self.betting
        mean, (lower, upper) = betting.sums.mean or 0.0, betting.interval(alpha)
        outcome = betting_outcome(betting, alpha, promotion_alpha)
        capital, needed = betting_evidence(betting, outcome, alpha, promotion_alpha)
        return Verdict(
            test=TEST,
            outcome=outcome,
            value=betting.sums.mean,
            bound=lower if outcome is Outcome.FAIL else upper,
            threshold=betting.bound,
            evidence=capital,
            needed=needed,
            samples=self.pairs,
            sentence=f"The predictions for {self.pairs:,} requests differ by {mean:.3g} "
            f"(between {lower:.3g} and {upper:.3g}), {betting.bound:.3g} is tolerated: "
            f"{evidence_words(outcome, capital, needed)}.",
        )

    def _verdict_by_record(self, alpha: float, promotion_alpha: float | None) -> Verdict:
        """Return the verdict on the shares: harm by the mean of their capitals, a pass by each."""
        if not self.parts:
            return Verdict(
                test=TEST,
                outcome=Outcome.INSUFFICIENT_DATA,
                samples=self.pairs,
                sentence="The gate has seen the two predict otherwise almost every time: that they "
                "do shows nothing.",
            )
        log_e = log_mean(tuple(part.betting.log_capital_above for part in self.parts))
        weakest = min(self.parts, key=lambda part: part.betting.log_capital_below)
        passing = 1.0 / check_alpha(alpha if promotion_alpha is None else promotion_alpha)
        if log_e >= -math.log(check_alpha(alpha)):
            outcome, capital, needed = Outcome.FAIL, evidence_of(log_e), 1.0 / alpha
        elif weakest.betting.log_capital_below >= math.log(passing):
            outcome, needed = Outcome.PASS, passing
            capital = evidence_of(weakest.betting.log_capital_below)
        else:
            outcome, capital, needed = Outcome.INSUFFICIENT_DATA, evidence_of(log_e), 1.0 / alpha
        shown = max(self.parts, key=lambda part: part.betting.log_capital_above)
        share = shown.betting.sums.mean
        return Verdict(
            test=TEST,
            outcome=outcome,
            value=share,
            threshold=shown.betting.bound,
            evidence=capital,
            needed=needed,
            samples=self.pairs,
            sentence=f"Of {self.pairs:,} requests that both answered, the candidate's prediction "
            f"{_words(shown)} for {percent(share or 0.0)}; when the gate compared the two it did "
            f"for {percent(shown.recorded)} where it did most, a margin of "
            f"{percent(self.margin)}: "
            f"{evidence_words(outcome, capital, needed)}.",
        )


BLOCK: Final = 10
"""Consecutive pairs, or fewer where fewer came, whose mean is one observation."""


def _means(values: Sequence[float]) -> list[float]:
    """Return the mean of each block of consecutive pairs."""
    if not values:
        return []
    blocks = np.array_split(np.asarray(values, np.float64), max(len(values) // BLOCK, 1))
    return [float(block.mean()) for block in blocks]


def _parts(record: DifferenceRecord, margin: float) -> Iterator[SharePart]:
    """Yield the shares that a record bounds, by that of the run where it is largest."""
    shares: list[tuple[Side, float, float]] = [("changed", 0.0, record.largest_changed)]
    if record.quantiles is not None:
        each = zip(record.quantiles, record.largest_above, record.largest_below, strict=True)
        shares = []
        for edge, above, below in each:
            shares += [("above", edge, above), ("below", edge, below)]
    for side, edge, share in shares:
        if share + margin < 1.0:  # above it nothing could be shown
            betting = BettingEvidence(bound=share + margin)
            yield SharePart(side=side, edge=edge, recorded=share, betting=betting)


def _words(part: SharePart) -> str:
    if part.side == "changed":
        return "is another than the stable's"
    edge = part.edge + SAME if part.side == "above" else part.edge - SAME
    return f"differs from the stable's by {part.side} {100.0 * edge:+.2g} %"


def betting_outcome(
    betting: BettingEvidence, alpha: float, promotion_alpha: float | None
) -> Outcome:
    """Return what the capital of the two gamblers says; above wins over below."""
    if betting.log_capital_above >= -math.log(check_alpha(alpha)):
        return Outcome.FAIL
    passing = check_alpha(alpha if promotion_alpha is None else promotion_alpha)
    return (
        Outcome.PASS
        if betting.log_capital_below >= -math.log(passing)
        else Outcome.INSUFFICIENT_DATA
    )


def betting_evidence(
    betting: BettingEvidence, outcome: Outcome, alpha: float, promotion_alpha: float | None
) -> tuple[float, float]:
    """Return the capital that matters for the outcome, and how much of it decides."""
    if outcome is Outcome.PASS:
        return evidence_of(betting.log_capital_below), 1.0 / (promotion_alpha or alpha)
    return evidence_of(betting.log_capital_above), 1.0 / alpha


def evidence_words(outcome: Outcome, capital: float, needed: float) -> str:
    """Say what the evidence leads to."""
    if outcome is Outcome.FAIL:
        return f"evidence {figure(capital)} that it is more, rolled back at {figure(needed)}"
    if outcome is Outcome.PASS:
        return f"evidence {figure(capital)} that it is less, passed at {figure(needed)}"
    return f"evidence {figure(capital)} that it is more, would be rolled back at {figure(needed)}"
