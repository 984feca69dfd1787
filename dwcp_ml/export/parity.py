"""The difference between an export and the trained model. Pure: arrays in, numbers out.

Two predictions are equal when ``|a - b| <= tolerance * max(1, |a|)`` for every number, and when no
decision differs except in a near-tie: a score within the same distance of its threshold, or
two classes whose probabilities are that close.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dwcp_ml.contract.errors import ErrorCode, ExportFailed
from dwcp_ml.contract.models import Tensor
from dwcp_ml.contract.records import Parity

TOLERANCE: Final = 1e-4

NOT_A_NUMBER: Final = sys.float_info.max
"""The difference reported where the export predicts NaN or infinity; JSON knows no infinity."""

Predictions = Mapping[str, NDArray[Any]]


def compare(
    reference: Predictions,
    candidate: Predictions,
    outputs: Sequence[Tensor],
    *,
    threshold: float | None = None,
    tolerance: float = TOLERANCE,
) -> Parity:
    """Compare the predictions of an export with those of the trained model.

    Parameters
    ----------
    reference, candidate : mapping of output name to array of shape (n, *tensor.shape)
        The trained model, and the export.
    outputs
        The outputs of the form. Those of dtype float32 are numbers. One of dtype bool is a
        decision that the only scalar number beside it is at or above ``threshold``; one of dtype
        int64 is the class of the largest number of the vector beside it.
    threshold
        Needed where an output is bool.
    tolerance
        See the head of the module.

    Raises
    ------
    ExportFailed
        If an output is missing, or has another shape or dtype than the contract's, if there is
        nothing to compare, or if the trained model itself predicts NaN or infinity.
    """
    rows = len(reference[outputs[0].name]) if outputs[0].name in reference else 0
    if rows == 0:
        raise ExportFailed(
            "Parity can't be shown on 0 inputs; provide a test split.", code=ErrorCode.NO_DATA
        )
    for side, predictions in (("The trained model", reference), ("The export", candidate)):
        _check_outputs(side, predictions, outputs, rows)
    numbers = [tensor for tensor in outputs if tensor.dtype == "float32"]
    largest = 0.0
    for tensor in numbers:
        trained = reference[tensor.name]
        if not np.isfinite(trained).all():
            raise ExportFailed(
                f"The trained model predicts NaN or infinity for '{tensor.name}' on an input "
                "within the contract; clip or guard it in the model's prediction graph.",
                code=ErrorCode.NOT_FINITE,
                subject=tensor.name,
            )
        largest = max(largest, float(relative_difference(trained, candidate[tensor.name]).max()))
    flipped = np.zeros(rows, dtype=bool)
    for tensor in outputs:
        if tensor.dtype != "float32":
            flipped |= _flips(tensor, reference, candidate, numbers, threshold, tolerance)
    return Parity(
        rows=rows,
        largest_relative_difference=largest,
        flipped_decisions=int(flipped.sum()),
        tolerance=tolerance,
    )


def relative_difference(trained: NDArray[Any], exported: NDArray[Any]) -> NDArray[np.float64]:
    """Return ``|a - b| / max(1, |a|)``, ``NOT_A_NUMBER`` where the export is not finite.

    >>> relative_difference(np.array([0.0, 200.0]), np.array([0.5, 201.0])).tolist()
    [0.5, 0.005]
    """
    a, b = trained.astype(np.float64), exported.astype(np.float64)
    finite = np.isfinite(b)
    difference = np.abs(a - np.where(finite, b, a)) / np.maximum(1.0, np.abs(a))
    return np.where(finite, difference, NOT_A_NUMBER)


def _check_outputs(
    side: str, predictions: Predictions, outputs: Sequence[Tensor], rows: int
) -> None:
    names = {tensor.name for tensor in outputs}
    if set(predictions) != names:
        raise ExportFailed(
            f"{side} has the outputs {sorted(predictions)}, the contract requires {sorted(names)}.",
            code=ErrorCode.MISMATCH,
            subject=side,
        )
    for tensor in outputs:
        array = predictions[tensor.name]
        if array.shape != (rows, *tensor.shape) or array.dtype != np.dtype(tensor.dtype):
            raise ExportFailed(
                f"{side} has '{tensor.name}' as {array.dtype}{list(array.shape)}, the "
                f"contract requires {tensor.dtype}{[rows, *tensor.shape]}.",
                code=ErrorCode.MISMATCH,
                subject=side,
            )


def _flips(
    decision: Tensor,
    reference: Predictions,
    candidate: Predictions,
    numbers: Sequence[Tensor],
    threshold: float | None,
    tolerance: float,
) -> NDArray[np.bool_]:
    """Return where the decision differs and the trained model was not near a tie."""
    trained, exported = reference[decision.name], candidate[decision.name]
    differs: NDArray[np.bool_] = trained != exported
    if not differs.any():
        return differs
    if decision.dtype == "bool":
        near = _near_threshold(decision, reference, numbers, threshold, tolerance)
    else:
        near = _near_tie(decision, reference, exported, numbers, tolerance)
    return differs & ~near


def _near_threshold(
    decision: Tensor,
    reference: Predictions,
    numbers: Sequence[Tensor],
    threshold: float | None,
    tolerance: float,
) -> NDArray[np.bool_]:
    scores = [tensor for tensor in numbers if tensor.shape == ()]
    if threshold is None or len(scores) != 1:
        raise ExportFailed(
            f"The decision '{decision.name}' can't be compared without one score and a threshold.",
            code=ErrorCode.MISSING,
            subject="threshold",
        )
    score = reference[scores[0].name].astype(np.float64)
    near: NDArray[np.bool_] = np.abs(score - threshold) <= tolerance * np.maximum(1, np.abs(score))
    return near


def _near_tie(
    decision: Tensor,
    reference: Predictions,
    exported: NDArray[Any],
    numbers: Sequence[Tensor],
    tolerance: float,
) -> NDArray[np.bool_]:
    vectors = [tensor for tensor in numbers if len(tensor.shape) == 1]
    if len(vectors) != 1:
        raise ExportFailed(
            f"The decision '{decision.name}' can't be compared without the numbers of its classes.",
            code=ErrorCode.MISSING,
            subject="classes",
        )
    numbers_of_classes = reference[vectors[0].name].astype(np.float64)
    classes = numbers_of_classes.shape[1]
    known = (exported >= 0) & (exported < classes)
    rows = np.arange(len(exported))
    chosen = numbers_of_classes[rows, np.where(known, exported, 0)]
    best = numbers_of_classes.max(axis=1)
    near: NDArray[np.bool_] = known & (best - chosen <= tolerance * np.maximum(1, np.abs(best)))
    return near
