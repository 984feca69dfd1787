"""How a challenger differs from the champion: the bundle that was live when it was trained.

A model that was trained again differs from its predecessor by design. The gate measures by how much
on the test split and writes it into the bundle, so that a rollout can tell what was meant from a
fault of serving, such as a wrong scale or swapped features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Self

import numpy as np
from pydantic import Field, FiniteFloat, model_validator

from dwcp_ml.contract.arrays import Array, Floats
from dwcp_ml.contract.record import Record

QUANTILES: Final = (0.1, 0.5, 0.9)
"""Of the signed differences."""


class DifferenceRecord(Record):
    """The differences of the compared output on the same examples, challenger less champion."""

    examples: int = Field(ge=1)
    changed: float = Field(
        ge=0, le=1, description="share of examples whose prediction differs: of a number, by more "
        "than SAME",
    )  # fmt: skip
    quantiles: tuple[FiniteFloat, ...] | None = Field(
        default=None,
        min_length=len(QUANTILES),
        max_length=len(QUANTILES),
        description="of an output that is a number: the 10 %, 50 % and 90 % quantiles of the "
        "signed relative difference; null for a class",
    )

    @model_validator(mode="after")
    def _quantiles_rise(self) -> Self:
        if self.quantiles is not None and list(self.quantiles) != sorted(self.quantiles):
            raise ValueError("the quantiles must rise")
        return self


class ChampionRecord(Record):
    """The champion that a challenger was compared with, and how the two differ."""

    version: str
    digest: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of its manifest.json")
    metrics: dict[str, FiniteFloat | None] = Field(
        description="the champion's metrics on the challenger's test split"
    )
    difference: DifferenceRecord


SAME: Final = 0.005
"""Relative difference of two numbers, such as throughputs, below which they are the same."""

NUMBERS: Final = ("next_throughput_mbps",)
"""The compared outputs that are numbers; the others are classes."""


def signed_difference(output: str, champion: float, challenger: float) -> float:
    """Return the challenger's difference from the champion for one example.

    Of a number ``(b - a) / max(1, |a|)``; of a class 0 if both are equal and 1 if not. NaN if
    either prediction is NaN.

    Parameters
    ----------
    output
        Name of the compared output.

    >>> signed_difference("next_throughput_mbps", 200.0, 210.0)
    0.05
    """
    if math.isnan(champion) or math.isnan(challenger):
        return math.nan
    if output not in NUMBERS:
        return float(champion != challenger)
    return (challenger - champion) / max(1.0, abs(champion))


def difference_record(output: str, champion: Array, challenger: Array) -> DifferenceRecord:
    """Return how the predictions of the same examples differ; both of shape (n,), n > 0, finite."""
    a, b = champion.astype(np.float64), challenger.astype(np.float64)
    if output not in NUMBERS:
        return DifferenceRecord(examples=len(a), changed=float(np.mean(a != b)))
    signed: Floats = (b - a) / np.maximum(1.0, np.abs(a))
    values: Sequence[float] = np.quantile(signed, QUANTILES).tolist()
    changed = float(np.mean(np.abs(signed) > SAME))
    return DifferenceRecord(examples=len(a), changed=changed, quantiles=tuple(values))
