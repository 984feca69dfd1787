"""Named fakes of the outside world: an HTTP server in a thread, and bounded clients."""

import asyncio
import contextlib
import http.client
import socket
import threading
from collections import Counter

LONGEST = 10.0
"""Seconds that a client waits for anything."""


class FakeServer:
    """Answers every request, keeps what it saw; ``stop`` is a kill: no goodbye to anybody.

    ``answer`` is (status, body), or a function of the request's first line and headers that
    returns it; the body of status 0 is sent as it is, without a head.
    """

    def __init__(self, answer=(200, b"ok"), port=0):
        self.answer = answer
        self.seen = []
        self.connections = 0
        self._writers = set()
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", port, limit=1 << 20)
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stop()

    async def _serve(self, reader, writer):
        self.connections += 1
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.split("\r\n")
                headers = {}
                for line in filter(None, lines):
                    name, _, value = line.partition(":")
                    headers[name.lower()] = value.strip()
                body = b""
                if "content-length" in headers:
                    body = await reader.readexactly(int(headers["content-length"]))
                elif headers.get("transfer-encoding") == "chunked":
                    body = await _chunks(reader)
                self.seen.append((first, headers, body))
                answer = self.answer(first, headers) if callable(self.answer) else self.answer
                status, content = answer
                if status:
                    content = b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (
                        status,
                        len(content),
                        content,
                    )
                writer.write(content)
                await writer.drain()
                if not status and content:
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def stop(self):
        if not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(LONGEST)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LONGEST)
        self._loop.close()

    async def _stop(self):
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


async def _chunks(reader):
    body = b""
    while True:
        size = int(await reader.readline(), 16)
        body += await reader.readexactly(size)
        await reader.readexactly(2)
        if not size:
            return body


def post(address, body=b"{}", headers=None, path="/v1/models/x:predict"):
    """Return (status, headers, body) of one request on a connection of its own."""
    connection = http.client.HTTPConnection(address, timeout=LONGEST)
    with contextlib.closing(connection):
        connection.request("POST", path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()


def count_arms(address, n, prefix="r", portion=100):
    """Send ``n`` requests, ``portion`` ahead of their answers; return Counter of (arm, status)."""
    host, port = address.split(":")
    counts = Counter()
    with socket.create_connection((host, int(port)), LONGEST) as stream:
        taken = stream.makefile("rb")
        for start in range(0, n, portion):
            numbers = range(start, min(n, start + portion))
            stream.sendall(
                b"".join(
                    b"POST /v1/models/x:predict HTTP/1.1\r\nHost: dwcp\r\n"
                    b"X-Request-Id: %b-%d\r\nContent-Length: 2\r\n\r\n{}"
                    % (prefix.encode(), number)
                    for number in numbers
                )
            )
            for _ in numbers:
                counts[_read_answer(taken)] += 1
        taken.close()
    return counts


def _read_answer(taken):
    status = int(taken.readline().split()[1])
    arm, length = "", 0
    for line in iter(taken.readline, b"\r\n"):
        name, _, value = line.decode("latin-1").partition(":")
        if name.lower() == "x-dwcp-arm":
            arm = value.strip()
        if name.lower() == "content-length":
            length = int(value)
    taken.read(length)
    return arm, status
