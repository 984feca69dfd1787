"""The public signatures of the four models: names, inputs, outputs, targets.

How a model works is not visible here. The Go client, the server, the bundle and the gate all
read these signatures; a change to one of them is a change of the public interface.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from dwcp_ml.contract.columns import COLUMNS, COMPRESSION_LEVELS, KEY_COLUMNS, column_of_feature
from dwcp_ml.contract.errors import ErrorCode, UsageError, did_you_mean

Dtype = Literal["float32", "int64", "bool"]


@dataclass(frozen=True)
class Tensor:
    """One input or output of a model.

    ``shape`` is that of one instance, without the batch dimension; ``()`` is a scalar.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Dtype
    description: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class Target:
    """A number that a model must reach on the test split.

    ``direction`` says on which side of ``value`` the metric must lie: ``>=``, ``<=``, ``<`` or
    ``>``.
    """

    metric: str
    direction: Literal[">=", "<=", "<", ">"]
    value: float

    def met_by(self, achieved: float | None) -> bool:
        """Return whether ``achieved`` reaches the target; an undefined metric never does."""
        if achieved is None or math.isnan(achieved):
            return False
        return {
            ">=": achieved >= self.value,
            "<=": achieved <= self.value,
            "<": achieved < self.value,
            ">": achieved > self.value,
        }[self.direction]


@dataclass(frozen=True)
class Form:
    """One form of a model's prediction: the default one, or its alternative.

    The model must be significantly better than every naive baseline on ``primary_metric``, and on
    none of ``guards`` significantly worse than one. It must not be significantly worse than any of
    ``strong``, the strong references, on ``primary_metric``.
    """

    name: str
    outputs: tuple[Tensor, ...]
    targets: tuple[Target, ...]
    primary_metric: str
    primary_lower_is_better: bool
    guards: tuple[str, ...] = ()
    strong: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelSpec:
    """The public signature of one model.

    Parameters
    ----------
    name, short_name
        ``bandwidth_predictor`` and ``bandwidth``.
    features
        The features of one time step, in the order the network reads them.
    window
        Time steps of one instance; 1 is a plain row.
    series_key
        The columns that name a time series; windows never cross two series.
    forms
        The forms of the prediction; the first is the default, and the one the gate evaluates.
    """

    name: str
    short_name: str
    features: tuple[str, ...]
    window: int
    series_key: tuple[str, ...]
    forms: tuple[Form, ...]
    labels: tuple[str, ...] = ()

    @property
    def kubernetes_name(self) -> str:
        """The name with ``-`` for ``_``, as Kubernetes requires."""
        return self.name.replace("_", "-")

    @property
    def input(self) -> Tensor:
        """The one input: raw features in the units of the contract."""
        steps = () if self.window == 1 else (self.window,)
        width = () if len(self.features) == 1 else (len(self.features),)
        shape = (*steps, *width)
        names = ", ".join(self.features)
        return Tensor("features", shape, "float32", f"raw features in contract units: {names}")

    @property
    def needed_columns(self) -> tuple[str, ...]:
        """The columns without which the model can't be trained, keys first."""
        return (*KEY_COLUMNS, *(column_of_feature(feature).name for feature in self.features))

    def form(self, name: str | None = None) -> Form:
        """Return the form called ``name``, the default one for ``None``.

        Raises
        ------
        UsageError
            If the model has no form of that name.
        """
        for form in self.forms:
            if name is None or form.name == name:
                return form
        allowed = did_you_mean(str(name), [form.name for form in self.forms])
        raise UsageError(
            f"{self.name} has no output form '{name}': {allowed}.",
            code=ErrorCode.UNKNOWN_NAME,
            subject=name,
        )


def _probabilities(classes: int) -> Tensor:
    return Tensor("probabilities", (classes,), "float32", "probability of each class", "", 0.0, 1.0)


def _class_form(
    name: str,
    description: str,
    classes: int,
    *targets: Target,
    unit: str = "class",
    guards: tuple[str, ...] = (),
) -> Form:
    """Return a form whose outputs are a class, counted from 0, and the probability of each."""
    return Form(
        name=name,
        outputs=(
            Tensor(name, (), "int64", description, unit, 0, classes - 1),
            _probabilities(classes),
        ),
        targets=(Target("accuracy", ">=", 0.98), *targets),
        primary_metric="accuracy",
        primary_lower_is_better=False,
        guards=guards,
    )


BANDWIDTH_CLASSES: Final = ("good", "degraded", "bad")
COMPRESSION_TYPES: Final = ("none", "hde", "zstd")

BANDWIDTH: Final = ModelSpec(
    name="bandwidth_predictor",
    short_name="bandwidth",
    features=(
        "rtt_ms",
        "jitter_ms",
        "throughput_mbps",
        "packet_loss",
        "link_type_encoded",
        "network_tier_encoded",
        "congestion_window",
    ),
    window=10,
    series_key=("node_id", "peer_id"),
    forms=(
        Form(
            name="next_throughput_mbps",
            outputs=(
                Tensor(
                    "next_throughput_mbps",
                    (),
                    "float32",
                    "throughput of the link one step ahead",
                    "Mbit/s",
                    0.0,
                ),
            ),
            targets=(
                Target("correlation", ">=", 0.98),
                Target("correlation_within_link_median", ">=", 0.98),
                Target("mape_percent", "<", 5.0),
            ),
            primary_metric="mape_percent",
            primary_lower_is_better=True,
            guards=("correlation", "correlation_within_link_median", "mae_mbps"),
            strong=("linear_autoregression", "ridge_on_all_inputs"),
        ),
        _class_form("bandwidth_class", "0 good, 1 degraded, 2 bad", len(BANDWIDTH_CLASSES)),
    ),
)

BANDWIDTH_LOG_OFFSETS: Final = {
    "rtt_ms": 0.01,
    "jitter_ms": 0.001,
    "throughput_mbps": 1.0,
    "packet_loss": 1e-7,
    "link_type_encoded": 1.0,
    "network_tier_encoded": 1.0,
    "congestion_window": 1.0,
}
"""Added to each feature before its logarithm: far below usual values, makes log(0) finite."""

COMPRESSION: Final = ModelSpec(
    name="compression_selector",
    short_name="compression",
    features=(
        "throughput_mbps",
        "rtt_ms",
        "link_type_encoded",
        "hde_compression_ratio",
        "hde_delta_hit_rate",
        "amst_transfer_rate",
    ),
    window=1,
    series_key=("node_id", "peer_id"),
    forms=(
        _class_form(
            "compression_level",
            "level to compress at",
            COMPRESSION_LEVELS,
            Target("throughput_gain", ">", 0.0),
            unit="level",
            guards=("regret",),
        ),
        _class_form("compression_type", "0 none, 1 hde, 2 zstd", len(COMPRESSION_TYPES)),
    ),
    labels=tuple(name for name in COLUMNS if name.startswith("throughput_gain_")),
)

MAX_FALSE_ALARMS_PER_LINK_DAY: Final = 2.85
"""Less than 40 false alarms a day on the 14 links (7 nodes) of the default data."""

_RELIABILITY_FEATURES: Final = (
    "uptime_pct",
    "failure_rate",
    "packet_loss",
    "retransmits",
    "error_budget_burn_rate",
    "rtt_ms",
)

RELIABILITY: Final = ModelSpec(
    name="reliability_detector",
    short_name="reliability",
    features=_RELIABILITY_FEATURES,
    window=1,
    series_key=("node_id", "peer_id"),
    forms=(
        Form(
            name="anomaly",
            outputs=(
                Tensor("anomaly_score", (), "float32", "0 normal to 1 anomalous", "", 0.0, 1.0),
                Tensor("is_anomaly", (), "bool", "true at or above the threshold"),
            ),
            targets=(
                Target("recall", ">=", 0.98),
                Target("pr_auc", ">=", 0.90),
                Target("false_alarms_per_link_day", "<=", MAX_FALSE_ALARMS_PER_LINK_DAY),
            ),
            primary_metric="pr_auc",
            primary_lower_is_better=False,
            strong=("signed_log_z", *(f"{name}_alone" for name in _RELIABILITY_FEATURES)),
        ),
    ),
)

LATENCY: Final = ModelSpec(
    name="consensus_latency",
    short_name="latency",
    features=("consensus_latency_ms",),
    window=20,
    series_key=("node_id",),
    forms=(
        Form(
            name="high_latency",
            outputs=(
                Tensor(
                    "reconstruction_error",
                    (),
                    "float32",
                    "mean absolute error of the reconstructed window, in scaled units",
                    "",
                    0.0,
                ),
                Tensor("is_high_latency", (), "bool", "true at or above the threshold"),
            ),
            # The mean of all normal steps leaves an error of 0.8.
            targets=(
                Target("detection_accuracy", ">=", 0.98),
                Target("reconstruction_mae", "<", 0.5),
            ),
            primary_metric="detection_accuracy",
            primary_lower_is_better=False,
            strong=("largest_step", "window_mean", "window_deviation", "mean_and_deviation"),
        ),
    ),
    labels=("is_high_latency",),
)

MODELS: Final[dict[str, ModelSpec]] = {
    spec.name: spec for spec in (BANDWIDTH, COMPRESSION, RELIABILITY, LATENCY)
}
"""The four models by full name, in the order of every list and report."""

MIN_MBPS: Final = 1.0
"""Minimum throughput of the rows in MAPE; near 0 a relative error has no meaning."""

COMPARED_OUTPUTS: Final[Mapping[str, tuple[str, ...]]] = {
    "bandwidth_predictor": ("next_throughput_mbps", "bandwidth_class"),
    "compression_selector": ("compression_level", "compression_type"),
    "reliability_detector": ("is_anomaly",),
    "consensus_latency": ("is_high_latency",),
}
"""The output by which two versions of a model are compared, of the default form, else of the
alternative. Scores are left out: each version has a scale of its own, and is compared by what the
gate measured (``champion.SCORES``)."""


COMPARED_BY_FLAG: Final = frozenset(
    name
    for name, spec in MODELS.items()
    for form in spec.forms
    for tensor in form.outputs
    if tensor.dtype == "bool" and tensor.name in COMPARED_OUTPUTS.get(name, ())
)
"""The models whose versions are compared by a flag."""


def model_spec(name: str) -> ModelSpec:
    """Return the model called ``name``, by its full, short or Kubernetes name.

    Raises
    ------
    UsageError
        If there is no such model; the message lists the four.
    """
    for spec in MODELS.values():
        if name in (spec.name, spec.short_name, spec.kubernetes_name):
            return spec
    allowed = did_you_mean(name, [spec.short_name for spec in MODELS.values()])
    raise UsageError(
        f"There is no model '{name}': {allowed}.", code=ErrorCode.UNKNOWN_NAME, subject=name
    )


def model_specs(names: str | list[str] | tuple[str, ...]) -> tuple[ModelSpec, ...]:
    """Return the models named in a list or a comma-separated string, each once, in the usual order.

    Raises
    ------
    UsageError
        If a name is unknown, or no name is given.
    """
    words = names.split(",") if isinstance(names, str) else list(names)
    names_found = {model_spec(word.strip()).name for word in words if word.strip()}
    if not names_found:
        allowed = did_you_mean("", [spec.short_name for spec in MODELS.values()])
        raise UsageError(f"No model was named. {allowed}.", code=ErrorCode.MISSING, subject="model")
    return tuple(spec for spec in MODELS.values() if spec.name in names_found)
