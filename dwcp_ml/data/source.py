"""A telemetry file, CSV or Parquet, as a stream of batches of raw cells.

``open_source`` reads the first bytes and rejects a file that is no telemetry;
``TelemetrySource.scan`` then streams batches of raw cells. CSV is first read with the types of the
contract; a cell that does not convert ends that scan with ``NotTyped``, and the caller scans again,
``tolerant``: every cell as text, malformed rows skipped and collected with their numbers.
"""

from __future__ import annotations

import codecs
import csv
import re
import stat
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from dwcp_ml.contract.arrays import Ints
from dwcp_ml.contract.columns import COLUMNS, ColumnType
from dwcp_ml.contract.errors import DataRefused
from dwcp_ml.data.arrow import array_of, strings_of
from dwcp_ml.data.tally import shown

BLOCK_BYTES: Final = 1 << 21
"""Bytes of CSV in a batch; no row may be longer."""

PARQUET_ROWS: Final = 1 << 15
"""Rows of Parquet in a batch."""

_PEEK_BYTES: Final = 1 << 16
_PARQUET_MAGIC: Final = b"PAR1"
_BROKEN_PARQUET: Final = (pa.ArrowException, OSError, ValueError)
_NOT_TEXT: Final = {
    b"\x1f\x8b": "it is gzip-compressed: decompress it first",
    b"PK": "it is a ZIP archive or a spreadsheet: save it as CSV",
    b"\xff\xfe": "it is UTF-16: save it as UTF-8",
    b"\xfe\xff": "it is UTF-16: save it as UTF-8",
}

Progress = Callable[[float], None]
"""Called with the share of the file that has been read, 0 to 1."""


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
class Batch:
    """Some rows of a file: their numbers (int64, from 1 after the header) and their raw cells."""

    row: Ints
    cells: dict[str, Any]

    def take(self, rows: Ints) -> Batch:
        """Return the rows at some positions."""
        chosen = array_of(rows)
        return Batch(
            self.row[rows], {name: cells.take(chosen) for name, cells in self.cells.items()}
        )


@dataclass
class TelemetrySource:
    """A telemetry file whose header was read.

    ``malformed`` is filled by a tolerant scan; ``ends_with_newline`` distinguishes a truncated
    file from one with a malformed last row. ``constants`` are columns that a Parquet file does not
    hold, because the names of its hive directories do; an empty value is a missing one.
    """

    path: Path
    format: Literal["csv", "parquet"]
    header: tuple[str, ...]
    rows: int | None = None
    ends_with_newline: bool = True
    time_type: Any = None
    data_start: int = 0
    malformed: list[Malformed] = field(default_factory=list)
    constants: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What messages call it."""
        return str(self.path)

    def scan(
        self, columns: Sequence[str], *, tolerant: bool = False, progress: Progress | None = None
    ) -> Iterator[Batch]:
        """Stream the raw cells of some columns.

        Raises ``Unreadable`` if the file is broken or not UTF-8, and ``NotTyped`` if a CSV cell
        does not convert and the scan is not ``tolerant``.
        """
        self.malformed.clear()
        if self.format == "parquet":
            return self._scan_parquet(columns, progress)
        return self._scan_csv(columns, tolerant, progress)

    def with_constants(self, values: Mapping[str, str]) -> TelemetrySource:
        """Return the source with the values of its hive directories as columns.

        Only keys and categories of the contract that the file does not hold itself become columns.
        """
        words = (ColumnType.KEY, ColumnType.CATEGORY)
        known = {
            name: value
            for name, value in values.items()
            if name in COLUMNS and COLUMNS[name].kind in words and name not in self.header
        }
        return replace(self, constants=known, header=(*self.header, *known))

    def _scan_parquet(self, columns: Sequence[str], progress: Progress | None) -> Iterator[Batch]:
        import pyarrow.parquet as pq

        done = 0
        try:
            with pq.ParquetFile(self.path) as file:
                names = [name for name in file.schema_arrow.names if _trimmed(name) in columns]
                for batch in file.iter_batches(PARQUET_ROWS, columns=names):
                    # Parquet does not promise that its text is UTF-8.
                    batch.validate(full=True)
                    held = zip(map(_trimmed, batch.schema.names), batch.columns, strict=True)
                    cells = {**self._constant_cells(columns, batch.num_rows), **dict(held)}
                    yield Batch(np.arange(done + 1, done + 1 + batch.num_rows), cells)
                    done += batch.num_rows
                    if progress:
                        progress(done / max(1, self.rows or 0))
        except _BROKEN_PARQUET as error:
            raise Unreadable("unreadable", _broken_parquet(self.path, error)) from error

    def _constant_cells(self, columns: Sequence[str], rows: int) -> dict[str, Any]:
        index = array_of(np.zeros(rows, np.int32))
        return {
            name: pa.DictionaryArray.from_arrays(index, strings_of([value]))
            for name, value in self.constants.items()
            if name in columns
        }

    def _scan_csv(
        self, columns: Sequence[str], tolerant: bool, progress: Progress | None
    ) -> Iterator[Batch]:
        size, next_row = max(1, self.path.stat().st_size), 1
        try:
            with self.path.open("rb") as file:
                file.seek(self.data_start)
                for cells in self._csv_reader(file, columns, tolerant):
                    row = self._good_rows(next_row, cells.num_rows)
                    next_row = int(row[-1]) + 1 if len(row) else next_row
                    yield Batch(row, dict(zip(cells.schema.names, cells.columns, strict=True)))
                    if progress:
                        progress(min(1.0, file.tell() / size))
        except pa.ArrowException as error:
            self._raise_unless_empty(error, tolerant)
        except OSError as error:
            raise Unreadable("unreadable", f"Can't read {self.path}: {error.strerror}.") from error

    def _csv_reader(self, file: Any, columns: Sequence[str], tolerant: bool) -> Any:
        def skip_malformed(row: Any) -> str:
            self.malformed.append(Malformed(int(row.number), row.text, row.actual_columns))
            return "skip"

        types = {name: self._csv_type(name, tolerant) for name in columns}
        return pacsv.open_csv(
            file,
            # Only a single-threaded parser knows the number of a malformed row.
            pacsv.ReadOptions(
                use_threads=not tolerant, block_size=BLOCK_BYTES, column_names=self.header
            ),
            pacsv.ParseOptions(
                invalid_row_handler=skip_malformed if tolerant else None, newlines_in_values=True
            ),
            pacsv.ConvertOptions(
                column_types=types, include_columns=columns, strings_can_be_null=False
            ),
        )

    def _good_rows(self, first: int, count: int) -> Ints:
        """Return the numbers of the next good rows; malformed ones up to them are known."""
        place = bisect_left(self.malformed, first, key=lambda bad: bad.row)
        skipped = [bad.row for bad in self.malformed[place:]]
        numbers = np.arange(first, first + count + len(skipped))
        return numbers[~np.isin(numbers, skipped)][:count]

    def _raise_unless_empty(self, error: pa.ArrowException, tolerant: bool) -> None:
        """Raise what is wrong with the file; one without rows is no error of the parser's.

        The parser's errors have a text and no code, so the file itself is read again.
        """
        text = _look_into(self.path, self.data_start)
        if text.is_blank:
            return
        if not text.is_utf8:
            raise Unreadable("not_utf8", _not_utf8(self.path)) from error
        if not tolerant:
            raise NotTyped(str(error)) from error
        if text.quotes % 2 or text.longest_line > BLOCK_BYTES:
            reason = f"a row has over {BLOCK_BYTES >> 20} MiB, or a quote is not closed"
        else:
            reason = shown(str(error), longest=160).rstrip(".")
        raise Unreadable("unreadable", f"{self.path} can't be read as CSV: {reason}.") from error

    def _csv_type(self, name: str, tolerant: bool) -> Any:
        kind = COLUMNS[name].kind
        if kind in (ColumnType.KEY, ColumnType.CATEGORY):
            return pa.dictionary(pa.int32(), pa.string())
        if tolerant:
            return pa.string()
        return self.time_type if kind is ColumnType.TIMESTAMP else pa.float64()


def open_source(path: Path) -> TelemetrySource:
    """Open a telemetry file: read its first bytes and its header.

    Raises ``Unreadable`` if there is no such file, or it is a directory, empty, binary, not UTF-8,
    or broken.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise Unreadable("directory", f"{path} is a directory: name the file in it.")
        if not stat.S_ISREG(mode):
            raise Unreadable("not_a_file", f"{path} is not a regular file: copy its data to one.")
        with path.open("rb") as file:
            head = file.read(_PEEK_BYTES)
            file.seek(max(0, path.stat().st_size - 1))
            last = file.read(1)
    except FileNotFoundError as error:
        raise Unreadable("no_file", f"There is no file {path}: check the path.") from error
    except OSError as error:
        raise Unreadable("unreadable", f"Can't read {path}: {error.strerror}.") from error
    if not head.strip():
        raise Unreadable("empty_file", f"{path} is empty: a header and rows are needed.")
    if head.startswith(_PARQUET_MAGIC):
        return _open_parquet(path)
    return _open_csv_source(path, head, ends_with_newline=last in b"\r\n")


def _open_parquet(path: Path) -> TelemetrySource:
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            header = tuple(map(_trimmed, file.schema_arrow.names))
            rows = file.metadata.num_rows
    except _BROKEN_PARQUET as error:
        raise Unreadable("unreadable", _broken_parquet(path, error)) from error
    return _with_unique_header(TelemetrySource(path, "parquet", header, rows))


@dataclass(frozen=True)
class _Text:
    """What the bytes of a file that can't be parsed are like."""

    is_blank: bool
    is_utf8: bool
    quotes: int
    longest_line: int


def _look_into(path: Path, start: int) -> _Text:
    decoder = codecs.getincrementaldecoder("utf-8")()
    blank, utf8, quotes, longest, line = True, True, 0, 0, 0
    with path.open("rb") as file:
        file.seek(start)
        while part := file.read(BLOCK_BYTES):
            blank = blank and not part.strip(b"\r\n")
            quotes += part.count(b'"')
            first, *others = part.split(b"\n")
            line += len(first)
            for other in others:
                longest, line = max(longest, line), len(other)
            try:
                decoder.decode(part)
            except UnicodeDecodeError:
                utf8 = False
                break
    return _Text(blank, utf8, quotes, max(longest, line))


def _open_csv_source(path: Path, head: bytes, ends_with_newline: bool) -> TelemetrySource:
    for magic, reason in _NOT_TEXT.items():
        if head.startswith(magic):
            raise Unreadable("binary", f"{path} is neither CSV nor Parquet: {reason}.")
    if b"\0" in head:
        raise Unreadable("binary", f"{path} is a binary file: provide telemetry as CSV or Parquet.")
    try:
        # The last character of the first bytes may be incomplete, that of the file may not.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head, len(head) < _PEEK_BYTES)
    except UnicodeDecodeError as error:
        raise Unreadable("not_utf8", _not_utf8(path)) from error
    lines = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    names, *rows = csv.reader(lines[:2])
    header = tuple(map(_trimmed, names))
    source = TelemetrySource(path, "csv", header, ends_with_newline=ends_with_newline)
    source.data_start = _end_of_first_line(head)
    source.time_type = _time_type(header, rows[0] if rows else [])
    return _with_unique_header(source)


def _end_of_first_line(head: bytes) -> int:
    """Return the offset of the line after the first one that is not blank."""
    match = re.match(rb"(?:\xef\xbb\xbf)?(?:[^\S\r\n]*[\r\n])*[^\r\n]+(?:\r\n|\r|\n|$)", head)
    return match.end() if match else len(head)


def _trimmed(name: str) -> str:
    """Return a column name without white space or byte-order marks around it."""
    return name.strip().strip("\ufeff").strip()


def _with_unique_header(source: TelemetrySource) -> TelemetrySource:
    seen: set[str] = set()
    for name in source.header:
        if name in seen and name in COLUMNS:
            raise Unreadable(
                "duplicate_column",
                f"{source.path} has column '{name}' more than once: keep one of them.",
            )
        seen.add(name)
    return source


def _time_type(header: Sequence[str], first_row: Sequence[str]) -> Any:
    """Return the Arrow type of the times in a CSV file, from its first row."""
    cells = dict(zip(header, first_row, strict=False))
    text = cells.get("timestamp", "").strip()
    if text.replace(".", "", 1).isdigit():
        return pa.float64()
    zoned = text.endswith("Z") or any(sign in text[10:] for sign in "+-")
    return pa.timestamp("us", "UTC" if zoned else None)


def _broken_parquet(path: Path, error: Exception) -> str:
    reason = shown(error, longest=160).rstrip(".")
    return f"{path} is a broken or truncated Parquet file ({reason}): copy or write it again."


def _not_utf8(path: Path) -> str:
    return f"{path} is not UTF-8 text: convert it, e.g. with `iconv -t UTF-8`."
