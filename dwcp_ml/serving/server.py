"""The server: it loads, warms up, listens, and shuts down without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import signal
import socket
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.files import write_text
from dwcp_ml.prediction_log.log import PredictionLog
from dwcp_ml.serving.asgi import ServerApplication
from dwcp_ml.serving.client import quiet_import
from dwcp_ml.serving.connection import Connection
from dwcp_ml.serving.engine import Engine
from dwcp_ml.serving.fast_path import FastPath
from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.metrics import ServerMetrics
from dwcp_ml.serving.observers import Observers
from dwcp_ml.serving.repository import load_models
from dwcp_ml.serving.sketches import Sketches

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerOptions:
    """Options of a server.

    Parameters
    ----------
    model_dir, model_name
        The directory of the bundles, and the only model to serve; ``None`` for all.
    host, http_port, grpc_port
        The address; port 0 takes a free one, ``grpc_port=None`` turns gRPC off.
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
    fast_path
        ``False`` sends every request through ASGI, for comparison.
    """

    model_dir: Path
    model_name: str | None = None
    host: str = "127.0.0.1"
    http_port: int = 8501
    grpc_port: int | None = 8502
    port_file: Path | None = None
    public_key: Path | None = None
    digests: dict[str, str] = field(default_factory=dict)
    drain_seconds: float = 0.0
    grace_seconds: float = 30.0
    log_dir: Path | None = None
    log_sample: float = 1.0
    log_max_bytes: int = 1_000_000_000
    sketches: bool = True
    fast_path: bool = True
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
    engine = Engine(models, options.limits, Observers(metrics, sketches, log))
    runner = asyncio.Runner(loop_factory=_event_loop())
    try:
        with runner:
            runner.run(_Server(options, engine).run())
    finally:
        engine.close()
        if log is not None:
            log.close(timeout_seconds=10.0)


class _Server:
    def __init__(self, options: ServerOptions, engine: Engine) -> None:
        self._options = options
        self._engine = engine
        self._grpc: Any = None
        data_plane, repository, application = _kserve(engine)
        self._service = (data_plane, repository)
        protocol = partial(FastPath if options.fast_path else Connection, engine)
        self._uvicorn = _Uvicorn(
            uvicorn.Config(
                ServerApplication(engine, application),
                host=options.host,
                port=options.http_port,
                http=protocol,  # type: ignore[arg-type]
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=65,  # longer than Envoy's idle timeout of a minute
                timeout_graceful_shutdown=int(options.grace_seconds),
            )
        )

    async def run(self) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        listening = _listen(self._options.host, self._options.http_port)
        http: asyncio.Task[None] | None = None
        try:
            ports = {"http": listening.getsockname()[1]}
            if self._options.grpc_port is not None:
                ports["grpc"] = await self._start_grpc(self._options.grpc_port)
            http = asyncio.create_task(self._uvicorn.serve(sockets=[listening]))
            while not self._uvicorn.started and not http.done():
                await asyncio.sleep(0.01)
            # A full collection over everything that was imported stops the server for 0.1 s:
            # exclude what exists now from later collections.
            gc.collect()
            gc.freeze()
            if self._options.port_file is not None:
                write_text(self._options.port_file, json.dumps(ports))
            _log.info("ready on %s: %s", self._options.host, ports)
            ended = asyncio.create_task(stop.wait())
            await asyncio.wait({ended, http}, return_when=asyncio.FIRST_COMPLETED)
            if http.done():
                raise DwcpError("The HTTP server stopped unexpectedly; see its log.")
            await self._drain()
        finally:
            await self._stop(http)
            listening.close()
        _log.info("stopped")

    async def _start_grpc(self, port: int) -> int:
        from dwcp_ml.serving.grpc_service import InferenceService, grpc_server

        service = InferenceService(self._engine, *self._service)
        server = grpc_server(service, self._options.limits.body_bytes)
        host = self._options.host
        try:
            bound: int = server.add_insecure_port(
                f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            )
        except RuntimeError as error:
            raise DwcpError(
                f"Port {port} of {host} is not available: is another server running? "
                "--grpc_port takes another."
            ) from error
        self._grpc = server
        await server.start()
        return bound

    async def _drain(self) -> None:
        _log.info("draining: no longer ready, %d requests in flight", self._engine.in_flight)
        self._engine.draining = True
        await asyncio.sleep(self._options.drain_seconds)

    async def _stop(self, http: asyncio.Task[None] | None) -> None:
        """Accept no new connection, finish the requests in flight, close."""
        self._engine.draining = True
        self._uvicorn.should_exit = True
        if self._grpc is not None:
            await self._grpc.stop(self._options.grace_seconds)
        if http is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await http


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises
    ------
    DwcpError
        If the port is in use or not permitted, or the host is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server(
            (host, port),
            family=family,
            backlog=2048,
            dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        raise DwcpError(
            f"Port {port} of {host} is not available ({error.strerror or error}): is another "
            "server running? --http_port takes another."
        ) from error


class _Uvicorn(uvicorn.Server):
    """Uvicorn without its signal handlers, because the drain comes first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Leave the signals to ``_Server``."""
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Do nothing; it is never called."""


def _kserve(engine: Engine) -> tuple[Any, Any, Any]:
    """Return the KServe SDK's data plane, repository and application for the engine's models."""
    with quiet_import():
        from fastapi import FastAPI
        from kserve.model_repository import ModelRepository
        from kserve.protocol.dataplane import DataPlane
        from kserve.protocol.model_repository_extension import ModelRepositoryExtension
        from kserve.protocol.rest.v1_endpoints import register_v1_endpoints
        from kserve.protocol.rest.v2_endpoints import register_v2_endpoints

        from dwcp_ml.serving.kserve_model import KServeModel

        registry = ModelRepository()
        for model in engine.models.values():
            registry.update(KServeModel(model, engine))
        data_plane = DataPlane(model_registry=registry)
        repository = ModelRepositoryExtension(model_registry=registry)
        application = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
        application.add_api_route("/", data_plane.live)
        register_v1_endpoints(application, data_plane, repository)
        register_v2_endpoints(application, data_plane, repository)
    return data_plane, repository, application


def _event_loop() -> Any:
    try:
        import uvloop
    except ImportError:  # Windows
        return None
    return uvloop.new_event_loop
