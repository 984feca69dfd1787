"""The best compression level for a link, or the compression type of that level."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dwcp_ml.contract.arrays import Array, Floats32
from dwcp_ml.contract.columns import COMPRESSION_LEVELS
from dwcp_ml.contract.errors import ErrorCode, TrainingFailed
from dwcp_ml.contract.examples import CompressionData, Examples, ModelData
from dwcp_ml.contract.models import COMPRESSION, ModelSpec
from dwcp_ml.models.keras_model import NetworkModel, first_largest
from dwcp_ml.models.protocol import FitContext, FitResult
from dwcp_ml.models.settings import ClassifierLoss, ModelSettings, Section, Training

MIN_SPEED: Final = 1e-3
"""Lower limit of the speed of a level over that of level 0: keeps its logarithm finite."""

HIT_RATE: Final = COMPRESSION.features.index("hde_delta_hit_rate")

LOG_OFFSETS: Final = {
    "throughput_mbps": 1.0,
    "rtt_ms": 0.01,
    "link_type_encoded": 1.0,
    "hde_compression_ratio": 0.0001,
    "hde_delta_hit_rate": 1.0,
    "amst_transfer_rate": 1.0,
}
"""Added to each feature before its logarithm: far below usual values, makes log(0) finite."""


class CompressionNetwork(Section):
    """Dense relu with dropout, twice; Dense relu; softmax over the levels."""

    dense_units: tuple[int, int, int] = Field(description="units of the three dense layers")
    dropout: float = Field(
        ge=0, le=0.9, description="dropout rate after the first two layers, annealed: see training"
    )


class CompressionTraining(Training):
    """Training of a classifier: by the best level, or by what each level is worth."""

    loss: ClassifierLoss = Field(
        description="loss to minimise; expected_regret needs the measured gain of each level"
    )


class CompressionSelectorSettings(ModelSettings):
    """The settings of ``compression_selector.yaml``."""

    data: CompressionData
    network: CompressionNetwork
    training: CompressionTraining


class CompressionSelector(NetworkModel):
    """Dense 64 relu, dropout → Dense 32 relu, dropout → Dense 16 relu → Dense 10 softmax.

    The form ``compression_type`` is the same network, trained on the level: the type follows from
    the level and the delta hit rate.
    """

    contract: ClassVar[ModelSpec] = COMPRESSION
    settings_class = CompressionSelectorSettings
    log_offsets = LOG_OFFSETS
    defaults = Path(__file__).with_suffix(".yaml")
    settings: CompressionSelectorSettings

    def network(self) -> Any:
        """Return the untrained network of the design table."""
        import keras
        from keras import layers

        sizes = self.settings.network
        first, second, third = sizes.dense_units
        return keras.Sequential(
            [
                keras.Input(self.spec.input.shape),
                layers.Dense(first, activation="relu", name="dense_1"),
                layers.Dropout(sizes.dropout, name="dropout_1"),
                layers.Dense(second, activation="relu", name="dense_2"),
                layers.Dropout(sizes.dropout, name="dropout_2"),
                layers.Dense(third, activation="relu", name="dense_3"),
                layers.Dense(COMPRESSION_LEVELS, activation="softmax", name="head"),
            ],
            name="network",
        )

    def fit(self, data: ModelData, context: FitContext) -> FitResult:
        """Train; see ``protocol.Model.fit``. The loss ``expected_regret`` needs measured gains."""
        measured = data.train.gains is not None and data.label_source != "cost_model"
        if self.settings.training.loss == "expected_regret" and not measured:
            raise TrainingFailed(
                "The loss expected_regret needs the measured gain of each level: add the columns "
                "throughput_gain_0 to throughput_gain_9, or train with "
                "sparse_categorical_crossentropy.",
                code=ErrorCode.NO_DATA,
                subject="gain",
            )
        return super().fit(data, context)

    def targets(self, examples: Examples, inputs: Floats32) -> Array:  # noqa: ARG002
        """Return the best level, int32 (n,); for ``expected_regret`` that of each, (n, levels)."""
        if self.settings.training.loss == "expected_regret":
            return log_regret(examples)
        return self.best_level(examples)

    def best_level(self, examples: Examples) -> NDArray[np.int32]:
        """Return the best level, int32 of shape (n,)."""
        if self.form == "compression_level":
            return examples.truth.astype(np.int32)
        if examples.gains is None:
            raise TrainingFailed(
                "compression_type is learned from the gain of each level, and the data hold none.",
                code=ErrorCode.NO_DATA,
                subject="gain",
            )
        level: NDArray[np.int32] = np.argmax(examples.gains, axis=1).astype(np.int32)
        return level

    def fit_outputs(self, validation: Examples, outputs: Floats32) -> dict[str, float]:
        """Return the accuracy on validation; nothing is fitted."""
        agreement = outputs.argmax(axis=1) == self.best_level(validation)
        return {"validation_level_accuracy": float(agreement.mean())}

    def output_tensors(self, features: Any, scaled: Any, output: Any) -> dict[str, Any]:  # noqa: ARG002
        """Return the most probable level; or the most probable type, summing over its levels."""
        from keras import ops

        if self.form == "compression_level":
            return {"compression_level": first_largest(output), "probabilities": output}
        hit_rate = ops.take(features, HIT_RATE, axis=1)
        is_hde = ops.cast(hit_rate > self.settings.data.hde_hit_rate_cutoff, dtype="float32")
        none = ops.take(output, 0, axis=1)
        some = 1.0 - none
        types = ops.stack([none, some * is_hde, some * (1.0 - is_hde)], axis=1)
        return {"compression_type": first_largest(types), "probabilities": types}


def log_regret(examples: Examples) -> Floats32:
    """Return the logarithm of the best level's speed over that of each level, (n, levels).

    The speed of a level over that of level 0 is 1 + its gain. The best level has 0, the first of
    several best ones is that of ``Examples.truth``.
    """
    speed = np.log(np.maximum(1.0 + np.asarray(examples.gains, np.float64), MIN_SPEED))
    return np.asarray(speed.max(axis=1, keepdims=True) - speed, dtype=np.float32)
