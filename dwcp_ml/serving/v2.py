"""The Open Inference Protocol (V2) over HTTP: named, typed tensors as JSON or as bytes.

The binary extension puts the values of a tensor behind the JSON; the header
``Inference-Header-Content-Length`` says where the JSON ends. https://kserve.github.io/website
describes both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import orjson

from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.refusals import BadInput, shorten
from dwcp_ml.serving.served_model import Outputs, ServedModel
from dwcp_ml.serving.tensors import Rows, rows_of_bytes, rows_of_flat
from dwcp_ml.serving.v1 import parsed

DATATYPES: Final = {"float32": "FP32", "int64": "INT64", "bool": "BOOL"}
"""The protocol's word for each dtype of a bundle."""

NUMERIC: Final = frozenset(
    {"FP64", "FP32", "INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8"}
)
"""Types that an input may have; each becomes float32."""


@dataclass(frozen=True)
class Wanted:
    """Which outputs a request asks for, and how.

    Parameters
    ----------
    request_id
        The body's ``id``, returned as it came.
    names
        The outputs in the order asked for; empty for all.
    binary
        Those to be sent as bytes behind the JSON.
    """

    request_id: str = ""
    names: tuple[str, ...] = ()
    binary: frozenset[str] = field(default_factory=frozenset)


def decode(
    body: bytes | bytearray | memoryview,
    json_length: int | None,
    model: ServedModel,
    limits: Limits,
) -> tuple[Rows, Wanted]:
    """Return the rows of an inference request, and what it wants to know.

    Parameters
    ----------
    json_length
        Bytes of JSON at the start of the body, if bytes of tensors follow; else ``None``.

    Raises
    ------
    BadInput, TooLarge
        If it is no such request.
    """
    whole = memoryview(body)
    text = whole if json_length is None else whole[:json_length]
    if json_length is not None and not 0 < json_length <= len(whole):
        raise BadInput("Inference-Header-Content-Length is not within the body.")
    request = parsed(text)
    tensor = _only_input(request.get("inputs"), model)
    wanted = _wanted(request, model)
    declared = tensor.get("shape")
    if not isinstance(declared, list):
        raise BadInput("'shape' must be a list of whole numbers.")
    parameters = _parameters(tensor)
    size = parameters.get("binary_data_size")
    if size is None:
        if len(text) != len(whole):
            raise BadInput("bytes follow the JSON, but no input has 'binary_data_size'.")
        return rows_of_flat(tensor.get("data"), declared, model.shape, limits), wanted
    if tensor.get("datatype") != "FP32" or "data" in tensor:
        raise BadInput("an input of 'binary_data_size' must be FP32 and have no 'data'.")
    rest = whole[len(text) :]
    if size != len(rest) or isinstance(size, bool):
        raise BadInput(f"'binary_data_size' must be {len(rest)}, the bytes behind the JSON.")
    return rows_of_bytes(rest, declared, model.shape, limits), wanted


def encode(
    outputs: Outputs, model: ServedModel, wanted: Wanted, request_id: str
) -> tuple[bytes, int | None]:
    """Return an inference response, and the length of its JSON if bytes follow."""
    tensors, blobs = [], []
    for name in wanted.names or outputs:
        values = outputs[name]
        tensor: dict[str, Any] = {
            "name": name,
            "datatype": DATATYPES[values.dtype.name],
            "shape": values.shape,
        }
        if name in wanted.binary:
            blob = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
            tensor["parameters"] = {"binary_data_size": len(blob)}
            blobs.append(blob)
        else:
            tensor["data"] = np.ascontiguousarray(values).reshape(-1)
        tensors.append(tensor)
    answer = {
        "model_name": model.name,
        "model_version": model.version,
        "id": wanted.request_id or request_id,
        "outputs": tensors,
    }
    text = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    return (text, None) if not blobs else (b"".join([text, *blobs]), len(text))


def check_input(name: object, datatype: object, model: ServedModel) -> None:
    """Refuse an input tensor that is not the model's one.

    Raises
    ------
    BadInput
        If the name or the type is another.
    """
    if name != model.input.name:
        raise BadInput(f"{model.name} has one input, '{model.input.name}'.")
    if not isinstance(datatype, str) or datatype not in NUMERIC:
        raise BadInput("the input's 'datatype' must be FP32, or another numeric type.")


def check_outputs(names: Sequence[object], model: ServedModel) -> tuple[str, ...]:
    """Return the names of outputs asked for.

    Raises
    ------
    BadInput
        If the model has no such output, or one is asked for twice.
    """
    known = [output.name for output in model.outputs]
    for name in names:
        if name not in known:
            raise BadInput(f"{model.name} has no output '{shorten(name)}': {', '.join(known)}.")
    if len(set(names)) != len(names):
        raise BadInput("an output is asked for twice.")
    return tuple(str(name) for name in names)


def _only_input(inputs: object, model: ServedModel) -> dict[str, Any]:
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise BadInput(f"'inputs' must be a list of one tensor, '{model.input.name}'.")
    tensor: dict[str, Any] = inputs[0]
    check_input(tensor.get("name"), tensor.get("datatype"), model)
    return tensor


def _wanted(request: dict[str, Any], model: ServedModel) -> Wanted:
    request_id = request.get("id", "")
    if request_id is None:
        request_id = ""
    if not isinstance(request_id, str) or len(request_id) > 200:
        raise BadInput("'id' must be a string of at most 200 characters.")
    every = _parameters(request).get("binary_data_output") is True
    asked = request.get("outputs") or []
    if not isinstance(asked, list) or not all(isinstance(item, dict) for item in asked):
        raise BadInput("'outputs' must be a list of objects with a 'name'.")
    names = check_outputs([item.get("name") for item in asked], model)
    binary = {item["name"] for item in asked if _parameters(item).get("binary_data", every) is True}
    if every and not asked:
        binary = {output.name for output in model.outputs}
    return Wanted(request_id, names, frozenset(binary))


def _parameters(holder: dict[str, Any]) -> dict[str, Any]:
    parameters = holder.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise BadInput("'parameters' must be an object.")
    return parameters
