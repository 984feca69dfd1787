"""Log, clip, standardise: the scaling between raw features and a network.

The same arithmetic exists twice, in the same order and in float32: in NumPy, to prepare the
training inputs once, and as Keras layers that are part of every exported file. The layers are
Keras's own, so a ``.keras`` file loads without this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dwcp_ml.contract.arrays import Floats32

MIN_SPREAD = 1e-6
"""A feature that varies less than this in training is constant and is not scaled up."""


@dataclass(frozen=True)
class Scaling:
    """``standardise(clip(log(max(x, 0) + offset)))`` of each feature, the last axis of the input.

    With ``distance`` the steps of a window before its last one are then given as their distance
    from the last one, so that a network reads one level and nine changes.

    Parameters
    ----------
    offset
        Added before the logarithm, in the feature's unit: below it the scale is linear.
    centre, half_range
        Middle and half width of the training range of the logarithm.
    mean, deviation
        Mean and standard deviation after clipping to that range, in units of it.
    clips
        False leaves values outside the training range as they are.
    distance
        Standard deviation of the distance between an earlier step and the last one, after
        standardising; empty where every step is given as it is.

    All are float32 of shape ``(features,)`` once converted; kept as tuples, exact in JSON.
    """

    offset: tuple[float, ...]
    centre: tuple[float, ...]
    half_range: tuple[float, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    clips: bool
    distance: tuple[float, ...] = ()

    @classmethod
    def fit(cls, inputs: Floats32, offset: Sequence[float], *, clips: bool) -> Scaling:
        """Fit to inputs of shape ``(..., features)``, which must be training rows only."""
        # In place: a second array of the windows of 500,000 rows would take 200 MB.
        logs = inputs.reshape(-1, len(offset)).astype(np.float64)
        np.maximum(logs, 0.0, out=logs)
        logs += np.asarray(offset)
        np.log(logs, out=logs)
        low, high = logs.min(axis=0), logs.max(axis=0)
        half_range = np.where(high - low > MIN_SPREAD, (high - low) / 2, 1.0)
        centre = (high + low) / 2
        logs -= centre
        logs /= half_range
        unit = logs
        deviation = unit.std(axis=0)
        return cls(
            offset=tuple(map(float, offset)),
            centre=tuple(centre.tolist()),
            half_range=tuple(half_range.tolist()),
            mean=tuple(unit.mean(axis=0).tolist()),
            deviation=tuple(np.where(deviation > MIN_SPREAD, deviation, 1.0).tolist()),
            clips=clips,
        )

    def with_distance(self, inputs: Floats32) -> Scaling:
        """Return the scaling that gives earlier steps as distances from the last one.

        ``inputs`` are the training windows, ``(n, steps, features)``, that it was fitted to.
        """
        scaled = self.apply(inputs).astype(np.float64)
        scaled[:, :-1] -= scaled[:, -1:]  # in place, as in `fit`
        spread = scaled[:, :-1].std(axis=(0, 1))
        return replace(self, distance=tuple(np.where(spread > MIN_SPREAD, spread, 1.0).tolist()))

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Scaling:
        """Return the scaling that ``dataclasses.asdict`` and JSON stored."""
        numbers = {name: tuple(value) for name, value in stored.items() if name != "clips"}
        return cls(**numbers, clips=bool(stored["clips"]))

    def _affine(self) -> tuple[list[float], list[float], list[float], list[float]]:
        to_unit = 1 / np.asarray(self.half_range)
        to_standard = 1 / np.asarray(self.deviation)
        return (
            to_unit.tolist(),
            (-np.asarray(self.centre) * to_unit).tolist(),
            to_standard.tolist(),
            (-np.asarray(self.mean) * to_standard).tolist(),
        )

    def apply(self, inputs: Floats32) -> Floats32:
        """Scale raw inputs of shape ``(..., features)``."""
        numbers = (np.asarray(part, dtype=np.float32) for part in self._affine())
        unit_scale, unit_offset, scale, offset = numbers
        raw = np.maximum(inputs, np.float32(0)) + np.asarray(self.offset, dtype=np.float32)
        scaled = np.log(raw) * unit_scale + unit_offset
        if self.clips:
            scaled = np.clip(scaled, np.float32(-1), np.float32(1))
        scaled = np.asarray(scaled * scale + offset, dtype=np.float32)
        if not self.distance:
            return scaled
        last = scaled[:, -1:]
        factor = (1 / np.asarray(self.distance)).astype(np.float32)
        return np.concatenate([(scaled[:, :-1] - last) * factor, last], axis=1)

    def layers(self, features: Any) -> Any:
        """Return the scaled KerasTensor of the KerasTensor ``features``."""
        import keras

        unit_scale, unit_offset, scale, offset = self._affine()
        rescaling = keras.layers.Rescaling
        raw = rescaling([1.0] * len(self.offset), list(self.offset), name="add_offset")(
            keras.ops.relu(features)
        )
        unit = rescaling(unit_scale, unit_offset, name="to_training_range")(keras.ops.log(raw))
        if self.clips:
            unit = keras.ops.clip(unit, -1.0, 1.0)
        scaled = rescaling(scale, offset, name="standardise")(unit)
        return self._distance_layers(scaled) if self.distance else scaled

    def _distance_layers(self, scaled: Any) -> Any:
        import keras

        last = keras.layers.Cropping1D((scaled.shape[1] - 1, 0), name="last_step")(scaled)
        earlier = keras.layers.Cropping1D((0, 1), name="earlier_steps")(scaled)
        difference = keras.layers.Subtract(name="distance")([earlier, last])
        factor = (1 / np.asarray(self.distance)).tolist()
        rescaled = keras.layers.Rescaling(factor, [0.0] * len(factor), name="own_spread")(
            difference
        )
        return keras.layers.Concatenate(axis=1, name="distances_and_level")([rescaled, last])
