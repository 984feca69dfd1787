"""The model server in a process of its own, for as long as somebody needs it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dwcp_ml.contract.errors import DwcpError

START_SECONDS: Final = 90.0
_STOP_SECONDS: Final = 20.0


@dataclass(frozen=True)
class RunningServer:
    """Where a server listens; ``http`` and ``grpc`` are ``host:port``."""

    http: str
    grpc: str
    process: subprocess.Popen[bytes]


@contextmanager
def running_server(
    model_dir: Path, *, options: Sequence[str] = (), log: Path | None = None
) -> Iterator[RunningServer]:
    """Start a server of the bundles in ``model_dir`` on free ports, and stop it in the end.

    Parameters
    ----------
    options
        More words for ``dwcp-ml serve``.
    log
        Where its log goes; nowhere by default.

    Raises
    ------
    DwcpError
        If it does not start; with the last line that it wrote.
    """
    with tempfile.TemporaryDirectory(prefix="dwcp-serve-") as scratch:
        ports, log_path = Path(scratch) / "ports.json", log or Path(scratch) / "server.log"
        command = [
            sys.executable, "-m", "dwcp_ml.cli", "serve", "--model_dir", str(model_dir),
            "--http_port", "0", "--grpc_port", "0", "--port-file", str(ports), *options,
        ]  # fmt: skip
        with log_path.open("ab") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            _wait(process, ports, log_path)
            found = json.loads(ports.read_text())
            yield RunningServer(f"127.0.0.1:{found['http']}", f"127.0.0.1:{found['grpc']}", process)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def bundles_together(bundles: Mapping[str, Path]) -> Iterator[Path]:
    """Yield one directory that holds the given bundles, as links.

    Parameters
    ----------
    bundles
        Full model name -> ``<model>/<version>/``.
    """
    with tempfile.TemporaryDirectory(prefix="dwcp-models-") as scratch:
        for name, bundle in bundles.items():
            directory = Path(scratch) / name
            directory.mkdir()
            (directory / bundle.name).symlink_to(bundle.resolve())
        yield Path(scratch)


def _wait(process: subprocess.Popen[bytes], ports: Path, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ports.exists():
        if process.poll() is not None:
            lines = log.read_text(errors="replace").strip().splitlines()
            last = lines[-1] if lines else f"exit code {process.returncode}"
            raise DwcpError(f"the model server did not start: {last.removeprefix('dwcp-ml: ')}")
        if time.monotonic() > deadline:
            raise DwcpError(f"the model server was not ready after {START_SECONDS:.0f} s.")
        time.sleep(0.05)
