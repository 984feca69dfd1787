"""Is the candidate further from the truth, once the truth is known? Betting tests on losses.

A loss is what the caller makes of an answer and of what came true, from 0 to 1. Truth comes late,
so answers that still wait for it are *pending*; while too many of all answers are, nothing passes,
because those that are judged early may be the easy ones. A candidate that is shown to be worse
fails at once, also after it has all the traffic.

*Paired*: both arms answered the same request. The difference d = candidate - stable in [-1, 1]
becomes x = (d + 1) / 2, and the tests of ``betting`` run at the bound (1 + margin) / 2.

*Unpaired*: each arm was judged on requests of its own. Each mean gets an empirical Bernstein
confidence sequence (see ``betting``) that spends half of alpha: the candidate fails when its lower
bound is above the stable's upper bound plus the margin, and passes when its upper bound is below
the stable's lower bound plus the margin. Here the means must not drift: pair where you can.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Self

from pydantic import Field

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.contract.records import Record
from dwcp_ml.rollout.evidence.betting import BettingEvidence, MeanInterval, bounded
from dwcp_ml.rollout.evidence.divergence import (
    betting_evidence,
    betting_outcome,
    evidence_words,
)
from dwcp_ml.rollout.verdict import Outcome, Verdict, check_alpha, percent

TEST: Final = "truth"

LARGEST_PENDING_SHARE: Final = 0.2
"""Above this share of answers without a truth, nothing passes."""


class TruthEvidence(Record):
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
            How many answers wait for their truth now; None if that is as before.

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
        """Return ``fail`` or ``pass`` once it is shown, else ``insufficient data``.

        Parameters
        ----------
        alpha
            Probability of a false alarm that this test may spend.
        promotion_alpha
            Probability of a wrong pass; alpha if None.
        minimum_judged
            Below so many requests with a known truth nothing passes.
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
            bound=lower if outcome == "fail" else upper,
            threshold=self.margin,
            evidence=capital,
            needed=needed,
            samples=judged,
            sentence=f"on {judged:,} requests whose truth is known the candidate's loss is "
            f"{excess or 0.0:+.3g} beside the stable's (between {lower:+.3g} and {upper:+.3g}), "
            f"{self.margin:.3g} more is allowed: {evidence_words(outcome, capital, needed)}"
            f"{_waiting(judged, self.pending)}.",
        )


class UnpairedTruthEvidence(Record):
    """The evidence so far from requests that one arm each answered."""

    margin: float = Field(gt=0, lt=1, description="mean excess loss that is not worse")
    candidate: MeanInterval = MeanInterval()
    stable: MeanInterval = MeanInterval()
    pending: int = Field(default=0, ge=0, description="answers whose truth is not known yet")

    def update(
        self, candidate: Sequence[float], stable: Sequence[float], pending: int | None = None
    ) -> Self:
        """Return the evidence with more requests judged.

        Parameters
        ----------
        candidate, stable
            Losses in [0, 1] of either arm on requests of its own.
        pending
            How many answers wait for their truth now; None if that is as before.

        Raises
        ------
        DwcpError
            If a loss is outside [0, 1] or not a number.
        """
        return self.replace(
            candidate=self.candidate.update(bounded(candidate)),
            stable=self.stable.update(bounded(stable)),
            pending=self.pending if pending is None else pending,
        )

    def verdict(
        self, alpha: float, promotion_alpha: float | None = None, minimum_judged: int = 0
    ) -> Verdict:
        """Return ``fail`` or ``pass`` once it is shown, else ``insufficient data``.

        The parameters are those of ``TruthEvidence.verdict``.
        """
        passing = check_alpha(alpha if promotion_alpha is None else promotion_alpha)
        low_c, high_c = self.candidate.interval(check_alpha(alpha) / 2)
        low_s, high_s = self.stable.interval(alpha / 2)
        judged = self.candidate.count
        outcome: Outcome = "insufficient data"
        if low_c > high_s + self.margin:
            outcome = "fail"
        elif self.candidate.interval(passing / 2)[1] < (
            self.stable.interval(passing / 2)[0] + self.margin
        ):
            outcome = "pass"
        outcome = _held(outcome, judged, self.pending, minimum_judged)
        return Verdict(
            test=TEST,
            outcome=outcome,
            value=self.candidate.mean,
            bound=low_c if outcome == "fail" else high_c,
            threshold=(high_s if outcome == "fail" else low_s) + self.margin,
            samples=judged,
            sentence=f"the candidate's loss is between {low_c:.3g} and {high_c:.3g} on {judged:,} "
            f"requests whose truth is known, the stable's between {low_s:.3g} and {high_s:.3g} on "
            f"{self.stable.count:,}; {self.margin:.3g} more is allowed"
            f"{_waiting(judged, self.pending)}.",
        )


def _held(outcome: Outcome, judged: int, pending: int, minimum: int) -> Outcome:
    """Return no pass where too little is judged, or too much still waits."""
    waiting = pending > LARGEST_PENDING_SHARE * (pending + judged)
    if outcome == "pass" and (waiting or judged < minimum):
        return "insufficient data"
    return outcome


def _waiting(judged: int, pending: int) -> str:
    if not pending:
        return ""
    return f"; {pending:,} answers ({percent(pending / (pending + judged))}) wait for their truth"
