"""One GET that ends in time and fits into memory, whatever the other side does."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from dwcp_ml.contract.errors import DwcpError

LARGEST_BYTES: Final = 8_000_000
"""The metrics of four models with their sketches are about 100 kB."""

_CONNECTIONS: Final[dict[str, type[http.client.HTTPConnection]]] = {
    "http": http.client.HTTPConnection,
    "https": http.client.HTTPSConnection,
}


class SourceError(DwcpError):
    """A source does not answer, not in time, or not what it was asked."""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def get(
    url: str,
    timeout_seconds: float,
    *,
    headers: Mapping[str, str] | None = None,
    largest_bytes: int = LARGEST_BYTES,
    unix_socket: Path | None = None,
) -> bytes:
    """Return the body of a 200; redirects are not followed.

    Parameters
    ----------
    url
        ``http://host:port/path`` or ``https://…``.
    timeout_seconds
        For the whole exchange: a server that sends one byte now and then is cut off, too.
    largest_bytes
        Of the body.
    unix_socket
        Connect here instead; of the URL only path and query count.

    Raises
    ------
    SourceError
        If nobody answers in time, the status is another one, or the body is too large.
    """
    status, body = exchange(
        url, timeout_seconds, headers=headers, largest_bytes=largest_bytes, unix_socket=unix_socket
    )
    if status != 200:
        raise SourceError(f"{url} answers {status}.")
    return body


def exchange(
    url: str,
    timeout_seconds: float,
    *,
    headers: Mapping[str, str] | None = None,
    largest_bytes: int = LARGEST_BYTES,
    unix_socket: Path | None = None,
) -> tuple[int, bytes]:
    """Return status and body of a GET, whatever the status; see ``get``."""
    shown = url.partition("?")[0]
    parts = urllib.parse.urlsplit(url)
    target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
    connection = _connection(url, parts, timeout_seconds, unix_socket)
    deadline = time.monotonic() + timeout_seconds
    try:
        connection.connect()
        with _cut_off(connection.sock, deadline):
            connection.request("GET", target, headers=dict(headers or {}))
            answer = connection.getresponse()
            if answer.length is None and not answer.chunked:
                raise http.client.HTTPException("it does not say how long its answer is")
            body = answer.read(largest_bytes + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if time.monotonic() >= deadline:
            raise SourceError(f"{shown} did not answer within {timeout_seconds:g} s.") from error
        raise SourceError(f"{shown} does not answer: {_reason(error)}.") from error
    finally:
        connection.close()
    if len(body) > largest_bytes:
        raise SourceError(f"{shown} answers with more than {largest_bytes} bytes.")
    if time.monotonic() >= deadline or (answer.length or 0) > 0:
        raise SourceError(f"{shown} did not answer within {timeout_seconds:g} s, or not in full.")
    return answer.status, body


def _connection(
    url: str, parts: urllib.parse.SplitResult, timeout: float, unix_socket: Path | None
) -> http.client.HTTPConnection:
    if unix_socket is not None:
        return _UnixConnection(unix_socket, timeout)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if parts.scheme not in _CONNECTIONS or not host:
        raise SourceError(f"{url} is no address: write http://host:port.")
    return _CONNECTIONS[parts.scheme](host, port, timeout=timeout)


@contextlib.contextmanager
def _cut_off(stream: socket.socket, deadline: float) -> Iterator[None]:
    """End whatever waits for the stream at ``deadline``: a socket's own timeout begins anew with
    each byte.
    """  # noqa: D205
    timer = threading.Timer(max(0.0, deadline - time.monotonic()), _shut_down, [stream])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _shut_down(stream: socket.socket) -> None:
    with contextlib.suppress(OSError):
        stream.shutdown(socket.SHUT_RDWR)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
