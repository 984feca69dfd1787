"""Errors that the server returns to a client instead of a prediction.

    RequestRejected            status
    ├── BadInput               400  wrong shape, wrong type, NaN, broken JSON
    ├── NotOverTheNetwork      403  loading or unloading a model
    ├── ModelNotFound          404  no such model, or another version of it
    ├── TooLarge               413  too many bytes or rows
    ├── ModelUnavailable       503  not ready yet, shutting down, or too many large requests
    └── ModelFailed            500  the model failed on a valid request

HTTP adds 405, 408 and 431 where it reads the request.

A message is one sentence that reveals nothing of the server's inside: no path, no traceback.
"""

from __future__ import annotations

import orjson

from dwcp_ml.contract.errors import CodedError


class RequestRejected(CodedError):
    """Base of every rejection; ``status`` is HTTP's, and gRPC's code follows from it.

    The subject is the part of the request, or the name in it, that is wrong.
    """

    status = 400

    def body(self) -> bytes:
        """Return the JSON body of the response."""
        return orjson.dumps({"error": str(self)})


class BadInput(RequestRejected):
    """The request does not match the model's contract."""


class NotOverTheNetwork(RequestRejected):
    """The operation is only available to the operator who starts the server."""

    status = 403


class ModelNotFound(RequestRejected):
    """The server has no such model, or has it in another version."""

    status = 404


class TooLarge(RequestRejected):
    """The request exceeds one of the server's limits."""

    status = 413


class ModelUnavailable(RequestRejected):
    """The server can't predict now; the client may send the same request again."""

    status = 503


class ModelFailed(RequestRejected):
    """The model failed on a valid request: the server's fault, not the client's."""

    status = 500


def shorten(text: object, max_length: int = 60) -> str:
    """Return what a client sent in a form that is safe in a message: short and printable."""
    if not isinstance(text, str):  # nested a thousand levels deep it could not even be written
        return f"a {type(text).__name__}"
    line = "".join(letter if letter.isprintable() else "?" for letter in text[: max_length + 1])
    return line if len(line) <= max_length else line[: max_length - 3] + "..."
