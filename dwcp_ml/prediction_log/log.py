"""What the server answered, kept so that it can be held against what came true.

The event loop hands a request over (:meth:`PredictionLog.offer`) and goes on; a thread writes. What
can't be written is counted and forgotten: a log is never the reason that a request waits or fails.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.files import make_directory
from dwcp_ml.prediction_log.format import LONGEST_NAME, LogRecord, encode, is_sampled
from dwcp_ml.prediction_log.reader import read_log
from dwcp_ml.prediction_log.writer import LogWriter

__all__ = ["LogRecord", "PredictionLog", "is_sampled", "read_log"]

SMALLEST_LOG_BYTES: Final = 100_000
"""Less would not hold the segments of a few servers."""

PAUSE_SECONDS: Final = 0.1
"""Between two looks at the queue: waking the writer would cost the event loop a lock."""

PORTION: Final = 16
"""Requests that are encoded before others may run: Python runs one thread at a time, and the
event loop must not wait for a long portion."""


class _Offer(NamedTuple):
    """One request, as it waits to be written."""

    common: dict[str, Any]
    inputs: NDArray[Any]
    outputs: dict[str, NDArray[Any]]


class PredictionLog:
    """A bounded log of predictions in a directory that several processes may share.

    Parameters
    ----------
    directory
        Made if it is not there.
    sample
        Share of the requests that are logged, 0 to 1; which ones, their ids decide, so that stable
        and candidate log the same.
    max_bytes
        What the directory may hold, all processes together; the oldest segments are removed first.
        At least 100 kB.
    queue_length
        Instances that may wait for the writer; more are dropped and counted.
    clock
        Epoch seconds.
    segment_seconds
        A segment is finished when it is so old, or full: finished segments can be shipped.

    Raises
    ------
    UsageError
        If a parameter is out of its range.
    DwcpError
        If the directory can't be written.
    """

    def __init__(
        self,
        directory: Path,
        *,
        sample: float = 1.0,
        max_bytes: int = 1_000_000_000,
        queue_length: int = 10_000,
        clock: Callable[[], float] = time.time,
        segment_seconds: float = 300.0,
    ) -> None:
        _check(sample, max_bytes, queue_length)
        self._sample = sample
        self._queue_length = queue_length
        self._clock = clock
        self._writer = LogWriter(make_directory(directory), max_bytes, segment_seconds, clock)
        self._queue: deque[_Offer] = deque()
        # Each count has one thread that writes it, so none needs a lock.
        self._offered = self._taken = self._refused = 0
        self._closing = threading.Event()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Instances that were to be logged and were not: queue full, disk full, closed."""
        return self._refused + self._writer.lost

    @property
    def written(self) -> int:
        """Instances that were handed to the file system."""
        return self._writer.written

    @property
    def removed_segments(self) -> int:
        """Segments that this process removed to stay below ``max_bytes``."""
        return self._writer.removed_segments

    def offer(  # noqa: PLR0913 - one argument for each field of a record
        self,
        model: str,
        version: str,
        digest: str,
        request_id: str,
        link: str | None,
        observed_at: float | None,
        inputs: NDArray[Any],
        outputs: Mapping[str, NDArray[Any]],
        *,
        protocol: str = "",
    ) -> None:
        """Hand over what was answered to one request; never waits, never raises.

        Call it from one thread, that of the event loop.

        Parameters
        ----------
        model, version, digest
            Full name and version of the model, SHA-256 of its manifest.
        request_id, link, observed_at
            The request's headers; times are epoch seconds.
        inputs : (rows, ...)
        outputs
            Each of shape (rows, ...).
        protocol
            Such as ``v1``, ``v2``, ``grpc``.
        """
        try:
            if not is_sampled(request_id, self._sample):
                return
            rows = len(inputs)
            room = self._queue_length - (self._offered - self._taken)
            if rows > room or self._closing.is_set():
                self._refused += rows
                return
            common = {
                "model": model,
                "version": version,
                "digest": digest,
                "request_id": request_id[:LONGEST_NAME],
                "link": None if link is None else link[:LONGEST_NAME],
                "observed_at": observed_at,
                "received_at": self._clock(),
                "protocol": protocol,
            }
            # Copies: the server may reuse its buffers before the writer gets here.
            answers = {name: np.array(values) for name, values in outputs.items()}
            self._queue.append(_Offer(common, np.array(inputs), answers))
            self._offered += rows
        except Exception:  # what can't be logged must not fail the request
            self._refused += 1

    def close(self, timeout_seconds: float) -> None:
        """Write what waits, finish the segment, and stop; what is not written in time is dropped.

        Calling it again does nothing.
        """
        self._deadline = min(self._deadline, time.monotonic() + timeout_seconds)
        self._closing.set()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while not self._closing.wait(PAUSE_SECONDS):
            self._write_what_waits()
            self._writer.do_what_is_due()
        self._write_what_waits()
        late = sum(len(offer.inputs) for offer in self._queue)
        if late:
            self._writer.lose(late, TimeoutError("the server closed before they were written"))
        self._writer.finish()

    def _write_what_waits(self) -> None:
        while self._queue and time.monotonic() < self._deadline:
            lines: list[bytes] = []
            for _ in range(min(PORTION, len(self._queue))):
                offer = self._queue.popleft()
                try:
                    lines += encode(*offer)
                except Exception as error:  # an output that JSON can't hold: the next one may do
                    self._writer.lose(len(offer.inputs), error)
                self._taken += len(offer.inputs)
            self._writer.write(lines)
            time.sleep(0)


def _check(sample: float, max_bytes: int, queue_length: int) -> None:
    if not 0.0 <= sample <= 1.0:
        raise UsageError(f"the sampled share of the prediction log must be 0 to 1, not {sample}.")
    if max_bytes < SMALLEST_LOG_BYTES:
        raise UsageError(
            f"the prediction log must be given at least {SMALLEST_LOG_BYTES} bytes, "
            f"not {max_bytes}."
        )
    if queue_length < 1:
        raise UsageError(f"the prediction log must queue at least 1 record, not {queue_length}.")
