"""The record of a comparison with one reference, and what the verdict requires of it."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from dwcp_ml.contract.record import Record


class ReferenceKind(StrEnum):
    """What the verdict requires of the model beside a reference."""

    NAIVE = "naive"
    """A baseline without training or of one number: the model must be significantly better."""

    STRONG = "strong"
    """A good simple method: the model must not be significantly worse."""

    ORACLE = "oracle"
    """The simulator's best prediction: a model that is significantly better knows too much."""

    CHAMPION = "champion"
    """The bundle that was live when the model was trained: the run's rule says what is required."""


class Requirement(StrEnum):
    """What the verdict requires of one comparison."""

    BETTER = "better"
    NOT_WORSE = "not_worse"
    NOT_BETTER = "not_better"
    NONE = "none"


class Outcome(StrEnum):
    """The side of 0 on which the 95 % interval of the model's improvement lies."""

    BETTER = "better"
    AS_GOOD = "as_good"
    WORSE = "worse"
    UNKNOWN = "unknown"


class Comparison(Record):
    """Paired block bootstrap of the model and one reference on one metric.

    Improvements are in units of the metric, positive where the model is better; null where the test
    split is too small or too uniform for an interval.
    """

    reference: str
    kind: ReferenceKind
    metric: str
    requirement: Requirement
    model_value: float | None = Field(description="the metric of the model")
    reference_value: float | None = Field(description="the metric of the reference")
    improvement: float | None = None
    lower: float | None = Field(default=None, description="95 % lower bound of the improvement")
    upper: float | None = Field(default=None, description="95 % upper bound of the improvement")
    resamples: int = Field(default=0, ge=0)
    margin: float = Field(
        default=0.0,
        ge=0,
        description="a difference that nobody would act on: beside a strong reference or the "
        "champion it is not worse, beside the oracle not better",
    )

    @property
    def outcome(self) -> Outcome:
        """Worse if the upper bound is below -margin, better if the lower bound is above 0.

        Beside the oracle the lower bound must be above the margin.
        """
        # The order of the bounds is false for NaN as well.
        if self.lower is None or self.upper is None or not self.lower <= self.upper:
            return Outcome.UNKNOWN
        if self.lower > (self.margin if self.requirement is Requirement.NOT_BETTER else 0.0):
            return Outcome.BETTER
        return Outcome.WORSE if self.upper < -self.margin else Outcome.AS_GOOD

    @property
    def passed(self) -> bool:
        """True if the outcome is what the verdict requires.

        An unknown one never is, except beside the oracle: it shows no leak.
        """
        if self.requirement is Requirement.NONE:
            return True
        if self.requirement is Requirement.NOT_BETTER:
            return self.outcome is not Outcome.BETTER
        if self.requirement is Requirement.BETTER:
            return self.outcome is Outcome.BETTER
        return self.outcome in (Outcome.BETTER, Outcome.AS_GOOD)
