"""One inference request over HTTP and its response, and what those of all connections share."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import OrderedDict
from typing import Any, Final

from dwcp_ml.contract.codes import CLIENT_CLOSED_REQUEST
from dwcp_ml.contract.errors import ErrorCode
from dwcp_ml.serving.engine import Engine
from dwcp_ml.serving.headers import (
    JSON_LENGTH,
    LINK,
    MIRRORED,
    MODEL_DIGEST,
    MODEL_VERSION,
    OBSERVED_AT,
    REQUEST_ID,
    link_of,
)
from dwcp_ml.serving.http_body import Bodies, Disconnected, Taken, TooSlow, too_large
from dwcp_ml.serving.http_routes import SERVER_NAME, HttpResponse, MethodNotAllowed, Target
from dwcp_ml.serving.rejections import BadInput, ModelFailed, RequestRejected
from dwcp_ml.serving.request import Encoded, OnResult, PredictRequest
from dwcp_ml.serving.v1 import V1
from dwcp_ml.serving.v2 import V2

_LATE_SECONDS: Final = 0.05
"""A client may have left after this time; the response is then sent so that this is noticed."""

_MOMENT_SECONDS: Final = 0.005

_UPLOAD_SECONDS: Final = 0.02
"""A body that takes less has arrived with its head."""

_GONE_SECONDS: Final = 60.0
"""No client waits longer for a large request; over HTTP/2 it can't be seen that it has left."""

_LENGTH: Final = re.compile(r"[0-9]{1,19}")

_log = logging.getLogger(__name__)


class Connections:
    """What the requests of all connections share: the engine, and how old each connection is.

    Parameters
    ----------
    engine
        Where inference goes.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.bodies = Bodies(engine)
        self.versions = {
            name: ((MODEL_VERSION, model.version), (MODEL_DIGEST, model.digest))
            for name, model in engine.models.items()
        }
        """Which version has responded: the response of V1 says it nowhere else."""
        self._limits = engine.limits
        # By peer; the connection used last is at the end.
        self._births: OrderedDict[str, float] = OrderedDict()

    def send(self, scope: Any, protocol: Any, response: HttpResponse, request_id: str) -> None:
        """Send a response whose client is not looked for."""
        head = self.head(scope, response, request_id)
        if scope.method == "HEAD":
            length = ("content-length", str(len(response.body)))
            protocol.response_empty(response.status, [*head, length])
        else:
            protocol.response_bytes(response.status, head, response.body)

    def head(self, scope: Any, response: HttpResponse, request_id: str) -> list[tuple[str, str]]:
        """Return the headers of a response."""
        head = [
            ("content-type", response.content_type),
            (REQUEST_ID, request_id),
            ("server", SERVER_NAME),
            *response.headers,
        ]
        is_old = self._is_old(scope.client)
        if scope.http_version != "2" and (self.engine.draining or is_old):
            head.append(("connection", "close"))
        return head

    def note(self, peer: str) -> None:
        """Note that the connection of a peer has brought a request."""
        self._births.setdefault(peer, time.monotonic())

    def knows(self, peer: str) -> bool:
        """Return whether the connection of a peer has brought a request."""
        return peer in self._births

    def _is_old(self, peer: str) -> bool:
        """Return whether the connection of a peer is to be closed because of its age."""
        now = time.monotonic()
        born = self._births.pop(peer, now)
        if now - born >= self._limits.max_age_seconds:
            return True
        self._births[peer] = born
        if len(self._births) > 4 * self._limits.connections:  # most of them are closed already
            self._births.popitem(last=False)
        return False


class Exchange:
    """One inference request, until its response is sent and counted."""

    def __init__(
        self,
        connections: Connections,
        scope: Any,
        protocol: Any,
        headers: dict[str, str],
        target: Target,
        request_id: str,
        arrived: float,
    ) -> None:
        self._connections = connections
        self._scope = scope
        self._protocol = protocol
        self._headers = headers
        self._target = target
        self._request_id = request_id
        self._arrived = arrived
        self._started = arrived  # from when its latency counts
        self._counted = False
        self._declared: int | None = None  # bytes of the body
        self._whole = self._cut = False

    async def infer(self) -> None:
        """Read the request, and return when its response is sent."""
        taken = Taken(self._connections.engine)
        done = asyncio.get_running_loop().create_future()

        def on_result(result: Encoded | RequestRejected) -> None:
            taken.release()
            self._reply(self._response_of(result))
            if not done.done():  # cancelled if the server is stopped
                done.set_result(None)

        rejected: RequestRejected | None = None
        try:
            request = await self._read(taken, on_result)
        except RequestRejected as error:
            rejected = error.with_traceback(None)  # whose frames hold the body
        except Disconnected:
            pass
        except Exception:
            _log.exception("request %s failed", self._request_id)
            self._reply(failed())
        else:
            if self._connections.engine.submit(request):
                await self._wait(done)
            else:
                await done
            return
        taken.release()
        if rejected is not None:
            await self._reject(rejected)

    def _response_of(self, result: Encoded | RequestRejected) -> HttpResponse:
        if isinstance(result, RequestRejected):
            return HttpResponse.of_rejection(result)
        headers: tuple[tuple[str, str], ...] = self._connections.versions[self._target.name]
        if result.json_length is None:
            return HttpResponse(200, result.body, headers=headers)
        headers = (*headers, (JSON_LENGTH, str(result.json_length)))
        return HttpResponse(200, result.body, "application/octet-stream", headers)

    async def _wait(self, done: asyncio.Future[None]) -> None:
        """Wait for a large request, and count it at once if its client leaves before."""
        gone = asyncio.ensure_future(_departure(self._protocol))
        try:
            await asyncio.wait(
                {done, gone}, timeout=_GONE_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if not done.done():
                self._count(CLIENT_CLOSED_REQUEST)
                await done
        finally:
            gone.cancel()

    async def _reject(self, rejected: RequestRejected) -> None:
        """Send a rejection, and read what is left of the body."""
        if not self._whole:  # how long the client takes to upload is no latency of the server
            self._started = time.perf_counter()
        response = HttpResponse.of_rejection(rejected)
        # The rest of its body comes too late, or the client may or may not send it after this.
        last = isinstance(rejected, TooSlow) or "expect" in self._headers
        if last and self._scope.http_version != "2":
            response.headers += (("connection", "close"),)
        self._reply(response)
        if not self._whole and not last:
            await self._connections.bodies.discard(self._protocol)

    async def _read(self, taken: Taken, on_result: OnResult) -> PredictRequest:
        headers, method, target = self._headers, self._scope.method, self._target
        if method != "POST":
            raise MethodNotAllowed("POST", f"Inference is requested with POST, not {method[:12]}.")
        model = self._connections.engine.model(target.name, target.version)
        codec: V1 | V2
        codec = V1() if target.protocol == 1 else V2(_json_length(headers.get(JSON_LENGTH)))
        encoding = headers.get("content-encoding", "identity").lower()
        if encoding not in ("identity", "gzip"):
            raise BadInput("Content-Encoding may be gzip, or absent.", subject="Content-Encoding")
        link = link_of(headers.get(LINK))
        length = headers.get("content-length")
        if length is not None and _LENGTH.fullmatch(length):
            self._declared = int(length)
            if self._declared > self._connections.engine.limits.body_bytes:
                raise too_large(self._connections.engine.limits)
        engine = self._connections.engine
        began, busy = time.perf_counter(), engine.busy_seconds
        body, self._cut = await self._connections.bodies.read(self._protocol, self._declared, taken)
        now, waited = time.perf_counter(), engine.busy_seconds - busy
        if now - began - waited > _UPLOAD_SECONDS:  # it arrived later than its head
            self._started = now - waited
        self._whole = True
        if now - self._arrived > _LATE_SECONDS:
            await asyncio.sleep(_MOMENT_SECONDS)  # Hyper looks for the client's end behind the body
        return PredictRequest(
            model,
            codec,
            body,
            self._request_id,
            link,
            headers.get(OBSERVED_AT),
            on_result,
            packed=encoding == "gzip",
            mirrored=MIRRORED in headers,
        )

    def _reply(self, response: HttpResponse) -> None:
        """Send the response, and count it, or that the client has left."""
        arrived = True
        if time.perf_counter() - self._arrived < _LATE_SECONDS and not self._cut:
            self._connections.send(self._scope, self._protocol, response, self._request_id)
        else:
            arrived = self._send_and_look(response)
        if self._cut and not arrived:
            return  # it left before its body was complete
        if self._cut and self._is_cut_chunked() and response.status == 400:
            return
        self._count(response.status if arrived else CLIENT_CLOSED_REQUEST)

    def _is_cut_chunked(self) -> bool:
        """Return whether the second empty part is no trailer: only HTTP/2 has empty frames."""
        return self._scope.http_version != "2" and "trailer" not in self._headers

    def _count(self, code: int) -> None:
        if self._counted:
            return
        self._counted = True
        engine, target = self._connections.engine, self._target
        model = engine.models.get(target.name)
        if model is not None and target.version not in (None, model.version):
            model = None
        seconds = time.perf_counter() - self._started
        engine.observers.metrics.count(model, code, seconds, MIRRORED in self._headers)

    def _send_and_look(self, response: HttpResponse) -> bool:
        """Send the response as a stream; return whether there was a client to take it.

        Granian drops the request of a client that leaves, and a stream of it takes no bytes.
        """
        head = self._connections.head(self._scope, response, self._request_id)
        head.append(("content-length", str(len(response.body))))
        stream = self._protocol.response_stream(response.status, head)
        return _is_taken(stream.send_bytes(response.body))


async def _departure(protocol: Any) -> None:
    """Return when the connection of a request has ended."""
    await protocol.client_disconnect()


def _is_taken(sending: Any) -> bool:
    """Return whether Granian's stream has taken what was sent; this never waits."""
    try:
        next(sending.__await__(), None)
    except RuntimeError as error:
        # Granian's stream keeps the error, whose frames hold the stream and all of the request:
        # a cycle that the garbage collector can't see.
        error.__traceback__ = None
        return False
    return True


def failed() -> HttpResponse:
    """Return the response for a fault of the server."""
    return HttpResponse.of_rejection(ModelFailed("The server failed on this request; see its log."))


def _json_length(text: str | None) -> int | None:
    if text is None:
        return None
    if not _LENGTH.fullmatch(text):
        raise BadInput(
            "Inference-Header-Content-Length must be a whole number.",
            code=ErrorCode.MALFORMED,
            subject="Inference-Header-Content-Length",
        )
    return int(text)
