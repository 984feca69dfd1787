"""The Open Inference Protocol (V2) over HTTP: named, typed tensors as JSON or as bytes.

With the binary extension, the values of a tensor follow the JSON as bytes; the header
``Inference-Header-Content-Length`` has the length of the JSON. https://kserve.github.io/website
describes both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from dwcp_ml.contract.errors import ErrorCode
from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.rejections import BadInput, shorten
from dwcp_ml.serving.request import Body, Encoded, PredictRequest
from dwcp_ml.serving.served_model import Outputs, ServedModel
from dwcp_ml.serving.tensors import Cells, cells_of_bytes, cells_of_data
from dwcp_ml.serving.v1 import check_values, parsed

DATATYPES: Final = {"float32": "FP32", "int64": "INT64", "bool": "BOOL"}
"""The protocol's name for each dtype of a bundle."""

NUMERIC: Final = frozenset(
    {"FP64", "FP32", "INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8"}
)
"""Types that an input may have; each becomes float32."""


class V2:
    """An inference request and its response over HTTP.

    Parameters
    ----------
    json_length
        Bytes of JSON at the start of the body, if bytes of tensors follow; else ``None``.
    """

    protocol: ClassVar[str] = "v2"

    def __init__(self, json_length: int | None) -> None:
        self._json_length = json_length
        self._id = ""
        self._names: tuple[str, ...] = ()  # the outputs in the requested order; empty for all
        self._binary: frozenset[str] = frozenset()  # those to be sent as bytes after the JSON

    def decode(self, body: Body, model: ServedModel, limits: Limits) -> Cells:
        """Return the values of a request, and keep which outputs it selects.

        Raises
        ------
        BadInput, TooLarge
            If it does not match the model's contract.
        """
        length = self._json_length
        if length is not None and not 0 < length <= len(body):
            raise BadInput(
                "Inference-Header-Content-Length is not within the body.",
                code=ErrorCode.OUT_OF_RANGE,
                subject="Inference-Header-Content-Length",
            )
        text = body if length is None else body[:length]
        check_values(text, model, limits)
        request = parsed(text)
        tensor = _only_input(request.get("inputs"), model)
        self._select(request, model)
        declared = tensor.get("shape")
        if not isinstance(declared, list):
            raise BadInput(
                "'shape' must be a list of whole numbers.",
                code=ErrorCode.WRONG_TYPE,
                subject="shape",
            )
        size = _parameters(tensor).get("binary_data_size")
        if size is None:
            if len(text) != len(body):
                raise BadInput(
                    "Bytes follow the JSON, but no input has 'binary_data_size'.",
                    code=ErrorCode.MISSING,
                    subject="binary_data_size",
                )
            return cells_of_data(tensor.get("data"), declared, model.shape, limits)
        if tensor.get("datatype") != "FP32" or "data" in tensor:
            raise BadInput(
                "An input with 'binary_data_size' must be FP32 and have no 'data'.",
                code=ErrorCode.WRONG_TYPE,
                subject="binary_data_size",
            )
        rest = memoryview(body)[len(text) :]
        if size != len(rest) or isinstance(size, bool):
            raise BadInput(
                f"'binary_data_size' must be {len(rest)}, the number of bytes after the JSON.",
                code=ErrorCode.OUT_OF_RANGE,
                subject="binary_data_size",
            )
        return cells_of_bytes(rest, declared, model.shape, limits)

    def _select(self, request: dict[str, Any], model: ServedModel) -> None:
        request_id = request.get("id")
        if request_id is not None and (not isinstance(request_id, str) or len(request_id) > 200):
            raise BadInput(
                "'id' must be a string of at most 200 characters.",
                code=ErrorCode.WRONG_TYPE,
                subject="id",
            )
        self._id = request_id or ""
        every = _parameters(request).get("binary_data_output") is True
        selected = request.get("outputs") or []
        if not isinstance(selected, list) or not all(isinstance(item, dict) for item in selected):
            raise BadInput(
                "'outputs' must be a list of objects with a 'name'.",
                code=ErrorCode.WRONG_TYPE,
                subject="outputs",
            )
        self._names = check_outputs([item.get("name") for item in selected], model)
        if selected:
            self._binary = frozenset(
                item["name"]
                for item in selected
                if _parameters(item).get("binary_data", every) is True
            )
        elif every:
            self._binary = frozenset(output.name for output in model.outputs)

    @staticmethod
    def columns(outputs: Outputs) -> Outputs:
        """Return the outputs as they are."""
        return outputs

    def encode(self, columns: Outputs, start: int, stop: int, request: PredictRequest) -> Encoded:
        """Return an inference response."""
        tensors, blobs = [], []
        for name in self._names or columns:
            values = request.model.output(name, columns, slice(start, stop))
            tensor: dict[str, Any] = {
                "name": name,
                "datatype": DATATYPES[values.dtype.name],
                "shape": values.shape,
            }
            if name in self._binary:
                blob = little_endian(values)
                tensor["parameters"] = {"binary_data_size": len(blob)}
                blobs.append(blob)
            else:
                tensor["data"] = np.ascontiguousarray(values).reshape(-1)
            tensors.append(tensor)
        response = {
            "model_name": request.model.name,
            "model_version": request.model.version,
            "id": self._id or request.request_id,
            "outputs": tensors,
        }
        text = orjson.dumps(response, option=orjson.OPT_SERIALIZE_NUMPY)
        return Encoded(b"".join([text, *blobs]), len(text)) if blobs else Encoded(text)


def little_endian(values: NDArray[Any]) -> bytes:
    """Return the bytes of a tensor as V2 has them."""
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


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
    known = [*(output.name for output in model.outputs), *model.optional_outputs]
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


def _parameters(holder: dict[str, Any]) -> dict[str, Any]:
    parameters = holder.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise BadInput(
            "'parameters' must be an object.", code=ErrorCode.WRONG_TYPE, subject="parameters"
        )
    return parameters
