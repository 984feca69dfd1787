"""The checks of single cells: missing, infinite, of the wrong type, out of range, unknown.

A defect in a column that a chosen model needs quarantines the row; in others it is only counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from dwcp_ml.contract.arrays import Array, Floats, Ints, Mask
from dwcp_ml.contract.columns import COLUMNS, Column, ColumnType
from dwcp_ml.data import convert
from dwcp_ml.data.source import Batch
from dwcp_ml.data.tally import Tally

EARLIEST: Final = 946_684_800
"""2000-01-01, epoch seconds: earlier telemetry comes from a clock that was never set."""

LATEST: Final = 4_102_444_800
"""2100-01-01, epoch seconds: later timestamps are invalid, whatever the local clock says."""

CLOCK_TOLERANCE: Final = 86_400
"""Seconds that a row may be ahead of the local clock."""

SEGMENT_BYTES: Final = 1460
"""Payload of a TCP segment on Ethernet: 1500 bytes less 20 of IP and 20 of TCP."""

PacketLossUnit = Literal["fraction", "percent"]
CongestionWindowUnit = Literal["bytes", "segments"]

Values = Array | convert.Words


@dataclass(frozen=True)
class Units:
    """The units of the file, where the contract leaves a choice."""

    packet_loss: PacketLossUnit = "fraction"
    congestion_window: CongestionWindowUnit = "bytes"

    def factor(self, column: str) -> float:
        """Return the factor from the unit of the file to that of the contract."""
        if column == "packet_loss" and self.packet_loss == "percent":
            return 0.01
        segments = column == "congestion_window" and self.congestion_window == "segments"
        return float(SEGMENT_BYTES) if segments else 1.0


@dataclass(frozen=True)
class Checked:
    """A batch in contract units; ``bad`` marks the rows to quarantine, ``reasons`` says why."""

    row: Ints
    values: dict[str, Values]
    bad: Mask
    reasons: list[tuple[str, Mask]]

    def words(self, column: str) -> convert.Words:
        """Return a key or category column."""
        cells = self.values[column]
        if not isinstance(cells, convert.Words):
            raise TypeError(f"{column} is not a column of words")
        return cells


@dataclass
class CellChecks:
    """The checks of the cells of some columns, and the range of each column over the whole scan.

    Defects in the columns ``needed`` quarantine a row; ``latest`` is the latest valid timestamp in
    epoch seconds.
    """

    columns: Sequence[str]
    needed: frozenset[str]
    units: Units
    latest: int
    tally: Tally
    lowest: dict[str, float] = field(default_factory=dict)
    highest: dict[str, float] = field(default_factory=dict)
    distinct: dict[str, set[str]] = field(default_factory=dict)

    def check(self, batch: Batch) -> Checked:
        """Convert and check one batch."""
        bad = np.zeros(len(batch.row), np.bool_)
        checked = Checked(batch.row, {}, bad, [])
        for name in self.columns:
            column, cells = COLUMNS[name], batch.cells[name]
            if column.kind is ColumnType.TIMESTAMP:
                checked.values[name] = self._times(column, cells, checked)
            elif column.kind in (ColumnType.KEY, ColumnType.CATEGORY):
                checked.values[name] = self._words(column, cells, checked)
            else:
                checked.values[name] = self._numbers(column, cells, checked)
        return checked

    def constant(self) -> list[str]:
        """Return the needed columns that hold one value in all rows; keys and times excluded."""
        numbers = [name for name, low in self.lowest.items() if low == self.highest[name]]
        words = [name for name, seen in self.distinct.items() if len(seen) == 1]
        return [name for name in self.columns if name in self.needed and name in numbers + words]

    def _note(self, code: str, name: str, mask: Mask, checked: Checked, values: Any) -> None:
        """Count the rows of a defect, and quarantine them if a model needs the column."""
        rows = np.flatnonzero(mask)
        if len(rows) == 0:
            return
        sample = values[rows[0]]
        text = f"{sample:g}" if isinstance(sample, float) else str(sample)
        self.tally.add(code, name, checked.row[rows], text)
        if name in self.needed:
            np.logical_or(checked.bad, mask, out=checked.bad)
            checked.reasons.append((f"{code}:{name}", mask))

    def _numbers(self, column: Column, cells: Any, checked: Checked) -> Floats:
        converted = convert.numbers(cells)
        name, values = column.name, converted.values
        factor = self.units.factor(name)
        if factor != 1.0:
            values = values * factor
        if converted.wrong is not None:
            self._note("wrong_type", name, converted.wrong, checked, cells)
        if converted.missing is not None:
            self._note("missing", name, converted.missing, checked, values)
        if len(values) == 0:
            return values
        low, high = np.fmin.reduce(values), np.fmax.reduce(values)
        ends = np.array([low, high])
        if (np.isinf(ends) | _outside(column, ends)).any():
            self._range(column, values, checked)
        if column.kind is ColumnType.INTEGER:
            broken = (np.rint(values) != values) & ~np.isnan(values)
            self._note("wrong_type", name, broken, checked, values)
        if np.isfinite(low):
            self.lowest[name] = min(float(low), self.lowest.get(name, np.inf))
            self.highest[name] = max(float(high), self.highest.get(name, -np.inf))
        return values

    def _range(self, column: Column, values: Floats, checked: Checked) -> None:
        infinite = np.isinf(values)
        self._note("not_finite", column.name, infinite, checked, values)
        outside = _outside(column, values) & ~infinite
        if column.name == "packet_loss" and self.units.packet_loss == "fraction":
            percent = outside & (values > 1.0)
            self._note("packet_loss_above_1", column.name, percent, checked, values)
            outside &= ~percent
        self._note("out_of_range", column.name, outside, checked, values)

    def _times(self, column: Column, cells: Any, checked: Checked) -> Ints:
        converted = convert.times(cells)
        unusable = np.zeros(len(converted.values), np.bool_)
        if converted.wrong is not None:
            self._note("unparsable_timestamp", column.name, converted.wrong, checked, cells)
            unusable |= converted.wrong
        if converted.missing is not None:
            self._note("missing", column.name, converted.missing, checked, converted.values)
            unusable |= converted.missing
        early = (converted.values < EARLIEST * convert.MILLISECONDS) & ~unusable
        late = (converted.values > self.latest * convert.MILLISECONDS) & ~unusable
        self._note("timestamp_too_early", column.name, early, checked, cells)
        self._note("timestamp_in_future", column.name, late, checked, cells)
        return converted.values

    def _words(self, column: Column, cells: Any, checked: Checked) -> convert.Words:
        converted = convert.words(cells)
        missing = converted.missing
        if missing is not None:
            self._note("missing", column.name, missing, checked, converted.indices)
        if column.kind is ColumnType.CATEGORY:
            known = np.array([*(word in column.categories for word in converted.words), True])
            if not known.all():
                unknown = ~known[converted.indices]
                objects = converted.to_objects()
                self._note("unknown_category", column.name, unknown, checked, objects)
            self.distinct.setdefault(column.name, set()).update(converted.words[:2])
        return converted


def _outside(column: Column, values: Floats) -> Mask:
    """Return which values are outside the range of their column; NaN is not."""
    low = -np.inf if column.minimum is None else column.minimum
    high = np.inf if column.maximum is None else column.maximum
    return (values <= low if column.exclusive_minimum else values < low) | (values > high)
