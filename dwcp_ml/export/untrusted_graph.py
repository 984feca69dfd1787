"""Whether an untrusted ONNX graph may be loaded.

ONNX Runtime runs any graph: one can read another file, loop forever, or allocate all memory. No
export of this project needs any of that, so all of it is rejected.
"""

from __future__ import annotations

import math
from typing import Final

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, ModelProto, TypeProto

from dwcp_ml.contract.bundle import Manifest
from dwcp_ml.export.onnx_graph import external_tensor, signature_fault, tensors

DOMAINS: Final = ("", "ai.onnx", "ai.onnx.ml")

MAX_ELEMENTS: Final = 10_000_000
"""Maximum elements of one tensor of one instance; exported models have about ten thousand."""

_ELEMENTS_PER_BYTE: Final = 4
"""The densest element type of ONNX has two bits."""

_INVALID: Final = (
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
    UnicodeDecodeError,
)

_NESTED: Final = (
    AttributeProto.GRAPH,
    AttributeProto.GRAPHS,
    AttributeProto.SPARSE_TENSOR,
    AttributeProto.SPARSE_TENSORS,
)


def graph_fault(content: bytes, manifest: Manifest) -> str | None:
    """Return why the graph may not be loaded, ``None`` if it may.

    Parameters
    ----------
    content
        The bytes of ``model.onnx``.
    manifest
        The manifest of the bundle, with the inputs and outputs.
    """
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError:
        return "it is not an ONNX file"
    tensor = external_tensor(model)
    if tensor is not None:
        return f"the data of '{tensor}' lie in another file"
    domains = {node.domain for node in model.graph.node} | {o.domain for o in model.opset_import}
    unknown = sorted(domains - set(DOMAINS))
    if unknown:
        return f"it uses operators of the domain '{unknown[0]}'"
    fault = _nested(model) or _hollow_tensor(model)
    if fault:
        return fault
    try:
        onnx.checker.check_model(model)
        shaped = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except _INVALID as error:
        # A sentence that quotes a name which is no text ends in a UnicodeDecodeError.
        is_text = not isinstance(error, UnicodeDecodeError)
        lines = str(error).splitlines() if is_text else ["a name in it is not UTF-8"]
        return f"ONNX calls it invalid: {(lines or ['no reason given'])[0].rstrip('.')}"
    return signature_fault(model.graph, manifest.inputs, manifest.outputs) or _outsized(shaped)


def _nested(model: ModelProto) -> str | None:
    """Return a fault for nested graphs, which could hide a loop or another operator."""
    for node in model.graph.node:
        if any(attribute.type in _NESTED for attribute in node.attribute):
            return f"its {node.op_type} holds a graph or a sparse tensor of its own"
        if any(attribute.g.ByteSize() or attribute.graphs for attribute in node.attribute):
            return f"its {node.op_type} hides a graph"
    for what, entries in (
        ("local functions", model.functions),
        ("training information", model.training_info),
        ("sparse tensors", model.graph.sparse_initializer),
    ):
        if entries:
            return f"it holds {what}"
    return None


def _hollow_tensor(model: ModelProto) -> str | None:
    """Return a fault for a tensor that declares more elements than its bytes can hold."""
    for tensor in tensors(model):
        negative = any(size < 0 for size in tensor.dims)
        if negative or math.prod(tensor.dims) > _ELEMENTS_PER_BYTE * tensor.ByteSize():
            shape = " x ".join(str(size) for size in tensor.dims)
            return f"the tensor '{tensor.name}' declares {shape} elements and does not hold them"
    return None


def _outsized(model: ModelProto) -> str | None:
    """Return a fault for a tensor of more than ``MAX_ELEMENTS``, as far as shapes are known."""
    for value in (*model.graph.value_info, *model.graph.output):
        if _elements(value.type) > MAX_ELEMENTS:
            return f"'{value.name}' would have more than {MAX_ELEMENTS:,} elements"
    return None


def _elements(kind: TypeProto) -> int:
    return math.prod(size.dim_value or 1 for size in kind.tensor_type.shape.dim)
