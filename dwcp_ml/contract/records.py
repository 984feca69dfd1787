"""The records that pipeline steps exchange as JSON files.

DataReport      validate -> all steps     the telemetry file and its defects
TrainingRecord  train    -> evaluate ...  how a model was trained, or why it failed
Evaluation      evaluate -> export        metrics, baselines, ceilings on the test split
ExportRecord    export   -> gate          the files, parity with the trained model, speed
ModelReport     export   -> gate, bundle  all records of one model, and the verdict
SessionReport   gate     -> users         all models of one run, APPROVED or REJECTED
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dwcp_ml.contract.errors import DwcpError, ErrorCode
from dwcp_ml.contract.models import Target

DefectVerdict = Literal["error", "quarantine", "warning"]
Recommendation = Literal["APPROVED", "REJECTED"]


_set = object.__setattr__  # a frozen model refuses its own


class Record(BaseModel):
    """Base of the records: unknown fields are rejected, and instances are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    def replace(self, **changes: Any) -> Self:
        """Return the record with some fields replaced; mypy checks their names and types.

        Values are not validated again: ``tools/mypy_record.py`` gives this method the keyword
        arguments of the constructor.

        Raises
        ------
        TypeError
            If the record has no such field.
        """
        cls = type(self)
        if not changes.keys() <= cls.__pydantic_fields__.keys():
            unknown = ", ".join(sorted(changes.keys() - cls.__pydantic_fields__.keys()))
            raise TypeError(f"{cls.__name__} has no field {unknown}.")
        # What model_copy(update=changes) does for a record, in less than half the time: a decision
        # replaces fields a dozen times, and a simulated rollout takes thousands of decisions.
        new = cls.__new__(cls)
        _set(new, "__dict__", {**self.__dict__, **changes})
        _set(new, "__pydantic_fields_set__", self.__pydantic_fields_set__ | changes.keys())
        _set(new, "__pydantic_extra__", None)
        _set(new, "__pydantic_private__", None)
        return new

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record that an earlier step wrote.

        Raises
        ------
        DwcpError
            If the file is missing or does not hold such a record.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise DwcpError(
                f"Can't read {path}: {error.strerror}.", code=ErrorCode.CANT_READ, subject=path
            ) from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the file"
            raise DwcpError(
                f"{path} is not a valid {cls.__name__}: {place}: {first['msg']}; if another "
                "release wrote it, run that step again.",
                code=ErrorCode.MALFORMED,
                subject=path,
            ) from error

    def to_json(self) -> str:
        """Return the record as indented JSON with a final newline."""
        return self.model_dump_json(indent=2) + "\n"


class Defect(Record):
    """One kind of defect that validation found in one column or in the whole file."""

    code: str = Field(description="name of the defect, as listed in the documentation")
    column: str | None = Field(description="the column it is in; null for the whole file")
    count: int = Field(ge=0, description="rows (or incidents) that have it")
    examples: tuple[int, ...] = Field(
        description="up to five row numbers, counted from 1 after the header"
    )
    verdict: DefectVerdict
    message: str = Field(description="one sentence: what, where, and what to do")


class DataReport(Record):
    """A telemetry file, and the defects that validation found in it."""

    path: str = Field(description="the telemetry file as the user named it")
    md5: str
    size_bytes: int = Field(ge=0)
    rows: int = Field(ge=0, description="rows in the file")
    rows_quarantined: int = Field(ge=0, description="quarantined rows; no model is trained on them")
    columns: tuple[str, ...] = Field(description="the columns of the contract that are in the file")
    links: int = Field(ge=0, description="distinct (node_id, peer_id)")
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    cadence_seconds: float | None = Field(default=None, description="usual step of a link, seconds")
    incidents: int | None = Field(
        default=None, description="incidents in the file; null without an incidents file"
    )
    incidents_path: str | None = None
    incidents_md5: str | None = None
    source: str = Field(default="file", description="`file` or `simulated`")
    defects: tuple[Defect, ...] = ()

    @property
    def refused(self) -> bool:
        """True if a defect is an error: no model is trained on this file."""
        return any(defect.verdict == "error" for defect in self.defects)


class Epoch(Record):
    """Losses of one epoch of a training."""

    epoch: int = Field(ge=1)
    loss: float
    validation_loss: float
    dropout: float | None = Field(
        default=None, description="share of the full dropout rate in this epoch, 1 to 0"
    )


class LossCause(StrEnum):
    """Why no example ends at a row of the file."""

    QUARANTINED = "quarantined"
    NOT_DRAWN = "not_drawn"
    SERIES_START = "series_start"
    GAP = "gap"
    SPLIT_BOUNDARY = "split_boundary"
    NOT_IN_TRAINING = "not_in_training"

    @property
    def words(self) -> str:
        """What such rows are, after their number."""
        return _WORDS[self]


class LeftOut(StrEnum):
    """Why a model is not trained on an example of the training split."""

    ABNORMAL = "abnormal"
    STRIDE = "stride"

    @property
    def words(self) -> str:
        """What such examples are, after their number."""
        return _WORDS[self]


_WORDS: dict[StrEnum, str] = {
    LossCause.QUARANTINED: "quarantined",
    LossCause.NOT_DRAWN: "not drawn, beyond data.max_rows",
    LossCause.SERIES_START: "at the start of a series",
    LossCause.GAP: "after a gap",
    LossCause.SPLIT_BOUNDARY: "after the start of a split",
    LossCause.NOT_IN_TRAINING: "of a link or node without training rows",
    LeftOut.ABNORMAL: "in an episode",
    LeftOut.STRIDE: "between strides",
}


class DataWarningCode(StrEnum):
    """What is doubtful about the use of the data."""

    ROWS_LOST = "RowsLost"
    FEW_EXAMPLES = "FewTrainingExamples"


class DataWarning(Record):
    """A reason to doubt the metrics of a model, which does not stop its training."""

    code: DataWarningCode
    message: str


class DataUse(Record):
    """What became of the rows of the telemetry for one model.

    Each row ends an example, is merged with another one, or is lost:
    ``rows = examples + merged_rows + sum(lost.values())``.
    """

    rows: int = Field(ge=0, description="rows of the file")
    rows_used: int = Field(ge=0, description="rows that are part of at least one example")
    merged_rows: int = Field(
        default=0, ge=0, description="rows of further peers, which are one observation of a node"
    )
    examples: int = Field(ge=0, description="examples of all splits: rows, or windows of rows")
    lost: dict[LossCause, int] = Field(
        default_factory=dict, description="rows at which no example ends, by cause"
    )
    trained_examples: int | None = Field(
        default=None, ge=0, description="examples that the model was trained on"
    )
    left_out: dict[LeftOut, int] = Field(
        default_factory=dict, description="examples of the training split it was not trained on"
    )
    warnings: tuple[DataWarning, ...] = ()

    @property
    def share_lost(self) -> float:
        """The share of the rows, or of the observations of a node, at which no example ends.

        Rows that were not drawn at random are left out of both: the others stand for them.
        """
        not_drawn = self.lost.get(LossCause.NOT_DRAWN, 0)
        lost = sum(self.lost.values()) - not_drawn
        return lost / max(1, self.rows - self.merged_rows - not_drawn)


class ThresholdSource(StrEnum):
    """What the threshold of the reliability detector was chosen by."""

    INCIDENTS = "incidents"
    AUTO = "auto"
    AUTO_TOO_FEW_INCIDENTS = "auto_too_few_incidents"
    AUTO_NO_INTERVALS = "auto_no_intervals"


class TrainingRecord(Record):
    """How a model was trained, or why it was not."""

    model_name: str
    version: str
    form: str
    success: bool
    reason: str | None = Field(default=None, description="why there is no model")
    training_date: str = Field(description="ISO 8601, UTC")
    training_time_seconds: float = Field(ge=0)
    hyperparameters: dict[str, Any]
    seed: int
    threads: int = Field(ge=1)
    rows: dict[str, int] = Field(default_factory=dict, description="examples in each split")
    data_use: DataUse | None = Field(
        default=None, description="what became of the rows of the telemetry"
    )
    label_source: str | None = Field(default=None, description="where the labels come from")
    epochs: tuple[Epoch, ...] = ()
    fitted: dict[str, float] = Field(
        default_factory=dict, description="fitted values such as thresholds, by name"
    )
    threshold_source: ThresholdSource | None = Field(
        default=None,
        description="reliability: what the threshold was chosen by; auto with a reason where the "
        "rule `incidents` could not be applied",
    )
    libraries: dict[str, str] = Field(default_factory=dict)
    targets: dict[str, float] = Field(
        default_factory=dict, description="targets that the caller set, by metric"
    )


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


class Parity(Record):
    """Difference between an export and the trained model: |a - b| / max(1, |a|)."""

    rows: int = Field(
        ge=0, description="compared inputs: the test split, random and extreme inputs"
    )
    largest_relative_difference: float = Field(ge=0)
    flipped_decisions: int = Field(
        ge=0, description="different decisions, except very close to the threshold"
    )
    tolerance: float

    @property
    def equal(self) -> bool:
        """True if no prediction differs by more than the tolerance, and no decision differs."""
        return self.largest_relative_difference <= self.tolerance and self.flipped_decisions == 0


class LatencyAttempt(Record):
    """One measurement of the latency of one inference, and of the machine in the same moment."""

    p50_ms: float
    p99_ms: float
    bare_p99_ms: float = Field(
        description="99th percentile of a loop that only reads the clock until the median time of "
        "the inferences has passed: what exceeds the median is time of other processes"
    )
    calls: int = Field(ge=1)


class ExportRecord(Record):
    """The files of a bundle, their parity with the trained model, their size and speed."""

    model_name: str
    version: str
    success: bool
    reason: str | None = None
    formats: tuple[str, ...] = ()
    parity: dict[str, Parity] = Field(default_factory=dict)
    model_size_mb: float | None = Field(
        default=None, description="largest exported format, MB of 10^6 bytes"
    )
    sizes_mb: dict[str, float] = Field(default_factory=dict)
    latency_p50_ms: float | None = Field(default=None, description="latency of one instance")
    latency_p99_ms: float | None = None
    latency_attempts: tuple[LatencyAttempt, ...] = Field(
        default=(), description="every measurement: it is repeated until one is under the limit"
    )
    bundle_digest: str | None = Field(default=None, description="SHA-256 of manifest.json")


class ModelReport(Record):
    """The records of one model of one run, and the verdict of the gate.

    The fields from ``model_name`` to ``deployment_ready`` are those of the architecture document,
    with its names and types; see ``dwcp_ml.evaluation.document_fields``.
    """

    model_name: str
    version: str
    training_date: str
    target_metrics: dict[str, float]
    achieved_metrics: dict[str, float | None]
    test_set_size: int
    training_time_seconds: float
    model_size_mb: float | None
    success: bool = Field(description="the model was trained and meets every target")
    hyperparameters: dict[str, Any]
    deployment_ready: bool = Field(description="the verdict is APPROVED")
    verdict: Recommendation
    reasons: tuple[str, ...] = Field(description="why it was rejected, most important first")
    findings: tuple[Finding, ...] = Field(
        default=(), description="strong references that the model is no better than"
    )
    training: TrainingRecord
    evaluation: Evaluation
    export: ExportRecord
    data: DataReport


class ProductionReadiness(Record):
    """The gate's verdict on the whole run; what was not checked is null, never true."""

    all_targets_met: bool
    integration_tests_passed: bool | None
    go_api_compatibility: bool | None
    ab_test_ready: bool | None = Field(
        default=None,
        description="whether a rollout could be decided; informative, it rejects nothing",
    )
    ab_test_detail: str = Field(default="", description="what ab_test_ready rests on, in words")
    deployment_recommendation: Recommendation
    unchecked: dict[str, str] = Field(
        default_factory=dict, description="check -> why it was not made"
    )


class SessionReport(Record):
    """All models of one run."""

    training_session: str
    overall_success: bool
    models_trained: int
    models_passed: int
    total_training_time_seconds: float
    models: dict[str, ModelReport]
    production_readiness: ProductionReadiness
    reasons: tuple[str, ...] = ()
    data: DataReport

    @property
    def approved(self) -> tuple[str, ...]:
        """The names of the approved models, of which every headline gives the number."""
        return tuple(name for name, model in self.models.items() if model.verdict == "APPROVED")
