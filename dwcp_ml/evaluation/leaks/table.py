"""The rows of one model as the search for leaks reads them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dwcp_ml.contract.arrays import Floats, Ints, Mask

MIN_ROWS = 1000
"""With fewer rows nothing is searched: no statistic would be far enough from chance."""


@dataclass(frozen=True)
class LeakRows:
    """The rows that a model's examples are made of, in the order of series, then of time.

    Parameters
    ----------
    columns
        Each input column of the model, float64 (n,); a category as its codes.
    series, timestamp
        The link or node, and epoch seconds, (n,).
    position
        The row's place in the file, int64 (n,).
    outcome
        What is to be predicted, float64 (n,), NaN where it is unknown.
    classes
        The outcome is a class or a flag, and not a quantity.
    """

    columns: dict[str, Floats]
    series: Ints
    timestamp: Floats
    position: Ints
    outcome: Floats
    classes: bool

    def __len__(self) -> int:
        return len(self.series)

    @property
    def step_seconds(self) -> float:
        """The median step between rows of one series."""
        steps = np.diff(self.timestamp)[np.diff(self.series) == 0]
        return float(np.median(steps)) if len(steps) else 0.0

    def followed(self, steps: int) -> Mask:
        """Return which rows are ``steps`` of one series before the row that far below, (n,)."""
        result = np.zeros(len(self), np.bool_)
        if steps < len(self):
            ahead = self.timestamp[steps:] - self.timestamp[: len(self) - steps]
            step = self.step_seconds
            near = np.abs(ahead - steps * step) <= 0.5 * step
            same = self.series[steps:] == self.series[: len(self) - steps]
            result[: len(self) - steps] = near & same
        return result


@dataclass(frozen=True)
class Lost:
    """What quarantined rows would have been predicted, beside the rows that were kept.

    ``lost`` and ``kept`` are a score of each row: 1 for a positive one, or how hard it is.
    """

    lost: Floats
    kept: Floats
