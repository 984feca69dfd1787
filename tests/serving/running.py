"""A server in a process of its own, and clients with a timeout."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

TIMEOUT_SECONDS = 10.0
"""The timeout of every client."""


class Server:
    """``dwcp-ml serve`` on free ports; ``stop`` ends it and returns its exit code.

    ``program`` is what Python runs instead, with the same options; ``within`` is a command that
    ends by executing its own arguments.
    """

    def __init__(self, models, place, *words, http_port=0, within=(),
                 program=("-m", "dwcp_ml.cli", "serve")):  # fmt: skip
        place.mkdir(parents=True, exist_ok=True)
        self.log_path = place / "server.log"
        ports = place / "ports.json"
        ports.unlink(missing_ok=True)
        command = [
            *within, sys.executable, *program, "--model_dir", str(models),
            "--http_port", str(http_port), "--grpc_port", "0", "--port-file", str(ports),
            *words,
        ]  # fmt: skip
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )
        deadline = time.monotonic() + 60.0
        while not ports.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"the server did not start:\n{self.log()}")
            time.sleep(0.02)
        bound = json.loads(ports.read_text())
        self.http_port, self.grpc_port = bound["http"], bound.get("grpc")
        self.requests_port = bound.get("requests")

    def log(self):
        return self.log_path.read_text()

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def wait(self):
        return self.process.wait(30.0)

    def stop(self):
        self.terminate()
        return self.wait()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10.0)

    def memory(self):
        """Resident bytes."""
        with Path(f"/proc/{self.process.pid}/statm").open() as stream:
            return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def request(self, method, path, body=None, headers=None, port=None):
        """Return (status, headers, body) of one request on a connection of its own."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", port or self.http_port, timeout=TIMEOUT_SECONDS
        )
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, dict(response.headers), response.read()

    def post(self, path, body, headers=None):
        content = body if isinstance(body, (bytes, bytearray)) else json.dumps(body).encode()
        return self.request("POST", path, content, headers)

    def raw(self, *parts, pause=0.0, expect=None):
        """Send bytes as they are; return all that comes until the server closes.

        With ``expect``, the client closes after that number of responses.
        """
        with socket.create_connection(("127.0.0.1", self.http_port), TIMEOUT_SECONDS) as stream:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for part in parts:
                stream.sendall(part)
                if pause:
                    time.sleep(pause)
            return receive(stream, expect)

    def responses(self, *parts, expect=1, pause=0.0):
        """Send bytes; return the responses, each as (status, headers, body)."""
        return split(self.raw(*parts, pause=pause, expect=expect))


def receive(stream, expect=None):
    """Return what arrives until ``expect`` responses are whole, or the server closes."""
    taken = b""
    while expect is None or len(split(taken)) < expect:
        part = stream.recv(1 << 16)
        if not part:
            break
        taken += part
    return taken


def split(taken):
    """Return the whole responses at the start of what was received; none has chunks."""
    responses = []
    while True:
        head, end, rest = taken.partition(b"\r\n\r\n")
        if not end:
            return responses
        first, *lines = head.decode("latin-1").split("\r\n")
        status = int(first.split(" ")[1])
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return responses
        if status != 100:
            responses.append((status, headers, rest[:length]))
        taken = rest[length:]


def plain(path, body, headers=()):
    """Return the bytes of a request with a plain body."""
    lines = [f"POST {path} HTTP/1.1", "Host: dwcp", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(path, body, sizes=(7, 1, 4096), headers=()):
    """Return the bytes of the same request with a chunked body."""
    lines = [f"POST {path} HTTP/1.1", "Host: dwcp", "Transfer-Encoding: chunked"]
    lines += [f"{name}: {value}" for name, value in headers]
    whole = "\r\n".join([*lines, "", ""]).encode("latin-1")
    start = number = 0
    while start < len(body):
        part = body[start : start + sizes[number % len(sizes)]]
        whole += b"%x\r\n%b\r\n" % (len(part), part)
        start += len(part)
        number += 1
    return whole + b"0\r\n\r\n"
