"""One prediction request between its protocol and the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.rejections import RequestRejected
from dwcp_ml.serving.served_model import Outputs, ServedModel
from dwcp_ml.serving.tensors import Cells

Body = bytes | bytearray


class Encoded(NamedTuple):
    """The predictions as a protocol writes them.

    Parameters
    ----------
    body
        The bytes of the response.
    json_length
        Bytes of JSON at the start of ``body``, if bytes of tensors follow.
    """

    body: bytes
    json_length: int | None = None


OnResult = Callable[[Encoded | RequestRejected], None]
"""Called once, on the event loop, with the response or with the reason why there is none."""


class Codec(Protocol):
    """How a protocol writes a request and its response; one object for each request.

    A batch calls ``columns`` once for all its requests of a protocol, and ``encode`` for each.
    """

    protocol: ClassVar[str]

    def decode(self, body: Body, model: ServedModel, limits: Limits) -> Cells:
        """Return the values of a request; raises ``RequestRejected``."""

    @staticmethod
    def columns(outputs: Outputs) -> Any:
        """Return what ``encode`` needs of the outputs of a batch."""

    def encode(self, columns: Any, start: int, stop: int, request: PredictRequest) -> Encoded:
        """Return the predictions of the rows ``start`` to ``stop`` of the batch."""


@dataclass(slots=True, eq=False)
class PredictRequest:
    """A request whose body is complete.

    Parameters
    ----------
    model, codec, body
        The model, and how to read and write the bytes.
    request_id, link, observed_at
        The request's headers; see docs/serving.md.
    on_result
        Receives the result.
    packed
        Whether the body is compressed with gzip.
    mirrored
        Whether no client waits for the response: it counts for nothing that a rollout compares.
    cells
        The values, once they are decoded.
    """

    model: ServedModel
    codec: Codec
    body: Body
    request_id: str
    link: str | None
    observed_at: str | None
    on_result: OnResult
    packed: bool = False
    mirrored: bool = False
    cells: Cells = field(init=False)
