"""``TrainingRun``: one run of the training pipeline on Kubeflow."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, Literal, get_args

from pydantic import Field
from pydantic.alias_generators import to_camel

from dwcp_ml.contract.champion import MANUAL, TRIGGER_PATTERN, ChampionRule
from dwcp_ml.contract.evaluation import NO_COLUMN
from dwcp_ml.contract.models import MODELS
from dwcp_ml.contract.record import Record
from dwcp_ml.operator.api.parts import (
    DATA_PATTERN,
    MAX_URI,
    URI_PATTERN,
    Column,
    CustomResource,
    DeploymentMode,
    ModelName,
    Names,
    Part,
    Rule,
    address_rule,
    kserve_rule,
    map_by,
)
from dwcp_ml.operator.api.training_status import TrainingRunStatus
from dwcp_ml.storage.addresses import SCHEMES
from dwcp_ml.training_run.options import LEAK_NAMES, ModelOptions, RunOptions

ExportFormat = Literal["keras", "onnx", "savedmodel"]
LeakName = Annotated[str, Field(pattern="^[a-z][a-z_]*$", max_length=64)]

METRICS: Final[dict[str, tuple[str, ...]]] = {
    name: tuple(dict.fromkeys(target.metric for form in spec.forms for target in form.targets))
    for name, spec in MODELS.items()
}
"""The metrics of each model that have a target, by full name."""

FORMS: Final[dict[str, tuple[str, ...]]] = {
    name: tuple(form.name for form in spec.forms) for name, spec in MODELS.items()
}
"""The forms of each model's prediction, by full name; the first is the default."""


def _same(kind: type[Record], name: str) -> Any:
    """Return a field with the default, bounds and description that it has in ``kind``."""
    return copy.copy(kind.model_fields[name])


def _of_its_model(model: str, field: str, allowed: dict[str, tuple[str, ...]]) -> str:
    """Return the rule that ``field`` is one of the values that its model allows."""
    return " || ".join(
        f"(self.{model} == {name!r} && self.{field} in [{', '.join(map(repr, values))}])"
        for name, values in allowed.items()
    )


def _listed(allowed: dict[str, tuple[str, ...]]) -> str:
    return "; ".join(f"{name}: {', '.join(values)}" for name, values in allowed.items())


_DATA: Final = f"/|({'|'.join(SCHEMES)})://"
_DATA_MESSAGE: Final = f"must be a path, or an address of {', '.join(SCHEMES)}"


_UtcTime = Annotated[
    str,
    Field(
        pattern="^(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
        "T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z$",
        max_length=20,
    ),
]
"""A time as Kubernetes writes it. Not of the format date-time: of that the API server takes lists,
and two texts of the same moment are equal to its rules."""


def _is_a_time(field: str) -> Rule:
    """Return the rule that a time of the right form exists, as the 30th of February does not."""
    name = to_camel(field)
    return Rule(
        f"!has(self.{name}) || timestamp(self.{name}) > timestamp('1900-01-01T00:00:00Z')",
        f"{name} must be a time that there is",
        lambda data: getattr(data, field) is None or _exists(getattr(data, field)),
    )


def _exists(time: str) -> bool:
    try:
        return datetime.fromisoformat(time) > datetime(1900, 1, 1, tzinfo=UTC)
    except ValueError:
        return False


class Data(Part):
    """The telemetry to train on."""

    uri: str | None = Field(
        default=None,
        pattern=DATA_PATTERN,
        max_length=MAX_URI,
        description="the telemetry, CSV or Parquet: s3, gs, az, https, pvc, file, or a path; the "
        "last three need a volume of the pipeline; a directory, a prefix that ends in / or a glob "
        "stands for Parquet files",
    )
    incidents_uri: str | None = Field(
        default=None,
        pattern=DATA_PATTERN,
        max_length=MAX_URI,
        description="the incidents, JSON, at an address of the same forms",
    )
    start_time: _UtcTime | None = Field(
        default=None,
        description="start of the window of the telemetry that is used, in UTC such as "
        "2026-01-31T12:00:00Z; absent for all from the first row on",
    )
    end_time: _UtcTime | None = Field(
        default=None,
        description="end of that window, in the same form: rows at this time and after it are not "
        "used; absent for all up to the last row",
    )
    simulated: bool = Field(default=False, description="train on simulated telemetry, for trials")
    packet_loss_unit: Literal["fraction", "percent"] = _same(RunOptions, "packet_loss_unit")
    congestion_window_unit: Literal["bytes", "segments"] = _same(
        RunOptions, "congestion_window_unit"
    )

    rules = (
        address_rule("uri", _DATA, _DATA_MESSAGE),
        address_rule("incidents_uri", _DATA, _DATA_MESSAGE),
        Rule(
            "has(self.uri) != self.simulated",
            "give either uri or simulated: true",
            lambda data: (data.uri is not None) != data.simulated,
        ),
        Rule(
            "!has(self.incidentsUri) || has(self.uri)",
            "incidentsUri needs uri: simulated telemetry has its own incidents",
            lambda data: data.incidents_uri is None or data.uri is not None,
        ),
        Rule(
            "!(has(self.startTime) || has(self.endTime)) || has(self.uri)",
            "startTime and endTime need uri: simulated telemetry has no dates to choose from",
            lambda data: not (data.start_time or data.end_time) or data.uri is not None,
        ),
        _is_a_time("start_time"),
        _is_a_time("end_time"),
        Rule(
            "!has(self.startTime) || !has(self.endTime) || self.startTime < self.endTime",
            "startTime must be before endTime",
            lambda data: (
                not data.start_time or not data.end_time or data.start_time < data.end_time
            ),
        ),
    )


class TargetSetting(Part):
    """A target of a model that replaces the default."""

    model: ModelName = Field(description="full name of the model")
    metric: str = Field(max_length=64, description="name of the metric, as in the report")
    value: float = Field(description="the target; a minimum or a maximum, as in the contract")

    rules = (
        Rule(
            _of_its_model("model", "metric", METRICS),
            f"the model has no target of that name ({_listed(METRICS)})",
            lambda target: target.metric in METRICS[target.model],
        ),
    )


class ModelOverrides(Part):
    """Settings of one model's training; absent ones are those of the model's YAML."""

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
            f"the model has no form of that name ({_listed(FORMS)})",
            lambda overrides: overrides.form is None or overrides.form in FORMS[overrides.name],
        ),
    )


class StableBundle(Part):
    """The bundle of one model that serves now."""

    model: ModelName = Field(description="full name of the model")
    storage_uri: str = Field(
        pattern=URI_PATTERN, max_length=MAX_URI, description="URI of the bundle"
    )

    rules = (kserve_rule("storage_uri"),)


class TrainingRunSpec(Part):
    """What to train, on which data, and where. Only ``suspend`` and ``cancel`` can be changed.

    The rules about the other fields are checked when a run is created. So a run that was stored
    before one of them existed can be cancelled; the API server itself does not check a part again
    that a change leaves as it was.
    """

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
        description="targets that replace the defaults",
        json_schema_extra=map_by("model", "metric"),
    )
    model_options: tuple[ModelOverrides, ...] = Field(
        default=(),
        max_length=len(MODELS),
        description="settings of the training of single models",
        json_schema_extra=map_by("name"),
    )
    seed: int = _same(RunOptions, "seed")
    accept_leak: tuple[LeakName, ...] = Field(
        default=(),
        max_length=len(LEAK_NAMES),
        description="what may leak without rejecting a model: columns of the telemetry, "
        f"{', '.join(NO_COLUMN)}",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    export_formats: tuple[ExportFormat, ...] = Field(
        default=get_args(ExportFormat),
        min_length=1,
        max_length=len(get_args(ExportFormat)),
        description="formats of the bundles; the server needs onnx",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    check_api: bool = _same(RunOptions, "check_api")
    strict: bool = _same(RunOptions, "strict")
    champion_rule: ChampionRule = _same(RunOptions, "champion_rule")
    trigger: str = Field(
        default=MANUAL,
        pattern=TRIGGER_PATTERN,
        max_length=100,
        description="what started the run, such as "
        "a schedule or an alert; it stands in the bundles",
    )
    deployment_mode: DeploymentMode = Field(
        default="Standard", description="KServe mode of the gate's manifests"
    )
    stable: tuple[StableBundle, ...] = Field(
        default=(),
        max_length=len(MODELS),
        description="the bundles that serve now",
        json_schema_extra=map_by("model"),
    )
    storage_prefix: str | None = Field(
        default=None,
        pattern=URI_PATTERN,
        max_length=MAX_URI,
        description="where the run writes its bundles and the cluster reads them; without it "
        "nothing is rolled out",
    )
    requests_per_second: float = _same(RunOptions, "requests_per_second")
    experiment: str = Field(
        default="dwcp-ml",
        min_length=1,
        max_length=128,
        description="the run's experiment in Kubeflow",
    )
    pipeline_root: str | None = Field(
        default=None,
        pattern=URI_PATTERN,
        max_length=MAX_URI,
        description="where Kubeflow stores the artifacts; absent for its default",
    )
    service_account_name: str | None = Field(
        default=None,
        max_length=253,
        description="service account of the run's pods; to publish candidates it needs the Role "
        "dwcp-ml-pipeline",
    )
    suspend: bool = Field(
        default=False, description="do not submit the run; a submitted run goes on"
    )
    cancel: bool = Field(default=False, description="end the run; it can't be resumed")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.targets.all(one, one.model in self.models) && "
            "self.modelOptions.all(one, one.name in self.models)",
            "targets and modelOptions must be about models that are trained",
            lambda spec: (
                {one.model for one in spec.targets} | {one.name for one in spec.model_options}
                <= set(spec.models)
            ),
            at_creation=True,
        ),
        replace(
            address_rule(
                "storage_prefix",
                "(s3|gs|pvc)://|https://[a-z0-9]+[.]blob[.]core[.]windows[.]net/",
                "must be s3://, gs://, pvc:// or https://ACCOUNT.blob.core.windows.net/CONTAINER: "
                "the run writes there, and KServe reads it",
            ),
            at_creation=True,
        ),
        Rule("self.cancel || !oldSelf.cancel", "cancel is final: create another TrainingRun"),
    )


SHARED_OPTIONS: Final = (
    "models", "seed", "accept_leak", "export_formats", "check_api", "strict", "requests_per_second",
    "champion_rule", "trigger",
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
        new, old = f"self.{alias}", f"oldSelf.{alias}"
        if field.default is None:
            same.append(f"has({new}) == has({old}) && (!has({new}) || {new} == {old})")
        else:
            same.append(f"{new} == {old}")
    return Rule(
        " && ".join(f"({one})" if "has(" in one else one for one in same),
        "a run can't be changed, only suspended or cancelled: create another TrainingRun",
    )


TrainingRunSpec.rules = (*TrainingRunSpec.rules, _frozen())


class TrainingRun(CustomResource):
    """One run of the training pipeline on Kubeflow, and the gate's verdict."""

    names = Names("TrainingRun", "trainingruns", "trainingrun", "tr")
    columns: ClassVar[tuple[Column, ...]] = (
        Column("Phase", "string", ".status.phase", "phase of the run"),
        Column("Verdict", "string", ".status.verdict", "the gate's verdict"),
        Column("Reason", "string", ".status.reason", "why the run is in this phase"),
        Column("Run", "string", ".status.runId", "the run's id in Kubeflow", 1),
        Column("Message", "string", ".status.message", "the reason in a sentence", 1),
        Column("Age", "date", ".metadata.creationTimestamp", "time since its creation"),
    )

    kind: Literal["TrainingRun"] = "TrainingRun"
    spec: TrainingRunSpec = Field(description="what to train, on which data, and where")
    status: TrainingRunStatus | None = Field(
        default=None, description="state of the run, and the gate's verdict"
    )
