"""Load a telemetry file into a sorted DataFrame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from dwcp_ml.contract.arrays import Array
from dwcp_ml.contract.columns import COLUMNS, KEY_COLUMNS, ColumnType
from dwcp_ml.contract.errors import DataRefused, ErrorCode
from dwcp_ml.data import convert
from dwcp_ml.data.partitions import open_telemetry
from dwcp_ml.data.sampling import RowSample, draw_rows
from dwcp_ml.data.source import Batch, NotTyped, TelemetrySource
from dwcp_ml.data.tally import shown

ROW_NUMBER: Final = "row_number"
"""The column of ``load`` that says where in the file a row is, from 0."""


@dataclass(frozen=True)
class Sampling:
    """How many rows :func:`load_sample` reads at most, and how it draws them.

    ``step_seconds`` is the usual step between rows of a link.
    """

    max_rows: int
    step_seconds: float
    seed: int


def load(path: Path, columns: Sequence[str], *, row_number: bool = False) -> pd.DataFrame:
    """Return columns of a telemetry file, sorted by (timestamp, node_id, peer_id).

    A directory stands for all Parquet files below it. ``timestamp`` is float64 epoch seconds (UTC,
    to the millisecond), keys and categories are str, numbers float64. The three key columns are
    always included; values and units are not converted. With ``row_number`` there is a column
    ``ROW_NUMBER`` as well.

    Raises ``DataRefused`` if the file can't be read, lacks a column, or holds an invalid cell.
    """
    return load_sample(path, columns, None, row_number=row_number)[0]


def load_sample(
    path: Path, columns: Sequence[str], sampling: Sampling | None, *, row_number: bool = False
) -> tuple[pd.DataFrame, int]:
    """Return a sample of the rows of clean telemetry as :func:`load` does, and how many it omits.

    The file is streamed, so memory grows with the sample, not with the file. ``None`` reads all.
    """
    source, names = _opened(path, columns)
    sample = None
    if sampling is not None:
        sample = draw_rows(source, sampling.max_rows, sampling.step_seconds, sampling.seed)
    try:
        batches = _batches(source.scan(names), sample)
    except NotTyped:
        batches = _batches(source.scan(names, tolerant=True), sample)
    if source.malformed:
        raise _invalid_row(source, source.malformed[0].row, "has too many or too few cells")
    frame = _frame(source, batches, names, row_number=row_number)
    ordered = frame.sort_values(list(KEY_COLUMNS), kind="stable", ignore_index=True)
    return ordered, 0 if sample is None else sample.left_out


def load_chunks(path: Path, columns: Sequence[str], rows: int) -> Iterator[pd.DataFrame]:
    """Stream clean telemetry in frames of about ``rows`` rows as :func:`load` returns them.

    They are in the order of the file, and have the column ``ROW_NUMBER``.
    """
    source, names = _opened(path, columns)
    batches: list[Batch] = []
    for batch in source.scan(names):
        batches.append(batch)
        if sum(len(each.row) for each in batches) >= rows:
            yield _frame(source, batches, names, row_number=True)
            batches = []
    if batches:
        yield _frame(source, batches, names, row_number=True)


def _opened(path: Path, columns: Sequence[str]) -> tuple[TelemetrySource, tuple[str, ...]]:
    """Return telemetry that holds the columns, and their names, keys first."""
    source = open_telemetry(path)
    names = tuple(dict.fromkeys((*KEY_COLUMNS, *columns)))
    absent = [name for name in names if name not in source.header]
    if absent:
        present = ", ".join(map(shown, source.header))
        raise DataRefused(
            f"{path} has no column '{absent[0]}'; it holds: {present}.",
            code=ErrorCode.MISSING,
            subject=absent[0],
        )
    return source, names


def _frame(
    source: TelemetrySource, batches: Sequence[Batch], names: Sequence[str], *, row_number: bool
) -> pd.DataFrame:
    frame = pd.DataFrame({name: _column(source, batches, name) for name in names})
    if row_number:
        numbers = [batch.row - 1 for batch in batches]
        frame[ROW_NUMBER] = np.concatenate(numbers) if numbers else np.empty(0, np.int64)
    return frame


def _batches(scan: Iterable[Batch], sample: RowSample | None) -> list[Batch]:
    if sample is None:
        return list(scan)
    found = ((batch, np.flatnonzero(sample.holds(batch))) for batch in scan)
    return [batch.take(rows) for batch, rows in found if len(rows)]


def _invalid_row(source: TelemetrySource, row: int, what: str) -> DataRefused:
    return DataRefused(
        f"Row {row} of {source.path} {what}: run `dwcp-ml data validate` to quarantine such rows.",
        code=ErrorCode.CONTRACT,
        subject=f"row {row}",
    )


def _column(source: TelemetrySource, batches: Sequence[Batch], name: str) -> Array:
    kind = COLUMNS[name].kind
    if kind in (ColumnType.KEY, ColumnType.CATEGORY):
        return _joined([convert.words(batch.cells[name]).to_objects() for batch in batches], object)
    converted: list[Array] = []
    for batch in batches:
        cells = batch.cells[name]
        is_time = kind is ColumnType.TIMESTAMP
        found = convert.times(cells) if is_time else convert.numbers(cells)
        bad = found.missing if is_time and found.missing is not None else found.wrong
        if bad is not None:
            row = int(batch.row[np.argmax(bad)])
            raise _invalid_row(source, row, f"holds no {kind.value} in column '{name}'")
        converted.append(found.values / convert.MILLISECONDS if is_time else found.values)
    return _joined(converted, np.float64)


def _joined(parts: list[Array], dtype: Any) -> Array:
    return np.concatenate(parts) if parts else np.empty(0, dtype)
