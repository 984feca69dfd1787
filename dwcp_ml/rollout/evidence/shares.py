"""Shares of the differences between two versions, and the tests on each.

A share is one of all requests, or of the requests that the stable answered in one way. The latter
shows a rare answer: a detector that never flags changes 2 % of all predictions where 2 % are
flagged, and all predictions of the flagged requests. The stable's answer is known before the
candidate's, so the tests stay valid among those requests alone, however they were selected by it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, Literal, Self

import numpy as np
from pydantic import Field

from dwcp_ml.contract.champion import QUANTILES, SAME, AnswerRecord, DifferenceRecord
from dwcp_ml.contract.record import Record
from dwcp_ml.rollout.evidence.betting import BETS, BettingEvidence
from dwcp_ml.rollout.evidence.error_rate import log_mean
from dwcp_ml.rollout.observation import Pair

Side = Literal["above", "below", "changed"]

BLOCK: Final = 10
"""Consecutive pairs, or fewer where fewer came, whose mean is one observation."""

MOST_FLAGS: Final = 0.5
"""Share of the flags of one kind that may change where the gate has measured none, or too few."""

MAX_FLAG_BOUND: Final = 0.75
"""Bound of a share of flags, whatever was measured: a constant flag is found all the same."""

FLAGS: Final = (0, 1)

_SCORE_QUANTILES: Final = (0.01, 0.99)
"""Of the differences of a score, beyond which more than recorded are a fault."""

SCORE_MARGINS: Final = 2.0
"""Margins of a share of scores: each version has a scale of its own, and on one link the scores of
two good ones differ by more than on the others. With one margin 4 of 120 were rolled back."""

_BOUND_ALPHA: Final = 0.05
_MAX_TRIALS: Final = 400


class SharePart(Record):
    """Both tests on one share of the signed differences."""

    side: Side
    edge: float = Field(description="a quantile of the record; 0 for `changed`")
    recorded: float | None = Field(
        ge=0, le=1, description="the share on the gate's test split, of the run with the largest; "
        "null if the gate has measured none",
    )  # fmt: skip
    betting: BettingEvidence
    answer: int | None = Field(
        default=None, description="only of requests that the stable answered so; null for all"
    )
    of_score: bool = Field(default=False, description="of the score, not of the answer")
    waiting: tuple[float, ...] = Field(
        default=(), max_length=BLOCK - 1, description="pairs of one answer that are not a block yet"
    )

    @property
    def pairs(self) -> int:
        """How many pairs of one answer it has seen."""
        return BLOCK * self.betting.sums.count + len(self.waiting)

    def update(self, pairs: Sequence[Pair]) -> Self:
        """Return the part with more pairs."""
        if self.answer is None:
            values = [float(self._holds(pair.signed)) for pair in pairs if not pair.rare]
            return self.replace(betting=self.betting.update(means(values)))
        # Few of one answer come at a time; a block is full all the same.
        values = [*self.waiting, *map(float, self._of_answer(pairs))]
        full = len(values) - len(values) % BLOCK
        betting = self.betting.update(means(values[:full]))
        return self.replace(betting=betting, waiting=tuple(values[full:]))

    def _of_answer(self, pairs: Sequence[Pair]) -> Iterator[bool]:
        for pair in pairs:
            if pair.answer == self.answer and not (self.of_score and pair.score is None):
                yield self._holds(pair.score if self.of_score else pair.signed)

    def _holds(self, signed: float | None) -> bool:
        """Return whether a difference counts for this share; no prediction counts for each."""
        if signed is None:
            return True
        if self.side == "changed":
            return signed != 0.0
        # Rounding is no difference: of two equal models half the differences would be above 0.
        if self.side == "above":
            return signed > self.edge + SAME
        return signed < self.edge - SAME

    def pairs_until_failure(self, log_needed: float) -> int:
        """Return after how many pairs that all differ its log capital reaches ``log_needed``."""
        bound = self.betting.bound
        gains = [math.log1p(share * (1.0 - bound) / bound) for share in BETS]
        blocks = 1
        while log_mean(tuple(blocks * gain for gain in gains)) < log_needed:
            blocks += 1
        return BLOCK * blocks

    @property
    def words(self) -> str:
        """What the candidate's prediction does, for a sentence."""
        if self.side == "changed":
            return "is another than the stable's"
        edge = self.edge + SAME if self.side == "above" else self.edge - SAME
        whose = "has a score that differs" if self.of_score else "differs"
        return f"{whose} from the stable's by {self.side} {100.0 * edge:+.2g} %"


def means(values: Sequence[float]) -> list[float]:
    """Return the mean of each block of consecutive pairs."""
    if not values:
        return []
    blocks = np.array_split(np.asarray(values, np.float64), max(len(values) // BLOCK, 1))
    return [float(block.mean()) for block in blocks]


def parts_of(record: DifferenceRecord | None, margin: float, flag: bool) -> Iterator[SharePart]:
    """Yield the shares to test.

    Parameters
    ----------
    record
        What the gate measured; ``None`` for nothing. Without it only flags have shares.
    flag
        Whether the output is a flag.
    """
    if record is not None:
        yield from _of_all(record, margin)
    answers = {} if record is None else {each.answer: each for each in record.by_answer}
    for answer in sorted({*answers, *(FLAGS if flag else ())}):
        yield from _of_answer(answer, answers.get(answer), margin, flag)


def _of_all(record: DifferenceRecord, margin: float) -> Iterator[SharePart]:
    """Yield the shares of all requests that a record bounds, by the run where it is largest."""
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


def _of_answer(
    answer: int, record: AnswerRecord | None, margin: float, flag: bool
) -> Iterator[SharePart]:
    """Yield the shares among the requests that the stable answered in one way.

    The gate may have seen few of them, and ten consecutive ones are alike: of a share that it
    measured on a tenth as many examples the upper bound counts.
    """
    share, bound = None, MOST_FLAGS
    if record is not None:
        share = record.largest_changed
        upper = upper_share(record.changed, record.examples) + margin
        bound = max(share + margin, upper)
        if flag:
            bound = min(max(share + margin, min(upper, MOST_FLAGS)), MAX_FLAG_BOUND)
    if bound < 1.0:
        betting = BettingEvidence(bound=bound)
        yield SharePart(side="changed", edge=0.0, recorded=share, betting=betting, answer=answer)
    if record is None or record.quantiles is None:
        return
    sides: tuple[tuple[Side, tuple[float, ...]], ...] = (
        ("below", record.largest_below), ("above", record.largest_above),
    )  # fmt: skip
    for quantile, (side, largest) in zip(_SCORE_QUANTILES, sides, strict=True):
        place = QUANTILES.index(quantile)
        share = largest[place]
        upper = upper_share(_SCORE_QUANTILES[0], record.examples)
        bound = max(share, upper) + SCORE_MARGINS * margin
        if bound < 1.0:
            yield SharePart(
                side=side, edge=record.quantiles[place], recorded=share,
                betting=BettingEvidence(bound=bound), answer=answer, of_score=True,
            )  # fmt: skip


def upper_share(share: float, examples: int) -> float:
    """Return the upper confidence bound of a share, at 95 %, of a tenth as many examples.

    As Clopper and Pearson's: at the bound no more than the seen count has a probability of 5 %.

    >>> round(upper_share(0.0, 250), 3)
    0.113
    """
    trials = min(max(examples // BLOCK, 1), _MAX_TRIALS)
    count = math.ceil(share * trials - 1e-9)
    if count >= trials:
        return 1.0
    low, high = share, 1.0
    for _ in range(40):
        middle = (low + high) / 2.0
        tail = math.fsum(
            math.comb(trials, k) * middle**k * (1.0 - middle) ** (trials - k)
            for k in range(count + 1)
        )
        low, high = (middle, high) if tail > _BOUND_ALPHA else (low, middle)
    return high
