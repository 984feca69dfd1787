"""What the server says to a request that it does not answer.

    Refused                    status
    ├── BadInput               400  wrong shape, wrong type, NaN, broken JSON
    ├── NotServed              404  no such model, or another version of it
    ├── TooLarge               413  too many bytes or rows
    ├── Unavailable            503  not ready yet, going down, or too many large requests
    └── Failed                 500  the model's fault

The protocols add what only they know: 403, 405, 408, 431.

A message is one sentence without anything of the inside: no path, no traceback.
"""

from __future__ import annotations

import orjson


class Refused(Exception):
    """Base of every refusal; ``status`` is that of HTTP, and gRPC's follows from it."""

    status = 400

    def body(self) -> bytes:
        """Return the answer's JSON."""
        return orjson.dumps({"error": str(self)})


class BadInput(Refused):
    """The request is not what the model's contract asks for."""


class NotServed(Refused):
    """There is no such model here, or it has another version."""

    status = 404


class TooLarge(Refused):
    """The request is over one of the server's limits."""

    status = 413


class Unavailable(Refused):
    """The server can't answer now; the same request may be sent again."""

    status = 503


class Failed(Refused):
    """The model failed on a request that looked right: our fault, not the client's."""

    status = 500


def shorten(text: object, longest: int = 60) -> str:
    """Return what a client sent as it may stand in a message: short and printable."""
    if not isinstance(text, str):  # nested a thousand levels deep it could not even be written
        return f"a {type(text).__name__}"
    line = "".join(letter if letter.isprintable() else "?" for letter in text[: longest + 1])
    return line if len(line) <= longest else line[: longest - 3] + "..."
