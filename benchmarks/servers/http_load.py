"""Load over HTTP/1.1: one request at a time on each of several connections, by epoll.

A request is sent as the bytes that were encoded once, and of a response only its status and its
length are read, so that the generator costs less than any server.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping

from benchmarks.servers.measurement import LoadFailed, Window

LONGEST_HEAD = 64 << 10
STALL_SECONDS = 10.0
"""Without a single response for that long, the load fails."""

_SPIN_SECONDS = 0.0015
"""epoll waits whole milliseconds: what is due sooner is waited for awake."""


class Connection:
    """A connection that is kept alive, and what has been received on it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.stream = socket.create_connection(address, STALL_SECONDS)
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream.setblocking(False)
        self.due = 0.0
        self._unsent = b""
        self._received = b""

    def send(self, request: bytes) -> bool:
        """Send a request; ``False`` if a part of it is left for ``flush``."""
        self._unsent = request
        return self.flush()

    def flush(self) -> bool:
        """Send what is left, as far as that goes; ``True`` if nothing is left."""
        try:
            sent = self.stream.send(self._unsent)
        except BlockingIOError:
            return False
        self._unsent = self._unsent[sent:]
        return not self._unsent

    def receive(self) -> int | None:
        """Return the status of the response, ``None`` if it is not whole yet.

        Raises
        ------
        LoadFailed
            If the server closes the connection, or what it sends is no response with a length.
        """
        try:
            part = self.stream.recv(1 << 18)
        except BlockingIOError:
            return None
        if not part:
            raise LoadFailed("The server closed a connection in the middle of the load.")
        self._received += part
        status, end = whole(self._received)
        if status is None:
            return None
        if end != len(self._received):
            raise LoadFailed("The server sent more bytes than its Content-Length says.")
        self._received = b""
        return status


def whole(received: bytes) -> tuple[int | None, int]:
    r"""Return the status of a response and where it ends; ``(None, 0)`` if it is not whole.

    Raises
    ------
    LoadFailed
        If it is no response with a length.

    >>> whole(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
    (200, 40)
    """
    end = received.find(b"\r\n\r\n")
    if end < 0:
        if len(received) > LONGEST_HEAD:
            raise LoadFailed("The head of a response has no end.")
        return None, 0
    head = received[: end + 2].lower()
    found = head.find(b"\r\ncontent-length:")
    if not head.startswith(b"http/1.1 ") or found < 0:
        raise LoadFailed(f"Expected a response with a Content-Length: {received[:80]!r}.")
    end += 4 + int(head[found + 17 : head.index(b"\r\n", found + 2)])
    if len(received) < end:
        return None, 0
    return int(head[9:12]), end


class HttpLoad:
    """Connections to one server; a context manager.

    Parameters
    ----------
    address
        Host and port.
    request
        The bytes of the request.
    connections
        Their number.
    """

    def __init__(self, address: tuple[str, int], request: bytes, connections: int) -> None:
        self._request = request
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        for _ in range(connections):
            made = Connection(address)
            self._connections[made.stream.fileno()] = made
            self._epoll.register(made.stream.fileno(), select.EPOLLIN)

    def __enter__(self) -> HttpLoad:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections.values():
            connection.stream.close()
        self._epoll.close()

    def closed(self, seconds: float) -> Window:
        """Send the next request on a connection when the last one is answered."""
        window = Window()
        ends = window.started + seconds
        for connection in self._connections.values():
            self._send(connection, time.perf_counter())
        waiting = len(self._connections)
        while waiting:
            for connection, status, now in self._responses(STALL_SECONDS):
                window.record(status, now - connection.due, now)
                if now < ends:
                    self._send(connection, now)
                else:
                    waiting -= 1
        return window

    def open(self, gaps: Iterator[float], seconds: float) -> Window:
        """Send requests when they are due, whether or not others are answered.

        A request that finds no free connection waits for one. Latency runs from the time at which
        it was due.
        """
        window = Window()
        ends = window.started + seconds
        free = deque(self._connections.values())
        due = window.started + next(gaps)
        busy = 0
        while busy or due < ends:
            now = time.perf_counter()
            while free and due <= now and due < ends:
                self._send(free.popleft(), due)
                busy += 1
                due += next(gaps)
            wait = STALL_SECONDS
            if free and due < ends:
                wait = due - now - _SPIN_SECONDS
            for connection, status, received in self._responses(max(wait, 0.0), must=False):
                window.record(status, received - connection.due, received)
                free.append(connection)
                busy -= 1
        return window

    def _send(self, connection: Connection, due: float) -> None:
        connection.due = due
        if not connection.send(self._request):
            self._epoll.modify(connection.stream.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _responses(
        self, seconds: float, *, must: bool = True
    ) -> Iterator[tuple[Connection, int, float]]:
        events = self._epoll.poll(seconds)
        if not events and (must or seconds >= STALL_SECONDS):
            raise LoadFailed(f"The server sent no response for {STALL_SECONDS:.0f} s.")
        for number, event in events:
            connection = self._connections[number]
            if event & select.EPOLLOUT and connection.flush():
                self._epoll.modify(number, select.EPOLLIN)
            if event & ~select.EPOLLOUT:
                status = connection.receive()
                if status is not None:
                    yield connection, status, time.perf_counter()


def post(
    host: str, path: str, body: bytes, content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> bytes:  # fmt: skip
    """Return the bytes of a request."""
    fields = {"Host": host, "Content-Type": content_type, **(headers or {})}
    fields["Content-Length"] = str(len(body))
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body
