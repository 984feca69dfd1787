"""The best compression level for a link, or the compression type of that level."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from dwcp_ml.contract.arrays import Array, Floats32
from dwcp_ml.contract.columns import COMPRESSION_LEVELS
from dwcp_ml.contract.errors import ErrorCode, TrainingFailed
from dwcp_ml.contract.examples import CompressionData, Examples
from dwcp_ml.contract.models import COMPRESSION, ModelSpec
from dwcp_ml.models.keras_model import NetworkModel, first_largest
from dwcp_ml.models.settings import LossName, ModelSettings, Section, Training

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
    """Training of a classifier, which has one loss."""

    @field_validator("loss")
    @classmethod
    def _is_cross_entropy(cls, loss: LossName) -> LossName:
        if loss != "sparse_categorical_crossentropy":
            raise ValueError("only sparse_categorical_crossentropy can train a classifier")
        return loss


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

    def targets(self, examples: Examples, inputs: Floats32) -> Array:  # noqa: ARG002
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
        agreement = outputs.argmax(axis=1) == self.targets(validation, outputs)
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
