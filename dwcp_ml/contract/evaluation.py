"""The record of an evaluation: metrics, findings and leaks."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from pydantic import Field

from dwcp_ml.contract.champion import ChampionCheck
from dwcp_ml.contract.comparison import Comparison, Outcome, ReferenceKind
from dwcp_ml.contract.diagnostics import Diagnostics
from dwcp_ml.contract.models import Target
from dwcp_ml.contract.record import Record


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
        default=(),
        description="with every naive and every strong reference, with the champion if the run "
        "has one, and with the oracle where the data were simulated",
    )
    champion: ChampionCheck | None = Field(
        default=None, description="the bundle that was live; null if none was known"
    )
    ceiling: dict[str, float] | None = Field(
        default=None,
        description="best reachable value; null unless the data were simulated",
    )
    leaks: tuple[Leak, ...] = Field(
        default=(), description="signs that the data hold what the model has to predict"
    )
    cross_validation: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    diagnostics: Diagnostics | None = Field(
        default=None, description="for the reader; nothing in it decides the verdict"
    )

    @property
    def accepted_leaks(self) -> tuple[str, ...]:
        """The columns whose leaks the user accepted, each once."""
        return tuple(sorted({leak.column for leak in self.leaks if leak.accepted}))

    def target_of(self, metric: str) -> Target | None:
        """Return the target of a metric; None where it has none."""
        return next((target for target in self.targets if target.metric == metric), None)

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
