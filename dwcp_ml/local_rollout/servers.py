"""A model server that is started again when it crashes, and counts how often."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.files import make_directory
from dwcp_ml.processes import await_ports, end, guarded

SERVE: Final = (sys.executable, "-m", "dwcp_ml.cli", "serve")

_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 10.0


class SupervisedServer:
    """One arm's server: ``dwcp-ml serve`` of one bundle, on one port for all its lives.

    Parameters
    ----------
    bundle
        The directory ``<model>/<version>``.
    predictions
        Where it logs predictions; ``None`` for nowhere.
    log
        Where its own log goes.
    command
        What serves, instead of ``dwcp-ml serve``; a test's broken server, say. It gets the same
        options.
    """

    def __init__(
        self,
        bundle: Path,
        *,
        log: Path,
        predictions: Path | None = None,
        command: Sequence[str] = SERVE,
    ) -> None:
        self._bundle, self._log, self._predictions = bundle, log, predictions
        self._command = tuple(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._pause = _FIRST_PAUSE_SECONDS
        self._again_at = 0.0
        self.port = 0
        self.restarts = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """The id of the process; ``None`` between two lives."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it, and return when it is ready.

        Raises
        ------
        DwcpError
            If it does not become ready; with the last line of its log.
        """
        make_directory(self._log.parent)
        ports = self._log.with_suffix(".ports.json")
        ports.unlink(missing_ok=True)
        process = self._launch(ports)
        try:
            found = await_ports(process, ports, self._log, f"the server of {self._bundle}")
        except DwcpError:
            self.stop()
            raise
        self.port = found["http"]

    def look_after(self) -> None:
        """Note a crash, and start the server again after a pause that grows with each."""
        if self._process is not None and self._process.poll() is not None:
            self._process = None
            self.restarts += 1
            self._again_at = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
        if self._process is None and time.monotonic() >= self._again_at:
            self._launch(None)

    def stop(self) -> None:
        """End it; does nothing if it is not running."""
        process, self._process = self._process, None
        if process is not None:
            end(process)

    def _launch(self, ports: Path | None) -> subprocess.Popen[bytes]:
        words = ["--model_dir", str(self._bundle), "--http_port", str(self.port), "--no-grpc"]
        if self._predictions is not None:
            words += ["--log-predictions", str(self._predictions)]
        if ports is not None:
            words += ["--port-file", str(ports)]
        with self._log.open("ab") as output:
            process = self._process = subprocess.Popen(
                guarded([*self._command, *words]), stdout=output, stderr=subprocess.STDOUT
            )
        return process
