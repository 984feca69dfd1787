"""What a person may choose about a run, typed: the pipeline's inputs and the command's options."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError

from dwcp_ml.contract.errors import UsageError, did_you_mean
from dwcp_ml.contract.models import MODELS, ModelSpec, Target, model_spec, model_specs
from dwcp_ml.contract.records import Record

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
    """What may be chosen about one model; ``None`` leaves it to the model's YAML."""

    form: str | None = Field(default=None, description="form of the answer")
    epochs: int | None = Field(default=None, ge=1, description="at most so many epochs")
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
        """Return the overrides of the model's YAML that these options stand for."""
        data = dict(self.settings.get("data", {}))
        # The forest has no validation split: its 85/15 stays.
        if self.validation_fraction is not None and spec.name != "reliability_detector":
            data["validation_fraction"] = self.validation_fraction
        if self.window is not None:
            data["window"] = self.window
        merged = {**self.settings}
        if data:
            merged["data"] = data
        if self.form is not None:
            merged["form"] = self.form
        return merged

    def targets_of(self, spec: ModelSpec, form: str) -> tuple[Target, ...]:
        """Return the form's targets, with the chosen values in place of the usual ones."""
        return tuple(
            Target(target.metric, target.direction, self.targets.get(target.metric, target.value))
            for target in spec.form(form).targets
        )


class RunOptions(Record):
    """What may be chosen about a whole run."""

    data_path: str | None = None
    incidents_path: str | None = None
    models: tuple[str, ...] = tuple(MODELS)
    seed: int = Field(default=42, ge=0, le=2**31 - 1)
    simulator_seed: int = Field(default=42, ge=0, le=2**31 - 1)
    simulator: dict[str, Any] = Field(
        default_factory=dict, description="settings of the simulator other than its seed"
    )
    formats: tuple[str, ...] = EXPORT_FORMATS
    packet_loss_unit: Literal["fraction", "percent"] = "fraction"
    congestion_window_unit: Literal["bytes", "segments"] = "bytes"
    per_model: dict[str, ModelOptions] = Field(default_factory=dict)
    strict: bool = False
    check_api: bool = Field(default=True, description="serve what was exported, and ask it")
    mode: str = Field(default="standard", description="KServe mode of the manifests")
    stable_uri: str = Field(default="", description="what is live now; empty for nothing")
    storage_prefix: str = Field(default="", description="where a cluster finds the bundles")

    requests_per_second: float = Field(
        default=100.0, gt=0, description="traffic to expect of a rollout, over both arms"
    )

    def of(self, name: str) -> ModelOptions:
        """Return the options of one model."""
        return self.per_model.get(name, ModelOptions())

    def stable_uris(self) -> dict[str, str]:
        """Return model name -> the bundle that is live, from ``--stable-uri``.

        One address stands for the one model of the run; for several it is
        ``MODEL=URI,MODEL=URI``.

        Raises
        ------
        UsageError
            If one address is to stand for several models.
        """
        text = self.stable_uri.strip()
        if not text:
            return {}
        if "=" not in text:
            if len(self.models) > 1:
                raise UsageError(
                    "--stable-uri names one bundle, but the run has several models: "
                    "write MODEL=URI,MODEL=URI."
                )
            return {self.specs()[0].name: text}
        pairs = (part.partition("=") for part in text.split(",") if part.strip())
        return {model_spec(name.strip()).name: uri.strip() for name, _, uri in pairs}

    def specs(self) -> tuple[ModelSpec, ...]:
        """Return the chosen models."""
        return tuple(model_spec(name) for name in self.models)


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
                f"there is no export format '{word}': {did_you_mean(word, EXPORT_FORMATS)}."
            )
    return tuple(fmt for fmt in EXPORT_FORMATS if fmt in words)


def run_options(models: str = "", **values: Any) -> RunOptions:
    """Return the run's options from loose values, such as a pipeline's inputs.

    Raises
    ------
    UsageError
        If a key or a value is wrong.
    """
    if models:
        values["models"] = tuple(spec.name for spec in model_specs(models))
    try:
        return RunOptions(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"the run's option '{where}' is wrong: {first['msg']}.") from error
