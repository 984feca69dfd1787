"""Writes the rows of another tool as telemetry: CSV with the columns that have a value."""

from __future__ import annotations

import csv
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from dwcp_ml.contract.columns import COLUMNS, KEY_COLUMNS, ColumnType
from dwcp_ml.contract.errors import DataRefused, ErrorCode, UsageError, did_you_mean
from dwcp_ml.contract.models import MODELS
from dwcp_ml.data.adapters import iperf3, ping, prometheus, table
from dwcp_ml.data.adapters.options import Choices, Row
from dwcp_ml.files import cant_write

FORMATS: Final = ("iperf3", "ping", "prometheus", "gnettrack", "csv")
MAPPED: Final = ("prometheus", "gnettrack", "csv")
"""The formats whose names are chosen with ``--map``."""


@dataclass(frozen=True)
class Converted:
    """What a conversion wrote: rows, links, columns, and the missing columns of each model."""

    rows: int
    links: int
    columns: tuple[str, ...]
    missing: Mapping[str, tuple[str, ...]]


def convert(
    name: str,
    paths: Sequence[Path],
    output: Path,
    choices: Choices,
    *,
    constants: Mapping[str, str] | None = None,
    carry_seconds: float = 0.0,
) -> Converted:
    """Convert files of one format to one file of telemetry, in the units of the contract.

    Parameters
    ----------
    name
        One of ``FORMATS``.
    constants
        Columns with one value in all rows.
    carry_seconds
        A missing value is the newest one of its link if that is no older than this.

    Raises
    ------
    DataRefused
        If a file is not of the format, or holds no row.
    UsageError
        If the format is unknown, or a name is missing.
    DwcpError
        If ``output`` can't be written.
    """
    read = _reader(name, choices)
    chosen = [*KEY_COLUMNS, *(column for column in COLUMNS if column not in KEY_COLUMNS)]
    writer = _Writer(constants or {}, carry_seconds)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".convert-") as scratch:
            everything, kept = Path(scratch) / "all.csv", Path(scratch) / "kept.csv"
            with everything.open("w", encoding="utf-8", newline="") as file:
                writer.write(_opened(read, paths), csv.DictWriter(file, chosen, ""))
            if not writer.rows:
                raise DataRefused(
                    f"{', '.join(map(str, paths))}: there is no observation of the format {name}.",
                    code=ErrorCode.NO_DATA,
                    subject=paths[0],
                )
            columns = tuple(column for column in chosen if column in writer.present)
            _copy(everything, kept, chosen, columns)
            kept.replace(output)
    except OSError as error:
        raise cant_write(output, error, remedy="name another place") from error
    missing = {
        spec.name: tuple(each for each in spec.needed_columns if each not in columns)
        for spec in MODELS.values()
    }
    return Converted(writer.rows, len(writer.links), columns, missing)


Reader = Callable[[Sequence[Path]], Iterator[Row]]


def _reader(name: str, choices: Choices) -> Reader:
    if name not in FORMATS:
        raise UsageError(
            f"There is no format '{name}': {did_you_mean(name, FORMATS)}.",
            code=ErrorCode.UNKNOWN_NAME,
            subject=name,
        )
    if choices.sources and name not in MAPPED:
        raise UsageError(
            f"--map is for {', '.join(MAPPED)}; the columns of {name} are known.",
            code=ErrorCode.INVALID_OPTION,
            subject="--map",
        )
    if name == "gnettrack":
        choices = dataclasses.replace(
            choices,
            sources={**table.GNETTRACK, **choices.sources},
            time_format=choices.time_format or table.GNETTRACK_TIMES,
            peer=choices.peer or "network",
        )
    if name in ("csv", "gnettrack") and "timestamp" not in choices.sources:
        raise _unmapped(name, "timestamp=COLUMN")
    if not choices.sources and name == "prometheus":
        raise _unmapped(name, "rtt_ms=METRIC@s")
    if name == "prometheus":
        return lambda paths: prometheus.rows(paths, choices)
    of_file: dict[str, Callable[[Path, Choices], Iterator[Row]]] = {
        "iperf3": iperf3.rows,
        "ping": ping.rows,
    }
    read = of_file.get(name, table.rows)
    return lambda paths: (row for path in paths for row in read(path, choices))


def _unmapped(name: str, example: str) -> UsageError:
    return UsageError(
        f"The format {name} needs --map {example}: its names are not known.",
        code=ErrorCode.MISSING,
        subject="--map",
    )


def _opened(read: Reader, paths: Sequence[Path]) -> Iterator[Row]:
    for path in paths:
        try:
            path.open("rb").close()
        except OSError as error:
            raise DataRefused(
                f"Can't read {path}: {error.strerror}.", code=ErrorCode.CANT_READ, subject=path
            ) from error
    yield from read(paths)


class _Writer:
    """Writes rows, with constants and carried values, and notes which columns have a value."""

    def __init__(self, constants: Mapping[str, str], carry_seconds: float) -> None:
        self._constants, self._carry = constants, carry_seconds
        self._newest: dict[tuple[str, str, str], tuple[float, str | float]] = {}
        self.rows = 0
        self.links: set[tuple[str, str]] = set()
        self.present: set[str] = set()

    def write(self, rows: Iterator[Row], file: Any) -> None:
        """Write all rows."""
        for row in rows:
            cells = {**row, **self._constants}
            link = (str(cells["node_id"]), str(cells["peer_id"]))
            if self._carry:
                self._carry_into(cells, link)
            self.rows += 1
            self.links.add(link)
            self.present |= cells.keys()
            file.writerow({name: _text(name, value) for name, value in cells.items()})

    def _carry_into(self, cells: Row, link: tuple[str, str]) -> None:
        now, measured = float(cells["timestamp"]), dict(cells)
        for name in self.present - measured.keys():
            time, value = self._newest.get((*link, name), (-float("inf"), 0.0))
            if 0.0 <= now - time <= self._carry:
                cells[name] = value
        self._newest.update({(*link, name): (now, value) for name, value in measured.items()})


def _text(column: str, value: str | float) -> str:
    if column == "timestamp":
        moment = datetime.fromtimestamp(round(float(value) * 1000) / 1000, UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, str):
        return value
    whole = COLUMNS[column].kind is ColumnType.INTEGER and float(value).is_integer()
    return str(int(value)) if whole else f"{value:.9g}"


def _copy(source: Path, target: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    places = [header.index(name) for name in columns]
    with (
        source.open(encoding="utf-8", newline="") as read,
        target.open("w", encoding="utf-8", newline="") as write,
    ):
        writer = csv.writer(write)
        writer.writerow(columns)
        writer.writerows([cells[place] for place in places] for cells in csv.reader(read))
