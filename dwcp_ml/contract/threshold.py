"""The rule that chooses a threshold on scores, for the latency model and all its references alike.

A reference that had the model's percentile instead of its own would be handicapped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np

from dwcp_ml.contract.arrays import Array, Mask

USUAL_PERCENTILE: Final = 98.0
"""The percentile of the architecture document; the accuracy at it is always reported."""

MAX_PERCENTILE: Final = 99.9

PERCENTILE_STEP: Final = 0.05


@dataclass(frozen=True)
class PercentileRule:
    """A threshold is a percentile of the scores of the normal examples of the validation split.

    Parameters
    ----------
    percentile_range
        The percentiles between which the one with the highest accuracy is searched.
    percentile_without_episodes
        The percentile to use if the validation split has no positive example.
    """

    percentile_range: tuple[float, float] = (USUAL_PERCENTILE, MAX_PERCENTILE)
    percentile_without_episodes: float = 99.5

    @classmethod
    def of(cls, hyperparameters: Mapping[str, Any]) -> Self:
        """Return the rule in the section ``threshold`` of a model's settings, else the default."""
        section = hyperparameters.get("threshold", {})
        names = ("percentile_range", "percentile_without_episodes")
        return cls(**{name: section[name] for name in names if name in section})

    def best(self, scores: Array, truth: Mask) -> float:
        """Return the percentile with the highest accuracy, the middle one in a tie.

        ``scores`` and ``truth`` are those of the validation split, (n,).
        """
        if not truth.any() or truth.all():
            return self.percentile_without_episodes
        low, high = self.percentile_range
        candidates = np.linspace(low, high, round((high - low) / PERCENTILE_STEP) + 1)
        thresholds = np.percentile(scores[~truth], candidates)
        accuracy = np.array([np.mean((scores >= t) == truth) for t in thresholds])
        best = np.flatnonzero(accuracy == accuracy.max())
        return float(candidates[best[len(best) // 2]])

    def threshold(self, scores: Array, truth: Mask) -> float:
        """Return the threshold at the best percentile; infinity without a normal example."""
        normal = scores[~truth]
        if not len(normal):
            return float("inf")
        return float(np.percentile(normal, self.best(scores, truth)))
