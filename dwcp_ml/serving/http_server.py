"""V1 and V2 over HTTP/1.1 and HTTP/2, on Granian; the only module that imports it.

Granian reads and writes HTTP with Hyper, in a thread of its own that holds the interpreter's lock
only to hand a request over, and calls ``_Handler`` on the event loop of the engine. It bounds
heads, frames, streams and connections; bodies are bounded in ``http_body``, as they arrive.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from typing import Any, Final

from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings, HTTP2Settings
from granian.server import embed

from dwcp_ml.contract.errors import ErrorCode
from dwcp_ml.serving.engine import Engine
from dwcp_ml.serving.headers import LINK, REQUEST_ID, request_id_of
from dwcp_ml.serving.http_body import Disconnected
from dwcp_ml.serving.http_exchange import Connections, Exchange, failed
from dwcp_ml.serving.http_feedback import model_of, receive
from dwcp_ml.serving.http_routes import HttpResponse, Routes, Target, target_of
from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.newcomers import Newcomers
from dwcp_ml.serving.rejections import BadInput, RequestRejected

BACKLOG: Final = 2048
"""Maximum connections that wait to be accepted."""

_HEAD_BYTES: Final = 1 << 16
"""Maximum size of a head."""

_PING_INTERVAL_MS: Final = 30_000
_PING_TIMEOUT_SECONDS: Final = 10
"""A silent HTTP/2 connection is asked for a sign of life, and closed if there is none."""

_TARGETS: Final = 64
"""How many paths are remembered."""

_log = logging.getLogger(__name__)


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
        self._granian = Granian(handler, engine.limits, listener)

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


class Granian(embed.Server):
    """Granian on a socket of ours, so that a port in use is an error and port 0 is known.

    Parameters
    ----------
    handler
        The application: ``await handler(scope, protocol, arrived)`` for each request.
    """

    def __init__(self, handler: Any, limits: Limits, listener: socket.socket) -> None:
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
        self._engine = engine
        self.connections = Connections(engine)
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
                exchange = Exchange(
                    self.connections, scope, protocol, headers, target, request_id, arrived
                )
                await exchange.infer()
                return
            if (name := model_of(scope.path)) is not None:
                response = await receive(
                    self._engine, self.connections.bodies, protocol, scope.method, headers, name
                )
            else:
                response = self._routes.respond(scope.method, scope.path, headers.get("accept", ""))
        except Disconnected:
            return
        except RequestRejected as rejected:
            response = HttpResponse.of_rejection(rejected)
        except Exception:
            _log.exception("request %s failed", request_id)
            response = failed()
        self.connections.send(scope, protocol, response, request_id)

    def _target(self, path: str) -> Target | None:
        target = self._targets.get(path)
        if target is None and path not in self._targets:
            target = target_of(path)
            if len(self._targets) < _TARGETS:  # a client that tries many paths takes no memory
                self._targets[path] = target
        return target


def _check_host(version: str, items: list[tuple[str, str]]) -> None:
    """Reject what a gateway before this server could have understood as another host."""
    if version == "2":
        return
    hosts = sum(name == "host" for name, _ in items)
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise BadInput("A request has one Host.", code=ErrorCode.AMBIGUOUS, subject="Host")
