"""The training, validation and test splits.

Temporal splits cut the whole file at two timestamps, so all rows of one timestamp lie in one
split; the cuts depend on timestamps only. The stratified split keeps the share of each class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dwcp_ml.contract.arrays import Array, Floats, Ints

TRAIN: Final = 0
VALIDATION: Final = 1
TEST: Final = 2


@dataclass(frozen=True)
class Split:
    """The rows of each split, as ascending positions (int64)."""

    train: Ints
    validation: Ints
    test: Ints

    @classmethod
    def of(cls, split_id: NDArray[np.int8]) -> Split:
        """Return the split that ``split_id`` names row by row."""
        return cls(*(np.flatnonzero(split_id == part) for part in (TRAIN, VALIDATION, TEST)))


def temporal_cuts(
    timestamp: Floats, validation_fraction: float, test_fraction: float
) -> tuple[float, float]:
    """Return the timestamps at which validation and test start; equal if there is no validation.

    ``timestamp`` is float64 (n,), epoch seconds in any order; the fractions are shares of the rows.
    The cuts lie at the nearest timestamp, because rows of one timestamp are never separated.
    """
    ordered = np.sort(timestamp)
    rows = len(ordered)
    if rows == 0:
        return 0.0, 0.0

    def moment(fraction_before: float) -> float:
        position = min(round(rows * fraction_before), rows - 1)
        return float(ordered[position])

    t_test = moment(1.0 - test_fraction)
    if validation_fraction == 0.0:
        return t_test, t_test
    return moment(1.0 - validation_fraction - test_fraction), t_test


def temporal_split_id(timestamp: Floats, cuts: tuple[float, float]) -> NDArray[np.int8]:
    """Return ``TRAIN``, ``VALIDATION`` or ``TEST`` for every row, by its time alone."""
    t_validation, t_test = cuts
    late = (timestamp >= t_validation).astype(np.int8)
    return late + (timestamp >= t_test).astype(np.int8)


def stratified_split(
    labels: Array, validation_fraction: float, test_fraction: float, seed: int
) -> Split:
    """Return a random split in which every class of ``labels``, (n,), keeps its share.

    The draw of a row depends on the seed and its position, not on any label or feature. A class
    too rare to be divided (its share rounds to zero) is trained on.
    """
    draw = np.random.default_rng(seed).random(len(labels))
    split_id = np.full(len(labels), TRAIN, np.int8)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        members = members[np.argsort(draw[members])]
        tested = round(len(members) * test_fraction)
        validated = round(len(members) * validation_fraction)
        split_id[members[:tested]] = TEST
        split_id[members[tested : tested + validated]] = VALIDATION
    return Split.of(split_id)
