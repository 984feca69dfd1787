"""How a challenger differs from the champion: the bundle that was live when it was trained.

A model that was trained again differs from its predecessor by design. The gate measures by how much
on the test split and writes it into the bundle, so that a rollout can tell what was meant from a
fault of serving, such as a wrong scale or swapped features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from pydantic import AwareDatetime, Field, FiniteFloat, model_validator

from dwcp_ml.contract.arrays import Array, Floats
from dwcp_ml.contract.record import Record

ChampionRule = Literal["not_worse", "better", "off"]
"""What the gate requires of a challenger beside the champion, on its primary metric."""

QUANTILES: Final = (0.0, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0)
"""Of the signed differences."""

Share = Annotated[float, Field(ge=0, le=1)]


MAX_ANSWERS: Final = 16
"""Answers of one output that have shares of their own."""


class Differences(Record):
    """Shares of examples whose predictions differ, and how much numbers differ.

    Two models differ more on some links and at some times than at others, and live traffic may come
    from one link for a while. So each share is also given for the run of ``RUN`` consecutive
    examples of a link where it is largest.
    """

    examples: int = Field(ge=1)
    changed: float = Field(
        ge=0, le=1, description="share of examples whose prediction differs: of a number, by more "
        "than SAME",
    )  # fmt: skip
    largest_changed: float = Field(ge=0, le=1, description="the same of the run with the largest")
    quantiles: tuple[FiniteFloat, ...] | None = Field(
        default=None,
        min_length=len(QUANTILES),
        max_length=len(QUANTILES),
        description="of an output that is a number, and of the score that a flag was made from: "
        "the ``QUANTILES`` of the signed relative difference; else null",
    )
    largest_above: tuple[Share, ...] = Field(
        default=(),
        max_length=len(QUANTILES),
        description="for each quantile the largest share of a run's differences above it",
    )
    largest_below: tuple[Share, ...] = Field(
        default=(),
        max_length=len(QUANTILES),
        description="for each quantile the largest share of a run's differences below it",
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.quantiles is None:
            return self
        if list(self.quantiles) != sorted(self.quantiles):
            raise ValueError("the quantiles must rise")
        if not len(self.quantiles) == len(self.largest_above) == len(self.largest_below):
            raise ValueError("each quantile needs its largest shares")
        return self


class AnswerRecord(Differences):
    """The differences among the examples that the champion answers with one class or flag."""

    answer: int = Field(description="the class; 0 or 1 of a flag")


class DifferenceRecord(Differences):
    """The differences of the compared output on the same examples, challenger less champion."""

    by_answer: tuple[AnswerRecord, ...] = Field(
        default=(),
        max_length=MAX_ANSWERS,
        description="of a class or a flag: the same by the champion's answer, because a rare "
        "answer moves the share of all examples little",
    )


class ChampionRecord(Record):
    """The champion that a challenger was compared with, and how the two differ."""

    version: str
    digest: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of its manifest.json")
    metrics: dict[str, FiniteFloat | None] = Field(
        description="the champion's metrics on the challenger's test split"
    )
    difference: DifferenceRecord


MANUAL: Final = "manual"
TRIGGER_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9 ._:/@+-]{0,99}$"
"""What started a run: at most 100 letters, digits, spaces and ``._:/@+-``."""


class Lineage(Record):
    """Where a bundle comes from: its champion, the times of its telemetry, the trigger."""

    parent_version: str | None = Field(default=None, description="of the champion, if one was read")
    parent_digest: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{64}$", description="SHA-256 of its manifest.json"
    )
    data_first: AwareDatetime | None = Field(
        default=None, description="first timestamp of the telemetry"
    )
    data_last: AwareDatetime | None = Field(
        default=None, description="last timestamp of the telemetry"
    )
    data_start: AwareDatetime | None = Field(
        default=None,
        exclude_if=lambda bound: bound is None,
        description="start of the window that the run was limited to; absent for no bound",
    )
    data_end: AwareDatetime | None = Field(
        default=None,
        exclude_if=lambda bound: bound is None,
        description="end of that window, not included; absent for no bound",
    )
    trigger: str = Field(
        default=MANUAL, pattern=TRIGGER_PATTERN, description="what started the run"
    )


class ChampionSource(Record):
    """Where the champion of a run is."""

    uri: str
    digest: str | None = Field(default=None, description="SHA-256 that its manifest must have")
    named: bool = Field(description="the user named it; false if it was found")


class NotCompared(StrEnum):
    """Why a challenger was not compared with the champion."""

    UNREADABLE = "Unreadable"
    """There is no bundle at its address, or it can't be read."""

    INVALID = "InvalidBundle"
    """The bundle fails its verification."""

    OTHER_FORM = "OtherForm"
    """It predicts another output."""

    OTHER_CONTRACT = "OtherContract"
    """Its inputs or outputs are not the challenger's."""

    NO_PREDICTIONS = "NoPredictions"
    """Its graph does not run on the test split, or either of the two predicts NaN or infinity."""


class ChampionCheck(Record):
    """The champion of an evaluation, and how the challenger differs from it."""

    source: ChampionSource
    version: str | None = Field(default=None, description="null if the bundle could not be opened")
    digest: str | None = Field(default=None, description="SHA-256 of its manifest.json")
    not_compared: NotCompared | None = Field(
        default=None, description="why there is no record; null if there is one"
    )
    detail: str = Field(default="", description="not_compared in a sentence")
    record: ChampionRecord | None = None


SAME: Final = 0.005
"""Relative difference of two numbers, such as throughputs, below which they are the same."""

NUMBERS: Final = ("next_throughput_mbps",)
"""The compared outputs that are numbers; the others are classes."""

SCORES: Final[Mapping[str, str]] = {
    "is_anomaly": "anomaly_score",
    "is_high_latency": "reconstruction_error",
}
"""The compared outputs that are flags, and the score that each is made from."""


def signed_difference(output: str, champion: float, challenger: float) -> float:
    """Return the challenger's difference from the champion for one example.

    Of a number, and of a score, ``(b - a) / max(1, |a|)``; of a class or a flag 0 if both are equal
    and 1 if not. NaN if either prediction is NaN.

    Parameters
    ----------
    output
        Name of the compared output, or of its score.

    >>> signed_difference("next_throughput_mbps", 200.0, 210.0)
    0.05
    """
    if math.isnan(champion) or math.isnan(challenger):
        return math.nan
    if output not in (*NUMBERS, *SCORES.values()):
        return float(champion != challenger)
    return (challenger - champion) / max(1.0, abs(champion))


def difference_record(
    output: str,
    champion: Array,
    challenger: Array,
    links: Array | None = None,
    times: Array | None = None,
    scores: tuple[Array, Array] | None = None,
) -> DifferenceRecord:
    """Return how the predictions of the same examples differ.

    Parameters
    ----------
    output
        Name of the compared output.
    champion, challenger
        Predictions, (n,), n > 0, finite.
    links
        The link of each example, (n,); those with fewer than ``RUN`` examples count as one.
    times
        When each was observed, (n,); without, they are in this order.
    scores
        Of a flag: the score of the champion and of the challenger, (n,) each, finite.
    """
    a, b = champion.astype(np.float64), challenger.astype(np.float64)
    runs = _runs(len(a), links, times)
    if output in NUMBERS:
        differences = _signed(a, b)
        return DifferenceRecord(**_shares(np.abs(differences) > SAME, runs, differences))
    changed = a != b
    signed = None if scores is None else _signed(*(each.astype(np.float64) for each in scores))
    answers = np.unique(a)
    if len(answers) > MAX_ANSWERS:
        answers = answers[:0]
    by_answer = []
    for answer in answers:
        places = np.flatnonzero(a == answer)
        of_links, of_times = (None if each is None else each[places] for each in (links, times))
        shares = _shares(
            changed[places],
            _runs(len(places), of_links, of_times),
            None if signed is None else signed[places],
        )
        by_answer.append(AnswerRecord(answer=int(answer), **shares))
    return DifferenceRecord(**_shares(changed, runs), by_answer=tuple(by_answer))


def _signed(champion: Floats, challenger: Floats) -> Floats:
    signed: Floats = (challenger - champion) / np.maximum(1.0, np.abs(champion))
    return signed


def _shares(changed: Array, runs: list[Array], signed: Floats | None = None) -> dict[str, Any]:
    """Return the fields of ``Differences``; ``signed`` are differences of numbers."""
    fields = {
        "examples": len(changed),
        "changed": float(changed.mean()),
        "largest_changed": _largest(changed, runs),
    }
    if signed is None:
        return fields
    edges: list[float] = np.quantile(signed, QUANTILES).tolist()
    return {
        **fields,
        "quantiles": tuple(edges),
        "largest_above": tuple(_largest(signed > edge + SAME, runs) for edge in edges),
        "largest_below": tuple(_largest(signed < edge - SAME, runs) for edge in edges),
    }


RUN: Final = 25
"""Consecutive examples of a link, for a share of their own."""


def _runs(count: int, links: Array | None, times: Array | None) -> list[Array]:
    """Return the places of the examples of each run; links with fewer count as one link."""
    order = np.arange(count) if times is None else np.argsort(times, kind="stable")
    if links is None:
        return _cut(order)
    names, inverse = np.unique(links[order], return_inverse=True)
    places = [order[inverse == number] for number in range(len(names))]
    large = [each for each in places if len(each) >= RUN]
    small = [each for each in places if len(each) < RUN]
    runs = [run for each in large for run in _cut(each)]
    return runs + (_cut(np.concatenate(small)) if small else [])


def _cut(places: Array) -> list[Array]:
    return np.array_split(places, max(len(places) // RUN, 1))


def _largest(holds: Array, runs: list[Array]) -> float:
    return max(float(holds[places].mean()) for places in runs)
