"""Is the candidate further from the truth, once the truth is known? Betting tests on losses.

A loss is what the caller makes of an answer and of what came true, from 0 to 1. Truth comes late,
so answers that still wait for it are *pending*; while too many of all answers are, nothing passes,
because those that are judged early may be the easy ones. A candidate that is shown to be worse
fails at once, also after it has all the traffic.

Both arms answered the same request. The difference d = candidate - stable in [-1, 1]
becomes x = (d + 1) / 2, and the tests of ``betting`` run at the bound (1 + margin) / 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Self

from pydantic import Field

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.contract.record import Record
from dwcp_ml.rollout.evidence.betting import BettingEvidence, bounded
from dwcp_ml.rollout.evidence.divergence import (
    betting_evidence,
    betting_outcome,
    evidence_words,
)
from dwcp_ml.rollout.verdict import Outcome, Verdict, percent

TEST: Final = "ground_truth"

MAX_PENDING_SHARE: Final = 0.2
"""Above this share of answers without a truth, nothing passes."""


class GroundTruthEvidence(Record):
    """The evidence so far from requests that both arms answered and whose truth is known."""

    margin: float = Field(gt=0, lt=1, description="mean excess loss that is not worse")
    betting: BettingEvidence
    pending: int = Field(default=0, ge=0, description="answers whose truth is not known yet")

    @classmethod
    def start(cls, margin: float) -> Self:
        """Return no evidence yet.

        Parameters
        ----------
        margin
            Mean excess loss of the candidate that does not count as worse, in (0, 1).
        """
        return cls(margin=margin, betting=BettingEvidence(bound=(1.0 + margin) / 2.0))

    def update(
        self, candidate: Sequence[float], stable: Sequence[float], pending: int | None = None
    ) -> Self:
        """Return the evidence with more requests judged.

        Parameters
        ----------
        candidate, stable
            Losses of the two arms in [0, 1], one each for every request, in one order.
        pending
            How many answers wait for their ground truth now; None if that is as before.

        Raises
        ------
        DwcpError
            If the lengths differ, or a loss is outside [0, 1] or not a number.
        """
        if len(candidate) != len(stable):
            raise DwcpError(
                f"losses are not paired: {len(candidate)} of the candidate and {len(stable)} of "
                "the stable."
            )
        shifted = (bounded(candidate) - bounded(stable) + 1.0) / 2.0
        return self.replace(
            betting=self.betting.update(shifted.tolist()),
            pending=self.pending if pending is None else pending,
        )

    def verdict(
        self, alpha: float, promotion_alpha: float | None = None, minimum_judged: int = 0
    ) -> Verdict:
        """Return ``FAIL`` or ``PASS`` once it is shown, else ``INSUFFICIENT_DATA``.

        Parameters
        ----------
        alpha
            Probability of a false alarm that this test may spend.
        promotion_alpha
            Probability of a wrong pass; alpha if None.
        """
        judged, mean = self.betting.sums.count, self.betting.sums.mean
        lower, upper = (2.0 * edge - 1.0 for edge in self.betting.interval(alpha))
        outcome = betting_outcome(self.betting, alpha, promotion_alpha)
        outcome = _held(outcome, judged, self.pending, minimum_judged)
        capital, needed = betting_evidence(self.betting, outcome, alpha, promotion_alpha)
        excess = None if mean is None else 2.0 * mean - 1.0
        return Verdict(
            test=TEST,
            outcome=outcome,
            value=excess,
            bound=lower if outcome is Outcome.FAIL else upper,
            threshold=self.margin,
            evidence=capital,
            needed=needed,
            samples=judged,
            sentence=f"On {judged:,} requests whose ground truth is known the candidate's loss is "
            f"{excess or 0.0:+.3g} beside the stable's (between {lower:+.3g} and {upper:+.3g}), "
            f"{self.margin:.3g} more is allowed: {evidence_words(outcome, capital, needed)}"
            f"{_waiting(judged, self.pending)}.",
        )


def _held(outcome: Outcome, judged: int, pending: int, minimum: int) -> Outcome:
    """Return no pass where too little is judged, or too much still waits."""
    waiting = pending > MAX_PENDING_SHARE * (pending + judged)
    if outcome is Outcome.PASS and (waiting or judged < minimum):
        return Outcome.INSUFFICIENT_DATA
    return outcome


def _waiting(judged: int, pending: int) -> str:
    if not pending:
        return ""
    share = percent(pending / (pending + judged))
    return f"; {pending:,} predictions ({share}) wait for their ground truth"
