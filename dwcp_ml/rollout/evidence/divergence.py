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

*By the stable's answer*, of a class or a flag: the share that changes among the requests that the
stable answered in one way, and how their scores differ (``shares``). Of a flag also without a
record.

Both tests of ``betting`` run on each: "mean <= bound" is doubted to fail, "mean >= bound" to pass.
They need the mean of each observation, given the past, on one side of the bound. Consecutive
requests are alike, and so are their differences: an observation is therefore the mean of ten pairs,
by which a stretch of requests on which two good models differ is not evidence many times over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple, Self

from pydantic import Field

from dwcp_ml.contract.champion import DifferenceRecord
from dwcp_ml.contract.record import Record
from dwcp_ml.rollout.evidence.betting import BettingEvidence
from dwcp_ml.rollout.evidence.error_rate import log_mean
from dwcp_ml.rollout.evidence.shares import SharePart, means, parts_of
from dwcp_ml.rollout.observation import Pair
from dwcp_ml.rollout.verdict import Outcome, Verdict, check_alpha, evidence_of, figure, percent

TEST: Final = "divergence"

DEFAULT_MARGIN: Final = 0.1

MAX_SCORES_WAITED: Final = 192
"""Pairs of one flag that are waited for because of their scores: a stable keeps no more."""


class AnswerWaited(NamedTuple):
    """A flag of the stable that too few compared requests had.

    Parameters
    ----------
    flag
        What the stable answered.
    pairs, needed
        Compared requests with that answer, and how many show a candidate that never gives it.
    """

    flag: bool
    pairs: int
    needed: int


class DivergenceEvidence(Record):
    """The evidence so far that the answers differ by more, and by less, than they may."""

    margin: float = Field(default=DEFAULT_MARGIN, gt=0, lt=1)
    pairs: int = Field(default=0, ge=0, description="requests that were compared")
    record: DifferenceRecord | None = Field(
        default=None, description="what the gate measured; null for the tolerance"
    )
    flag: bool = Field(default=False, description="the output is a flag")
    betting: BettingEvidence = Field(description="of all requests, against the tolerance")
    parts: tuple[SharePart, ...] = ()

    @classmethod
    def start(
        cls,
        tolerance: float,
        margin: float,
        record: DifferenceRecord | None = None,
        flag: bool = False,
    ) -> Self:
        """Return no evidence yet.

        Parameters
        ----------
        tolerance, margin
            Those of ``DivergenceTest``.
        record
            What the gate measured between candidate and stable; ``None`` for the tolerance.
        flag
            Whether the output is a flag.
        """
        parts = tuple(parts_of(record, margin, flag))
        betting = BettingEvidence(bound=tolerance)
        return cls(margin=margin, record=record, flag=flag, betting=betting, parts=parts)

    def is_of(
        self, tolerance: float, margin: float, record: DifferenceRecord | None, flag: bool = False
    ) -> bool:
        """Return whether it is the evidence for these settings."""
        own = self.betting.bound, self.margin, self.record, self.flag
        return own == (tolerance, margin, record, flag)

    def update(self, pairs: Sequence[Pair]) -> Self:
        """Return the evidence with more pairs.

        Raises
        ------
        DwcpError
            If a difference is outside [0, 1] or not a number.
        """
        of_traffic = [pair.difference for pair in pairs if not pair.rare]
        return self.replace(
            pairs=self.pairs + len(of_traffic),
            betting=self.betting.update(means(of_traffic)),
            parts=tuple(part.update(pairs) for part in self.parts),
        )

    def answer_waited(self, alpha: float) -> AnswerWaited | None:
        """Return the flag of which more pairs are needed; ``None`` if there are enough of both.

        Enough are those after which a candidate that changes all of them, or all of their scores,
        would have failed.

        Parameters
        ----------
        alpha
            As of ``verdict``.
        """
        if not self.flag:
            return None
        groups = self._groups()
        for group in groups:
            weight = math.log(len(groups) * len(group))
            for part in group:
                needed = part.pairs_until_failure(weight - math.log(check_alpha(alpha)))
                waits = part.answer is not None and part.pairs < needed
                if part.of_score:  # a stable of an older release keeps none
                    waits = waits and bool(part.pairs) and needed <= MAX_SCORES_WAITED
                if waits:
                    return AnswerWaited(part.answer == 1, part.pairs, needed)
        return None

    def _groups(self) -> list[list[SharePart]]:
        """Return the parts in groups of equal weight: all requests, by answer, by score."""
        whole = [part for part in self.parts if part.answer is None]
        if self.record is None:
            whole = [SharePart(side="changed", edge=0.0, recorded=None, betting=self.betting)]
        answers = [part for part in self.parts if _of_answers(part)]
        scores = [part for part in self.parts if part.of_score]
        return [group for group in (whole, answers, scores) if group]

    def verdict(self, alpha: float, promotion_alpha: float | None = None) -> Verdict:
        """Return ``FAIL`` or ``PASS`` once it is shown, else ``INSUFFICIENT_DATA``.

        Harm is shown by the mean of the capitals of the groups, each the mean of its parts'; a pass
        by each part of all requests and of the flags.

        Parameters
        ----------
        alpha
            Probability of a false alarm that this test may spend.
        promotion_alpha
            Probability of a wrong pass; alpha if None.
        """
        groups = self._groups()
        if not groups:
            return Verdict(
                test=TEST,
                outcome=Outcome.INSUFFICIENT_DATA,
                samples=self.pairs,
                sentence="The gate has seen the two predict otherwise almost every time: that they "
                "do shows nothing.",
            )
        log_e = log_mean(tuple(log_mean(tuple(map(_log_above, group))) for group in groups))
        passes = [
            part.betting.log_capital_below
            for group in groups
            for part in group
            if part.answer is None or (self.flag and _of_answers(part))
        ]
        passing = 1.0 / check_alpha(alpha if promotion_alpha is None else promotion_alpha)
        outcome, capital, needed = Outcome.INSUFFICIENT_DATA, evidence_of(log_e), 1.0 / alpha
        if log_e >= -math.log(check_alpha(alpha)):
            outcome = Outcome.FAIL
        elif passes and min(passes) >= math.log(passing):
            outcome, capital, needed = Outcome.PASS, evidence_of(min(passes)), passing
        shown = max((part for group in groups for part in group), key=_log_above)
        words = evidence_words(outcome, capital, needed)
        if self.record is None and shown.answer is None:
            return self._verdict_by_tolerance(alpha, outcome, capital, needed, words)
        share = shown.betting.sums.mean
        return Verdict(
            test=TEST,
            outcome=outcome,
            value=share,
            threshold=shown.betting.bound,
            evidence=capital,
            needed=needed,
            samples=self.pairs,
            sentence=f"Of {self._requests(shown)}, the candidate's prediction {shown.words} for "
            f"{percent(share or 0.0)}; {self._allowed(shown)}: {words}.",
        )

    def _verdict_by_tolerance(
        self, alpha: float, outcome: Outcome, capital: float, needed: float, words: str
    ) -> Verdict:
        betting = self.betting
        mean, (lower, upper) = betting.sums.mean or 0.0, betting.interval(alpha)
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
            f"(between {lower:.3g} and {upper:.3g}), {betting.bound:.3g} is tolerated: {words}.",
        )

    def _requests(self, part: SharePart) -> str:
        if part.answer is None:
            return f"{self.pairs:,} requests that both answered"
        answered = f"answered with {part.answer}"
        if self.flag:
            answered = "flagged" if part.answer else "did not flag"
        return f"{part.pairs:,} requests that the stable {answered}"

    def _allowed(self, part: SharePart) -> str:
        if part.recorded is None:
            return f"{percent(part.betting.bound)} is tolerated"
        return (
            f"when the gate compared the two it did for {percent(part.recorded)} where it did "
            f"most, a margin of {percent(part.betting.bound - part.recorded)}"
        )


def _of_answers(part: SharePart) -> bool:
    return part.answer is not None and not part.of_score


def _log_above(part: SharePart) -> float:
    return part.betting.log_capital_above


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
