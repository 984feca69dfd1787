"""Logs the predictions of the server, to be compared with the ground truth later.

The event loop queues a request (:meth:`PredictionLog.offer`) without waiting; a thread writes. What
can't be written is counted and dropped: logging never delays a request or makes it fail.
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

from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.contract.keys import link_of
from dwcp_ml.files import make_directory
from dwcp_ml.prediction_log.format import MAX_NAME_CHARACTERS, LogRecord, encode, is_sampled
from dwcp_ml.prediction_log.reader import read_log
from dwcp_ml.prediction_log.writer import LogWriter

__all__ = ["LogRecord", "PredictionLog", "is_sampled", "read_log"]

MIN_LOG_BYTES: Final = 100_000
"""Less would not hold the segments of a few servers."""

POLL_SECONDS: Final = 0.1
"""Interval at which the queue is polled: waking the writer would cost the event loop a lock."""

BATCH_REQUESTS: Final = 16
"""Requests that are encoded before others may run: Python runs one thread at a time, and the
event loop must not wait for a long batch."""


class _Offer(NamedTuple):
    """A request that waits to be written."""

    common: dict[str, Any]
    inputs: NDArray[Any]
    outputs: dict[str, NDArray[Any]]


class PredictionLog:
    """A bounded log of predictions in a directory that several processes may share.

    Parameters
    ----------
    directory
        Created if it does not exist.
    sample
        Fraction of the requests that are logged, 0 to 1; chosen by their ids, so that stable and
        candidate log the same requests.
    max_bytes
        Quota of the directory, for all processes together; the oldest segments are removed first.
        At least 100 kB.
    queue_length
        Instances that may wait for the writer; more are dropped and counted.
    clock
        Epoch seconds.
    segment_seconds
        Age at which a segment is finished if it is not full before: finished segments can be
        shipped.

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
        # Each count is written by one thread only, so none needs a lock.
        self._offered = self._dequeued = self._rejected = 0
        self._closing = threading.Event()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Instances of the sample that were not logged: queue full, disk full, closed."""
        return self._rejected + self._writer.lost

    @property
    def written(self) -> int:
        """Instances that were written to the file system."""
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
        """Queue the predictions for one request; never waits, never raises.

        Call it only from the thread of the event loop.

        Parameters
        ----------
        model, version, digest
            Full name and version of the model, SHA-256 of its manifest.
        request_id, link, observed_at
            The request's headers; times are epoch seconds.
        inputs : (rows, ...)
        outputs
            Each of shape (rows, ...).
        """
        try:
            if not is_sampled(request_id, self._sample):
                return
            rows = len(inputs)
            free = self._queue_length - (self._offered - self._dequeued)
            if rows > free or self._closing.is_set():
                self._rejected += rows
                return
            common = {
                "model": model,
                "version": version,
                "digest": digest,
                "request_id": request_id[:MAX_NAME_CHARACTERS],
                "link": None if link is None else link_of(link[:MAX_NAME_CHARACTERS]),
                "observed_at": observed_at,
                "received_at": self._clock(),
                "protocol": protocol,
            }
            # Copies: the server may reuse its buffers before the writer gets here.
            copies = {name: np.array(values) for name, values in outputs.items()}
            self._queue.append(_Offer(common, np.array(inputs), copies))
            self._offered += rows
        except Exception:  # a failure to log must not fail the request
            self._rejected += 1

    def close(self, timeout_seconds: float) -> None:
        """Write the queue, finish the segment, and stop; what is not written in time is dropped.

        Calling it again does nothing.
        """
        self._deadline = min(self._deadline, time.monotonic() + timeout_seconds)
        self._closing.set()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while not self._closing.wait(POLL_SECONDS):
            self._write_queue()
            self._writer.maintain()
        self._write_queue()
        late = sum(len(offer.inputs) for offer in self._queue)
        if late:
            self._writer.lose(late, TimeoutError("the server closed before they were written"))
        self._writer.finish()

    def _write_queue(self) -> None:
        while self._queue and time.monotonic() < self._deadline:
            lines: list[bytes] = []
            for _ in range(min(BATCH_REQUESTS, len(self._queue))):
                offer = self._queue.popleft()
                try:
                    lines += encode(*offer)
                except (
                    Exception
                ) as error:  # an output that JSON can't represent; others may be fine
                    self._writer.lose(len(offer.inputs), error)
                self._dequeued += len(offer.inputs)
            self._writer.write(lines)
            time.sleep(0)


def _check(sample: float, max_bytes: int, queue_length: int) -> None:
    if not 0.0 <= sample <= 1.0:
        raise UsageError(
            f"The sampled fraction of the prediction log must be 0 to 1, not {sample}.",
            code=ErrorCode.OUT_OF_RANGE,
            subject="sample",
        )
    if max_bytes < MIN_LOG_BYTES:
        raise UsageError(
            f"The prediction log must be given at least {MIN_LOG_BYTES} bytes, not {max_bytes}.",
            code=ErrorCode.OUT_OF_RANGE,
            subject="max_bytes",
        )
    if queue_length < 1:
        raise UsageError(
            f"The prediction log must queue at least 1 record, not {queue_length}.",
            code=ErrorCode.OUT_OF_RANGE,
            subject="queue_length",
        )
