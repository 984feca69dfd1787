"""The Open Inference Protocol (V2) over HTTP: named, typed tensors as JSON or as bytes.

With the binary extension, the values of a tensor follow the JSON as bytes; the header
``Inference-Header-Content-Length`` has the length of the JSON. https://kserve.github.io/website
describes both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import orjson

from dwcp_ml.contract.errors import ErrorCode
from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.rejections import BadInput, shorten
from dwcp_ml.serving.served_model import Outputs, ServedModel
from dwcp_ml.serving.tensors import Rows, rows_of_bytes, rows_of_flat
from dwcp_ml.serving.v1 import parsed

DATATYPES: Final = {"float32": "FP32", "int64": "INT64", "bool": "BOOL"}
"""The protocol's name for each dtype of a bundle."""

NUMERIC: Final = frozenset(
    {"FP64", "FP32", "INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8"}
)
"""Types that an input may have; each becomes float32."""


@dataclass(frozen=True)
class RequestedOutputs:
    """The outputs that a request selects, and their form.

    Parameters
    ----------
    request_id
        The body's ``id``, returned unchanged.
    names
        The outputs in the requested order; empty for all.
    binary
        Those to be sent as bytes after the JSON.
    """

    request_id: str = ""
    names: tuple[str, ...] = ()
    binary: frozenset[str] = field(default_factory=frozenset)


def decode(
    body: bytes | bytearray | memoryview,
    json_length: int | None,
    model: ServedModel,
    limits: Limits,
) -> tuple[Rows, RequestedOutputs]:
    """Return the rows of an inference request, and the outputs that it selects.

    Parameters
    ----------
    json_length
        Bytes of JSON at the start of the body, if bytes of tensors follow; else ``None``.

    Raises
    ------
    BadInput, TooLarge
        If it does not match the model's contract.
    """
    whole = memoryview(body)
    text = whole if json_length is None else whole[:json_length]
    if json_length is not None and not 0 < json_length <= len(whole):
        raise BadInput(
            "Inference-Header-Content-Length is not within the body.",
            code=ErrorCode.OUT_OF_RANGE,
            subject="Inference-Header-Content-Length",
        )
    request = parsed(text)
    tensor = _only_input(request.get("inputs"), model)
    requested = _requested_outputs(request, model)
    declared = tensor.get("shape")
    if not isinstance(declared, list):
        raise BadInput(
            "'shape' must be a list of whole numbers.", code=ErrorCode.WRONG_TYPE, subject="shape"
        )
    parameters = _parameters(tensor)
    size = parameters.get("binary_data_size")
    if size is None:
        if len(text) != len(whole):
            raise BadInput(
                "Bytes follow the JSON, but no input has 'binary_data_size'.",
                code=ErrorCode.MISSING,
                subject="binary_data_size",
            )
        return rows_of_flat(tensor.get("data"), declared, model.shape, limits), requested
    if tensor.get("datatype") != "FP32" or "data" in tensor:
        raise BadInput(
            "An input with 'binary_data_size' must be FP32 and have no 'data'.",
            code=ErrorCode.WRONG_TYPE,
            subject="binary_data_size",
        )
    rest = whole[len(text) :]
    if size != len(rest) or isinstance(size, bool):
        raise BadInput(
            f"'binary_data_size' must be {len(rest)}, the number of bytes after the JSON.",
            code=ErrorCode.OUT_OF_RANGE,
            subject="binary_data_size",
        )
    return rows_of_bytes(rest, declared, model.shape, limits), requested


def encode(
    outputs: Outputs, model: ServedModel, requested: RequestedOutputs, request_id: str
) -> tuple[bytes, int | None]:
    """Return an inference response, and the length of its JSON if bytes follow."""
    tensors, blobs = [], []
    for name in requested.names or outputs:
        values = outputs[name]
        tensor: dict[str, Any] = {
            "name": name,
            "datatype": DATATYPES[values.dtype.name],
            "shape": values.shape,
        }
        if name in requested.binary:
            blob = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
            tensor["parameters"] = {"binary_data_size": len(blob)}
            blobs.append(blob)
        else:
            tensor["data"] = np.ascontiguousarray(values).reshape(-1)
        tensors.append(tensor)
    response = {
        "model_name": model.name,
        "model_version": model.version,
        "id": requested.request_id or request_id,
        "outputs": tensors,
    }
    text = orjson.dumps(response, option=orjson.OPT_SERIALIZE_NUMPY)
    return (text, None) if not blobs else (b"".join([text, *blobs]), len(text))


def check_input(name: object, datatype: object, model: ServedModel) -> None:
    """Reject an input tensor that is not the model's.

    Raises
    ------
    BadInput
        If the name or the type differs.
    """
    if name != model.input.name:
        raise BadInput(
            f"{model.name} has one input, '{model.input.name}'.",
            code=ErrorCode.UNKNOWN_NAME,
            subject="input",
        )
    if not isinstance(datatype, str) or datatype not in NUMERIC:
        raise BadInput(
            "The input's 'datatype' must be FP32, or another numeric type.",
            code=ErrorCode.WRONG_TYPE,
            subject="datatype",
        )


def check_outputs(names: Sequence[object], model: ServedModel) -> tuple[str, ...]:
    """Return the names of the requested outputs.

    Raises
    ------
    BadInput
        If the model has no such output, or one is requested twice.
    """
    known = [output.name for output in model.outputs]
    for name in names:
        if name not in known:
            raise BadInput(
                f"{model.name} has no output '{shorten(name)}': {', '.join(known)}.",
                code=ErrorCode.UNKNOWN_NAME,
                subject=shorten(name),
            )
    if len(set(names)) != len(names):
        raise BadInput("An output is requested twice.", code=ErrorCode.AMBIGUOUS, subject="outputs")
    return tuple(str(name) for name in names)


def _only_input(inputs: object, model: ServedModel) -> dict[str, Any]:
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise BadInput(
            f"'inputs' must be a list of one tensor, '{model.input.name}'.",
            code=ErrorCode.WRONG_TYPE,
            subject="inputs",
        )
    tensor: dict[str, Any] = inputs[0]
    check_input(tensor.get("name"), tensor.get("datatype"), model)
    return tensor


def _requested_outputs(request: dict[str, Any], model: ServedModel) -> RequestedOutputs:
    request_id = request.get("id", "")
    if request_id is None:
        request_id = ""
    if not isinstance(request_id, str) or len(request_id) > 200:
        raise BadInput(
            "'id' must be a string of at most 200 characters.",
            code=ErrorCode.WRONG_TYPE,
            subject="id",
        )
    every = _parameters(request).get("binary_data_output") is True
    selected = request.get("outputs") or []
    if not isinstance(selected, list) or not all(isinstance(item, dict) for item in selected):
        raise BadInput(
            "'outputs' must be a list of objects with a 'name'.",
            code=ErrorCode.WRONG_TYPE,
            subject="outputs",
        )
    names = check_outputs([item.get("name") for item in selected], model)
    binary = {
        item["name"] for item in selected if _parameters(item).get("binary_data", every) is True
    }
    if every and not selected:
        binary = {output.name for output in model.outputs}
    return RequestedOutputs(request_id, names, frozenset(binary))


def _parameters(holder: dict[str, Any]) -> dict[str, Any]:
    parameters = holder.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise BadInput(
            "'parameters' must be an object.", code=ErrorCode.WRONG_TYPE, subject="parameters"
        )
    return parameters
