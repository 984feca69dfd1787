"""Rows of many series in a file, series after series in the order of time, and their windows.

The file is written once, in chunks, and read at random places. Its pages belong to the kernel's
cache: they are given back after each chunk, so the memory of the process does not grow with it.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dwcp_ml.contract.arrays import Array, Floats, Floats32, Ints, Mask
from dwcp_ml.contract.errors import ErrorCode, TrainingFailed
from dwcp_ml.files import cant_write


@dataclass(frozen=True)
class Rows:
    """Some rows of a file: their series, (n,), epoch seconds, and values, float32 (n, columns).

    ``usable`` says which may be part of a window.
    """

    series: Ints
    timestamp: Floats
    values: Floats32
    usable: Mask

    def take(self, rows: Array) -> Rows:
        """Return the rows at positions or of a mask."""
        return Rows(self.series[rows], self.timestamp[rows], self.values[rows], self.usable[rows])


@dataclass(frozen=True)
class RunWindows:
    """All windows of ``length`` consecutive rows, numbered from 0 in the order of the file.

    A run is a number of rows that no gap separates: ``starts`` is the position of its first row,
    ``ends`` the number of windows up to its end, (runs,). Memory grows with the runs, not the rows.
    """

    length: int
    starts: Ints
    ends: Ints

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def rows(self, windows: Ints) -> Ints:
        """Return the positions of the rows of windows, int64 (len(windows), length)."""
        run = np.searchsorted(self.ends, windows, "right")
        before = np.append(0, self.ends)[run]
        first: Ints = self.starts[run] + windows - before
        return first[:, np.newaxis] + np.arange(self.length)


class SeriesRows:
    """A file of rows without a name: nothing is left of it, also after a crash.

    Parameters
    ----------
    directory
        Where its space is taken.
    counts
        The rows of each series, (k,).
    columns
        The float32 values of a row.

    Raises
    ------
    TrainingFailed
        If there is no space for it; all of it is reserved at the start.
    """

    def __init__(self, directory: Path, counts: Ints, columns: int) -> None:
        self._counts = counts
        self._next = np.cumsum(counts) - counts
        self._last = np.full(len(counts), np.nan)
        self._usable = np.zeros(len(counts), np.bool_)
        self._breaks: list[tuple[Ints, Mask]] = []
        self.size = max(1, 4 * columns * int(counts.sum()))
        try:
            with tempfile.TemporaryFile(dir=directory) as file:
                os.posix_fallocate(file.fileno(), 0, self.size)
                self._map = mmap.mmap(file.fileno(), self.size)
        except OSError as error:
            what = f"{self.size / 1e9:.2f} GB of temporary training rows to {directory}"
            remedy = "free some space, or train without training.examples_per_epoch"
            message = cant_write(what, error, remedy=remedy)
            raise TrainingFailed(message, code=message.code, subject=message.subject) from error
        self._values = np.frombuffer(self._map, np.float32, columns * int(counts.sum()))
        self._values = self._values.reshape(-1, columns)

    def add(self, rows: Rows, max_step: Floats) -> None:
        """Append rows, in any order, none older than the rows of its series before.

        Parameters
        ----------
        max_step
            The longest step of each series that is no gap, seconds, (k,).

        Raises
        ------
        TrainingFailed
            If one is older.
        """
        if not len(rows.series):
            return
        ordered = rows.take(np.lexsort((rows.timestamp, rows.series)))
        series, time, usable = ordered.series, ordered.timestamp, ordered.usable
        begins = np.flatnonzero(np.append(True, series[1:] != series[:-1]))
        last = np.append(begins[1:], len(series)) - 1
        firsts = series[begins]
        before, was_usable = np.roll(time, 1), np.roll(usable, 1)
        before[begins], was_usable[begins] = self._last[firsts], self._usable[firsts]
        step = time - before  # NaN at the first row of a series
        if (step < 0).any():
            raise TrainingFailed(
                "The telemetry can't be read as a stream, because rows are older than earlier rows "
                "of their link or node: sort it by time, or train without "
                "training.examples_per_epoch.",
                code=ErrorCode.CONTRACT,
                subject="timestamp",
            )
        joined = (step > 0) & (step <= max_step[series]) & (usable == was_usable)
        rank = np.arange(len(series)) - np.repeat(begins, last + 1 - begins)
        position = self._next[series] + rank
        self._values[position] = ordered.values
        self._breaks.append((position[~joined], usable[~joined]))
        self._next[series[last]] = position[last] + 1
        self._last[series[last]], self._usable[series[last]] = time[last], usable[last]
        self._map.madvise(mmap.MADV_DONTNEED)

    def windows(self, length: int) -> RunWindows:
        """Return the windows of usable rows that cross no gap; all rows must have been added."""
        starts, usable = (np.concatenate(parts) for parts in zip(*self._breaks, strict=True))
        order = np.argsort(starts)
        starts, usable = starts[order], usable[order]
        sizes = np.diff(np.append(starts, len(self._values))) - (length - 1)
        kept = usable & (sizes > 0)
        return RunWindows(length, starts[kept], np.cumsum(sizes[kept]))

    def series_of(self, positions: Ints) -> Ints:
        """Return the series of the rows at some positions."""
        return np.searchsorted(np.cumsum(self._counts), positions, "right")

    def read(self, positions: Ints) -> Floats32:
        """Return the values of rows, float32 (*positions.shape, columns)."""
        values: Floats32 = self._values[positions]
        self._map.madvise(mmap.MADV_DONTNEED)
        return values
