"""KServe's V1 protocol, the same as TensorFlow Serving's: instances in, predictions out."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import orjson

from dwcp_ml.contract.errors import ErrorCode
from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.rejections import BadInput, shorten
from dwcp_ml.serving.served_model import Outputs, ServedModel
from dwcp_ml.serving.tensors import Rows, rows_of

_KEYS: Final = {"instances", "signature_name", "parameters"}


def parsed(body: bytes | bytearray | memoryview) -> dict[str, Any]:
    """Return the JSON object that a body holds.

    Raises
    ------
    BadInput
        If it is empty, not JSON, nested too deeply, or not an object.
    """
    if not body:
        raise BadInput(
            "The body is empty: send a JSON object.", code=ErrorCode.MISSING, subject="body"
        )
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        reason = str(error).split(":")[0]
        raise BadInput(
            f"The body is not JSON: {shorten(reason)} in line {error.lineno} column {error.colno}.",
            code=ErrorCode.MALFORMED,
            subject="body",
        ) from None
    if not isinstance(value, dict):
        raise BadInput("The body must be a JSON object.", code=ErrorCode.WRONG_TYPE, subject="body")
    return value


def _is_plain(body: bytes | bytearray) -> bool:
    """Return whether a body holds only one key and numbers, by a scan of its text."""
    words = b"true" in body or b"false" in body or b"null" in body
    return not words and body.count(b'"') == 2


def decode(body: bytes | bytearray, model: ServedModel, limits: Limits) -> Rows:
    """Return the rows of a request ``{"instances": [...]}``.

    Raises
    ------
    BadInput, TooLarge
        If the body does not match the model's contract.
    """
    request = parsed(body)
    if not request.keys() <= _KEYS:
        unknown = min(request.keys() - _KEYS)
        raise BadInput(
            f"Unknown key '{shorten(unknown)}': send an object with 'instances'.",
            code=ErrorCode.UNKNOWN_NAME,
            subject=shorten(unknown),
        )
    return rows_of(request.get("instances"), model.shape, limits, plain=_is_plain(body))


def encode(outputs: Outputs) -> bytes:
    """Return ``{"predictions": [{output: value, ...}, ...]}``, one object for each instance."""
    names = list(outputs)
    # float32 is not converted, so that it is written with its own digits.
    columns = [
        values if values.dtype == np.float32 else values.tolist() for values in outputs.values()
    ]
    rows = zip(*columns, strict=True)
    predictions = [dict(zip(names, values, strict=True)) for values in rows]
    return orjson.dumps({"predictions": predictions}, option=orjson.OPT_SERIALIZE_NUMPY)
