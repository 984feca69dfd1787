"""Remove the nodes that tf2onnx writes around every LSTM without need.

Keras starts an LSTM from zeros of the batch's size, and tf2onnx writes that as six nodes (shape,
slice, expand ...) before each layer. ONNX's ``LSTM`` starts from zeros by default where the initial
state is left out, so they can go.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

_INITIAL_STATES = (5, 6)
"""Positions of ``initial_h`` and ``initial_c`` among the inputs of an ONNX ``LSTM``."""

_KEEPS_ZEROS = ("Expand", "Unsqueeze", "Squeeze", "Reshape", "Tile", "Identity", "Cast")
"""Operators whose output is all zeros where their first input is."""


def simplify(model: ModelProto) -> ModelProto:
    """Return ``model`` with the initial states left out of every LSTM that starts from zeros.

    The nodes that made the zeros remain unused; ``canonical`` drops them.
    """
    result = ModelProto()
    result.CopyFrom(model)
    producers = {name: node for node in result.graph.node for name in node.output}
    weights = {tensor.name: tensor for tensor in result.graph.initializer}
    for node in result.graph.node:
        if node.op_type != "LSTM":
            continue
        for place in _INITIAL_STATES:
            if place < len(node.input) and _is_zero(node.input[place], producers, weights):
                node.input[place] = ""
        while node.input and node.input[-1] == "":
            del node.input[-1]
    return result


def _is_zero(name: str, producers: dict[str, NodeProto], weights: dict[str, TensorProto]) -> bool:
    """Return whether the tensor holds zeros only, for any batch."""
    while name in producers and producers[name].op_type in _KEEPS_ZEROS:
        name = producers[name].input[0]
    return name in weights and not np.any(numpy_helper.to_array(weights[name]))
