"""High consensus latency, as windows that an autoencoder of normal windows can't reconstruct."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from pydantic import Field, model_validator

from dwcp_ml.contract.arrays import Array, Floats32
from dwcp_ml.contract.data_use import LeftOut
from dwcp_ml.contract.errors import ErrorCode, TrainingFailed
from dwcp_ml.contract.examples import Examples, LatencyData
from dwcp_ml.contract.models import LATENCY, ModelSpec
from dwcp_ml.contract.threshold import MAX_PERCENTILE, USUAL_PERCENTILE, PercentileRule
from dwcp_ml.models.keras_model import NetworkModel
from dwcp_ml.models.scaling import Scaling
from dwcp_ml.models.settings import ModelSettings, RegressionTraining, Section

LOG_OFFSET_MS: Final = 0.01


class ConsensusLatencyNetwork(Section):
    """Encoder LSTM, LSTM; decoder LSTM, LSTM, Dense."""

    lstm_units: tuple[int, int] = Field(
        description="units of the encoder's two LSTM layers; the decoder mirrors them"
    )
    dropout: float = Field(
        ge=0, le=0.9,
        description="on the inputs of the encoder's first and the decoder's first layer, annealed",
    )  # fmt: skip


class ConsensusLatencyTraining(RegressionTraining):
    """A training on every ``stride``-th normal window."""

    stride: int = Field(ge=1, le=100, description="one in this many normal windows is used")


class Threshold(Section):
    """The choice of the threshold on the reconstruction error, on validation only."""

    percentile_range: tuple[float, float] = Field(
        description="percentiles of the errors of normal validation windows between which the "
        "threshold is searched, within 98 to 99.9"
    )
    percentile_without_episodes: float = Field(
        description="the percentile to use if validation holds no episode"
    )

    @model_validator(mode="after")
    def _check_ranges(self) -> Threshold:
        low, high = self.percentile_range
        if not USUAL_PERCENTILE <= low <= high <= MAX_PERCENTILE:
            raise ValueError("percentile_range must rise and lie in 98 to 99.9")
        if not low <= self.percentile_without_episodes <= high:
            raise ValueError("percentile_without_episodes must lie in percentile_range")
        return self

    @property
    def rule(self) -> PercentileRule:
        """The rule that chooses the percentile."""
        return PercentileRule(self.percentile_range, self.percentile_without_episodes)


class ConsensusLatencySettings(ModelSettings):
    """The settings of ``consensus_latency.yaml``."""

    data: LatencyData
    network: ConsensusLatencyNetwork
    training: ConsensusLatencyTraining
    threshold: Threshold


class ConsensusLatency(NetworkModel):
    """LSTM 64 → LSTM 32 → RepeatVector → LSTM 32 → LSTM 64 → TimeDistributed Dense 1."""

    contract: ClassVar[ModelSpec] = LATENCY
    settings_class = ConsensusLatencySettings
    defaults = Path(__file__).with_suffix(".yaml")
    settings: ConsensusLatencySettings

    def network(self) -> Any:
        """Return the untrained network of the design table."""
        import keras
        from keras import layers

        wide, narrow = self.settings.network.lstm_units
        rate = self.settings.network.dropout
        return keras.Sequential(
            [
                keras.Input((self.spec.window, 1)),
                layers.LSTM(wide, return_sequences=True, dropout=rate, name="encoder_1"),
                layers.LSTM(narrow, name="encoder_2"),
                layers.RepeatVector(self.spec.window, name="repeat"),
                layers.LSTM(narrow, return_sequences=True, dropout=rate, name="decoder_1"),
                layers.LSTM(wide, return_sequences=True, name="decoder_2"),
                layers.TimeDistributed(layers.Dense(1, name="dense"), name="head"),
            ],
            name="network",
        )

    def learnable(self, examples: Examples) -> Examples:
        """Return every ``stride``-th window without an episode.

        Raises ``TrainingFailed`` if every window lies in an episode.
        """
        normal = np.flatnonzero(~examples.truth.astype(bool))
        if len(examples) and not len(normal):
            raise TrainingFailed(
                f"All {len(examples)} windows of a split lie in an episode of high latency: no "
                "normal window is left for training.",
                code=ErrorCode.NO_DATA,
                subject="normal windows",
            )
        return examples.take(normal[:: self.settings.training.stride])

    def left_out(self, train: Examples) -> dict[LeftOut, int]:
        """Return how many windows lie in an episode, and how many normal ones are skipped."""
        normal = int((~train.truth.astype(bool)).sum())
        trained = -(-normal // self.settings.training.stride)
        return {LeftOut.ABNORMAL: len(train) - normal, LeftOut.STRIDE: normal - trained}

    def fit_scaling(self, train: Examples) -> Scaling:
        """Fit log and standardise on normal training windows; no clip, to keep large values."""
        return Scaling.fit(train.inputs[..., np.newaxis], [LOG_OFFSET_MS], clips=False)

    def targets(self, examples: Examples, inputs: Floats32) -> Array:  # noqa: ARG002
        """Return the scaled window itself, (n, window, 1)."""
        return inputs

    def fit_outputs(self, validation: Examples, outputs: Floats32) -> dict[str, float]:
        """Choose the threshold among percentiles of the errors of normal validation windows."""
        scaled = self._inputs(validation.inputs)
        errors = np.abs(outputs - scaled).mean(axis=(1, 2))
        truth = validation.truth.astype(bool)
        percentile = self.settings.threshold.rule.best(errors, truth)
        usual, chosen = np.percentile(errors[~truth], [USUAL_PERCENTILE, percentile]).tolist()
        return {
            "threshold": float(np.float32(chosen)),
            "threshold_percentile": percentile,
            "threshold_at_98": float(np.float32(usual)),
            "validation_accuracy": float(np.mean((errors >= chosen) == truth)),
            "validation_accuracy_at_98": float(np.mean((errors >= usual) == truth)),
            **self._reconstruction(outputs[~truth], scaled[~truth]),
        }

    def output_tensors(self, features: Any, scaled: Any, output: Any) -> dict[str, Any]:  # noqa: ARG002
        """Return the mean absolute error over the window, and whether it reaches the threshold."""
        from keras import ops

        error = ops.mean(ops.absolute(output - scaled), axis=(1, 2))
        return {
            "reconstruction_error": error,
            "is_high_latency": ops.greater_equal(error, self.fitted["threshold"]),
        }

    def _reconstruction(self, outputs: Floats32, scaled: Floats32) -> dict[str, float]:
        """Return the mean absolute error of normal windows, scaled and in ms."""
        scaling = self._fitted_scaling()
        to_log = scaling.deviation[0] * scaling.half_range[0]
        shift = scaling.centre[0] + scaling.mean[0] * scaling.half_range[0]
        in_ms = [np.exp(part.astype(np.float64) * to_log + shift) for part in (outputs, scaled)]
        return {
            "reconstruction_mae": float(np.abs(outputs - scaled).mean()),
            "reconstruction_mae_ms": float(np.abs(in_ms[0] - in_ms[1]).mean()),
        }
