"""The server: it loads, warms up, listens, and shuts down without losing a request."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.files import write_text
from dwcp_ml.prediction_log.log import PredictionLog
from dwcp_ml.serving import http_kept_requests, memory
from dwcp_ml.serving.engine import Engine
from dwcp_ml.serving.http_server import BACKLOG, Granian, HttpServer
from dwcp_ml.serving.kept_requests import KeptRequests
from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.metrics import ServerMetrics
from dwcp_ml.serving.observers import Observers
from dwcp_ml.serving.outcomes import Outcomes
from dwcp_ml.serving.repository import load_models
from dwcp_ml.serving.sketches import Sketches

_OTHER_DESCRIPTORS: Final = 1024
"""Files and connections besides those of HTTP."""

_KEPT_GRACE_SECONDS: Final = 1.0
"""For those who read kept requests when the server stops, after everybody else."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerOptions:
    """Options of a server.

    Parameters
    ----------
    model_dir, model_name
        The directory of the bundles, and the only model to serve; ``None`` for all.
    host, http_port, grpc_port, requests_port
        The address; port 0 takes a free one, ``grpc_port=None`` turns gRPC off. The last is where
        the newest requests are read; ``None`` keeps none.
    port_file
        A JSON file with the ports, written when the server is ready.
    public_key, digests
        The key that the bundles must be signed with, and the digest that each must have.
    drain_seconds
        How long the server continues to respond after SIGTERM, already not ready, until load
        balancers have removed it.
    grace_seconds
        Maximum time after that for requests in flight.
    log_dir, log_sample, log_max_bytes
        The prediction log: its directory, the share of requests it records, its maximum size.
    """

    model_dir: Path
    model_name: str | None = None
    host: str = "127.0.0.1"
    http_port: int = 8501
    grpc_port: int | None = 8502
    requests_port: int | None = None
    port_file: Path | None = None
    public_key: Path | None = None
    digests: dict[str, str] = field(default_factory=dict)
    drain_seconds: float = 0.0
    grace_seconds: float = 30.0
    log_dir: Path | None = None
    log_sample: float = 1.0
    log_max_bytes: int = 1_000_000_000
    sketches: bool = True
    feedback: bool = True
    limits: Limits = field(default_factory=Limits)


def serve(options: ServerOptions) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises
    ------
    BundleRefused
        If a bundle is invalid; nothing is served then.
    DwcpError
        If a port is not available.
    """
    memory.keep_little()
    _allow_descriptors(options.limits.connections + _OTHER_DESCRIPTORS)
    models = load_models(
        options.model_dir,
        options.model_name,
        digests=options.digests,
        public_key=options.public_key,
    )
    metrics = ServerMetrics()
    metrics.serve(models.values())
    log = None
    if options.log_dir is not None:
        log = PredictionLog(
            options.log_dir, sample=options.log_sample, max_bytes=options.log_max_bytes
        )
        metrics.watch_log(log)
    sketches = Sketches(models.values(), metrics.registry) if options.sketches else None
    outcomes = Outcomes(models.values(), metrics.registry) if options.feedback else None
    kept, requests = None, None
    if options.requests_port is not None:
        requests = _listen(options.host, options.requests_port, "--requests_port")
        kept = KeptRequests(models.values(), metrics.registry, requests.getsockname()[1])
    engine = Engine(models, options.limits, Observers(metrics, sketches, log, outcomes, kept))
    runner = asyncio.Runner(loop_factory=_event_loop())
    try:
        try:
            ended = runner.run(_Server(options, engine, requests).run())
        finally:
            engine.close()
            if log is not None:
                log.close(timeout_seconds=10.0)
        if not ended:  # the loop can't be closed: Granian still uses it
            logging.shutdown()
            os._exit(0)
    finally:
        runner.close()


def _allow_descriptors(number: int) -> None:
    """Let this process open as many files and connections, if it may."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        number = min(number, hard)
    if soft != resource.RLIM_INFINITY and number > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))


class _Server:
    """The servers of all ports; ``requests`` is the socket on which kept requests are read."""

    def __init__(
        self, options: ServerOptions, engine: Engine, requests: socket.socket | None
    ) -> None:
        self._options = options
        self._engine = engine
        self._requests = requests

    async def run(self) -> bool:
        """Serve until a signal; return whether every request had its response."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        options = self._options
        listener = _listen(options.host, options.http_port, "--http_port")
        ports = {"http": listener.getsockname()[1]}
        grpc = None
        if options.grpc_port is not None:
            from dwcp_ml.serving.grpc_server import GrpcServer

            grpc = GrpcServer(self._engine, options.drain_seconds)
            ports["grpc"] = await grpc.start(options.host, options.grpc_port)
        http = HttpServer(self._engine, listener)
        serving = asyncio.create_task(http.serve())
        kept, kept_serving = None, set()
        if self._requests is not None and self._engine.observers.kept is not None:
            ports["requests"] = self._requests.getsockname()[1]
            handler = http_kept_requests.KeptRequestsHandler(
                self._engine.observers.kept, self._engine
            )
            kept = Granian(handler, http_kept_requests.LIMITS, self._requests)
            kept_serving = {asyncio.create_task(kept.serve())}
        # A full collection over everything that was imported stops the server for 0.1 s:
        # exclude what exists now from later collections.
        gc.collect()
        gc.freeze()
        # The lists of a parsed request are new objects, and go with it without a collection.
        gc.set_threshold(20_000, 10, 10)
        if options.port_file is not None:
            write_text(options.port_file, json.dumps(ports))
        _log.info("ready on %s: %s", options.host, ports)
        ended = asyncio.create_task(stop.wait())
        await asyncio.wait({ended, serving}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            raise DwcpError("The HTTP server stopped unexpectedly; see its log.")
        _log.info("draining: no longer ready, %d requests in flight", self._engine.in_flight)
        self._engine.draining = True
        if grpc is not None:
            await grpc.drain()
        await asyncio.sleep(options.drain_seconds)
        http.stop()
        if kept is not None:
            kept.stop()  # type: ignore[no-untyped-call]
        # All at once; Granian must not be cancelled while it waits for a connection.
        stopping = {serving}
        if grpc is not None:
            stopping.add(asyncio.create_task(grpc.stop(options.grace_seconds)))
        await asyncio.wait(stopping, timeout=options.grace_seconds)
        if kept_serving:  # who reads slowly there must not hold up the end
            await asyncio.wait(kept_serving, timeout=_KEPT_GRACE_SECONDS)
        _log.info("stopped" if serving.done() else "stopped with requests that did not end in time")
        return serving.done() and all(task.done() for task in kept_serving)


def _listen(host: str, port: int, option: str) -> socket.socket:
    """Return a socket that listens; ``option`` is the one that takes another port.

    Raises
    ------
    DwcpError
        If the port is in use or not permitted, or the host is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server(
            (host, port),
            family=family,
            backlog=BACKLOG,
            dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        raise DwcpError(
            f"Port {port} of {host} is not available ({error.strerror or error}): is another "
            f"server running? {option} takes another."
        ) from error
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited by connections
    listener.setblocking(False)
    return listener


def _event_loop() -> Any:
    try:
        import uvloop
    except ImportError:  # Windows
        return None
    return uvloop.new_event_loop
