"""The predictions of ``model.pkl``, without unpickling it.

This project never unpickles. To compare the file with the trained model, its opcodes are listed
(``pickletools`` runs none of them), the buffers of scikit-learn's trees and scaler are extracted,
and the forest that they describe is scored by ``ForestArrays``. A changed split, scale or threshold
in the file is detected; an unexpected layout is an error. A test shows that scikit-learn predicts
the same after unpickling the file.
"""

from __future__ import annotations

import pickletools
import struct
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwcp_ml.contract.errors import ErrorCode, ExportFailed
from dwcp_ml.models.forest import ForestArrays


@dataclass(frozen=True)
class PickledForest:
    """The content of the file: trees, scaler and the threshold of an anomaly."""

    arrays: ForestArrays
    threshold: float

    def predict(self, inputs: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Return score and decision for raw rows ``(n, features)``."""
        score = self.arrays.scores(inputs).astype(np.float32)
        return {"anomaly_score": score, "is_anomaly": score >= np.float32(self.threshold)}


def read_pickled_forest(content: bytes, trained: ForestArrays) -> PickledForest:
    """Return the forest that a pickled scikit-learn pipeline describes.

    Parameters
    ----------
    content
        The file: a pipeline of ``StandardScaler`` and ``IsolationForest``, protocol 5.
    trained
        The trained forest, from which only the numbers of trees and nodes are used.

    Raises
    ------
    ExportFailed
        If the file is no pickle, or does not hold such a forest.
    """
    from sklearn.tree._tree import NODE_DTYPE

    arguments = _arguments(content)
    features, nodes_of = len(trained.mean), np.bincount(trained.tree)
    mean, _, scale = _buffers_after(arguments, "mean_", features * 8, count=3)  # _: variance
    scaler = SimpleNamespace(mean_=mean, scale_=scale)
    shift = None
    if _logarithm_in(arguments):
        centre, sign = _buffers_after(arguments, "center_", features * 8, count=2)
        shift = SimpleNamespace(center_=centre, scale_=sign)
    place = _place(arguments, "nodes")
    estimators = []
    for count in nodes_of.tolist():
        place = _next_buffer(arguments, place + 1, count * NODE_DTYPE.itemsize, "nodes")
        table = np.frombuffer(arguments[place], dtype=NODE_DTYPE)
        estimators.append(SimpleNamespace(tree_=_tree(table)))
    forest = SimpleNamespace(estimators_=estimators, max_samples_=trained.max_samples)
    return PickledForest(ForestArrays.of(scaler, forest, shift), -_offset(arguments))


def _arguments(content: bytes) -> list[Any]:
    """Return the arguments of the opcodes in order: texts, numbers, buffers, ``None``."""
    try:
        return [argument for _, argument, _ in pickletools.genops(content)]
    except ValueError as error:
        raise ExportFailed(
            f"The pickle can't be listed: {error}; train the model again.", code=ErrorCode.MALFORMED
        ) from error


def _place(arguments: list[Any], name: str) -> int:
    for place, argument in enumerate(arguments):
        if isinstance(argument, str) and argument == name:
            return place
    raise _unknown_layout(name)


def _next_buffer(arguments: list[Any], start: int, size: int, name: str) -> int:
    for place in range(start, len(arguments)):
        argument = arguments[place]
        if isinstance(argument, (bytes, bytearray)) and len(argument) == size:
            return place
    raise _unknown_layout(name)


def _buffers_after(
    arguments: list[Any], name: str, size: int, *, count: int
) -> list[NDArray[np.float64]]:
    """Return the next ``count`` arrays of float64 after a name.

    A later attribute can't be found by its name: a pickle writes a name that occurs twice once.
    """
    place, found = _place(arguments, name), []
    for _ in range(count):
        place = _next_buffer(arguments, place + 1, size, name)
        found.append(np.frombuffer(bytes(arguments[place])))
    return found


def _logarithm_in(arguments: list[Any]) -> bool:
    """Return whether the pipeline has a transform; it is then that of the trained model."""
    return any(isinstance(argument, str) and argument == "RobustScaler" for argument in arguments)


def _offset(arguments: list[Any]) -> float:
    for argument in arguments[_place(arguments, "offset_") :]:
        if isinstance(argument, float):
            return argument
        if isinstance(argument, bytes) and len(argument) == 8:  # a NumPy scalar
            return float(struct.unpack("<d", argument)[0])
    raise _unknown_layout("offset_")


def _tree(table: NDArray[Any]) -> SimpleNamespace:
    """Return a node table as scikit-learn's tree, after checking that it is a tree."""
    left, right = table["left_child"], table["right_child"]
    every = np.arange(len(table))
    inner = left >= 0
    children = np.concatenate([left[inner], right[inner]])
    is_tree = (
        np.array_equal(np.sort(children), every[1:])
        and (left[inner] > every[inner]).all()
        and (right[inner] > every[inner]).all()
    )
    if not is_tree:
        raise _unknown_layout("nodes")
    return SimpleNamespace(
        node_count=len(table),
        children_left=left,
        children_right=right,
        feature=table["feature"],
        threshold=table["threshold"],
        n_node_samples=table["n_node_samples"],
    )


def _unknown_layout(name: str) -> ExportFailed:
    return ExportFailed(
        f"The pickle does not hold the trained forest: its '{name}' can't be found; "
        "train the model again with the locked scikit-learn.",
        code=ErrorCode.MISSING,
        subject=name,
    )
