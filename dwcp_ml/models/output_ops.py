"""Operations on KerasTensors that the outputs of several models share."""

from __future__ import annotations

from typing import Any


def first_largest(probabilities: Any) -> Any:
    """Return the int64 index of the largest entry of the last axis, the first where two tie.

    An ``argmax`` of integers: Keras's own of floats treats -0.0 with bit operations that ONNX
    does not have.
    """
    from keras import ops

    largest = ops.cast(
        probabilities >= ops.max(probabilities, axis=-1, keepdims=True), dtype="int32"
    )
    return ops.cast(ops.argmax(largest, axis=-1), dtype="int64")
