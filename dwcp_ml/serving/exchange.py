"""One inference request over HTTP, from the bytes of its body to the bytes of its response.

Both HTTP paths of the server use this module: the fast path, which reads the most common form of a
request straight from the socket, and the ASGI application, which reads all others. A request is
checked, predicted and counted in the same way on both.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from dwcp_ml.contract.codes import CLIENT_CLOSED_REQUEST
from dwcp_ml.serving import v1, v2
from dwcp_ml.serving.engine import Engine
from dwcp_ml.serving.rejections import ModelFailed, RequestRejected
from dwcp_ml.serving.request import PredictRequest
from dwcp_ml.serving.served_model import Outputs, ServedModel

_log = logging.getLogger(__name__)

INFERENCE_PATH: Final = re.compile(
    r"/v(?:1/models/(?P<v1>[^/:]+)(?:/versions/(?P<v1_version>[^/:]+))?:predict"
    r"|2/models/(?P<v2>[^/]+)(?:/versions/(?P<v2_version>[^/]+))?/infer)"
)
"""The paths of inference in V1 and V2."""

JSON_LENGTH: Final = "inference-header-content-length"
"""The header with the length of a body's JSON, if the bytes of its tensors follow."""

_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(frozen=True, slots=True)
class RequestTarget:
    """The model of a request, and the protocol."""

    protocol: int
    name: str
    version: str | None

    @classmethod
    def of(cls, path: str) -> RequestTarget | None:
        """Return the target of a path; ``None`` if it is not a path of inference."""
        match = INFERENCE_PATH.fullmatch(path)
        if match is None:
            return None
        if match["v1"] is not None:
            return cls(1, match["v1"], match["v1_version"])
        return cls(2, match["v2"], match["v2_version"])


@dataclass(slots=True)
class HttpRequest:
    """A request whose body is complete.

    Parameters
    ----------
    json_length
        ``Inference-Header-Content-Length``, if bytes follow the JSON of the body.
    mirrored
        The header ``X-DWCP-Mirrored``: a router's copy of a request to another server.
    request_id, link, observed_at
        The headers ``X-Request-Id`` (generated if it was absent), ``X-DWCP-Link`` and
        ``X-DWCP-Observed-At``.
    model, started, counted
        Set while it is handled: the model once it is known, when the last byte had arrived
        (``time.perf_counter``), and whether it is in the metrics.
    """

    target: RequestTarget
    body: bytes | bytearray
    request_id: str
    link: str | None = None
    observed_at: str | None = None
    mirrored: bool = False
    json_length: int | None = None
    model: ServedModel | None = None
    started: float = field(default_factory=time.perf_counter)
    counted: bool = False


@dataclass(slots=True)
class HttpResponse:
    """The response on either path; ``headers`` are added to those that every response has."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of_rejection(cls, rejected: RequestRejected) -> HttpResponse:
        """Return the response that carries a rejection."""
        headers = (("retry-after", "1"),) if rejected.status == 503 else ()
        return cls(rejected.status, rejected.body(), headers=headers)

    @classmethod
    def of_tensors(cls, body: bytes, json_length: int | None) -> HttpResponse:
        """Return a V2 response; with ``json_length``, bytes of tensors follow its JSON."""
        if json_length is None:
            return cls(200, body)
        headers = ((JSON_LENGTH, str(json_length)),)
        return cls(200, body, "application/octet-stream", headers)


Reply = Callable[[HttpResponse], bool]
"""Sends a response, and returns whether the client was still there to get it."""


def respond(engine: Engine, request: HttpRequest, reply: Reply) -> None:
    """Handle a request: ``reply`` is called once, on the event loop, now or soon.

    This never raises: what is wrong with the request is in the response.
    """
    request.started = time.perf_counter()
    try:
        model = request.model = engine.model(request.target.name, request.target.version)
        if request.target.protocol == 1:
            requested = None
            rows = v1.decode(request.body, model, engine.limits)
        else:
            rows, requested = v2.decode(request.body, request.json_length, model, engine.limits)
    except RequestRejected as rejected:
        _reject(engine, request, rejected, reply)
        return
    except Exception:  # a bug of the server; the client still gets a response
        _log.exception("request %s failed", request.request_id)
        failed = ModelFailed("The server failed on this request; see its log.")
        _reject(engine, request, failed, reply)
        return
    served = model

    def on_result(outputs: Outputs | RequestRejected) -> None:
        if isinstance(outputs, RequestRejected):
            _reject(engine, request, outputs, reply)
            return
        try:
            if requested is None:
                response = HttpResponse(200, v1.encode(outputs))
            else:
                response = HttpResponse.of_tensors(
                    *v2.encode(outputs, served, requested, request.request_id)
                )
        except Exception:
            _log.exception("a prediction of %s could not be encoded", served.name)
            failed = ModelFailed(
                f"{served.name} returned a prediction that can't be encoded; see its log."
            )
            _reject(engine, request, failed, reply)
            return
        _reply(engine, request, response, reply)

    protocol = "v1" if requested is None else "v2"
    engine.submit(
        PredictRequest(
            model,
            rows,
            request.request_id,
            request.link,
            request.observed_at,
            protocol,
            on_result,
        )
    )


def abandon(engine: Engine, request: HttpRequest) -> None:
    """Count a request whose client left before the response; its response counts no more."""
    _count(engine, request, CLIENT_CLOSED_REQUEST)


def _reject(engine: Engine, request: HttpRequest, rejected: RequestRejected, reply: Reply) -> None:
    _reply(engine, request, HttpResponse.of_rejection(rejected), reply)


def _reply(engine: Engine, request: HttpRequest, response: HttpResponse, reply: Reply) -> None:
    arrived = reply(response)
    _count(engine, request, response.status if arrived else CLIENT_CLOSED_REQUEST)


def _count(engine: Engine, request: HttpRequest, code: int) -> None:
    if request.counted:
        return
    request.counted = True
    metrics = engine.observers.metrics
    if request.mirrored:
        metrics.count_mirrored(request.model, code)
    else:
        metrics.count(request.model, code, time.perf_counter() - request.started)


def request_id_of(text: str | None) -> str:
    """Return the client's request id if it is a printable word, else a new one."""
    if text and _REQUEST_ID.fullmatch(text):
        return text
    return uuid.uuid4().hex
