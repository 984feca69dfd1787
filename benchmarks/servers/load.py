"""The load generator, in a process of its own: a job as JSON on standard input, figures on output.

python -m benchmarks.servers.load < job.json
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import gc
import json
import sys
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.servers.http_load import HttpLoad
from benchmarks.servers.measurement import LoadFailed, Window, poisson
from benchmarks.servers.usage import Usage


@dataclass(frozen=True)
class Job:
    """Load to put on a server.

    Parameters
    ----------
    protocol
        ``grpc``, or any other for HTTP.
    host, port, pid
        The server's.
    request
        The bytes of a request, whole.
    connections
        Their number.
    seconds, warm_up_seconds
        The measured stretch, and the one before it.
    rate
        Requests a second that are due at random times; ``None`` sends the next one on a connection
        when the last one is answered.
    seed
        Of those times.
    """

    protocol: str
    host: str
    port: int
    pid: int
    request: bytes
    connections: int
    seconds: float
    warm_up_seconds: float = 0.5
    rate: float | None = None
    seed: int = 1

    def to_json(self) -> str:
        fields = dataclasses.asdict(self)
        return json.dumps(fields | {"request": base64.b64encode(self.request).decode()})

    @classmethod
    def from_json(cls, text: str) -> Job:
        fields = json.loads(text)
        return cls(**fields | {"request": base64.b64decode(fields["request"])})

    def run(self) -> dict[str, Any]:
        """Put the load on the server; return the figures of the measured stretch.

        Raises
        ------
        LoadFailed
            If the server does not answer.
        """
        gc.disable()  # the latencies are the server's
        if self.protocol == "grpc":
            return asyncio.run(self._grpc())
        return self._http()

    def _http(self) -> dict[str, Any]:
        with HttpLoad((self.host, self.port), self.request, self.connections) as load:
            load.closed(self.warm_up_seconds)
            before, own = Usage.now(self.pid), time.process_time()
            if self.rate is None:
                window = load.closed(self.seconds)
            else:
                window = load.open(poisson(self.rate, self.seed), self.seconds)
            return self._figures(window, before, own)

    async def _grpc(self) -> dict[str, Any]:
        from benchmarks.servers.grpc_load import GrpcLoad

        async with GrpcLoad((self.host, self.port), self.request, self.connections) as load:
            await load.closed(self.warm_up_seconds)
            before, own = Usage.now(self.pid), time.process_time()
            if self.rate is None:
                window = await load.closed(self.seconds)
            else:
                window = await load.open(poisson(self.rate, self.seed), self.seconds)
            return self._figures(window, before, own)

    def _figures(self, window: Window, before: Usage, own: float) -> dict[str, Any]:
        return window.figures(before, Usage.now(self.pid), time.process_time() - own)


def main() -> int:
    try:
        print(json.dumps(Job.from_json(sys.stdin.read()).run()))
    except (LoadFailed, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
