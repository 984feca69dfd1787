"""Starts child processes that end with their parent, reads their ports, and stops them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dwcp_ml.contract.errors import DwcpError

START_SECONDS: Final = 90.0
STOP_SECONDS: Final = 20.0

# The child sets the signal itself, in a process that has one thread, and then runs the command.
_ORPHAN_GUARD: Final = (
    "import ctypes, os, signal, sys\n"
    "ctypes.CDLL(None).prctl(1, signal.SIGTERM)\n"
    "if os.getppid() == int(sys.argv[1]):\n"
    "    os.execv(sys.argv[2], sys.argv[2:])\n"
)


def guarded(command: Sequence[str]) -> list[str]:
    """Return a command that ends when the thread that starts it ends, even by SIGKILL.

    Only Linux supports that; on other systems the command is returned unchanged.

    Parameters
    ----------
    command
        The program's absolute path, and its arguments.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-c", _ORPHAN_GUARD, str(os.getpid()), *command]


def await_ports(
    process: subprocess.Popen[bytes], port_file: Path, log: Path, what: str
) -> dict[str, int]:
    """Wait until a server has written its ports, and return them by protocol.

    Parameters
    ----------
    process
        The server; it is stopped if it takes too long.
    port_file
        The file that it writes atomically when it is ready.
    log
        Its log file.
    what
        Name of the server, for the error message.

    Raises
    ------
    DwcpError
        With the last line of its log if it ends first, or if it is not ready in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while not port_file.exists():
        if process.poll() is not None:
            last = last_line(log) or f"exit code {process.returncode}"
            raise DwcpError(f"{what} did not start: {last.removeprefix('dwcp-ml: ')}")
        if time.monotonic() > deadline:
            end(process)
            raise DwcpError(f"{what} was not ready after {START_SECONDS:.0f} s.")
        time.sleep(0.05)
    ports: dict[str, int] = json.loads(port_file.read_text())
    return ports


def end(process: subprocess.Popen[bytes], seconds: float = STOP_SECONDS) -> None:
    """Stop a process with SIGTERM, and with SIGKILL if that takes too long."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
        return
    process.kill()
    process.wait()


def last_line(log: Path) -> str:
    """Return the last line of a log; empty if there is none."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""
