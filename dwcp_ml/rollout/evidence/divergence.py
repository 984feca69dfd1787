"""Do the two arms answer the same requests differently? A betting test on paired differences.

The same requests are answered by both arms and joined by request id; the caller says how different
two answers are, from 0, the same, to 1, and how large a mean difference is tolerated. Both tests of
``betting`` run on the differences: "mean <= tolerance" is doubted to fail, "mean >= tolerance" to
pass. Neither needs independent requests, only that the mean of each difference, given the past, is
on one side of the tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Self

from dwcp_ml.contract.record import Record
from dwcp_ml.rollout.evidence.betting import BettingEvidence
from dwcp_ml.rollout.verdict import Outcome, Verdict, check_alpha, evidence_of, figure

TEST: Final = "divergence"


class DivergenceEvidence(Record):
    """The evidence so far that the answers differ by more, and by less, than the tolerance."""

    betting: BettingEvidence

    @classmethod
    def start(cls, tolerance: float) -> Self:
        """Return no evidence yet."""
        return cls(betting=BettingEvidence(bound=tolerance))

    def update(self, differences: Sequence[float]) -> Self:
        """Return the evidence with more paired differences, each in [0, 1].

        Raises
        ------
        DwcpError
            If a difference is outside [0, 1] or not a number.
        """
        return self.replace(betting=self.betting.update(differences))

    def verdict(
        self, alpha: float, promotion_alpha: float | None = None, minimum_pairs: int = 0
    ) -> Verdict:
        """Return ``FAIL`` or ``PASS`` once it is shown, else ``INSUFFICIENT_DATA``.

        Parameters
        ----------
        alpha
            Probability of a false alarm that this test may spend.
        promotion_alpha
            Probability of a wrong pass; alpha if None.
        """
        betting = self.betting
        mean, (lower, upper) = betting.sums.mean or 0.0, betting.interval(alpha)
        outcome = betting_outcome(betting, alpha, promotion_alpha)
        if outcome is Outcome.PASS and betting.sums.count < minimum_pairs:
            outcome = Outcome.INSUFFICIENT_DATA
        capital, needed = betting_evidence(betting, outcome, alpha, promotion_alpha)
        return Verdict(
            test=TEST,
            outcome=outcome,
            value=betting.sums.mean,
            bound=lower if outcome is Outcome.FAIL else upper,
            threshold=betting.bound,
            evidence=capital,
            needed=needed,
            samples=betting.sums.count,
            sentence=f"The predictions for {betting.sums.count:,} requests differ by {mean:.3g} "
            f"(between {lower:.3g} and {upper:.3g}), {betting.bound:.3g} is tolerated: "
            f"{evidence_words(outcome, capital, needed)}.",
        )


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
