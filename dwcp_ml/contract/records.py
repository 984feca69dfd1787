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
from typing import Any, Literal

from pydantic import Field

from dwcp_ml.contract.champion import MANUAL
from dwcp_ml.contract.data_use import DataUse
from dwcp_ml.contract.evaluation import Evaluation, Finding
from dwcp_ml.contract.record import Record

DefectVerdict = Literal["error", "quarantine", "warning"]
Recommendation = Literal["APPROVED", "REJECTED"]


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
    rows: int = Field(ge=0, description="rows in the file, of a data window those in it")
    rows_quarantined: int = Field(ge=0, description="quarantined rows; no model is trained on them")
    columns: tuple[str, ...] = Field(description="the columns of the contract that are in the file")
    links: int = Field(ge=0, description="distinct (node_id, peer_id)")
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    data_start: str | None = Field(
        default=None, description="start of the data window; null for no bound"
    )
    data_end: str | None = Field(
        default=None, description="end of the data window, not included; null for no bound"
    )
    rows_outside_window: int = Field(
        default=0,
        ge=0,
        description="rows that were read and are outside the data window; no other count has them",
    )
    files_outside_window: int = Field(
        default=0,
        ge=0,
        description="files of the data set that were not read: their dates are outside the window",
    )
    cadence_seconds: float | None = Field(default=None, description="usual step of a link, seconds")
    incidents: int | None = Field(
        default=None,
        description="incidents in the file, of a data window those that overlap it; null without "
        "an incidents file",
    )
    incidents_outside_window: int = Field(
        default=0, ge=0, description="incidents that are left out: no time of the window is theirs"
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
    trigger: str = Field(default=MANUAL, description="what started the run")


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
