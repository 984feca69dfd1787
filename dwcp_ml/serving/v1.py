"""KServe's V1 protocol, the same as TensorFlow Serving's: instances in, predictions out."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Final

import numpy as np
import orjson

from dwcp_ml.contract.errors import ErrorCode
from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.rejections import BadInput, TooLarge, shorten
from dwcp_ml.serving.request import Body, Encoded, PredictRequest
from dwcp_ml.serving.served_model import Outputs, ServedModel
from dwcp_ml.serving.tensors import Cells, cells_of_instances

_KEYS: Final = {"instances", "signature_name", "parameters"}

_OTHER_VALUES: Final = 256
"""Commas and brackets of a request besides those of its values."""


def parsed(body: Body) -> dict[str, Any]:
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


def _is_plain(body: Body) -> bool:
    """Return whether a body holds only one key and numbers, by a scan of its text."""
    words = b"true" in body or b"false" in body or b"null" in body
    return not words and body.count(b'"') == 2


def check_values(body: Body, model: ServedModel, limits: Limits) -> None:
    """Reject a text that holds more values or lists than the largest request of this model.

    A short text can describe a large number of objects, so they are counted before it is parsed.

    Raises
    ------
    TooLarge
        If it does.
    """
    if len(body) <= limits.inline_bytes:
        return
    most = limits.rows * math.prod(model.shape) + _OTHER_VALUES
    if max(body.count(b","), body.count(b"["), body.count(b"{")) > most:
        raise TooLarge(
            f"A request for {model.name} may hold at most {most} values: send it in parts.",
            code=ErrorCode.TOO_LARGE,
            subject="values",
        )


class V1:
    """Requests ``{"instances": [...]}``, responses ``{"predictions": [...]}``."""

    protocol: ClassVar[str] = "v1"

    def decode(self, body: Body, model: ServedModel, limits: Limits) -> Cells:
        """Return the values of a request.

        Raises
        ------
        BadInput, TooLarge
            If the body does not match the model's contract.
        """
        check_values(body, model, limits)
        request = parsed(body)
        if not request.keys() <= _KEYS:
            unknown = min(request.keys() - _KEYS)
            raise BadInput(
                f"Unknown key '{shorten(unknown)}': send an object with 'instances'.",
                code=ErrorCode.UNKNOWN_NAME,
                subject=shorten(unknown),
            )
        return cells_of_instances(
            request.get("instances"), model.shape, limits, plain=_is_plain(body)
        )

    @staticmethod
    def columns(outputs: Outputs) -> Any:
        """Return the outputs as columns of values, float32 with its own digits."""
        return {
            name: list(values) if values.dtype == np.float32 else values.tolist()
            for name, values in outputs.items()
        }

    def encode(self, columns: Any, start: int, stop: int, _request: PredictRequest) -> Encoded:
        """Return ``{"predictions": [{output: value, ...}, ...]}``, one object for each instance."""
        predictions = [
            {name: values[row] for name, values in columns.items()} for row in range(start, stop)
        ]
        return Encoded(
            orjson.dumps({"predictions": predictions}, option=orjson.OPT_SERIALIZE_NUMPY)
        )
