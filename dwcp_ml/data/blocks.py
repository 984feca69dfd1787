"""CSV in blocks of whole lines, parsed by several threads and yielded in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from dwcp_ml.contract.errors import DataRefused
from dwcp_ml.data.tally import shown

BLOCK_BYTES: Final = 1 << 21
"""Size of a block; at most ``THREADS`` + 2 blocks are in memory."""

MAX_LINE_BYTES: Final = 1 << 24
"""A file with a line over 16 MiB is not telemetry."""

THREADS: Final = min(4, os.cpu_count() or 1)


class Unreadable(DataRefused):
    """The file as a whole can't be read as telemetry; ``defect`` names it."""

    def __init__(self, defect: str, message: str) -> None:
        super().__init__(message)
        self.defect = defect


class NotTyped(Exception):
    """A cell or row of a CSV file does not match the contract: scan again, ``tolerant``."""


@dataclass(frozen=True)
class Malformed:
    """A row of a CSV file with more or fewer cells than the header."""

    row: int
    text: str
    cells: int


@dataclass(frozen=True)
class Block:
    """The parsed rows of a block, and its malformed ones, numbered from 1 within the block."""

    table: Any
    malformed: tuple[Malformed, ...]

    @property
    def rows(self) -> int:
        """All rows, malformed ones included."""
        return int(self.table.num_rows) + len(self.malformed)

    def row_numbers(self, first: int) -> NDArray[np.int64]:
        """Return the numbers of the good rows, when the first row of the block is ``first``."""
        if not self.malformed:
            return np.arange(first, first + self.rows)
        good = np.ones(self.rows, np.bool_)
        good[[bad.row - 1 for bad in self.malformed]] = False
        return first + np.flatnonzero(good)

    def malformed_from(self, first: int) -> list[Malformed]:
        """Return the malformed rows, numbered from ``first``."""
        return [Malformed(first + bad.row - 1, bad.text, bad.cells) for bad in self.malformed]


@dataclass(frozen=True)
class Layout:
    """The layout of a CSV file.

    Parameters
    ----------
    header
        Names of all columns.
    data_start
        Offset of the first row, bytes.
    types
        Arrow types of the columns to parse.
    """

    header: tuple[str, ...]
    data_start: int
    types: dict[str, Any]


def parsed_blocks(path: Path, layout: Layout, tolerant: bool) -> Iterator[tuple[Block, float]]:
    """Yield the blocks of a CSV file in order, each with the share of the file read so far.

    Parameters
    ----------
    tolerant
        Whether malformed rows are skipped and collected; otherwise one ends the scan.

    Raises
    ------
    Unreadable
        If the file is broken or not UTF-8.
    NotTyped
        If a cell does not convert, or a row is malformed, and the scan is not ``tolerant``.
    """
    size = max(1, path.stat().st_size)
    parse = _Parser(path, layout, tolerant)
    pending: deque[tuple[Future[Block], int]] = deque()
    threads = ThreadPoolExecutor(THREADS)
    try:
        for lines, end in _blocks_of_lines(path, layout.data_start):
            pending.append((threads.submit(parse, lines), end))
            if len(pending) > THREADS + 1:
                future, done = pending.popleft()
                yield future.result(), done / size
        while pending:
            future, done = pending.popleft()
            yield future.result(), min(1.0, done / size)
    finally:
        threads.shutdown(cancel_futures=True)


def _blocks_of_lines(path: Path, start: int) -> Iterator[tuple[bytes, int]]:
    """Yield whole lines of about ``BLOCK_BYTES``, and where in the file they end."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            while lines := file.read(BLOCK_BYTES):
                rest = file.readline(MAX_LINE_BYTES)
                if len(rest) == MAX_LINE_BYTES:
                    what = f"has a line of over {MAX_LINE_BYTES >> 20} MiB: it is not telemetry"
                    raise Unreadable("unreadable", f"{path} {what}.")
                yield lines + rest if rest else lines, file.tell()
    except OSError as error:
        raise Unreadable("unreadable", f"Can't read {path}: {error.strerror}.") from error


@dataclass(frozen=True)
class _Parser:
    path: Path
    layout: Layout
    tolerant: bool

    def __call__(self, lines: bytes) -> Block:
        malformed: list[Malformed] = []

        def skip_malformed(row: Any) -> str:
            malformed.append(Malformed(int(row.number), row.text, row.actual_columns))
            return "skip"

        try:
            table = pacsv.read_csv(
                pa.BufferReader(lines),
                # Only a single-threaded parser knows the number of a malformed row.
                read_options=pacsv.ReadOptions(
                    use_threads=False,
                    block_size=max(len(lines), 1),
                    column_names=self.layout.header,
                ),
                parse_options=pacsv.ParseOptions(
                    invalid_row_handler=skip_malformed if self.tolerant else None
                ),
                convert_options=pacsv.ConvertOptions(
                    column_types=self.layout.types,
                    include_columns=list(self.layout.types),
                    strings_can_be_null=False,
                ),
            )
        except pa.ArrowException as error:
            table = self._no_rows(lines, str(error))
        return Block(table, tuple(malformed))

    def _no_rows(self, lines: bytes, message: str) -> Any:
        """Return an empty table for empty lines; raise any other error of the parser."""
        if not lines.strip(b"\r\n"):
            arrays = [pa.nulls(0, kind) for kind in self.layout.types.values()]
            return pa.Table.from_arrays(arrays, names=list(self.layout.types))
        try:
            lines.decode()
        except UnicodeDecodeError:
            raise Unreadable("not_utf8", not_utf8(self.path)) from None
        if not self.tolerant:
            raise NotTyped(message)
        reason = shown(message, longest=160).rstrip(".")
        raise Unreadable("unreadable", f"{self.path} can't be read as CSV: {reason}.")


def not_utf8(path: Path) -> str:
    """Return the message for a file in another encoding."""
    return f"{path} is not UTF-8 text: convert it, e.g. with `iconv -t UTF-8`."
