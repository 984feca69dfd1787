"""Everything over HTTP that does not take the fast lane, as one ASGI application.

Inference in any form that HTTP knows, our metrics and our description are answered here; the
rest of V1 and V2 (health, readiness, metadata, lists) by the KServe SDK's own application behind
it. Loading and unloading over the network is refused: what is served is the operator's word.
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

from dwcp_ml.serving.engine import Engine
from dwcp_ml.serving.exchange import JSON_LENGTH, Answer, Ask, Target, answer, request_id_of
from dwcp_ml.serving.openapi import description
from dwcp_ml.serving.refusals import BadInput, Failed, NotServed, Refused, TooLarge, Unavailable

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
_FAILED: Final = Answer.refusal(Failed("the server failed on this request; see its log."))


class MethodNotAllowed(Refused):
    """The path is known, the method is not; ``allow`` is the one that is."""

    status = 405

    def __init__(self, allow: str, message: str) -> None:
        super().__init__(message)
        self.allow = allow


class Forbidden(Refused):
    """Nobody may do this over the network."""

    status = 403


class Disconnected(Exception):
    """The client left before its body was complete."""


class ServerApplication:
    """The ASGI application of one server.

    Parameters
    ----------
    engine
        What answers.
    kserve
        The SDK's application, for the rest of its protocols.
    """

    def __init__(self, engine: Engine, kserve: Application) -> None:
        self._engine = engine
        self._kserve = kserve
        self._openapi = orjson.dumps(description(engine.models.values(), engine.limits))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
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
            told = await self._route(scope, headers, request_id, receive)
            if told is None:
                await self._behind(scope, receive, send, request_id)
                return
        except Refused as refused:
            told = Answer.refusal(refused)
            if isinstance(refused, MethodNotAllowed):
                told.headers = (("allow", refused.allow),)
            # Who waits for "100 Continue" may send the body now or never: nobody could tell.
            last = "expect" in headers
        except Disconnected:
            return
        except Exception:
            _log.exception("request %s failed", request_id)
            told = _FAILED
        await _send(told, request_id, send, last or self._engine.draining)

    async def _route(
        self, scope: Scope, headers: dict[str, str], request_id: str, receive: Receive
    ) -> Answer | None:
        """Return the answer, or ``None`` if the SDK has it."""
        path, method = scope["path"], scope["method"]
        target = Target.of(path)
        if target is not None:
            return await self._infer(target, method, headers, request_id, receive)
        if path.startswith("/v2/repository"):
            raise Forbidden("models are loaded by whoever starts the server, not over the network.")
        if path not in _READ:
            self._known(scope, path)
        if method != "GET":
            raise MethodNotAllowed("GET", f"{path[:60]} is read with GET.")
        if path == "/metrics":
            encoder, kind = exposition.choose_encoder(headers.get("accept", ""))
            return Answer(200, encoder(self._engine.observers.metrics.registry), kind)
        if path == "/openapi.json":
            return Answer(200, self._openapi)
        if path == "/v2/health/ready":
            self._refuse_unready()
        return None

    def _refuse_unready(self) -> None:
        if not self._engine.ready:
            raise Unavailable("the server is not ready.")

    def _count(self, target: Target, status: int, seconds: float) -> None:
        """Count a refusal that no other place has counted."""
        model = self._engine.models.get(target.name)
        if target.version not in (None, model and model.version):
            model = None
        self._engine.observers.metrics.count(model, status, seconds)

    def _known(self, scope: Scope, path: str) -> None:
        """Refuse a path that is none of the protocols'; find the SDK's name for a version's.

        The SDK raises what nobody catches when a model is not ready: it is not asked then.
        """
        versioned = _VERSIONED.fullmatch(path)
        if versioned is not None:
            self._engine.model(versioned["name"], versioned["version"])
            self._refuse_unready()
            scope["path"] = f"/v2/models/{versioned['name']}{versioned['rest']}"
            scope["raw_path"] = scope["path"].encode()
            return
        named = _NAMED.fullmatch(path)
        if named is None:
            raise NotServed("there is nothing here; /openapi.json describes what there is.")
        self._engine.model(named["v1"] or named["v2"])
        self._refuse_unready()

    async def _infer(
        self,
        target: Target,
        method: str,
        headers: dict[str, str],
        request_id: str,
        receive: Receive,
    ) -> Answer:
        started = time.perf_counter()
        try:
            ask = await self._ask(target, method, headers, request_id, receive)
        except Disconnected:
            raise
        except Exception as error:  # whoever answers would have counted; nobody did
            status = error.status if isinstance(error, Refused) else 500
            self._count(target, status, time.perf_counter() - started)
            raise
        loop = asyncio.get_running_loop()
        told: asyncio.Future[Answer] = loop.create_future()

        def reply(answered: Answer) -> None:
            if not told.done():  # the client may have left
                told.set_result(answered)

        answer(self._engine, ask, reply)
        return await told

    async def _ask(
        self,
        target: Target,
        method: str,
        headers: dict[str, str],
        request_id: str,
        receive: Receive,
    ) -> Ask:
        if method != "POST":
            raise MethodNotAllowed(
                "POST", f"an inference is asked for with POST, not {method[:12]}."
            )
        json_length = headers.get(JSON_LENGTH)
        if json_length is not None and not _LENGTH.fullmatch(json_length):
            raise BadInput("Inference-Header-Content-Length must be a whole number.")
        body = await _body(headers, receive, self._engine.limits.body_bytes)
        return Ask(
            target,
            body,
            request_id,
            link=headers.get("x-dwcp-link"),
            observed_at=headers.get("x-dwcp-observed-at"),
            mirrored="x-dwcp-mirrored" in headers,
            json_length=None if json_length is None else int(json_length),
        )

    async def _behind(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"x-request-id", request_id.encode("ascii")),
                ]
            await send(message)

        await self._kserve(scope, receive, send_with_id)


async def _body(headers: dict[str, str], receive: Receive, limit: int) -> bytearray:
    """Return the whole body, unpacked if it was packed.

    Raises
    ------
    TooLarge
        If it is over the limit, packed or not; the rest is not read.
    BadInput
        If it is packed in an unknown or broken way.
    Disconnected
        If the client leaves.
    """
    length = headers.get("content-length", "0")
    if length.isdecimal() and int(length[:12]) > limit:
        raise TooLarge(f"the body may have {limit} bytes, not {length[:12]}.")
    packing = headers.get("content-encoding", "identity").lower()
    if packing not in ("identity", "gzip"):
        raise BadInput("Content-Encoding may be gzip, or absent.")
    unpack = zlib.decompressobj(_GZIP) if packing == "gzip" else None
    body = bytearray()
    arrived = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        part = message.get("body", b"")
        more = message.get("more_body", False)
        arrived += len(part)
        try:
            # One byte over the limit is enough to know.
            body += unpack.decompress(part, limit + 1 - len(body)) if unpack else part
        except zlib.error:
            raise BadInput("the body is not valid gzip.") from None
        if max(arrived, len(body)) > limit:
            raise TooLarge(f"the body may have {limit} bytes.")
        if unpack is not None and unpack.unused_data:
            raise BadInput("something follows the gzip body.")
    if unpack is not None and not unpack.eof:
        raise BadInput("the gzip body ends too soon.")
    return body


async def _send(told: Answer, request_id: str, send: Send, last: bool) -> None:
    headers = [
        ("content-type", told.kind),
        ("content-length", str(len(told.body))),
        ("x-request-id", request_id),
        *told.headers,
    ]
    if last:
        headers.append(("connection", "close"))
    encoded = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers]
    await send({"type": "http.response.start", "status": told.status, "headers": encoded})
    await send({"type": "http.response.body", "body": told.body})
