"""Every HTTP request that the fast path does not take, as one ASGI application.

It handles inference in any form that HTTP allows, the metrics and the OpenAPI description. The
KServe SDK's own application behind it handles the rest of V1 and V2: health, readiness, metadata,
lists. Loading and unloading over the network is rejected: the operator decides what is served.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import orjson
from prometheus_client import exposition

from dwcp_ml.serving.connection import SCOPE_KEY, Connection
from dwcp_ml.serving.engine import Engine
from dwcp_ml.serving.exchange import (
    JSON_LENGTH,
    HttpRequest,
    HttpResponse,
    RequestTarget,
    request_id_of,
    respond,
)
from dwcp_ml.serving.openapi import description
from dwcp_ml.serving.rejections import (
    BadInput,
    ModelFailed,
    ModelNotFound,
    ModelUnavailable,
    NotOverTheNetwork,
    RequestRejected,
    TooLarge,
)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_log = logging.getLogger(__name__)

_VERSIONED: Final = re.compile(
    r"/v2/models/(?P<name>[^/]+)/versions/(?P<version>[^/]+)(?P<rest>|/ready)"
)
_NAMED: Final = re.compile(r"/v(?:1/models/(?P<v1>[^/:]+)|2/models/(?P<v2>[^/:]+)(?:/ready)?)")
_LENGTH: Final = re.compile(r"[0-9]{1,9}")
_READ: Final = frozenset(
    {
        "/",
        "/metrics",
        "/openapi.json",
        "/v1/models",
        "/v2",
        "/v2/models",
        "/v2/health/live",
        "/v2/health/ready",
    }
)
_GZIP: Final = 16 + zlib.MAX_WBITS
_FAILED: Final = HttpResponse.of_rejection(
    ModelFailed("The server failed on this request; see its log.")
)


class MethodNotAllowed(RequestRejected):
    """The path exists, but not with this method; ``allow`` is the method that it has."""

    status = 405

    def __init__(self, allow: str, message: str) -> None:
        super().__init__(message)
        self.allow = allow


class Disconnected(Exception):
    """The client closed the connection before its body was complete."""


class ServerApplication:
    """The ASGI application of one server.

    Parameters
    ----------
    engine
        The models and their queue.
    kserve
        The SDK's application, for the rest of its protocols.
    """

    def __init__(self, engine: Engine, kserve: Application) -> None:
        self._engine = engine
        self._kserve = kserve
        self._openapi = orjson.dumps(description(engine.models.values(), engine.limits))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close"})
                return
            await self._kserve(scope, receive, send)
            return
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        request_id = request_id_of(headers.get("x-request-id"))
        last = False
        try:
            response = await self._route(scope, headers, request_id, receive)
            if response is None:
                await self._forward(scope, receive, send, request_id)
                return
        except RequestRejected as rejected:
            response = HttpResponse.of_rejection(rejected)
            if isinstance(rejected, MethodNotAllowed):
                response.headers = (("allow", rejected.allow),)
            # A client that waits for "100 Continue" may or may not send its body after this.
            last = "expect" in headers
        except Disconnected:
            return
        except Exception:
            _log.exception("request %s failed", request_id)
            response = _FAILED
        await _send(response, request_id, send, last or self._engine.draining)

    async def _route(
        self, scope: Scope, headers: dict[str, str], request_id: str, receive: Receive
    ) -> HttpResponse | None:
        """Return the response, or ``None`` if the SDK's application is to give it."""
        path, method = scope["path"], scope["method"]
        target = RequestTarget.of(path)
        if target is not None:
            connection = scope.get(SCOPE_KEY)
            return await self._infer(target, method, headers, request_id, receive, connection)
        if path.startswith("/v2/repository"):
            raise NotOverTheNetwork(
                "Models are loaded when the server starts, not over the network."
            )
        if path not in _READ:
            self._check_path(scope, path)
        if method != "GET":
            raise MethodNotAllowed("GET", f"{path[:60]} is read with GET.")
        if path == "/metrics":
            encoder, content_type = exposition.choose_encoder(headers.get("accept", ""))
            return HttpResponse(200, encoder(self._engine.observers.metrics.registry), content_type)
        if path == "/openapi.json":
            return HttpResponse(200, self._openapi)
        if path == "/v2/health/ready":
            self._check_ready()
        return None

    def _check_ready(self) -> None:
        if not self._engine.ready:
            raise ModelUnavailable("The server is not ready.")

    def _count(self, target: RequestTarget, status: int, seconds: float) -> None:
        """Count a rejection that was raised before the request reached ``respond``."""
        model = self._engine.models.get(target.name)
        if target.version not in (None, model and model.version):
            model = None
        self._engine.observers.metrics.count(model, status, seconds)

    def _check_path(self, scope: Scope, path: str) -> None:
        """Reject a path that no protocol has; remove the version, which the SDK does not know.

        The SDK raises an error that it does not catch when a model is not ready, so it only gets
        requests for models that are.
        """
        versioned = _VERSIONED.fullmatch(path)
        if versioned is not None:
            self._engine.model(versioned["name"], versioned["version"])
            self._check_ready()
            scope["path"] = f"/v2/models/{versioned['name']}{versioned['rest']}"
            scope["raw_path"] = scope["path"].encode()
            return
        named = _NAMED.fullmatch(path)
        if named is None:
            raise ModelNotFound("This path does not exist; /openapi.json lists those that do.")
        self._engine.model(named["v1"] or named["v2"])
        self._check_ready()

    async def _infer(
        self,
        target: RequestTarget,
        method: str,
        headers: dict[str, str],
        request_id: str,
        receive: Receive,
        connection: Connection | None,
    ) -> HttpResponse:
        started = time.perf_counter()
        try:
            request = await self._read(target, method, headers, request_id, receive)
        except Disconnected:
            raise
        except Exception as error:  # `respond` counts its own responses; this one it never saw
            status = error.status if isinstance(error, RequestRejected) else 500
            self._count(target, status, time.perf_counter() - started)
            raise
        loop = asyncio.get_running_loop()
        future: asyncio.Future[HttpResponse] = loop.create_future()

        def reply(response: HttpResponse) -> bool:
            if not future.done():  # cancelled if the server is stopped
                future.set_result(response)
            return connection is None or connection.is_client_there()

        if connection is not None:
            connection.await_response(request)
        respond(self._engine, request, reply)
        return await future

    async def _read(
        self,
        target: RequestTarget,
        method: str,
        headers: dict[str, str],
        request_id: str,
        receive: Receive,
    ) -> HttpRequest:
        if method != "POST":
            raise MethodNotAllowed("POST", f"Inference is requested with POST, not {method[:12]}.")
        json_length = headers.get(JSON_LENGTH)
        if json_length is not None and not _LENGTH.fullmatch(json_length):
            raise BadInput("Inference-Header-Content-Length must be a whole number.")
        body = await _body(headers, receive, self._engine.limits.body_bytes)
        return HttpRequest(
            target,
            body,
            request_id,
            link=headers.get("x-dwcp-link"),
            observed_at=headers.get("x-dwcp-observed-at"),
            mirrored="x-dwcp-mirrored" in headers,
            json_length=None if json_length is None else int(json_length),
        )

    async def _forward(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"x-request-id", request_id.encode("ascii")),
                ]
            await send(message)

        await self._kserve(scope, receive, send_with_id)


async def _body(headers: dict[str, str], receive: Receive, limit: int) -> bytearray:
    """Return the whole body, decompressed if it was compressed.

    Raises
    ------
    TooLarge
        If it is over the limit, compressed or not; the rest is not read.
    BadInput
        If its compression is unknown or broken.
    Disconnected
        If the client leaves.
    """
    length = headers.get("content-length", "0")
    if length.isdecimal() and int(length[:12]) > limit:
        raise TooLarge(f"The body may have at most {limit} bytes, not {length[:12]}.")
    encoding = headers.get("content-encoding", "identity").lower()
    if encoding not in ("identity", "gzip"):
        raise BadInput("Content-Encoding may be gzip, or absent.")
    decompressor = zlib.decompressobj(_GZIP) if encoding == "gzip" else None
    body = bytearray()
    received = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        part = message.get("body", b"")
        more = message.get("more_body", False)
        received += len(part)
        try:
            if decompressor is None:
                body += part
            else:
                # One byte over the limit is enough to know that it is too large.
                body += decompressor.decompress(part, limit + 1 - len(body))
        except zlib.error:
            raise BadInput("The body is not valid gzip.") from None
        if max(received, len(body)) > limit:
            raise TooLarge(f"The body may have at most {limit} bytes.")
        if decompressor is not None and decompressor.unused_data:
            raise BadInput("Data follows the end of the gzip body.")
    if decompressor is not None and not decompressor.eof:
        raise BadInput("The gzip body is truncated.")
    return body


async def _send(response: HttpResponse, request_id: str, send: Send, last: bool) -> None:
    headers = [
        ("content-type", response.content_type),
        ("content-length", str(len(response.body))),
        ("x-request-id", request_id),
        *response.headers,
    ]
    if last:
        headers.append(("connection", "close"))
    encoded = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers]
    await send({"type": "http.response.start", "status": response.status, "headers": encoded})
    await send({"type": "http.response.body", "body": response.body})
