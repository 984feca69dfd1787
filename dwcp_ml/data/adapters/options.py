"""How a column of the contract is taken from the file of another tool."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Final, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dwcp_ml.contract.columns import COLUMNS, KEY_COLUMNS, ColumnType
from dwcp_ml.contract.errors import DataRefused, ErrorCode, UsageError, did_you_mean
from dwcp_ml.data.checks import SEGMENT_BYTES

Row: TypeAlias = dict[str, str | float]
"""The cells of one observation by column; a column without a value is absent."""

UNITS: Final[Mapping[str, Mapping[str, float]]] = {
    "UTC": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9},
    "ms": {"ms": 1.0, "s": 1e3, "us": 1e-3, "ns": 1e-6},
    "Mbit/s": {
        "Mbit/s": 1.0,
        "bit/s": 1e-6,
        "kbit/s": 1e-3,
        "Gbit/s": 1e3,
        "B/s": 8e-6,
        "kB/s": 8e-3,
        "MB/s": 8.0,
    },
    "fraction": {"fraction": 1.0, "percent": 0.01},
    "percent": {"percent": 1.0, "fraction": 100.0},
    "bytes": {"bytes": 1.0, "KiB": 1024.0, "segments": float(SEGMENT_BYTES)},
    "failures/h": {"failures/h": 1.0, "failures/s": 3600.0, "failures/day": 1.0 / 24.0},
}
"""Unit of the contract -> the units of other tools and the factor to it; of times to seconds."""


_TEXTS: Final = (ColumnType.KEY, ColumnType.CATEGORY)
_FIRST: Final = datetime(1, 1, 1, tzinfo=UTC).timestamp()
_LAST: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()


@dataclass(frozen=True)
class Source:
    """Where a column comes from: a name in the other file, and the factor to the contract."""

    name: str
    factor: float = 1.0


@dataclass(frozen=True)
class Choices:
    """The options of a conversion.

    Parameters
    ----------
    sources
        Column of the contract -> where it comes from, for the formats whose names are chosen.
    node, peer
        Names for the columns ``node_id`` and ``peer_id``; None for those that the format holds.
    node_label, peer_label
        Prometheus: the labels that hold them.
    time_format, zone
        Format of a time as text, as of ``strptime``; zone of times that name none.
    interval_seconds
        Time over which the replies to ping are one row.
    """

    sources: Mapping[str, Source] = field(default_factory=dict)
    node: str | None = None
    peer: str | None = None
    node_label: str = "node_id"
    peer_label: str = "peer_id"
    time_format: str | None = None
    zone: tzinfo = UTC
    interval_seconds: float = 10.0


def parse_sources(pairs: Sequence[str]) -> dict[str, Source]:
    """Return the sources of ``COLUMN=SOURCE[@UNIT]``.

    >>> parse_sources(["rtt_ms=latency@us"])
    {'rtt_ms': Source(name='latency', factor=0.001)}

    Raises
    ------
    UsageError
        If a column is not in the contract, or a unit is not one of its quantity.
    """
    sources = {}
    for pair in pairs:
        column, separator, rest = pair.partition("=")
        name, at, unit = rest.rpartition("@") if "@" in rest else (rest, "", "")
        if not separator or not name:
            raise UsageError(
                f"--map {pair} is not COLUMN=SOURCE or COLUMN=SOURCE@UNIT.",
                code=ErrorCode.INVALID_OPTION,
                subject="--map",
            )
        sources[_known(column)] = Source(name, _factor(column, unit) if at else 1.0)
    return sources


def parse_constants(pairs: Sequence[str]) -> dict[str, str]:
    """Return the constant columns of ``COLUMN=VALUE``.

    Raises
    ------
    UsageError
        If a column is not in the contract, is ``timestamp``, or does not allow the value; that of
        a number is finite.
    """
    constants = {}
    for pair in pairs:
        column, separator, value = pair.partition("=")
        if not separator or column == "timestamp":
            raise UsageError(
                f"--constant {pair} is not COLUMN=VALUE of a column other than timestamp.",
                code=ErrorCode.INVALID_OPTION,
                subject="--constant",
            )
        allowed = COLUMNS[_known(column)].categories
        if COLUMNS[column].kind not in _TEXTS and not _is_finite(value):
            raise UsageError(
                f"{column} can't be '{value}': it is a finite number.",
                code=ErrorCode.INVALID_OPTION,
                subject=column,
            )
        if allowed and value not in allowed:
            raise UsageError(
                f"{column} can't be '{value}': {did_you_mean(value, allowed)}.",
                code=ErrorCode.INVALID_OPTION,
                subject=column,
            )
        constants[column] = value
    return constants


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def parse_zone(name: str) -> tzinfo:
    """Return a time zone by its IANA name.

    Raises
    ------
    UsageError
        If there is none of that name.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(
            f"There is no time zone '{name}': write UTC, or a name such as Europe/Dublin.",
            code=ErrorCode.UNKNOWN_NAME,
            subject=name,
        ) from error


def _known(column: str) -> str:
    if column not in COLUMNS:
        raise UsageError(
            f"The contract has no column '{column}': {did_you_mean(column, COLUMNS)}.",
            code=ErrorCode.UNKNOWN_NAME,
            subject=column,
        )
    return column


def _factor(column: str, unit: str) -> float:
    own = COLUMNS[column].unit
    units = UNITS.get(own, {own: 1.0} if own else {})
    if unit not in units:
        allowed = did_you_mean(unit, units) if units else "it has no unit"
        raise UsageError(
            f"'{unit}' is no unit of {column}: {allowed}.",
            code=ErrorCode.UNKNOWN_NAME,
            subject=unit,
        )
    return units[unit]


def cell(column: str, text: str, source: Source, where: str) -> str | float | None:
    """Return a cell in the unit of the contract; None where it is missing.

    Words such as ``NA`` are missing numbers, but names: of North America, for example.

    Raises
    ------
    DataRefused
        If the text of a number is none, or infinite; ``where`` names the file and the place in it.
    """
    text = text.strip()
    if text in ("", "-"):
        return None
    if COLUMNS[column].kind in _TEXTS:
        return text
    if text.lower() in ("na", "null", "none"):
        return None
    try:
        value = float(text) * source.factor
    except ValueError as error:
        raise malformed(where, f"'{text[:40]}' is no number for {column}") from error
    if math.isinf(value):
        raise malformed(where, f"'{text[:40]}' is no finite number for {column}")
    return None if math.isnan(value) else value


def moment(text: str, source: Source, choices: Choices, where: str) -> float:
    """Return a time as epoch seconds: by the time format, or as ISO 8601, or as a number.

    Raises
    ------
    DataRefused
        If it is none of them, or no time of the years 1 to 9999.
    """
    text = text.strip()
    try:
        if choices.time_format is None:
            try:
                return epoch_seconds(float(text) * source.factor, where)
            except ValueError:
                time = datetime.fromisoformat(text)
        else:
            time = datetime.strptime(text, choices.time_format)
    except ValueError as error:
        expected = choices.time_format or "ISO 8601 or epoch seconds; --time-format names another"
        raise malformed(where, f"'{text[:40]}' is no time ({expected})") from error
    time = time.replace(tzinfo=choices.zone) if time.tzinfo is None else time
    return epoch_seconds(time.timestamp(), where)


def epoch_seconds(seconds: float, where: object) -> float:
    """Return a time that can be written.

    Raises
    ------
    DataRefused
        If it is no time of the years 1 to 9999.
    """
    if not _FIRST <= seconds <= _LAST:
        what = f"{seconds:.15g} s since 1970 is no time of the years 1 to 9999"
        remedy = "if it is in milliseconds, add @ms: --map timestamp=COLUMN@ms (also @us, @ns)"
        raise malformed(where, f"{what}; {remedy}")
    return seconds


def malformed(where: object, what: str) -> DataRefused:
    """Return the error of a file that is not of its format."""
    return DataRefused(f"{where}: {what}.", code=ErrorCode.MALFORMED, subject=where)


def name_of(chosen: str | None, found: str | None, key: str, path: Path) -> str:
    """Return the name of a node: the chosen one, or that of the file.

    Raises
    ------
    UsageError
        If there is neither.
    """
    name = chosen or found
    if not name:
        flag = "--node" if key == KEY_COLUMNS[1] else "--peer"
        raise UsageError(
            f"{path} does not name its {key}: pass {flag}.", code=ErrorCode.MISSING, subject=flag
        )
    return name
