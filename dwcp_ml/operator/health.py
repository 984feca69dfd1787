"""``/healthz``, ``/readyz`` and ``/metrics`` of the operator, on a port of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self

TIMEOUT_SECONDS: Final = 5.0

Check = Callable[[], str]
"""Returns why the check fails; empty if it passes."""


class QuietHandler(BaseHTTPRequestHandler):
    """Sends whole responses, and logs none: probes and scrapes come every few seconds."""

    timeout = TIMEOUT_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Say nothing."""

    def _send(self, status: int, body: bytes, content: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Pages:
    """The HTTP server; use it in a ``with``."""

    def __init__(
        self,
        healthy: Check,
        ready: Check,
        metrics: Callable[[], bytes],
        port: int,
        host: str = "0.0.0.0",  # noqa: S104 - The kubelet and Prometheus connect from other hosts.
    ) -> None:
        self._server = ThreadingHTTPServer((host, port), _handler(healthy, ready, metrics))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(TIMEOUT_SECONDS)


def _handler(
    healthy: Check, ready: Check, metrics: Callable[[], bytes]
) -> type[BaseHTTPRequestHandler]:
    class Handler(QuietHandler):
        def do_GET(self) -> None:
            """Send a response."""
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._send(200, metrics(), "text/plain; version=0.0.4; charset=utf-8")
            elif path in ("/healthz", "/readyz"):
                why = (healthy if path == "/healthz" else ready)()
                self._send(503 if why else 200, (why or "ok").encode() + b"\n")
            else:
                self._send(404, b"Paths are /healthz, /readyz and /metrics\n")

    return Handler
