"""HTTP requests that end in time and fit into memory, whatever the server does.

Every outgoing HTTP request of the package is made here, over the adapter of ``requests``. Redirects
are not followed, so a token stays with the server that it is for; cookies and ``.netrc`` are not
used. Proxies are taken from ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import ipaddress
import json
import os
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from dwcp_ml.contract.errors import DwcpError, ErrorCode

MAX_BYTES: Final = 8_000_000
"""The metrics of four models with their sketches are about 100 kB."""

CONNECT_SECONDS: Final = 5.0
_MAX_CONNECTIONS: Final = 32
"""Connections to one server that are kept open for later requests."""


class HttpError(DwcpError):
    """A server gave no response in time, or not a usable one; whether it acted is unknown."""


class NoResponse(HttpError):
    """No response was received.

    Parameters
    ----------
    reason
        Why, such as ``connection refused``.
    """

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"{_without_secrets(url)} gave no response: {reason}.", code=ErrorCode.NO_RESPONSE
        )
        self.reason = reason


@dataclass(frozen=True)
class Response:
    """An HTTP response; ``headers`` by lower-case name."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body's JSON; ``None`` if it is not JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):  # the latter: nested too deep
            return None


@dataclass(frozen=True)
class Tls:
    """How servers are verified, and what the client shows them.

    Parameters
    ----------
    ca_file
        The authorities that are trusted; ``None`` for those of the machine (``SSL_CERT_FILE``,
        ``SSL_CERT_DIR``).
    server_name
        The name in the server's certificate, where it is not that of the address.
    """

    ca_file: str | None = None
    verify: bool = True
    client_cert: tuple[str, str] | None = None
    server_name: str | None = None


class HttpSession:
    """Requests that share connections. Can be used from several threads.

    Parameters
    ----------
    unix_socket
        Connect here; of each URL only path and query count.
    """

    def __init__(
        self, *, max_bytes: int = MAX_BYTES, tls: Tls | None = None, unix_socket: Path | None = None
    ) -> None:
        self._max_bytes = max_bytes
        self._tls = tls or Tls()
        self._unix_socket = unix_socket
        self._adapter = _Adapter(self._tls.server_name, unix_socket)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._adapter.close()

    def request(
        self,
        method: str,
        url: str,
        timeout_seconds: float,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Response:
        """Return the response, whatever its status.

        A GET is sent a second time if the server closes the connection instead of responding.

        Parameters
        ----------
        url
            ``http://host:port/path`` or ``https://…``.
        timeout_seconds
            For the whole exchange: a server that sends one byte now and then is cut off, too.

        Raises
        ------
        HttpError
            If there is no complete response in time, or its body is too large.
        """
        message = requests.Request(method, url, headers=dict(headers or {}), data=body)
        deadline = time.monotonic() + timeout_seconds
        try:
            return self._send(message, timeout_seconds)
        except NoResponse as error:
            left = deadline - time.monotonic()
            # A server may close a connection that was kept open just as it is used again.
            if method != "GET" or not _broke_off(error) or left <= 0.0:
                raise
        return self._send(message, left)

    def _send(self, message: requests.Request, timeout_seconds: float) -> Response:
        url = message.url
        try:
            proxy = None if self._unix_socket is not None else proxy_of(url)
            response = self._adapter.send(
                message.prepare(),
                stream=True,
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, total=timeout_seconds),
                verify=self._verify(url),
                cert=self._tls.client_cert,
                proxies={} if proxy is None else {"all": proxy},
            )
            with contextlib.closing(response):
                return self._read(response.raw, url)
        except (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema) as error:
            raise HttpError(
                f"{_without_secrets(url)} is not an address: write http://host:port.",
                code=ErrorCode.INVALID_ADDRESS,
            ) from error
        except (
            requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError,
        ) as error:  # fmt: skip
            raise NoResponse(url, _reason(error, timeout_seconds)) from error

    def _verify(self, url: str) -> str | bool:
        if url.startswith("http:"):
            return True  # there is no certificate, and no need to look for authorities
        return self._tls.verify and (self._tls.ca_file or _machine_authorities())

    def _read(self, raw: urllib3.HTTPResponse, url: str) -> Response:
        # The end of the connection may also be a fault: then a part would pass for the whole.
        if raw.length_remaining is None and not raw.chunked:
            raise NoResponse(url, "the response does not say how long it is")
        body = raw.read(self._max_bytes + 1, decode_content=True)
        if len(body) > self._max_bytes:
            raise HttpError(
                f"{_without_secrets(url)} sends more than {self._max_bytes} bytes.",
                code=ErrorCode.TOO_LARGE,
                subject=str(self._max_bytes),
            )
        headers = {name.lower(): value for name, value in raw.headers.items()}
        return Response(raw.status, headers, body)


def request(
    method: str,
    url: str,
    timeout_seconds: float,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    max_bytes: int = MAX_BYTES,
    unix_socket: Path | None = None,
) -> Response:
    """Return the response to one request on a connection of its own; see ``HttpSession``."""
    with HttpSession(max_bytes=max_bytes, unix_socket=unix_socket) as session:
        return session.request(method, url, timeout_seconds, headers=headers, body=body)


def get(
    url: str,
    timeout_seconds: float,
    *,
    headers: Mapping[str, str] | None = None,
    max_bytes: int = MAX_BYTES,
    unix_socket: Path | None = None,
) -> bytes:
    """Return the body of a response with status 200; see ``request``.

    Raises
    ------
    HttpError
        If there is no response in time, or it has another status.
    """
    response = request(
        "GET", url, timeout_seconds, headers=headers, max_bytes=max_bytes, unix_socket=unix_socket
    )
    if response.status != 200:
        raise HttpError(
            f"{_without_secrets(url)} responded with {response.status}.",
            code=ErrorCode.STATUS,
            subject=str(response.status),
        )
    return response.body


def proxy_of(url: str) -> str | None:
    """Return the proxy that the environment names for a URL; ``None`` for a direct connection.

    As in curl and Go, an entry of ``NO_PROXY`` is a host with its subdomains, an address, a network
    such as ``10.0.0.0/8``, or ``*``, and may end in a port. As in Go, this machine itself is never
    reached through a proxy.
    """
    parts = urlsplit(url)
    proxy = _variable(f"{parts.scheme}_proxy") or _variable("all_proxy")
    host = (parts.hostname or "").rstrip(".")
    if not proxy or host == "localhost":
        return None
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    entries = [entry.strip().lower() for entry in _variable("no_proxy").split(",")]
    return None if any(_names(entry, host, str(port)) for entry in entries if entry) else proxy


def _variable(name: str) -> str:
    return os.environ.get(name) or os.environ.get(name.upper(), "")


def _names(entry: str, host: str, port: str) -> bool:
    """Return whether an entry of ``NO_PROXY`` names the host."""
    with contextlib.suppress(ValueError):
        network = ipaddress.ip_network(entry.strip("[]"), strict=False)
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(host) in network
        return False
    name, colon, of_port = entry.rpartition(":")
    if colon and of_port.isdecimal():
        return of_port == port and _names(name, host, port)
    name = entry.removeprefix("*").strip(".")
    return entry == "*" or (name != "" and (host == name or host.endswith(f".{name}")))


def _machine_authorities() -> str | bool:
    """Return the file or directory of the authorities that this machine trusts.

    ``True`` where it has none: for those that come with ``requests``.
    """
    paths = ssl.get_default_verify_paths()
    if paths.cafile:
        return paths.cafile
    if paths.capath and any(os.scandir(paths.capath)):
        return paths.capath
    return True


def _without_secrets(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//", url.partition("?")[0])


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _broke_off(error: NoResponse) -> bool:
    """Return whether there was a connection and the server closed it."""
    return any(
        isinstance(cause, ConnectionResetError | BrokenPipeError | http.client.RemoteDisconnected)
        for cause in _causes(error)
    )


def _reason(error: Exception, timeout_seconds: float) -> str:
    """Return why there is no response, in the system's words where it has some."""
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {min(CONNECT_SECONDS, timeout_seconds):g} s"
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return f"not within {timeout_seconds:g} s"
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return "there is no host of that name"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
        if isinstance(cause, http.client.IncompleteRead | http.client.RemoteDisconnected):
            return "the connection broke off"
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__


class _TimedStream(io.RawIOBase):
    """Reads from a socket until a deadline: the socket's own timeout starts again with each read.

    The deadline is the timeout that the socket has when the reading starts, which is what the
    connection and the request have left of the whole.
    """

    def __init__(self, stream: socket.socket, raw: io.RawIOBase) -> None:
        self._socket, self._raw = stream, raw
        self._seconds = stream.gettimeout() or 0.0
        self._deadline = time.monotonic() + self._seconds

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read what is there, or wait for it until the deadline."""
        left = self._deadline - time.monotonic()
        if left <= 0.0:
            raise TimeoutError("the response is not complete in time")
        self._socket.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        """Leave the socket as it was, for the next request."""
        if not self.closed:
            with contextlib.suppress(OSError):
                self._socket.settimeout(self._seconds)
            self._raw.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    """A response whose head and body come before a deadline."""

    def __init__(self, sock: socket.socket, *words: Any, **options: Any) -> None:
        super().__init__(sock, *words, **options)
        self.fp = io.BufferedReader(_TimedStream(sock, self.fp.detach()))


class _Connection(HTTPConnection):
    response_class = _TimedResponse


class _TlsConnection(HTTPSConnection):
    response_class = _TimedResponse


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(HTTPAdapter):  # type: ignore[misc]  # requests has no types
    """The adapter of ``requests`` with our connections."""

    def __init__(self, server_name: str | None, unix_socket: Path | None) -> None:
        self._options = {"server_hostname": server_name} if server_name else {}
        http_pool = _Pool if unix_socket is None else _unix_pool(unix_socket)
        self._pools = {"http": http_pool, "https": _TlsPool}
        super().__init__(pool_maxsize=_MAX_CONNECTIONS)

    def init_poolmanager(self, *words: Any, **options: Any) -> None:
        """Make the pools of direct connections."""
        super().init_poolmanager(*words, **options, **self._options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Return the pools of connections through a proxy."""
        manager = super().proxy_manager_for(proxy, **options, **self._options)
        manager.pool_classes_by_scheme = self._pools
        return manager


def _unix_pool(path: Path) -> type[_Pool]:
    class Connection(_Connection):
        def _new_conn(self) -> socket.socket:
            stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                stream.settimeout(self.timeout)
                stream.connect(str(path))
            except OSError:
                stream.close()
                raise
            return stream

    class Pool(_Pool):
        ConnectionCls = Connection

    return Pool
