"""A telemetry data set of many Parquet files: a directory, a prefix of a store, or a glob.

    /data/telemetry, s3://bucket/telemetry/    every *.parquet below it, hive directories included
    /data/t/date=2026-01-*                     every *.parquet below the directories that match
    s3://bucket/t/**/part-*.parquet            the files that match; ** stands for directories

Files and directories whose names begin with ``_`` or ``.`` are left out: Spark and Hive keep
markers and unfinished files there. CSV and ``.PARQUET`` files below a directory or a prefix, which
would not be read, are refused. The order is that of the relative names, code point by code point.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from dwcp_ml.contract.data_window import DataWindow
from dwcp_ml.contract.errors import DataRefused, ErrorCode, UsageError
from dwcp_ml.contract.record import Record
from dwcp_ml.storage.addresses import (
    OBJECT_STORES,
    azure_account,
    local_path,
    scheme_of,
    without_query,
)
from dwcp_ml.storage.fetch import fetched

_BELOW: Final = "**/*.parquet"
_ALL_BELOW: Final = "**/*"
_TELEMETRY: Final = (".csv", ".parquet")
_WILDCARD: Final = re.compile(r"[*?\[]")
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")
_NO_VALUE: Final = "__HIVE_DEFAULT_PARTITION__"
"""The name that Hive gives to the directory of the rows without a value."""


@dataclass(frozen=True)
class Partition:
    """One file of a data set: its name, relative and POSIX, and its address."""

    name: str
    address: str

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """Yield the file, of a remote one a copy that is removed at the end of the block."""
        with fetched(self.address) as files:
            yield files[self.address]

    @property
    def hive_values(self) -> dict[str, str]:
        """The values that the names of its directories state, as in ``date=2026-01-01``."""
        return dict(self._pairs())

    @property
    def day(self) -> date | None:
        """The day that a directory ``date=YYYY-MM-DD`` states; ``None`` if none or two do."""
        texts = {value for key, value in self._pairs() if key == "date"}
        text = texts.pop() if len(texts) == 1 else ""
        try:
            return date.fromisoformat(text) if _DAY.fullmatch(text) else None
        except ValueError:
            return None

    def _pairs(self) -> Iterator[tuple[str, str]]:
        for part in self.name.split("/")[:-1]:
            key, sign, value = part.partition("=")
            if sign:
                yield unquote(key), "" if value == _NO_VALUE else unquote(value)


class SkippedFiles(Record):
    """Files of a data set that are not read: how many, their first and their last date."""

    files: int
    first: date
    last: date

    def __str__(self) -> str:
        days = f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"
        return f"{self.files} files of {days} were not read"


def in_window(
    parts: Sequence[Partition], window: DataWindow | None
) -> tuple[tuple[Partition, ...], SkippedFiles | None]:
    """Return the files that may hold rows in a window, and those that are skipped.

    A file is skipped only if a directory states its day, and that is more than a day away from the
    window: the day may be that of another time zone.
    """
    if window is None:
        return tuple(parts), None
    days = {part: part.day for part in parts}
    outside = {
        part: day
        for part, day in days.items()
        if day is not None and not window.may_hold_rows_of(day)
    }
    if not outside:
        return tuple(parts), None
    skipped = SkippedFiles(
        files=len(outside), first=min(outside.values()), last=max(outside.values())
    )
    return tuple(part for part in parts if part not in outside), skipped


def partitions_of(address: str) -> tuple[Partition, ...] | None:
    """Return the files of a data set in their order; ``None`` if the address names one file.

    Raises
    ------
    DataRefused
        If a data set has no file, or a directory of it has telemetry that would not be read.
    UsageError
        If the address is invalid.
    StorageError
        If the store can't be read.
    """
    path = local_path(address)
    if path is not None:
        return _local(address, path)
    if scheme_of(address) not in OBJECT_STORES and azure_account(address) is None:
        return None
    if not address.endswith("/") and not _WILDCARD.search(address):
        return None
    from dwcp_ml.storage.remote_objects import remote

    base, pattern = _split(address)
    objects = list(remote(base).objects())
    names = _matching(objects, pattern, _BELOW)
    everywhere = pattern if _WILDCARD.search(address) else _ALL_BELOW
    return _partitions(address, base, names, _matching(objects, everywhere, _ALL_BELOW))


def _matching(names: Iterable[str], pattern: str, below: str) -> list[str]:
    """Return the names that match, or are below one that does."""
    matches = re.compile(f"{_expression(pattern)}({_expression(f'/{below}')})?").fullmatch
    return [name for name in names if matches(name)]


def parquet_files(directory: Path) -> tuple[Partition, ...]:
    """Return the files of a data set in a directory of this machine, which may be none."""
    return _sorted(str(directory), _files(directory, _BELOW))


def _local(address: str, path: Path) -> tuple[Partition, ...] | None:
    if path.is_dir():
        return _partitions(address, str(path), _files(path, _BELOW), _files(path, _ALL_BELOW))
    if not _WILDCARD.search(str(path)) or path.exists():
        return None
    base, pattern = _split(str(path))
    names = _files(Path(base), pattern)
    return _partitions(address, base, names, _files(Path(base), pattern, _ALL_BELOW))


def _files(base: Path, pattern: str, below: str = _BELOW) -> list[str]:
    files = {
        file
        for path in base.glob(pattern)
        for file in (path.glob(below) if path.is_dir() else [path])
    }
    return [file.relative_to(base).as_posix() for file in files]


def _split(address: str) -> tuple[str, str]:
    """Return what precedes the first wildcard, up to a ``/``, and the pattern below it."""
    wildcard = _WILDCARD.search(address)
    end = len(address) if wildcard is None else address.rfind("/", 0, wildcard.start()) + 1
    base, pattern = address[:end], address[end:]
    if base.endswith("://"):
        raise UsageError(
            f"{without_query(address)} has a wildcard in the name of its bucket: name one bucket.",
            code=ErrorCode.INVALID_ADDRESS,
            subject=without_query(address),
        )
    return base or ".", pattern.rstrip("/") or _BELOW


def _expression(pattern: str) -> str:
    """Return a glob as a regular expression, as ``Path.glob`` reads it."""
    tokens = re.findall(r"\*\*/|\*+|\?|\[!?\]?[^\]]*\]|.", pattern, re.DOTALL)
    words = {"**/": "(?:[^/]+/)*", "*": "[^/]*", "**": ".*", "?": "[^/]"}
    return "".join(
        f"[{'^' if token[1] == '!' else ''}{re.escape(token[1:-1].lstrip('!'))}]".replace(
            "\\-", "-"
        )
        if len(token) > 2 and token.startswith("[")
        else words.get(token) or re.escape(token)
        for token in tokens
    )


def _partitions(
    address: str, base: str, names: Iterable[str], everything: Iterable[str]
) -> tuple[Partition, ...]:
    """Return the files ``names``; ``everything`` is also what directories hold beside them."""
    found = _sorted(base, names)
    if not found:
        raise DataRefused(
            f"{without_query(address)} holds no Parquet file: a directory, a prefix or a glob must "
            "have files whose names end in .parquet.",
            code=ErrorCode.MISSING,
            subject=without_query(address),
        )
    beside = _sorted(base, set(everything).difference(names))
    unread = [each.name for each in beside if Path(each.name).suffix.lower() in _TELEMETRY]
    if unread:
        listed = ", ".join(unread[:5]) + (", ..." if len(unread) > 5 else "")
        raise DataRefused(
            f"{without_query(address)} holds telemetry that would not be read, {listed}: a data "
            f"set has files ending in .parquet only; name these with a glob such as {_BELOW}, or "
            "move the others.",
            code=ErrorCode.MALFORMED,
            subject=unread[0],
        )
    return found


def _sorted(base: str, names: Iterable[str]) -> tuple[Partition, ...]:
    kept = (name for name in names if not any(part[0] in "._" for part in name.split("/")))
    return tuple(Partition(name, f"{base.rstrip('/')}/{name}") for name in sorted(kept))
