"""A model server that is restarted when it crashes, with a restart count."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dwcp_ml.files import make_directory
from dwcp_ml.processes import ChildProcess, LocalServer

SERVE: Final = (sys.executable, "-m", "dwcp_ml.cli", "serve")

_MIN_BACKOFF_SECONDS: Final = 0.5
_MAX_BACKOFF_SECONDS: Final = 10.0


class SupervisedServer(LocalServer):
    """One arm's server: ``dwcp-ml serve`` of one bundle, on the same port after each restart.

    Parameters
    ----------
    predictions
        Directory of its prediction log; ``None`` for no log.
    command
        The server, by default ``dwcp-ml serve``, to which the same options are passed.
    """

    def __init__(
        self,
        bundle: Path,
        *,
        log: Path,
        predictions: Path | None = None,
        command: Sequence[str] = SERVE,
    ) -> None:
        super().__init__()
        self._bundle, self._log, self._predictions = bundle, log, predictions
        self._command = tuple(command)
        self._backoff = _MIN_BACKOFF_SECONDS
        self._restart_at = 0.0
        self.restarts = 0

    def _start(self) -> None:
        make_directory(self._log.parent)
        ports = self._log.with_suffix(".ports.json")
        ports.unlink(missing_ok=True)
        self.port = self._launch("--port-file", str(ports)).wait_for_ports(ports)["http"]

    def restart_if_crashed(self) -> None:
        """Count a crash, and restart the server after a delay that doubles with each crash."""
        if self._child is not None and self._child.process.poll() is not None:
            self._child = None
            self.restarts += 1
            self._restart_at = time.monotonic() + self._backoff
            self._backoff = min(2 * self._backoff, _MAX_BACKOFF_SECONDS)
        if self._child is None and time.monotonic() >= self._restart_at:
            self._launch()

    def _launch(self, *options: str) -> ChildProcess:
        arguments = ["--model_dir", str(self._bundle), "--http_port", str(self.port), "--no-grpc"]
        if self._predictions is not None:
            arguments += ["--log-predictions", str(self._predictions)]
        command = [*self._command, *arguments, *options]
        self._child = ChildProcess(f"the server of {self._bundle}", command, self._log)
        return self._child
