"""The stable's past as counts in buckets, and the rates that it gives for a test.

A quantity such as a prediction or a loss is compared between the arms by the share of values at or
below an edge. The edge is a quantile of the stable's earlier blocks, so it is known before the
block that it is applied to, and may follow the hour of the day.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Self

from pydantic import Field, FiniteFloat

from dwcp_ml.contract.record import Record
from dwcp_ml.rollout.evidence.error_rate import MEMORY_REQUESTS, Counts

PRIOR_VALUES: Final = 50.0
"""Weight of the quantile itself in the stable's share at its edge, in values."""


class BucketPast(Record):
    """The stable's earlier values; they fade beyond ``MEMORY_REQUESTS``."""

    counts: dict[str, FiniteFloat] = Field(
        default_factory=dict, description="upper bound of a bucket -> values in it"
    )

    def with_block(self, counts: Mapping[str, int]) -> Self:
        """Return the past after one more block."""
        total = sum(self.counts.values()) + sum(counts.values())
        fade = min(1.0, MEMORY_REQUESTS / total) if total else 1.0
        return type(self)(
            counts={
                bound: fade * (self.counts.get(bound, 0.0) + counts.get(bound, 0))
                for bound in {**self.counts, **counts}
            }
        )

    def edge(self, quantile: float) -> float | None:
        """Return the smallest finite bound with at least this share up to it; None without one."""
        needed, found = quantile * sum(self.counts.values()), 0.0
        for bound in sorted(self.counts, key=float):
            found += self.counts[bound]
            if found >= needed:
                return float(bound) if math.isfinite(float(bound)) else None
        return None

    def share(self, edge: float, quantile: float) -> float:
        """Return the share at or below an edge, strictly between 0 and 1."""
        total = sum(self.counts.values())
        below = sum(count for bound, count in self.counts.items() if float(bound) <= edge)
        return (below + PRIOR_VALUES * quantile) / (total + PRIOR_VALUES)


def at_or_below(counts: Mapping[str, int], edge: float) -> Counts:
    """Return the values of a block, and those at or below an edge as errors."""
    below = sum(count for bound, count in counts.items() if float(bound) <= edge)
    return Counts(requests=sum(counts.values()), errors=below)


def complement(counts: Counts) -> Counts:
    """Return the same values, and the others of them as errors."""
    return Counts(requests=counts.requests, errors=counts.requests - counts.errors)
