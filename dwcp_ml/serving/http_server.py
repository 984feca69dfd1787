"""V1 and V2 over HTTP/1.1 and HTTP/2, on Granian; the only module that knows it.

Granian reads and writes HTTP with Hyper, in a thread of its own that holds the interpreter's lock
only to hand a request over, and calls ``_Handler`` on the event loop of the engine. It bounds
heads, frames, streams and connections; bodies are bounded here, as they arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import time
from typing import Any, Final

from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings, HTTP2Settings
from granian.server import embed

from dwcp_ml.contract.codes import CLIENT_CLOSED_REQUEST
from dwcp_ml.contract.errors import ErrorCode
from dwcp_ml.serving.engine import Engine
from dwcp_ml.serving.headers import (
    JSON_LENGTH,
    LINK,
    MIRRORED,
    OBSERVED_AT,
    REQUEST_ID,
    link_of,
    request_id_of,
)
from dwcp_ml.serving.http_routes import (
    SERVER_NAME,
    HttpResponse,
    MethodNotAllowed,
    Routes,
    Target,
    target_of,
)
from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.newcomers import Newcomers
from dwcp_ml.serving.rejections import BadInput, ModelFailed, RequestRejected, TooLarge
from dwcp_ml.serving.request import Body, Encoded, OnResult, PredictRequest
from dwcp_ml.serving.v1 import V1
from dwcp_ml.serving.v2 import V2

BACKLOG: Final = 2048
"""Maximum connections that wait to be accepted."""

_HEAD_BYTES: Final = 1 << 16
"""Maximum size of a head."""

_PING_INTERVAL_MS: Final = 30_000
_PING_TIMEOUT_SECONDS: Final = 10
"""A silent HTTP/2 connection is asked for a sign of life, and closed if there is none."""

_LATE_SECONDS: Final = 0.05
"""A client may have left after this time; the response is then sent so that this is noticed."""

_MOMENT_SECONDS: Final = 0.005

_UPLOAD_SECONDS: Final = 0.02
"""A body that takes less has arrived with its head."""

_GONE_SECONDS: Final = 60.0
"""No client waits longer for a large request; over HTTP/2 it can't be seen that it has left."""

_TARGETS: Final = 64
"""How many paths are remembered."""

_LENGTH: Final = re.compile(r"[0-9]{1,19}")

_log = logging.getLogger(__name__)


class TooSlow(RequestRejected):
    """The body of a request did not arrive in time."""

    status = 408


class _Disconnected(Exception):
    """The client left before its body was complete."""


class HttpServer:
    """The server of one port.

    Parameters
    ----------
    engine
        Where inference goes.
    listener
        A socket that is bound; it belongs to the server from now on.
    """

    def __init__(self, engine: Engine, listener: socket.socket) -> None:
        self._seconds = engine.limits.arrival_seconds
        handler = _Handler(engine)
        connections = handler.connections
        self._bodies = connections.bodies
        self._newcomers = Newcomers(
            listener.getsockname()[1], engine.limits.arrival_seconds, connections.knows
        )
        self._granian = _Granian(handler, engine.limits, listener)

    async def serve(self) -> None:
        """Serve until ``stop``; the requests in flight have their responses when this returns."""
        clocks = [
            asyncio.create_task(self._bodies.watch()),
            asyncio.create_task(self._watch_newcomers()),
        ]
        try:
            await self._granian.serve()
        finally:
            for clock in clocks:
                clock.cancel()

    async def _watch_newcomers(self) -> None:
        while True:
            await asyncio.sleep(self._seconds / 4)
            try:
                await asyncio.to_thread(self._newcomers.check)
            except OSError as error:  # no descriptor is left to look with
                _log.warning("connections without a request can't be looked for: %s", error)

    def stop(self) -> None:
        """Accept no new connection, and close each when it has its responses."""
        self._granian.stop()  # type: ignore[no-untyped-call]


def _with_arrival(application: Any) -> Any:
    """Wrap the application as Granian's own wrapper does, with the time of each request's arrival.

    ``watch`` is called in Granian's thread when a head has arrived; the event loop may be busy with
    a model for long after that, and the time that a request waits for it is a part of its latency.
    """

    async def run(watcher: Any, arrived: float) -> None:
        try:
            await application(watcher.scope, watcher.proto, arrived)
        except BaseException as error:
            watcher.err(error)
            return
        watcher.done()

    def watch(watcher: Any) -> Any:
        return run(watcher, time.perf_counter())

    return watch


embed._future_watcher_wrapper = _with_arrival  # type: ignore[attr-defined]


class _Granian(embed.Server):
    """Granian on a socket of ours, so that a port in use is an error and port 0 is known."""

    def __init__(self, handler: _Handler, limits: Limits, listener: socket.socket) -> None:
        self._listener = listener
        super().__init__(
            handler,
            interface=Interfaces.RSGI,
            http=HTTPModes.auto,
            websockets=False,
            backlog=BACKLOG,
            backpressure=limits.connections,
            http1_settings=HTTP1Settings(
                header_read_timeout=int(limits.idle_seconds * 1000), max_buffer_size=_HEAD_BYTES
            ),
            http2_settings=HTTP2Settings(
                keep_alive_interval=_PING_INTERVAL_MS,
                keep_alive_timeout=_PING_TIMEOUT_SECONDS,
                max_concurrent_streams=limits.streams,
                max_headers_size=_HEAD_BYTES,
            ),
            log_enabled=False,
        )

    def _init_shared_socket(self) -> None:
        holder: Any = SocketHolder  # its arguments are not in Granian's stubs
        self._shd = holder(self._listener.detach(), False, BACKLOG)


class _Handler:
    """The application: ``await handler(scope, protocol, arrived)`` for each request.

    Parameters
    ----------
    engine
        Where inference goes.
    """

    def __init__(self, engine: Engine) -> None:
        self.connections = _Connections(engine)
        self._routes = Routes(engine)
        self._targets: dict[str, Target | None] = {}

    async def __call__(self, scope: Any, protocol: Any, arrived: float) -> None:
        given = scope.headers
        items = given.items()  # without those whose value is not ASCII
        headers = dict(items)
        request_id = request_id_of(headers.get(REQUEST_ID))
        target = self._target(scope.path)
        self.connections.note(scope.client)
        try:
            _check_host(scope.http_version, items)
            if target is not None:
                if LINK not in headers and LINK in given:
                    headers[LINK] = "\ufffd"
                exchange = _Exchange(
                    self.connections, scope, protocol, headers, target, request_id, arrived
                )
                await exchange.infer()
                return
            response = self._routes.respond(scope.method, scope.path, headers.get("accept", ""))
        except RequestRejected as rejected:
            response = HttpResponse.of_rejection(rejected)
        except Exception:
            _log.exception("request %s failed", request_id)
            response = _failed()
        self.connections.send(scope, protocol, response, request_id)

    def _target(self, path: str) -> Target | None:
        target = self._targets.get(path)
        if target is None and path not in self._targets:
            target = target_of(path)
            if len(self._targets) < _TARGETS:  # a client that tries many paths takes no memory
                self._targets[path] = target
        return target


class _Connections:
    """What the requests of all connections share: the engine, and how old each connection is.

    Parameters
    ----------
    engine
        Where inference goes.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.bodies = _Bodies(engine)
        self._limits = engine.limits
        self._births: dict[str, float] = {}  # by peer; the connection used last is at the end

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
            del self._births[next(iter(self._births))]
        return False


class _Bodies:
    """The bodies of requests, as they arrive.

    Parameters
    ----------
    engine
        Whose limits they keep.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._limits = engine.limits
        self._arriving: dict[asyncio.Task[Any], float] = {}  # by their deadline, ascending

    async def read(self, protocol: Any, declared: int | None, taken: _Taken) -> tuple[Body, bool]:
        """Return the body, and whether it may be cut off.

        Parameters
        ----------
        declared
            Its length, if the client says one.

        Raises
        ------
        TooLarge
            If it is over the limit; the rest is not read.
        ModelUnavailable
            If the server holds too many bytes already.
        TooSlow
            If it does not arrive in time.
        _Disconnected
            If the client leaves.
        """
        cut = False
        whole: Body
        task: Any = asyncio.current_task()
        self._arriving[task] = time.monotonic() + self._limits.arrival_seconds
        try:
            if declared is not None and declared <= self._limits.inline_bytes:
                whole = await protocol()
            else:
                whole, cut = await self._parts(protocol, taken)
        except RuntimeError as error:  # Granian's, when the connection ends
            raise _Disconnected from error
        except asyncio.CancelledError:
            if task in self._arriving:  # somebody else's
                raise
            task.uncancel()
            seconds = self._limits.arrival_seconds
            raise TooSlow(f"The request did not arrive within {seconds:g} seconds.") from None
        finally:
            self._arriving.pop(task, None)
        if declared is not None and len(whole) < declared:  # a stream has no error for this
            raise _Disconnected
        return whole, cut

    async def _parts(self, protocol: Any, taken: _Taken) -> tuple[Body, bool]:
        """Return a body as it arrives, and whether it may be cut off.

        Granian gives an empty part for the end, for an error, for a trailer, and for an empty frame
        of HTTP/2.
        """
        parts = bytearray()
        empty = 0
        async for part in protocol:
            empty += not part
            parts += part
            if len(parts) > self._limits.inline_bytes:
                taken.grow(len(parts))
            if len(parts) > self._limits.body_bytes:
                raise _too_large(self._limits)
        return parts, empty > 1

    async def discard(self, protocol: Any) -> None:
        """Read the rest of a body whose request is rejected, for a limited time.

        A client that only reads when it has sent everything would not see its response else.
        """
        with contextlib.suppress(RuntimeError):
            aiter(protocol)  # has begun already if a part of the body was taken
        ends = time.monotonic() + self._limits.arrival_seconds
        with contextlib.suppress(RuntimeError, StopAsyncIteration):
            while time.monotonic() < ends and not self._engine.draining:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        while True:  # anext() of Python 3.11 ends the process at the body's end
                            await protocol.__anext__()

    async def watch(self) -> None:
        """Cancel what waits for a body that does not arrive in time."""
        while True:
            await asyncio.sleep(min(1.0, self._limits.arrival_seconds / 4))
            now = time.monotonic()
            late = [task for task, deadline in self._arriving.items() if deadline < now]
            for task in late:
                del self._arriving[task]
                task.cancel()


class _Taken:
    """The bytes of one request that count as in flight."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._size = 0

    def grow(self, size: int) -> None:
        """Count a body that has this size now."""
        more, self._size = size - self._size, size
        self._engine.take(more)

    def release(self) -> None:
        self._engine.release(self._size)
        self._size = 0


class _Exchange:
    """One inference request, until its response is sent and counted."""

    def __init__(
        self,
        connections: _Connections,
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
        taken = _Taken(self._connections.engine)
        done = asyncio.get_running_loop().create_future()

        def on_result(result: Encoded | RequestRejected) -> None:
            taken.release()
            self._reply(_response_of(result))
            if not done.done():  # cancelled if the server is stopped
                done.set_result(None)

        rejected: RequestRejected | None = None
        try:
            request = await self._read(taken, on_result)
        except RequestRejected as error:
            rejected = error.with_traceback(None)  # whose frames hold the body
        except _Disconnected:
            pass
        except Exception:
            _log.exception("request %s failed", self._request_id)
            self._reply(_failed())
        else:
            if self._connections.engine.submit(request):
                await self._wait(done)
            else:
                await done
            return
        taken.release()
        if rejected is not None:
            await self._reject(rejected)

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

    async def _read(self, taken: _Taken, on_result: OnResult) -> PredictRequest:
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
                raise _too_large(self._connections.engine.limits)
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
    except RuntimeError:
        return False
    return True


def _response_of(result: Encoded | RequestRejected) -> HttpResponse:
    if isinstance(result, RequestRejected):
        return HttpResponse.of_rejection(result)
    if result.json_length is None:
        return HttpResponse(200, result.body)
    headers = ((JSON_LENGTH, str(result.json_length)),)
    return HttpResponse(200, result.body, "application/octet-stream", headers)


def _failed() -> HttpResponse:
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


def _check_host(version: str, items: list[tuple[str, str]]) -> None:
    """Reject what a gateway before this server could have understood as another host."""
    if version == "2":
        return
    hosts = sum(name == "host" for name, _ in items)
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise BadInput("A request has one Host.", code=ErrorCode.AMBIGUOUS, subject="Host")


def _too_large(limits: Limits) -> TooLarge:
    return TooLarge(
        f"The body may have at most {limits.body_bytes} bytes.",
        code=ErrorCode.TOO_LARGE,
        subject="body",
    )
