"""Load over gRPC: one call at a time on each of several channels, each with its own connection.

The messages are encoded once and the responses stay bytes. What the client costs is grpcio's, and
it shares nothing with the server but the machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import grpc

from benchmarks.servers.measurement import LoadFailed, Window

METHOD = "/inference.GRPCInferenceService/ModelInfer"
CALL_SECONDS = 10.0

_SPIN_SECONDS = 0.0015
"""The event loop wakes on whole milliseconds: what is due sooner is waited for awake."""


class GrpcLoad:
    """Channels to one server, all connected; an asynchronous context manager.

    Parameters
    ----------
    address
        Host and port.
    request
        An encoded ``ModelInferRequest``.
    connections
        The number of channels.
    """

    def __init__(self, address: tuple[str, int], request: bytes, connections: int) -> None:
        own_connection = [("grpc.use_local_subchannel_pool", 1)]
        self._request = request
        self._channels = [
            grpc.aio.insecure_channel(f"{address[0]}:{address[1]}", options=own_connection)
            for _ in range(connections)
        ]
        self._calls = [channel.unary_unary(METHOD) for channel in self._channels]

    async def __aenter__(self) -> GrpcLoad:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(channel.close() for channel in self._channels))

    async def closed(self, seconds: float) -> Window:
        """Call on each channel when the last call is answered."""
        window = Window()
        ends = window.started + seconds

        async def client(call: Any) -> None:
            while (now := time.perf_counter()) < ends:
                await self._send(call, now, window)

        await asyncio.gather(*(client(call) for call in self._calls))
        return window

    async def open(self, gaps: Iterator[float], seconds: float) -> Window:
        """Call when a request is due; one that finds no free channel waits for it."""
        window = Window()
        ends = window.started + seconds
        due: asyncio.Queue[float | None] = asyncio.Queue()

        async def client(call: Any) -> None:
            while (when := await due.get()) is not None:
                await self._send(call, when, window)

        async def offer() -> None:
            when = window.started + next(gaps)
            while when < ends:
                await asyncio.sleep(max(0.0, when - time.perf_counter() - _SPIN_SECONDS))
                while when < min(ends, time.perf_counter()):
                    due.put_nowait(when)
                    when += next(gaps)
            for _ in self._calls:
                due.put_nowait(None)

        await asyncio.gather(offer(), *(client(call) for call in self._calls))
        return window

    async def _send(self, call: Any, due: float, window: Window) -> None:
        try:
            await call(self._request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise LoadFailed(f"The gRPC server does not answer: {error.details()}.") from error
            status = 500
        else:
            status = 200
        now = time.perf_counter()
        window.record(status, now - due, now)
