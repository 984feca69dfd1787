"""The options of a training run: the one place that names them, with types, defaults and help.

The options of the commands ``train``, ``pipeline run`` and ``gate``, the arguments of the compiled
pipeline and those of a TrainingRun are derived from ``RunOptions``, or compared with it by a test
where Kubeflow needs a literal signature.
"""

from __future__ import annotations

from typing import Any, Final, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from dwcp_ml.contract.champion import MANUAL, TRIGGER_PATTERN, ChampionRule
from dwcp_ml.contract.columns import column_of_feature
from dwcp_ml.contract.data_window import DataWindow, data_window
from dwcp_ml.contract.errors import ErrorCode, UsageError, did_you_mean
from dwcp_ml.contract.evaluation import NO_COLUMN
from dwcp_ml.contract.models import MODELS, ModelSpec, Target, model_spec, model_specs
from dwcp_ml.contract.record import Record

NO_STABLE: Final = "none"
"""The value of ``stable_uri`` that says that nothing serves now."""

EXPORT_FORMATS = ("keras", "onnx", "savedmodel")

GENERAL_ACCURACY = (
    "accuracy",
    "detection_accuracy",
    "recall",
    "correlation",
    "correlation_within_link_median",
)
"""The metrics that ``--target-accuracy`` of the master orchestrator applies to."""


class ModelOptions(Record):
    """The options of one model; ``None`` leaves a value to the model's YAML."""

    form: str | None = Field(
        default=None,
        max_length=64,
        description="form of the prediction; absent for the model's default",
    )
    epochs: int | None = Field(default=None, ge=1, description="epochs, at most")
    validation_fraction: float | None = Field(
        default=None, gt=0, lt=0.8, description="share of the examples in the validation split"
    )
    window: int | None = Field(default=None, ge=2, le=500, description="time steps of one instance")
    targets: dict[str, float] = Field(default_factory=dict, description="metric -> value")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="overrides of the model's YAML, as nested keys"
    )
    cross_validation: int = Field(default=0, ge=0, le=20, description="folds; 0 for none")

    def overrides(self, spec: ModelSpec) -> dict[str, Any]:
        """Return these options as overrides of the model's YAML."""
        data = dict(self.settings.get("data", {}))
        # The forest has no validation split: its 85/15 stays.
        if self.validation_fraction is not None and spec.name != "reliability_detector":
            data["validation_fraction"] = self.validation_fraction
        if self.window is not None:
            data["window"] = self.window
        merged = {**self.settings}
        if data:
            merged["data"] = data
        # The forest is not trained in epochs.
        if self.epochs is not None and spec.name != "reliability_detector":
            merged["training"] = {**self.settings.get("training", {}), "epochs": self.epochs}
        if self.form is not None:
            merged["form"] = self.form
        return merged

    def targets_of(self, spec: ModelSpec, form: str) -> tuple[Target, ...]:
        """Return the form's targets, with the chosen values in place of the defaults."""
        return tuple(
            Target(target.metric, target.direction, self.targets.get(target.metric, target.value))
            for target in spec.form(form).targets
        )


class RunOptions(Record):
    """The options of a whole run; a description is the help of its option and argument."""

    data_path: str = Field(
        default="",
        description="telemetry, CSV or Parquet, as a path or a URI (s3, gs, az, https, pvc, file); "
        "a directory, a prefix that ends in `/` or a glob stands for Parquet files with the same "
        "columns; empty to simulate it. `#md5=` and a digest after the path, that of the "
        "incidents as well, state which content it must have",
    )
    incidents_path: str = Field(
        default="",
        description="labelled incidents, JSON, a path or a URI, which the reliability model needs; "
        "empty for none",
    )
    data_start: str = Field(
        default="",
        description="start of the window of the telemetry that is used, a date (its midnight in "
        "UTC) or a time such as 2026-01-31T12:00:00Z; empty for all from the first row on",
    )
    data_end: str = Field(
        default="",
        description="end of that window, in the same form; rows at this time and after it are not "
        "used; empty for all up to the last row",
    )
    models: tuple[str, ...] = Field(default=tuple(MODELS), description="models, comma-separated")
    seed: int = Field(
        default=42,
        ge=0,
        le=2**31 - 1,
        description="seed of the training, and of the simulator where it is used",
    )
    version: str = Field(
        default="", description="version of the models; empty for one made of the time in UTC"
    )
    simulator: dict[str, Any] = Field(
        default_factory=dict, description="settings of the simulator other than its seed"
    )
    model_options: dict[str, ModelOptions] = Field(
        default_factory=dict, description="options of single models, by full name"
    )
    packet_loss_unit: Literal["fraction", "percent"] = Field(
        default="fraction", description="unit of packet_loss in the telemetry"
    )
    congestion_window_unit: Literal["bytes", "segments"] = Field(
        default="bytes", description="unit of congestion_window in the telemetry"
    )
    accept_leak: tuple[str, ...] = Field(
        default=(),
        description="columns, comma-separated, whose leaks are known and reject no model; also "
        f"{', '.join(NO_COLUMN)}",
    )
    export_formats: tuple[str, ...] = Field(
        default=EXPORT_FORMATS,
        description="formats of a bundle, comma-separated; ONNX, which the server needs, is always "
        "among them",
    )
    kserve_mode: Literal["standard", "knative"] = Field(
        default="standard", description="how KServe splits the traffic of a canary"
    )
    stable_uri: str = Field(
        default="",
        description="the bundle that serves now, or `MODEL=URI,MODEL=URI`; empty for the one of "
        "the newest approved run before this on this machine, and of the ModelRollout on a "
        "cluster; `none` for a first deployment",
    )
    champion_rule: ChampionRule = Field(
        default="not_worse",
        description="what a model must be beside the champion, the bundle that serves now, on the "
        "new test split: not significantly worse, significantly better, or nothing (it is only "
        "reported)",
    )
    trigger: str = Field(
        default=MANUAL,
        pattern=TRIGGER_PATTERN,
        description="what started the run, for the lineage of its bundles: at most 100 letters, "
        "digits, spaces and `._:/@+-`",
    )
    storage_prefix: str = Field(
        default="",
        description="where the cluster finds the bundles, such as s3://models; empty for the "
        "address of the artifacts",
    )
    rollout_namespace: str = Field(
        default="",
        description="namespace of the ModelRollouts whose candidates are set; empty publishes "
        "nothing",
    )
    strict: bool = Field(default=False, description="reject what could not be checked")
    check_api: bool = Field(
        default=True,
        description="serve the exported bundles and check them over HTTP, gRPC and Go before the "
        "gate",
    )
    requests_per_second: float = Field(
        default=100.0,
        gt=0,
        description="expected traffic of a rollout, candidate and stable together",
    )

    @field_validator("models", mode="before")
    @classmethod
    def _parse_models(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(spec.name for spec in model_specs(value))
        return value

    @field_validator("export_formats", mode="before")
    @classmethod
    def _parse_formats(cls, value: Any) -> Any:
        return parse_formats(value) if isinstance(value, str) else value

    @field_validator("accept_leak", mode="before")
    @classmethod
    def _parse_leaks(cls, value: Any) -> Any:
        return parse_leaks(value) if isinstance(value, str) else parse_leaks(",".join(value))

    @model_validator(mode="after")
    def _window_is_of_telemetry(self) -> Self:
        if self.data_window is not None and not self.data_path:
            raise UsageError(
                "A data window (data_start, data_end) needs data_path: simulated telemetry has no "
                "dates to choose from.",
                code=ErrorCode.UNSUPPORTED,
                subject="data_start" if self.data_start else "data_end",
            )
        return self

    @property
    def data_window(self) -> DataWindow | None:
        """The times of the telemetry that are used; ``None`` for all."""
        return data_window(self.data_start, self.data_end)

    def of(self, name: str) -> ModelOptions:
        """Return the options of one model."""
        return self.model_options.get(name, ModelOptions())

    def pipeline_arguments(self) -> dict[str, Any]:
        """Return the arguments of the compiled pipeline: name -> value as Kubeflow takes it."""
        values = self.model_dump(mode="json", include=set(PIPELINE_PARAMETERS))
        for name in ("export_formats", "accept_leak"):
            values[name] = ",".join(getattr(self, name))
        values["model_options"] = {
            name: options.model_dump(mode="json", exclude_defaults=True)
            for name, options in self.model_options.items()
        }
        return values

    def stable_uris(self) -> dict[str, str]:
        """Return model name -> the bundle that serves now, from ``stable_uri``.

        A plain URI is the bundle of the run's only model; with several models it is
        ``MODEL=URI,MODEL=URI``.

        Raises
        ------
        UsageError
            If a plain URI is given for several models.
        """
        text = self.stable_uri.strip()
        if text in ("", NO_STABLE):
            return {}
        if "=" not in text:
            if len(self.models) > 1:
                raise UsageError(
                    "--stable-uri names one bundle, but the run has several models: "
                    "write MODEL=URI,MODEL=URI.",
                    code=ErrorCode.AMBIGUOUS,
                    subject="--stable-uri",
                )
            return {self.specs()[0].name: text}
        pairs = (part.partition("=") for part in text.split(",") if part.strip())
        return {model_spec(name.strip()).name: uri.strip() for name, _, uri in pairs}

    def specs(self) -> tuple[ModelSpec, ...]:
        """Return the models of the run."""
        return tuple(model_spec(name) for name in self.models)


PIPELINE_PARAMETERS: Final = tuple(
    name for name in RunOptions.model_fields if name not in ("models", "simulator")
)
"""The parameters of the compiled pipeline; its models are chosen when it is compiled."""


def parse_formats(text: str) -> tuple[str, ...]:
    """Return the export formats of a comma-separated list, each once.

    Raises
    ------
    UsageError
        If a format is unknown.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in EXPORT_FORMATS:
            raise UsageError(
                f"There is no export format '{word}': {did_you_mean(word, EXPORT_FORMATS)}.",
                code=ErrorCode.UNKNOWN_NAME,
                subject=word,
            )
    return tuple(fmt for fmt in EXPORT_FORMATS if fmt in words)


LEAK_NAMES: Final = (
    *dict.fromkeys(column_of_feature(f).name for spec in MODELS.values() for f in spec.features),
    *NO_COLUMN,
)
"""What a leak can be found in: the inputs of the models, and what is in no column."""


def parse_leaks(text: str) -> tuple[str, ...]:
    """Return the names in a comma-separated list of what may leak, each once.

    Raises
    ------
    UsageError
        If no model reads such a column.
    """
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    for word in words:
        if word not in LEAK_NAMES:
            raise UsageError(
                f"No model has a leak in '{word}': {did_you_mean(word, LEAK_NAMES)}.",
                code=ErrorCode.UNKNOWN_NAME,
                subject=word,
            )
    return words


def run_options(**values: Any) -> RunOptions:
    """Return the run's options from untyped values, such as the arguments of a pipeline.

    Raises
    ------
    UsageError
        If a name or a value is invalid.
    """
    try:
        return RunOptions(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"The run's option '{where}' is invalid: {first['msg']}.",
            code=ErrorCode.INVALID_OPTION,
            subject=where,
        ) from error
