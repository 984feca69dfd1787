"""The model server in a process of its own, for the time of a check."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dwcp_ml.processes import ChildProcess


@dataclass(frozen=True)
class RunningServer:
    """A running server; ``http`` and ``grpc`` are its addresses, ``host:port``."""

    http: str
    grpc: str


@contextmanager
def running_server(
    model_dir: Path, *, options: Sequence[str] = (), log: Path | None = None
) -> Iterator[RunningServer]:
    """Start a server of the bundles in ``model_dir`` on free ports, and stop it at the end.

    Parameters
    ----------
    log
        The file of its log; discarded by default.

    Raises
    ------
    DwcpError
        If it does not start; the message has the last line of its log.
    """
    with tempfile.TemporaryDirectory(prefix="dwcp-serve-") as scratch:
        ports, log_path = Path(scratch) / "ports.json", log or Path(scratch) / "server.log"
        command = [
            sys.executable, "-m", "dwcp_ml.cli", "serve", "--model_dir", str(model_dir),
            "--http_port", "0", "--grpc_port", "0", "--port-file", str(ports), *options,
        ]  # fmt: skip
        with ChildProcess("the model server", command, log_path) as process:
            bound = process.wait_for_ports(ports)
            yield RunningServer(f"127.0.0.1:{bound['http']}", f"127.0.0.1:{bound['grpc']}")


@contextmanager
def bundles_together(bundles: Mapping[str, Path]) -> Iterator[Path]:
    """Yield one directory with links to the given bundles.

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
