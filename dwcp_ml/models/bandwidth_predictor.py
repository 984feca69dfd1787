"""Throughput of a link one step ahead, from ten steps of seven features; or its class."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import numpy as np
from pydantic import Field

from dwcp_ml.contract.arrays import Array, Floats, Floats32
from dwcp_ml.contract.examples import BandwidthData, Examples
from dwcp_ml.contract.intervals import MAX_HALF_WIDTH, conformal_quantile, conformity_scores
from dwcp_ml.contract.models import (
    BANDWIDTH,
    BANDWIDTH_CLASSES,
    BANDWIDTH_LOG_OFFSETS,
    ModelSpec,
)
from dwcp_ml.models.keras_model import NetworkModel, first_largest
from dwcp_ml.models.scaling import MIN_SPREAD, Scaling
from dwcp_ml.models.settings import ModelSettings, RegressionTraining, Section, Training

THROUGHPUT: Final = BANDWIDTH.features.index("throughput_mbps")

MAX_LOG: Final = 60.0
"""Maximum of log(1 + Mbit/s) before the exponential: above any link, within float32."""

MIN_ROWS_TO_CORRECT: Final = 100
"""Validation examples below which the affine correction is left out."""

MIN_ROWS_TO_CALIBRATE: Final = 100
"""Examples below which there are no prediction intervals."""


class BandwidthNetwork(Section):
    """LSTM, LSTM, Dense relu, head."""

    lstm_units: tuple[int, int] = Field(description="units of the two LSTM layers")
    dropout: float = Field(
        ge=0,
        le=0.9,
        description="dropout rate on the inputs of both LSTM layers, annealed: see training",
    )
    dense_units: int = Field(ge=1, le=4096, description="units of the dense layer")


class Intervals(Section):
    """Prediction intervals, calibrated on the last part of the validation split."""

    nominal_coverage: float = Field(
        gt=0.0, lt=1.0, description="share of the true values that lie inside"
    )
    calibration_share: float = Field(
        ge=0.0,
        le=0.8,
        description="share of the validation split, its end in time, that only calibrates the "
        "intervals; 0 makes none",
    )


class BandwidthPredictorSettings(ModelSettings):
    """The settings of ``bandwidth_predictor.yaml``."""

    data: BandwidthData
    network: BandwidthNetwork
    predicts: Literal["level", "change"] = Field(
        description="what the network predicts, on the scale of log(1 + Mbit/s): the "
        "next throughput, or its difference from that of the last step"
    )
    reads: Literal["level", "distance"] = Field(
        description="how the network reads the steps before the last: each by its level, or as its "
        "distance from the last step, in each feature's own spread"
    )
    training: RegressionTraining
    intervals: Intervals


class BandwidthPredictor(NetworkModel):
    """LSTM 64 → LSTM 32 → Dense 16 relu → Dense 1, or Dense 3 softmax."""

    contract: ClassVar[ModelSpec] = BANDWIDTH
    settings_class = BandwidthPredictorSettings
    log_offsets = BANDWIDTH_LOG_OFFSETS
    defaults = Path(__file__).with_suffix(".yaml")
    settings: BandwidthPredictorSettings

    @property
    def classifies(self) -> bool:
        """True in the form ``bandwidth_class``."""
        return self.form == "bandwidth_class"

    @property
    def training(self) -> Training:
        """The training section; classes are always trained on cross-entropy."""
        if not self.classifies:
            return self.settings.training
        common = self.settings.training.model_dump(exclude={"loss"})
        return Training(**common, loss="sparse_categorical_crossentropy")

    def network(self) -> Any:
        """Return the untrained network of the design table."""
        import keras
        from keras import layers

        sizes = self.settings.network
        first, second = sizes.lstm_units
        head = (
            layers.Dense(len(BANDWIDTH_CLASSES), activation="softmax", name="head")
            if self.classifies
            else layers.Dense(1, name="head")
        )
        return keras.Sequential(
            [
                keras.Input(self.spec.input.shape),
                layers.LSTM(first, return_sequences=True, dropout=sizes.dropout, name="lstm_1"),
                layers.LSTM(second, dropout=sizes.dropout, name="lstm_2"),
                layers.Dense(sizes.dense_units, activation="relu", name="dense"),
                head,
            ],
            name="network",
        )

    def fit_scaling(self, train: Examples) -> Scaling:
        """Fit log, clip, standardise; then, where the settings say so, the spread of distances."""
        scaling = super().fit_scaling(train)
        reads_distance = self.settings.reads == "distance" and self.spec.window > 1
        return scaling.with_distance(train.inputs) if reads_distance else scaling

    def fit_targets(self, train: Examples) -> dict[str, float]:
        """Return mean and standard deviation of the target, on the log scale."""
        if self.classifies:
            return {}
        logs = self._log_target(train)
        deviation = float(logs.std())
        return {
            "target_mean": float(logs.mean()),
            "target_deviation": deviation if deviation > MIN_SPREAD else 1.0,
        }

    def targets(self, examples: Examples, inputs: Floats32) -> Array:  # noqa: ARG002
        """Return the standardised log target of shape (n, 1), or the class of shape (n,)."""
        if self.classifies:
            return examples.truth.astype(np.int32)
        scaled = (self._log_target(examples) - self.fitted["target_mean"]) / self.fitted[
            "target_deviation"
        ]
        return scaled.astype(np.float32)[:, np.newaxis]

    def fit_outputs(self, validation: Examples, outputs: Floats32) -> dict[str, float]:
        """Fit log target = offset + scale · output on validation, by least squares."""
        if self.classifies:
            return {}
        scale, offset = self.fitted["target_deviation"], self.fitted["target_mean"]
        slope, shift = _correction(outputs[:, 0], self.targets(validation, outputs)[:, 0])
        return {"output_scale": scale * slope, "output_offset": offset + scale * shift}

    def validation_parts(self, validation: Examples) -> tuple[Examples, Examples | None]:
        """Cut the validation split in time; a window across the cut is in neither part."""
        share = self.settings.intervals.calibration_share
        if self.classifies or not share or not len(validation):
            return validation, None
        ends = validation.timestamp
        first, last = (ends, ends) if validation.span is None else validation.span.T
        cut = np.quantile(ends, 1.0 - share, method="lower")
        calibration = validation.take(first >= cut)
        if len(calibration) < MIN_ROWS_TO_CALIBRATE:
            return validation, None
        return validation.take(last < cut), calibration

    def fit_intervals(self, calibration: Examples) -> dict[str, float]:
        """Return the half width on the scale of log(1 + Mbit/s), and what it rests on."""
        nominal = self.settings.intervals.nominal_coverage
        prediction = self.predict(calibration.inputs)["next_throughput_mbps"]
        width = conformal_quantile(conformity_scores(calibration.truth, prediction), nominal)
        if not width <= MAX_HALF_WIDTH:
            return {}
        return {
            "interval_half_width": width,
            "interval_nominal": nominal,
            "interval_examples": float(len(calibration)),
        }

    def corrected(self, outputs: Floats32, targets: Array) -> Floats32:
        """Return outputs after the affine correction, which removes a common bias of an epoch."""
        if self.classifies:
            return outputs
        slope, shift = _correction(outputs[:, 0], targets[:, 0])
        return (outputs * slope + shift).astype(np.float32)

    def output_tensors(self, features: Any, scaled: Any, output: Any) -> dict[str, Any]:  # noqa: ARG002
        """Return the throughput in Mbit/s, or the most probable class."""
        from keras import ops

        if self.classifies:
            return {"bandwidth_class": first_largest(output), "probabilities": output}
        log = output * self.fitted["output_scale"] + self.fitted["output_offset"]
        log = ops.squeeze(log, axis=-1)
        if self.settings.predicts == "change":
            last = ops.take(ops.take(features, self.spec.window - 1, axis=1), THROUGHPUT, axis=1)
            log = log + ops.log(ops.relu(last) + 1.0)
        return {"next_throughput_mbps": ops.exp(ops.clip(log, 0.0, MAX_LOG)) - 1.0}

    def _log_target(self, examples: Examples) -> Floats:
        level = np.log1p(examples.truth.astype(np.float64))
        if self.settings.predicts == "level":
            return np.asarray(level)
        return np.asarray(level - np.log1p(examples.inputs[:, -1, THROUGHPUT].astype(np.float64)))


def _correction(outputs: Floats32, targets: Floats32) -> tuple[float, float]:
    """Return slope and shift of the least-squares line from outputs to targets."""
    given = outputs.astype(np.float64)
    if len(given) < MIN_ROWS_TO_CORRECT or given.std() < MIN_SPREAD:
        return 1.0, 0.0
    slope, shift = np.polyfit(given, targets.astype(np.float64), 1).tolist()
    return float(slope), float(shift)
