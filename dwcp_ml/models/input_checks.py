"""The checks of inputs and training data."""

from __future__ import annotations

import numpy as np

from dwcp_ml.contract.arrays import Floats32
from dwcp_ml.contract.errors import DataRefused, ErrorCode, TrainingFailed
from dwcp_ml.contract.examples import Examples, ModelData
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.models.protocol import Predictions


def checked_inputs(spec: ModelSpec, inputs: Floats32) -> Floats32:
    """Return ``inputs`` as float32 of shape ``(n, *spec.input.shape)``.

    Raises ``DataRefused`` if the shape is wrong, or a number is not finite.
    """
    shape = ("n", *spec.input.shape)
    try:
        rows = np.asarray(inputs, dtype=np.float32)
    except (TypeError, ValueError) as error:
        sentence = f"{spec.name} reads numbers of shape {_shown(shape)}: {error}."
        raise DataRefused(sentence) from error
    if rows.shape[1:] != spec.input.shape or rows.ndim != len(shape):
        raise DataRefused(
            f"{spec.name} reads inputs of shape {_shown(shape)} ({', '.join(spec.features)}), "
            f"got {_shown(rows.shape)}.",
            code=ErrorCode.WRONG_SHAPE,
            subject=rows.shape,
        )
    finite = np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))
    if not finite.all():
        raise DataRefused(
            f"{spec.name} got an input that is not a finite number: row {int(np.argmin(finite))}.",
            code=ErrorCode.NOT_FINITE,
            subject=f"row {int(np.argmin(finite))}",
        )
    return rows


def empty_predictions(spec: ModelSpec, form: str) -> Predictions:
    """Return the predictions for zero inputs."""
    return {
        tensor.name: np.empty((0, *tensor.shape), dtype=tensor.dtype)
        for tensor in spec.form(form).outputs
    }


def check_training_data(
    spec: ModelSpec, form: str, data: ModelData, *, validated: bool = True
) -> None:
    """Check that a model can be trained on the data.

    A model that is not ``validated`` needs no validation split. Raises ``TrainingFailed`` if a
    split is empty or has the wrong shape, an input or label is not finite, or the data are for
    another model or form.
    """
    if (data.spec.name, data.form) != (spec.name, form):
        raise TrainingFailed(
            f"{spec.name} in form {form} was given the data of {data.spec.name} in form "
            f"{data.form}.",
            code=ErrorCode.MISMATCH,
            subject=data.form,
        )
    splits = {"training": data.train, "validation": data.validation}
    if not validated:
        del splits["validation"]
    for split, examples in splits.items():
        _check_split(spec, split, examples)


def _check_split(spec: ModelSpec, split: str, examples: Examples) -> None:
    if not len(examples):
        raise TrainingFailed(
            f"{spec.name} has no {split} examples; provide more rows or a larger {split} share.",
            code=ErrorCode.NO_DATA,
            subject=split,
        )
    try:
        checked_inputs(spec, examples.inputs)
    except DataRefused as error:
        raise TrainingFailed(
            f"The {split} examples can't be used: {error}",
            code=ErrorCode.CONTRACT,
            subject=f"{split}, {error.subject}",
        ) from error
    if not np.isfinite(np.asarray(examples.truth, dtype=np.float64)).all():
        raise TrainingFailed(
            f"{spec.name} has {split} examples whose label is not a number.",
            code=ErrorCode.NOT_FINITE,
            subject=split,
        )


def _shown(shape: tuple[object, ...]) -> str:
    return "(" + ", ".join(str(size) for size in shape) + ")"
