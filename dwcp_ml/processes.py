"""Child processes: started so that they end with their parent, awaited, and stopped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from dwcp_ml.contract.errors import DwcpError

START_SECONDS: Final = 90.0
STOP_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.02

# The child sets the signal itself, in a process that has one thread, and then runs the command.
_ORPHAN_GUARD: Final = (
    "import ctypes, os, signal, sys\n"
    "ctypes.CDLL(None).prctl(1, signal.SIGTERM)\n"
    "if os.getppid() == int(sys.argv[1]):\n"
    "    os.execv(sys.argv[2], sys.argv[2:])\n"
)


class ChildProcess:
    """A running program; a context manager that stops it.

    On Linux it gets SIGTERM when the thread that started it ends, even by SIGKILL.

    Parameters
    ----------
    command
        The program's absolute path, and its arguments.
    log
        The file to which its output is appended; ``None``: the caller reads ``process.stdout``.
    new_session
        Whether Ctrl-C in the terminal reaches only its parent.

    Raises
    ------
    DwcpError
        If it can't be started.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path | None,
        *,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
        new_session: bool = False,
    ) -> None:
        self._name, self._log = name, log
        guard = [sys.executable, "-I", "-c", _ORPHAN_GUARD, str(os.getpid())]
        try:
            with contextlib.nullcontext(subprocess.PIPE) if log is None else log.open("ab") as out:
                self.process = subprocess.Popen(
                    [*(guard if sys.platform == "linux" else ()), *command],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    cwd=directory,
                    env={**os.environ, **(environment or {})},
                    start_new_session=new_session,
                )
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise DwcpError(f"can't start {command[0]}: {reason}.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def wait_until(self, is_ready: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Return when ``is_ready`` returns true.

        Raises
        ------
        DwcpError
            If the process ends before, or is not ready in time; with the last line of its log.
        """
        deadline = time.monotonic() + seconds
        while not is_ready():
            code, problem = self.process.poll(), ""
            if code is not None:
                problem = f"did not start ({describe_exit(code)})"
            elif time.monotonic() > deadline:
                problem = f"was not ready after {seconds:g} s"
            if problem:
                raise DwcpError(f"{self._name} {problem}{self.last_line()}.")
            time.sleep(_POLL_SECONDS)

    def wait_for_ports(self, path: Path) -> dict[str, int]:
        """Return the ports of ``dwcp-ml serve --port-file``, by protocol; see ``wait_until``."""
        self.wait_until(path.exists)
        ports: dict[str, int] = json.loads(path.read_text())
        return ports

    def last_line(self) -> str:
        """Return ``: `` and the last line of the log without its period; empty if there is none."""
        try:
            text = "" if self._log is None else self._log.read_text(errors="replace").strip()
        except OSError:
            return ""
        line = text.rpartition("\n")[2].removeprefix("dwcp-ml: ").rstrip(".")
        return f": {line}" if line else ""

    def stop(self) -> None:
        """End the process with SIGTERM, or with SIGKILL if that takes too long."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class LocalServer(ABC):
    """A server in a child process, on a port of the loopback interface.

    A context manager that starts and stops it.
    """

    port = 0

    def __init__(self) -> None:
        self._child: ChildProcess | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """Where clients connect: ``host:port``."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """The id of the process; ``None`` while none runs."""
        return None if self._child is None else self._child.process.pid

    @abstractmethod
    def _start(self) -> None:
        """Set ``_child`` and ``port``, and return when the server is ready."""

    def start(self) -> None:
        """Start the server, and return when it is ready.

        Raises
        ------
        DwcpError
            If it runs already, or does not become ready; with the last line of its log.
        """
        if self._child is not None:
            raise DwcpError(f"The server at {self.address} is running already.")
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the process; does nothing if none runs."""
        child, self._child = self._child, None
        if child is not None:
            child.stop()


def describe_exit(code: int) -> str:
    """Return an exit code in words: the signal's name for a negative one.

    >>> describe_exit(-9)
    'signal SIGKILL'
    """
    if code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
