"""Writes lines into segments: starts one when needed, and finishes it when it is full or old."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dwcp_ml.prediction_log.format import HEADER, segment_name
from dwcp_ml.prediction_log.segments import LogSegment, adopt_orphans, free_space, locked

MAX_SEGMENT_BYTES: Final = 64_000_000
MIN_SEGMENTS: Final = 16
"""A segment is at most this fraction of the quota, so that removing one frees little history."""

SYNC_SECONDS: Final = 1.0

_LOGGER = logging.getLogger(__name__)


class LogWriter:
    """Writes lines, on one thread; failures are counted, and logged once.

    Parameters
    ----------
    segment_seconds
        Age at which a segment is finished if it is not full before.
    clock
        Epoch seconds; segments are named after their start.

    Attributes
    ----------
    written, lost, removed_segments
        Lines that were written, lines that could not be, and segments removed to free space.
    """

    def __init__(
        self, directory: Path, max_bytes: int, segment_seconds: float, clock: Callable[[], float]
    ) -> None:
        self.written = self.lost = self.removed_segments = 0
        self._directory = directory
        self._max_bytes = max_bytes
        self._segment_seconds = segment_seconds
        self._segment_bytes = min(MAX_SEGMENT_BYTES, max_bytes // MIN_SEGMENTS)
        self._clock = clock
        self._writer_id = secrets.token_hex(4)
        self._number = 0
        self._segment: LogSegment | None = None
        self._started = self._last_sync = 0.0
        self._warned = False

    def write(self, lines: list[bytes]) -> None:
        """Append lines; those that can't be written are lost."""
        while lines:
            try:
                lines = self._append(lines)
            except OSError as error:
                self.lose(len(lines), error)
                self.finish()
                return

    def maintain(self) -> None:
        """Finish a segment that is old enough, else sync it once a second."""
        now = time.monotonic()
        if self._segment is None:
            return
        if now - self._started >= self._segment_seconds:
            self.finish()
        elif now - self._last_sync >= SYNC_SECONDS:
            self._last_sync = now
            try:
                self._segment.sync()
            except OSError as error:
                self._warn(error)

    def finish(self) -> None:
        """Give the segment its final name, if there is one."""
        segment, self._segment = self._segment, None
        if segment is None:
            return
        try:
            segment.finish()
        except OSError as error:
            self._warn(error)

    def lose(self, lines: int, error: Exception) -> None:
        """Count lines that can't be written."""
        self.lost += lines
        self._warn(error)

    def _append(self, lines: list[bytes]) -> list[bytes]:
        """Append as many lines as fit into the segment, and return the others."""
        if len(lines[0]) > self._segment_bytes - len(HEADER):
            self.lose(1, ValueError("a record is larger than a segment"))
            return lines[1:]
        if self._segment is None:
            self._segment = self._start_segment()
        free, count, size = self._segment_bytes - self._segment.size, 0, 0
        while count < len(lines) and size + len(lines[count]) <= free:
            size += len(lines[count])
            count += 1
        self._segment.append(b"".join(lines[:count]))
        self.written += count
        if count < len(lines):
            self.finish()
        return lines[count:]

    def _start_segment(self) -> LogSegment:
        self._directory.mkdir(parents=True, exist_ok=True)
        with locked(self._directory):
            adopt_orphans(self._directory)
            self.removed_segments += free_space(
                self._directory, self._max_bytes, self._segment_bytes
            )
            name = segment_name(self._clock(), self._writer_id, self._number)
            segment = LogSegment(self._directory, name)
        self._number += 1
        self._started = self._last_sync = time.monotonic()
        return segment

    def _warn(self, error: Exception) -> None:
        """Log the first failure only; the count of dropped instances shows whether it lasts."""
        if self._warned:
            return
        self._warned = True
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        _LOGGER.warning(
            "Predictions are not logged to %s: %s; requests are served as before, and the "
            "dropped predictions are counted.",
            self._directory,
            reason,
        )
