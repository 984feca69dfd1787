"""The distribution of a feature in training, which a server compares live requests with."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Final, Self

from pydantic import Field, FiniteFloat, model_validator

from dwcp_ml.contract.record import Record

BUCKETS: Final = 10
"""Deciles, the usual buckets of the population stability index; one more is below all values."""

_Share = Annotated[float, Field(gt=0, le=1)]


class FeatureDistribution(Record):
    """The training examples between quantiles of one feature, each by its newest observation."""

    feature: str
    edges: tuple[FiniteFloat, ...] = Field(
        max_length=BUCKETS,
        description="upper bounds of the buckets, ascending; one more bucket holds what is above",
    )
    shares: tuple[_Share, ...] = Field(
        min_length=1,
        max_length=BUCKETS + 1,
        description="share of the examples in each bucket; half an example is added to each",
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if len(self.shares) != len(self.edges) + 1:
            raise ValueError("there must be one more share than edges")
        if any(low >= high for low, high in pairwise(self.edges)):
            raise ValueError("the edges must rise")
        return self
