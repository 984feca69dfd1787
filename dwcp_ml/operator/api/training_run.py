"""``TrainingRun``: one run of the pipeline on Kubeflow, and the gate's verdict."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Final, Literal, get_args

from pydantic import Field

from dwcp_ml.contract.models import MODELS
from dwcp_ml.contract.records import Record
from dwcp_ml.operator.api.parts import (
    LONGEST_URI,
    URI_PATTERN,
    Column,
    CustomResource,
    DeploymentMode,
    ModelName,
    Names,
    Part,
    Rule,
    map_by,
)
from dwcp_ml.operator.api.training_status import TrainingRunStatus
from dwcp_ml.training_run.options import ModelOptions, RunOptions

ExportFormat = Literal["keras", "onnx", "savedmodel"]

METRICS: Final[dict[str, tuple[str, ...]]] = {
    name: tuple(dict.fromkeys(target.metric for form in spec.forms for target in form.targets))
    for name, spec in MODELS.items()
}
"""The metrics of each model that have a target, by full name."""

FORMS: Final[dict[str, tuple[str, ...]]] = {
    name: tuple(form.name for form in spec.forms) for name, spec in MODELS.items()
}
"""The forms of each model's answer, by full name; the first is the usual one."""


def _same(kind: type[Record], name: str) -> Any:
    """Return a field with the default, bounds and description that it has in ``kind``."""
    return copy.copy(kind.model_fields[name])


def _of_its_model(model: str, field: str, allowed: dict[str, tuple[str, ...]]) -> str:
    """Return the rule that ``field`` is one of the values that its model allows."""
    return " || ".join(
        f"(self.{model} == {name!r} && self.{field} in [{', '.join(map(repr, values))}])"
        for name, values in allowed.items()
    )


def _told(allowed: dict[str, tuple[str, ...]]) -> str:
    return "; ".join(f"{name}: {', '.join(values)}" for name, values in allowed.items())


class Data(Part):
    """The telemetry to train on."""

    uri: str | None = Field(
        default=None,
        pattern=URI_PATTERN,
        max_length=LONGEST_URI,
        description="address of the telemetry, CSV or Parquet",
    )
    incidents_uri: str | None = Field(
        default=None,
        pattern=URI_PATTERN,
        max_length=LONGEST_URI,
        description="address of the incidents, JSON",
    )
    simulated: bool = Field(
        default=False, description="train on simulated telemetry; for a trial, not for production"
    )
    packet_loss_unit: Literal["fraction", "percent"] = _same(RunOptions, "packet_loss_unit")
    congestion_window_unit: Literal["bytes", "segments"] = _same(
        RunOptions, "congestion_window_unit"
    )

    rules = (
        Rule(
            "has(self.uri) != self.simulated",
            "give either uri or simulated: true",
            lambda data: (data.uri is not None) != data.simulated,
        ),
        Rule(
            "!has(self.incidentsUri) || has(self.uri)",
            "incidentsUri needs uri: simulated telemetry brings its own incidents",
            lambda data: data.incidents_uri is None or data.uri is not None,
        ),
    )


class TargetSetting(Part):
    """A number that a model must reach instead of the usual one."""

    model: ModelName = Field(description="full name of the model")
    metric: str = Field(max_length=64, description="name of the metric, as in the report")
    value: float = Field(description="what it must reach; the direction is the contract's")

    rules = (
        Rule(
            _of_its_model("model", "metric", METRICS),
            f"the model has no target of that name ({_told(METRICS)})",
            lambda one: one.metric in METRICS[one.model],
        ),
    )


class ModelOverrides(Part):
    """What may be chosen about the training of one model; what is absent is as in its YAML."""

    name: ModelName = Field(description="full name of the model")
    form: str | None = _same(ModelOptions, "form")
    epochs: int | None = _same(ModelOptions, "epochs")
    validation_fraction: float | None = _same(ModelOptions, "validation_fraction")
    window: int | None = _same(ModelOptions, "window")
    cross_validation: int = _same(ModelOptions, "cross_validation")
    settings: dict[str, Any] | None = Field(
        default=None, description="overrides of the model's YAML, as nested keys"
    )

    rules = (
        Rule(
            f"!has(self.form) || {_of_its_model('name', 'form', FORMS)}",
            f"the model has no form of that name ({_told(FORMS)})",
            lambda one: one.form is None or one.form in FORMS[one.name],
        ),
    )


class LiveModel(Part):
    """What is live of one model."""

    model: ModelName = Field(description="full name of the model")
    storage_uri: str = Field(
        pattern=URI_PATTERN, max_length=LONGEST_URI, description="address of its bundle"
    )


class TrainingRunSpec(Part):
    """What to train, on what, and where. Only ``suspend`` and ``cancel`` can be changed."""

    data: Data = Field(description="the telemetry to train on")
    models: tuple[ModelName, ...] = Field(
        default=get_args(ModelName),
        min_length=1,
        max_length=len(MODELS),
        description="the models to train, by full name",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    targets: tuple[TargetSetting, ...] = Field(
        default=(),
        max_length=32,
        description="numbers that a model must reach instead of the usual ones",
        json_schema_extra=map_by("model", "metric"),
    )
    options: tuple[ModelOverrides, ...] = Field(
        default=(),
        max_length=len(MODELS),
        description="what is chosen about the training of single models",
        json_schema_extra=map_by("name"),
    )
    seed: int = _same(RunOptions, "seed")
    export_formats: tuple[ExportFormat, ...] = Field(
        default=get_args(ExportFormat),
        min_length=1,
        max_length=len(get_args(ExportFormat)),
        description="the formats of a bundle; the server needs onnx",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    check_api: bool = _same(RunOptions, "check_api")
    strict: bool = _same(RunOptions, "strict")
    deployment_mode: DeploymentMode = Field(
        default="Standard", description="KServe mode of the manifests that the gate writes"
    )
    stable: tuple[LiveModel, ...] = Field(
        default=(),
        max_length=len(MODELS),
        description="what is live now, of the models where something is",
        json_schema_extra=map_by("model"),
    )
    storage_prefix: str | None = Field(
        default=None,
        pattern=URI_PATTERN,
        max_length=LONGEST_URI,
        description="where a cluster finds the bundles; without it nothing is rolled out",
    )
    requests_per_second: float = _same(RunOptions, "requests_per_second")
    experiment: str = Field(
        default="dwcp-ml",
        min_length=1,
        max_length=128,
        description="the Kubeflow experiment that the run belongs to",
    )
    pipeline_root: str | None = Field(
        default=None,
        pattern=URI_PATTERN,
        max_length=LONGEST_URI,
        description="where Kubeflow keeps the artifacts, if not in its usual place",
    )
    service_account_name: str | None = Field(
        default=None,
        max_length=253,
        description="the service account of the run's pods; to roll out, it must have the rights "
        "of dwcp-ml-pipeline",
    )
    suspend: bool = Field(
        default=False, description="do not start; a run that has started is not touched"
    )
    cancel: bool = Field(default=False, description="end the run; it can't be begun again")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.targets.all(one, one.model in self.models) && "
            "self.options.all(one, one.name in self.models)",
            "targets and options must be about models that are trained",
            lambda spec: (
                {one.model for one in spec.targets} | {one.name for one in spec.options}
                <= set(spec.models)
            ),
        ),
        Rule("self.cancel || !oldSelf.cancel", "cancel can't be taken back: make another run"),
    )


SHARED_OPTIONS: Final = (
    "models", "seed", "export_formats", "check_api", "strict", "requests_per_second",
)  # fmt: skip
"""Fields of the spec that are options of the run under the same name."""

MUTABLE: Final = ("suspend", "cancel")


def _frozen() -> Rule:
    """Return the rule that nothing but ``MUTABLE`` ever changes."""
    same = []
    for name, field in TrainingRunSpec.model_fields.items():
        alias = field.alias or name
        if alias in MUTABLE:
            continue
        here, there = f"self.{alias}", f"oldSelf.{alias}"
        if field.default is None:
            same.append(f"has({here}) == has({there}) && (!has({here}) || {here} == {there})")
        else:
            same.append(f"{here} == {there}")
    return Rule(
        " && ".join(f"({one})" if "has(" in one else one for one in same),
        "a run can't be changed, only suspended or cancelled: make another TrainingRun",
    )


TrainingRunSpec.rules = (*TrainingRunSpec.rules, _frozen())


class TrainingRun(CustomResource):
    """One run of the training pipeline on Kubeflow, and the gate's verdict."""

    names = Names("TrainingRun", "trainingruns", "trainingrun", "tr")
    columns: ClassVar[tuple[Column, ...]] = (
        Column("Phase", "string", ".status.phase", "where the run stands"),
        Column("Answer", "string", ".status.recommendation", "what the gate said"),
        Column("Run", "string", ".status.runId", "the run's id in Kubeflow", 1),
        Column("Reason", "string", ".status.reason", "why it stands there", 1),
        Column("Age", "date", ".metadata.creationTimestamp", "since it was made"),
    )

    kind: Literal["TrainingRun"] = "TrainingRun"
    spec: TrainingRunSpec = Field(description="what to train, on what, and where")
    status: TrainingRunStatus | None = Field(
        default=None, description="where it stands, and what the gate said"
    )
