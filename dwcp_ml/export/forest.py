"""The isolation forest as one tree ensemble and a little arithmetic.

A generic converter turns every tree into nodes of its own, some 2,700 for 100 trees. Here the whole
forest is one ``TreeEnsembleRegressor`` that reads the *raw* features and sums the path lengths, so
the graph is five nodes: sum, reshape, scale, ``exp``, compare.

The score is that of Liu, Ting, Zhou, "Isolation Forest", ICDM 2008, equation 2,
``2 ** (-mean path length / c(max_samples))``, written ``exp(-sum * ln 2 / (trees * c))``.

Scaling is folded into the split thresholds without changing a single decision. The model computes
``scaled(x) <= t`` where ``scaled`` rounds to float32 on its way. Rounding preserves order, so
``scaled`` is monotone, and there is a largest float32 ``x`` for which the comparison holds.
``raw_thresholds`` finds exactly that number by bisection over all float32 values, with the model's
own ``scaled``, and the graph compares ``x <= that``. Every path is identical to the trained one;
only the sum of the path lengths is rounded (float32, about 1e-7).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from dwcp_ml.contract.errors import ErrorCode, ExportFailed
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.export.onnx_graph import make_model, to_bytes, value_info
from dwcp_ml.models.forest import ForestArrays

Scaled = Callable[[NDArray[np.float32], NDArray[np.int64]], NDArray[np.float32]]
"""``scaled(x, feature)``: what the model compares where feature ``feature[i]`` is ``x[i]``."""

_SIGN = np.int64(-(2**31))


def forest_onnx(spec: ModelSpec, form: str, forest: ForestArrays, threshold: float) -> bytes:
    """Return the ONNX file of a forest: raw features in, score and decision out.

    Parameters
    ----------
    spec, form
        The model's contract; the form has one scalar float32 output and one bool output.
    threshold
        A row is an anomaly where its score is at least this.

    Raises
    ------
    ExportFailed
        If the form has other outputs, the trees can't be scored, or the scaling falls.
    """
    score, decision = _outputs(spec, form)
    if not forest.normaliser > 0:
        raise ExportFailed(
            f"{spec.name}: trees of {int(forest.max_samples)} row have no score; "
            "train it on at least two rows.",
            code=ErrorCode.TOO_FEW,
            subject="max_samples",
        )
    weights = {
        "one_column": np.array([-1], dtype=np.int64),
        "rate": np.array(-math.log(2.0) / (forest.trees * forest.normaliser), dtype=np.float32),
        "threshold": np.array(threshold, dtype=np.float32),
    }
    nodes = [
        _tree_node(spec, forest),
        helper.make_node("Reshape", ["path_lengths", "one_column"], ["path_length"]),
        helper.make_node("Mul", ["path_length", "rate"], ["exponent"]),
        helper.make_node("Exp", ["exponent"], [score]),
        helper.make_node("GreaterOrEqual", [score, "threshold"], [decision]),
    ]
    graph = helper.make_graph(
        nodes,
        f"{spec.name}.{form}",
        [value_info(spec.input)],
        [value_info(tensor) for tensor in spec.form(form).outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return to_bytes(make_model(graph))


def scaled_feature(forest: ForestArrays) -> Scaled:
    """Return the forest's own scaling as a function of one number and the feature it belongs to."""

    def scaled(values: NDArray[np.float32], feature: NDArray[np.int64]) -> NDArray[np.float32]:
        rows = np.broadcast_to(values[:, np.newaxis], (len(values), len(forest.mean)))
        return forest.scaled(rows)[np.arange(len(values)), feature]

    return scaled


def raw_thresholds(
    feature: NDArray[np.int64], threshold: NDArray[np.float64], scaled: Scaled
) -> NDArray[np.float32]:
    """Return the largest finite float32 ``x`` with ``scaled(x) <= threshold``, for each split.

    Where it holds for no finite number, ``-inf`` is returned: no row goes left.

    Parameters
    ----------
    feature, threshold : shape (splits,)
        What each split compares, and with what.
    scaled
        Must not decrease with its argument.

    Raises
    ------
    ExportFailed
        If ``scaled`` decreases from one end of float32 to the other, or no boundary is found.
    """

    def goes_left(position: NDArray[np.int64]) -> NDArray[np.bool_]:
        with np.errstate(over="ignore", invalid="ignore"):
            values = scaled(_float32_at(position), feature).astype(np.float64)
        result: NDArray[np.bool_] = values <= threshold
        return result

    greatest = _position_of(np.float32(np.finfo(np.float32).max))
    low = np.full(len(feature), -greatest - 1, dtype=np.int64)  # below every finite number
    high = np.full(len(feature), greatest, dtype=np.int64)
    turned = goes_left(high) & ~goes_left(low + 1)
    low = np.where(goes_left(high), high, low)
    while (low + 1 < high).any():
        middle = (low + high) // 2
        left = goes_left(np.maximum(middle, -greatest))
        low, high = np.where(left, middle, low), np.where(left, high, middle)
    inside, outside = np.maximum(low, -greatest), np.minimum(low + 1, greatest)
    boundary = (goes_left(inside) | (low < -greatest)) & (~goes_left(outside) | (low == greatest))
    if turned.any() or not boundary.all():
        raise ExportFailed(
            "The forest's scaling falls as its feature grows; a scale is negative.",
            code=ErrorCode.OUT_OF_RANGE,
            subject="scale",
        )
    return np.where(low < -greatest, np.float32(-np.inf), _float32_at(inside)).astype(np.float32)


def _float32_at(position: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the float32 at a place in their order; 0 is at 0, the next one above at 1."""
    bits = np.where(position >= 0, position, _SIGN - position).astype(np.int32)
    return bits.view(np.float32)


def _position_of(value: np.float32) -> int:
    """Return the place of a number in the order of all float32.

    >>> _position_of(np.float32(0)), _position_of(np.nextafter(np.float32(0), np.float32(-1)))
    (0, -1)
    """
    bits = int(value.view(np.int32))
    return bits if bits >= 0 else int(_SIGN) - bits


def _outputs(spec: ModelSpec, form: str) -> tuple[str, str]:
    outputs = spec.form(form).outputs
    scores = [tensor.name for tensor in outputs if tensor.dtype == "float32" and not tensor.shape]
    decisions = [tensor.name for tensor in outputs if tensor.dtype == "bool" and not tensor.shape]
    if len(scores) != 1 or len(decisions) != 1 or len(outputs) != 2:
        raise ExportFailed(
            f"{spec.name}: a forest has one score and one decision, the form {form} needs "
            f"{[tensor.name for tensor in outputs]}.",
            code=ErrorCode.MISMATCH,
            subject=form,
        )
    return scores[0], decisions[0]


def _tree_node(spec: ModelSpec, forest: ForestArrays) -> NodeProto:
    """Return the one node that holds all trees and sums their path lengths, ``(n, 1)``."""
    split = forest.feature >= 0
    leaf = ~split
    values = np.zeros(len(split), dtype=np.float32)
    values[split] = raw_thresholds(
        forest.feature[split], forest.threshold[split], scaled_feature(forest)
    )
    attributes: dict[str, Any] = {
        "nodes_treeids": forest.tree.tolist(),
        "nodes_nodeids": forest.node.tolist(),
        "nodes_featureids": np.where(split, forest.feature, 0).tolist(),
        "nodes_modes": np.where(split, "BRANCH_LEQ", "LEAF").tolist(),
        "nodes_values": values.tolist(),
        "nodes_truenodeids": np.where(split, forest.left, 0).tolist(),
        "nodes_falsenodeids": np.where(split, forest.right, 0).tolist(),
        "target_treeids": forest.tree[leaf].tolist(),
        "target_nodeids": forest.node[leaf].tolist(),
        "target_ids": [0] * int(leaf.sum()),
        "target_weights": forest.path_length[leaf].astype(np.float32).tolist(),
    }
    return helper.make_node(
        "TreeEnsembleRegressor",
        [spec.input.name],
        ["path_lengths"],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function="SUM",
        post_transform="NONE",
        **attributes,
    )
