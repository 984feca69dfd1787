"""The record of an evaluation: metrics, comparisons with the references, findings and leaks."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from pydantic import Field

from dwcp_ml.contract.models import Target
from dwcp_ml.contract.record import Record


class ReferenceKind(StrEnum):
    """What the verdict requires of the model beside a reference."""

    NAIVE = "naive"
    """A baseline without training or of one number: the model must be significantly better."""

    STRONG = "strong"
    """A good simple method: the model must not be significantly worse."""


class Requirement(StrEnum):
    """What the verdict requires of one comparison."""

    BETTER = "better"
    NOT_WORSE = "not_worse"


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
        default=0.0, ge=0, description="a difference that nobody would act on is not worse"
    )

    @property
    def outcome(self) -> Outcome:
        """Better if the lower bound is above 0, worse if the upper bound is below -margin."""
        # The order of the bounds is false for NaN as well.
        if self.lower is None or self.upper is None or not self.lower <= self.upper:
            return Outcome.UNKNOWN
        if self.lower > 0:
            return Outcome.BETTER
        return Outcome.WORSE if self.upper < -self.margin else Outcome.AS_GOOD

    @property
    def passed(self) -> bool:
        """True if the outcome is what the verdict requires; an unknown one never is."""
        if self.requirement is Requirement.BETTER:
            return self.outcome is Outcome.BETTER
        return self.outcome in (Outcome.BETTER, Outcome.AS_GOOD)


class FindingCode(StrEnum):
    """What a finding says about a model."""

    NO_BETTER_THAN = "NoBetterThan"


class Finding(Record):
    """What a reader of an approval must know: a strong reference is as good as the model."""

    code: FindingCode = FindingCode.NO_BETTER_THAN
    rule: str = Field(description="name of the strong reference")
    metric: str
    improvement: float = Field(description="improvement of the model, in units of the metric")
    lower: float = Field(description="95 % lower bound of the improvement, at most 0")
    upper: float = Field(
        description="95 % upper bound of the improvement, at most the margin below 0"
    )


class LeakKind(StrEnum):
    """How the data tell a model what it has to predict."""

    FOREKNOWLEDGE = "Foreknowledge"
    LABEL_COPY = "LabelCopy"
    LABEL_THRESHOLD = "LabelThreshold"
    NUMBER_FORMAT = "NumberFormat"
    ROW_NUMBER = "RowNumber"
    ROW_ORDER = "RowOrder"
    SPLIT_COPY = "SplitCopy"
    QUARANTINE = "Quarantine"


NO_COLUMN: Final = ("row_order", "split", "quarantine")
"""What a leak names that is in no column of the telemetry."""


class Leak(Record):
    """One sign that the data hold what the model has to predict."""

    kind: LeakKind
    column: str = Field(
        description="the column of the telemetry, or `row_order`, `split` or `quarantine`"
    )
    statistic: float = Field(description="what was measured; docs/evaluation.md defines it by kind")
    limit: float = Field(description="the value of the statistic from which it is a leak")
    steps_ahead: int = Field(
        default=0, ge=0, description="steps by which the column precedes what it tells"
    )
    accepted: bool = Field(default=False, description="named with --accept-leak: rejects nothing")


class Evaluation(Record):
    """Metrics of a trained model, its baselines and its ceiling on the test split."""

    model_name: str
    version: str
    form: str
    success: bool = Field(description="false if there was no model or no example to evaluate")
    reason: str | None = None
    test_set_size: int = Field(ge=0)
    label_source: str | None = None
    targets: tuple[Target, ...] = Field(description="values that the metrics must reach")
    metrics: dict[str, float | None] = Field(description="null where a metric is not defined")
    missed_targets: tuple[str, ...] = ()
    primary_metric: str
    baselines: dict[str, dict[str, float | None]] = Field(
        default_factory=dict, description="metrics of the naive references"
    )
    references: dict[str, dict[str, float | None]] = Field(
        default_factory=dict, description="metrics of the strong references"
    )
    comparisons: tuple[Comparison, ...] = Field(
        default=(), description="with every naive and every strong reference"
    )
    ceiling: dict[str, float] | None = Field(
        default=None,
        description="best reachable value; null unless the data were simulated",
    )
    ceiling_standard_error: dict[str, float] = Field(default_factory=dict)
    above_ceiling: tuple[str, ...] = Field(
        default=(), description="metrics above the ceiling by more than the statistical error"
    )
    leaks: tuple[Leak, ...] = Field(
        default=(), description="signs that the data hold what the model has to predict"
    )
    cross_validation: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()

    @property
    def accepted_leaks(self) -> tuple[str, ...]:
        """The columns whose leaks the user accepted, each once."""
        return tuple(sorted({leak.column for leak in self.leaks if leak.accepted}))

    def target_of(self, metric: str) -> Target | None:
        """Return the target of a metric; None where it has none."""
        return next((target for target in self.targets if target.metric == metric), None)

    def comparison_with(self, reference: str, metric: str | None = None) -> Comparison | None:
        """Return the comparison with a reference, by default on the primary metric."""
        wanted = (reference, metric or self.primary_metric)
        pairs = ((each.reference, each.metric) for each in self.comparisons)
        return dict(zip(pairs, self.comparisons, strict=True)).get(wanted)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The strong references that the model is not significantly better than."""
        return tuple(
            Finding(
                rule=each.reference,
                metric=each.metric,
                improvement=each.improvement,
                lower=each.lower,
                upper=each.upper,
            )
            for each in self.comparisons
            if each.kind is ReferenceKind.STRONG
            and each.outcome is Outcome.AS_GOOD
            and each.improvement is not None
            and each.lower is not None
            and each.upper is not None
        )
