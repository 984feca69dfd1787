"""Close connections that bring no request; Granian waits for the first byte of one for ever."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

_DESCRIPTORS: Final = Path("/proc/self/fd")


class Newcomers:
    """The connections of a port that have brought no request so far.

    Parameters
    ----------
    port
        The port of the server.
    seconds
        Time for the first request, from when it is first seen here.
    is_known
        Whether a peer, ``address:port``, has brought a request.
    """

    def __init__(self, port: int, seconds: float, is_known: Callable[[str], bool]) -> None:
        self._port = port
        self._seconds = seconds
        self._is_known = is_known
        self._deadlines: dict[str, float] = {}  # infinite once the peer is known

    def check(self) -> None:
        """Look at every connection, and shut down those whose time is over. Linux only."""
        if not _DESCRIPTORS.is_dir():
            return
        now = time.monotonic()
        deadlines: dict[str, float] = {}
        for entry in _DESCRIPTORS.iterdir():
            with contextlib.suppress(OSError):  # it is none of ours, or is gone meanwhile
                connection = _connection(entry, self._port)
                if connection is None:
                    continue
                with connection:
                    host, port = connection.getpeername()[:2]
                    peer = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                    deadline = self._deadlines.get(peer, now + self._seconds)
                    if self._is_known(peer):
                        deadline = math.inf
                    elif deadline < now:
                        connection.shutdown(socket.SHUT_RDWR)
                    deadlines[peer] = deadline
        self._deadlines = deadlines


def _connection(entry: Path, port: int) -> socket.socket | None:
    """Return a copy of a descriptor if it is a connection of the port."""
    if not str(entry.readlink()).startswith("socket:"):
        return None
    connection = socket.socket(fileno=os.dup(int(entry.name)))
    try:
        internet = connection.family in (socket.AF_INET, socket.AF_INET6)
        if internet and connection.getsockname()[1] == port:
            return connection
    except OSError:
        pass
    connection.close()
    return None
