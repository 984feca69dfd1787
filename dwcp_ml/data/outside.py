"""The rows outside the data window: they are dropped before any other check, and counted."""

from __future__ import annotations

from typing import Self

import numpy as np
import pyarrow as pa

from dwcp_ml.contract.arrays import Ints
from dwcp_ml.contract.data_window import DataWindow
from dwcp_ml.contract.record import Record
from dwcp_ml.data import convert
from dwcp_ml.data.checks import EARLIEST, LATEST
from dwcp_ml.data.convert import MILLISECONDS
from dwcp_ml.data.source import Batch


class Outside(Record):
    """How many rows are outside the window, and the first and the last time of them, ms.

    Times before 2000 and after 2100 come from broken clocks, and are counted only.
    """

    rows: int = 0
    first: int | None = None
    last: int | None = None

    def plus(self, other: Self) -> Self:
        """Return the rows of both."""
        return type(self)(
            rows=self.rows + other.rows,
            first=min((t for t in (self.first, other.first) if t is not None), default=None),
            last=max((t for t in (self.last, other.last) if t is not None), default=None),
        )


def split_batch(batch: Batch, window: DataWindow) -> tuple[Batch | None, Outside]:
    """Return the rows of a batch in a window, ``None`` if there are none, and what is outside.

    Rows without a readable time stay in: that they are outside is not known.
    """
    times = convert.times(batch.cells["timestamp"])
    kept = window.holds(times.values)
    for unreadable in (times.missing, times.wrong):
        if unreadable is not None:
            kept |= unreadable
    if kept.all():
        return batch, Outside()
    dropped = times.values[~kept]
    valid = dropped[(dropped >= EARLIEST * MILLISECONDS) & (dropped <= LATEST * MILLISECONDS)]
    first, last = (int(valid.min()), int(valid.max())) if len(valid) else (None, None)
    outside = Outside(rows=len(dropped), first=first, last=last)
    return _taken(batch, np.flatnonzero(kept)) if kept.any() else None, outside


def _taken(batch: Batch, rows: Ints) -> Batch:
    """Return some rows; words that occur in others only are no longer in the dictionaries."""
    taken = batch.take(rows)
    for name, cells in taken.cells.items():
        if pa.types.is_dictionary(cells.type):
            taken.cells[name] = cells.dictionary_decode().dictionary_encode()
    return taken
