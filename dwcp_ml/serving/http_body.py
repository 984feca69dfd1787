"""The body of a request over HTTP, as it arrives: bounded in bytes and in time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from dwcp_ml.contract.errors import ErrorCode
from dwcp_ml.serving.engine import Engine
from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.rejections import RequestRejected, TooLarge
from dwcp_ml.serving.request import Body


class TooSlow(RequestRejected):
    """The body of a request did not arrive in time."""

    status = 408


class Disconnected(Exception):
    """The client left before its body was complete."""


class Taken:
    """The bytes of one request that count as in flight."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._size = 0

    def grow(self, size: int) -> None:
        """Count a body that has this size now."""
        more, self._size = size - self._size, size
        self._engine.take(more)

    def release(self) -> None:
        """Count the body as gone."""
        self._engine.release(self._size)
        self._size = 0


class Bodies:
    """The bodies of requests, as they arrive.

    Parameters
    ----------
    engine
        Whose limits they keep.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._limits = engine.limits
        self._arriving: dict[asyncio.Task[Any], float] = {}  # by their deadline, ascending

    async def read(self, protocol: Any, declared: int | None, taken: Taken) -> tuple[Body, bool]:
        """Return the body, and whether it may be cut off.

        Parameters
        ----------
        declared
            Its length, if the client says one.

        Raises
        ------
        TooLarge
            If it is over the limit; the rest is not read.
        ModelUnavailable
            If the server holds too many bytes already.
        TooSlow
            If it does not arrive in time.
        Disconnected
            If the client leaves.
        """
        cut = False
        whole: Body
        task: Any = asyncio.current_task()
        self._arriving[task] = time.monotonic() + self._limits.arrival_seconds
        try:
            if declared is not None and declared <= self._limits.inline_bytes:
                whole = await protocol()
            else:
                whole, cut = await self._parts(protocol, taken)
        except RuntimeError as error:  # Granian's, when the connection ends
            raise Disconnected from error
        except asyncio.CancelledError:
            if task in self._arriving:  # somebody else's
                raise
            task.uncancel()
            seconds = self._limits.arrival_seconds
            raise TooSlow(f"The request did not arrive within {seconds:g} seconds.") from None
        finally:
            self._arriving.pop(task, None)
        if declared is not None and len(whole) < declared:  # a stream has no error for this
            raise Disconnected
        return whole, cut

    async def _parts(self, protocol: Any, taken: Taken) -> tuple[Body, bool]:
        """Return a body as it arrives, and whether it may be cut off.

        Granian gives an empty part for the end, for an error, for a trailer, and for an empty frame
        of HTTP/2.
        """
        parts = bytearray()
        empty = 0
        async for part in protocol:
            empty += not part
            parts += part
            if len(parts) > self._limits.inline_bytes:
                taken.grow(len(parts))
            if len(parts) > self._limits.body_bytes:
                raise too_large(self._limits)
        return parts, empty > 1

    async def discard(self, protocol: Any) -> None:
        """Read the rest of a body whose request is rejected, for a limited time.

        A client that only reads when it has sent everything would not see its response else.
        """
        with contextlib.suppress(RuntimeError):
            aiter(protocol)  # has begun already if a part of the body was taken
        ends = time.monotonic() + self._limits.arrival_seconds
        with contextlib.suppress(RuntimeError, StopAsyncIteration):
            while time.monotonic() < ends and not self._engine.draining:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        while True:  # anext() of Python 3.11 ends the process at the body's end
                            await protocol.__anext__()

    async def watch(self) -> None:
        """Cancel what waits for a body that does not arrive in time."""
        while True:
            await asyncio.sleep(min(1.0, self._limits.arrival_seconds / 4))
            now = time.monotonic()
            late = [task for task, deadline in self._arriving.items() if deadline < now]
            for task in late:
                del self._arriving[task]
                task.cancel()


def too_large(limits: Limits) -> TooLarge:
    """Return the rejection of a body over the limit."""
    return TooLarge(
        f"The body may have at most {limits.body_bytes} bytes.",
        code=ErrorCode.TOO_LARGE,
        subject="body",
    )
