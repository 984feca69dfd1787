"""A server with the memory that its manifest gives it, and what is watched while it is flooded."""

import contextlib
import http.client
import os
import shutil
import socket
import threading
import time
from pathlib import Path

from benchmarks.servers.usage import Memory, Usage
from tests.serving.http2 import Http2
from tests.serving.running import TIMEOUT_SECONDS, Server
from tests.serving.wire import BODY, PATH

MEMORY_LIMIT = 768 << 20
"""As in ``manifests/base/serving-runtime.yaml``."""

SLOWEST_SECONDS = 5.0
"""An ordinary request during a flood takes less, on a machine that does other things too."""

GROWTH_MB = 32.0
"""What a flood may leave behind, against the first of its kind."""

LIVE = "/v2/health/live"


class MemoryGroup:
    """A group of processes whose memory the kernel limits, where it lets this user make one."""

    def __init__(self, limit):
        self.directory = None
        for root, name in (
            (Path("/sys/fs/cgroup"), "memory.max"),
            (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        ):
            if not (root / "cgroup.procs").exists():
                continue
            with contextlib.suppress(OSError):
                self.directory = root / f"dwcp-ml-test-{os.getpid()}"
                self.directory.mkdir()
                (self.directory / name).write_text(str(limit))
                return
            self.close()

    def within(self):
        """Return the command that runs its arguments in the group; empty if there is none."""
        if self.directory is None:
            return []
        sh = shutil.which("sh") or "/bin/sh"
        enter = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
        return [sh, "-c", enter, str(self.directory)]

    def close(self):
        directory, self.directory = self.directory, None
        if directory is not None:
            with contextlib.suppress(OSError):
                directory.rmdir()


class Flooded:
    """A server that is flooded; ``close`` checks that it ends as ever."""

    def __init__(self, models, place):
        self._group = MemoryGroup(MEMORY_LIMIT)
        try:
            self.server = Server(models, place, within=self._group.within())
        except BaseException:
            self._group.close()
            raise
        self.port = self.server.http_port

    def close(self):
        try:
            self.check_alive()
            assert self.server.stop() == 0, self.server.log()
            log = self.server.log()
            assert "Traceback" not in log
            assert len(log) < 1 << 20, "a flood does not fill the log"
        finally:
            self.server.kill()
            self._group.close()

    def connect(self, receive_bytes=None):
        """Return a connection; ``receive_bytes`` is the size of its client's buffer."""
        stream = socket.socket()
        if receive_bytes:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        stream.settimeout(TIMEOUT_SECONDS)
        try:
            stream.connect(("127.0.0.1", self.port))
        except BaseException:
            stream.close()
            raise
        return stream

    def http2(self, **words):
        return Http2(self.port, **words)

    def memory_mb(self):
        return Memory.now(self.server.process.pid).pss

    def processor_seconds(self):
        """Return a function that returns the server's processor seconds from now on."""
        before = Usage.now(self.server.process.pid)
        return lambda: Usage.now(self.server.process.pid).seconds_since(before)

    def withstands(self, flood):
        """Flood the server twice: it answers others, and the second time leaves nothing behind.

        ``flood`` is called with a ``Witness``, and may call its ``sees`` while the flood stands.
        """
        settled = []
        for _ in range(2):
            with Witness(self) as witness:
                flood(witness)
                witness.sees(3)
            settled.append(self._settled(settled[0] + GROWTH_MB if settled else 0.0))
        assert settled[1] <= settled[0] + GROWTH_MB, settled
        self.check_alive()

    def check_alive(self):
        code = self.server.process.poll()
        assert code is None, f"the server ended with {code}:\n{self.server.log()}"

    def _settled(self, enough):
        """Return the least memory of the next seconds, soon if it is little enough."""
        least, ends = float("inf"), time.monotonic() + (5.0 if enough else 1.5)
        while time.monotonic() < ends and least > enough:
            time.sleep(0.25)
            least = min(least, self.memory_mb())
        return least


class Witness:
    """Another client, which sends ordinary requests during a flood; a context manager.

    Predictions on a connection that is kept, the liveness probe on a new connection each time, and
    the same over HTTP/2 on a connection that is kept.
    """

    def __init__(self, flooded):
        self._flooded = flooded
        self._ended = threading.Event()
        self._turns, self.slowest = 0, 0.0
        self._problem = None
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self):
        self._thread.start()
        self.sees(1)
        return self

    def __exit__(self, kind, *error):
        self._ended.set()
        self._thread.join(4 * TIMEOUT_SECONDS)
        if kind is None:
            self._check()

    def sees(self, turns):
        """Return when that many turns have begun and been answered from now on."""
        wanted = self._turns + turns + 1
        deadline = time.monotonic() + 4 * TIMEOUT_SECONDS
        while self._turns < wanted:
            self._check()
            assert time.monotonic() < deadline, "ordinary requests are not answered"
            time.sleep(0.005)

    def _check(self):
        assert self._problem is None, f"an ordinary request failed: {self._problem!r}"
        assert self.slowest < SLOWEST_SECONDS

    def _watch(self):
        address = "127.0.0.1", self._flooded.port
        kept = http.client.HTTPConnection(*address, timeout=TIMEOUT_SECONDS)
        try:
            with contextlib.closing(kept), self._flooded.http2() as http2:
                while not self._ended.is_set():
                    self._turn(lambda: _response(kept, "POST", PATH, BODY))
                    self._turn(lambda: http2.request("POST", PATH, BODY))
                    self._turn(lambda: http2.request("GET", LIVE))
                    with contextlib.closing(
                        http.client.HTTPConnection(*address, timeout=TIMEOUT_SECONDS)
                    ) as fresh:
                        self._turn(lambda one=fresh: _response(one, "GET", LIVE))
                    self._turns += 1
                    time.sleep(0.01)
        except BaseException as problem:
            self._problem = problem

    def _turn(self, request):
        started = time.monotonic()
        status, content = request()
        self.slowest = max(self.slowest, time.monotonic() - started)
        assert status == 200, f"status {status}: {content[:200]!r}"


def _response(connection, method, path, body=None):
    connection.request(method, path, body)
    response = connection.getresponse()
    return response.status, response.read()


def pour(stream, data, times, stuck_seconds=1.0):
    """Send ``data`` again and again without reading; return how often it went.

    It ends early when the server closes, or takes nothing for ``stuck_seconds``.
    """
    stream.settimeout(stuck_seconds)
    for sent in range(times):
        try:
            stream.sendall(data)
        except OSError:
            return sent
    return times


def closes(stream, seconds=TIMEOUT_SECONDS):
    """Return whether the server closes a connection; what it sends before is dropped."""
    stream.settimeout(seconds)
    try:
        while stream.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True
