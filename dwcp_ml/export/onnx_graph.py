"""The rules of every exported ONNX file, for all converters.

A converter leaves names that depend on the history of the process, and metadata that depend on
the machine. ``canonical`` rewrites a graph so that the same weights give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped]
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
)

from dwcp_ml.contract.errors import ErrorCode, ExportFailed
from dwcp_ml.contract.models import ModelSpec, Tensor

OPSET: Final = 18
ML_OPSET: Final = 3
IR_VERSION: Final = 8
"""Supported by the ONNX Runtime of any supported KServe and by the operators used."""

PRODUCER: Final = "dwcp-ml"
BATCH: Final = "batch"

ELEMENT_TYPES: Final = {
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}


class Signature(Protocol):
    """A tensor as the contract or a manifest describes it: ``shape`` is that of one instance."""

    @property
    def name(self) -> str:
        """Name in the graph."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one instance."""

    @property
    def dtype(self) -> str:
        """One of ``ELEMENT_TYPES``."""


def value_info(tensor: Tensor) -> onnx.ValueInfoProto:
    """Return the ONNX declaration of a contract tensor, with a free batch dimension."""
    element = ELEMENT_TYPES[tensor.dtype]
    return helper.make_tensor_value_info(tensor.name, element, [BATCH, *tensor.shape])


def make_model(graph: GraphProto) -> ModelProto:
    """Wrap ``graph`` with the versions and the producer of all exported files."""
    domains = {node.domain for node in graph.node}
    opsets = [helper.make_opsetid("", OPSET)]
    if "ai.onnx.ml" in domains:
        opsets.append(helper.make_opsetid("ai.onnx.ml", ML_OPSET))
    return helper.make_model(
        graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name=PRODUCER
    )


def canonical(model: ModelProto, spec: ModelSpec, form: str) -> ModelProto:
    """Return the same computation with names and an order that depend on the graph only.

    Dead nodes, doc strings, metadata and intermediate shapes are left out; the nodes are in the
    order in which a depth-first walk from the outputs of ``form`` needs them.

    Raises
    ------
    ExportFailed
        If an input or output is not the contract's, or the graph holds a sub-graph (``Loop``,
        ``If``, ``Scan``: a recurrent layer that was not recognised) or a local function.
    """
    outputs = spec.form(form).outputs
    fault = signature_fault(model.graph, (spec.input,), outputs)
    if fault:
        raise ExportFailed(
            f"{spec.name}: {fault}; fix the model's prediction graph.",
            code=ErrorCode.MISMATCH,
            subject=spec.name,
        )
    _refuse_subgraphs(model, spec)
    nodes = _needed_nodes(model.graph, [tensor.name for tensor in outputs])
    graph = GraphProto(name=f"{spec.name}.{form}")
    graph.input.append(value_info(spec.input))
    graph.output.extend(value_info(tensor) for tensor in outputs)
    _copy_renamed(model.graph, nodes, graph)
    return make_model(graph)


def to_bytes(model: ModelProto) -> bytes:
    """Check ``model`` and return its file, the same bytes every time.

    Raises
    ------
    ExportFailed
        If the ONNX checker rejects it.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ExportFailed(
            f"{model.graph.name}: the ONNX graph is invalid: {reason}.", code=ErrorCode.MALFORMED
        ) from error
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def external_tensor(message: Message) -> str | None:
    """Return the name of a tensor whose data lie outside the file, ``None`` if there is none.

    Every tensor anywhere in the message is checked, in every kind of field:
    initialisers, sparse ones, attributes, sub-graphs, functions, training information.
    """
    for tensor in tensors(message):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            return tensor.name or "(unnamed)"
    return None


def tensors(message: Message) -> Iterator[TensorProto]:
    """Yield every tensor anywhere in a message."""
    pending = [message]
    while pending:
        part = pending.pop()
        if isinstance(part, TensorProto):
            yield part
            continue
        for field, value in part.ListFields():
            if field.message_type is not None:
                pending.extend([value] if isinstance(value, Message) else value)


def signature_fault(
    graph: GraphProto, inputs: Sequence[Signature], outputs: Sequence[Signature]
) -> str | None:
    """Return the fault of the graph's inputs and outputs, ``None`` if there is none.

    Names, element types and shapes must be those given, with a free batch dimension in front.
    """
    for side, values, expected in (
        ("input", graph.input, inputs),
        ("output", graph.output, outputs),
    ):
        declared = {value.name: value.type.tensor_type for value in values}
        names = {tensor.name for tensor in expected}
        if set(declared) != names or len(declared) != len(values):
            actual = [value.name for value in values]
            return f"the {side}s of the graph are {actual}, the contract requires {sorted(names)}"
        for tensor in expected:
            fault = _tensor_fault(tensor, declared[tensor.name])
            if fault:
                return fault
    return None


def _tensor_fault(tensor: Signature, declared: onnx.TypeProto.Tensor) -> str | None:
    if declared.elem_type != ELEMENT_TYPES.get(tensor.dtype):
        known = TensorProto.DataType.values()
        number = declared.elem_type
        actual = TensorProto.DataType.Name(number).lower() if number in known else f"type {number}"
        return f"'{tensor.name}' is {actual} in the graph, the contract requires {tensor.dtype}"
    if not declared.HasField("shape"):
        return None
    shape = [size.dim_value if size.HasField("dim_value") else None for size in declared.shape.dim]
    expected = [None, *tensor.shape]
    fits = len(shape) == len(expected) and all(
        size == required or (size is None and place > 0)
        for place, (size, required) in enumerate(zip(shape, expected, strict=True))
    )
    if fits:
        return None
    return f"'{tensor.name}' has shape {shape} in the graph, the contract requires {expected}"


def _refuse_subgraphs(model: ModelProto, spec: ModelSpec) -> None:
    kinds = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
    for node in model.graph.node:
        if any(attribute.type in kinds for attribute in node.attribute):
            raise ExportFailed(
                f"{spec.name}: the graph holds a {node.op_type} with a graph of its own (a "
                "recurrent layer that the converter did not recognise); use a standard Keras LSTM.",
                code=ErrorCode.UNSUPPORTED,
                subject=node.op_type,
            )
    if model.functions:
        raise ExportFailed(
            f"{spec.name}: the graph holds local functions; inline them first.",
            code=ErrorCode.UNSUPPORTED,
            subject="local functions",
        )


def _needed_nodes(graph: GraphProto, outputs: Sequence[str]) -> list[NodeProto]:
    """Return the nodes that the outputs need, each after its own inputs."""
    producers = {name: node for node in graph.node for name in node.output if name}
    ordered: list[NodeProto] = []
    done: set[int] = set()
    pending = [(producers[name], False) for name in reversed(outputs) if name in producers]
    while pending:
        node, inputs_done = pending.pop()
        if id(node) in done:
            continue
        if inputs_done:
            done.add(id(node))
            ordered.append(node)
            continue
        pending.append((node, True))
        pending.extend(
            (producers[name], False) for name in reversed(node.input) if name in producers
        )
    return ordered


def _copy_renamed(source: GraphProto, nodes: Sequence[NodeProto], target: GraphProto) -> None:
    weights = {tensor.name: tensor for tensor in source.initializer}
    names = {value.name: value.name for value in (*target.input, *target.output)} | {"": ""}
    for node in nodes:
        for name in node.input:
            if name in weights and name not in names:
                names[name] = f"weight_{len(target.initializer)}"
                array = numpy_helper.to_array(weights[name])
                target.initializer.append(numpy_helper.from_array(array, names[name]))
        label = f"{node.op_type}_{len(target.node)}"
        for position, name in enumerate(node.output):
            names.setdefault(name, f"{label}_{position}")
        copy = target.node.add()
        copy.CopyFrom(node)
        copy.name, copy.doc_string = label, ""
        copy.input[:] = [names[name] for name in node.input]
        copy.output[:] = [names[name] for name in node.output]
        copy.ClearField("metadata_props")
        attributes = sorted(node.attribute, key=lambda attribute: str(attribute.name))
        copy.ClearField("attribute")
        copy.attribute.extend(attributes)
        for attribute in copy.attribute:
            attribute.doc_string = ""
            if attribute.HasField("t"):
                attribute.t.ClearField("name")
