"""The window of time that a run is limited to: rows of the telemetry outside it are not used."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Final

import numpy as np

from dwcp_ml.contract.arrays import Ints, Mask
from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.contract.record import Record

_RFC_3339: Final = re.compile(
    r"\d{4}-\d\d-\d\d([Tt]\d\d:\d\d:\d\d([.]\d{1,6})?([Zz]|[+-]\d\d:\d\d))?"
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_DAY: Final = 86_400_000


class DataWindow(Record):
    """The times from ``start`` up to, and without, ``end``, milliseconds since 1970 in UTC.

    ``None`` is no bound.
    """

    start: int | None = None
    end: int | None = None

    def holds(self, time: Ints) -> Mask:
        """Return which times, int64 (n,), are in the window."""
        inside = np.ones(len(time), np.bool_)
        if self.start is not None:
            inside &= time >= self.start
        if self.end is not None:
            inside &= time < self.end
        return inside

    def overlaps(self, first: float, last: float) -> bool:
        """Return whether a time from ``first`` to ``last``, both included, is in the window."""
        return (self.start is None or last >= self.start) and (self.end is None or first < self.end)

    def may_hold_rows_of(self, day: date) -> bool:
        """Return whether the window is at most a day away from a day.

        The day is that of a clock that may be hours away from UTC, or hours late.
        """
        midnight = milliseconds_of(datetime(day.year, day.month, day.day, tzinfo=UTC))
        return self.overlaps(midnight - _DAY, midnight + 2 * _DAY - 1)

    def __str__(self) -> str:
        parts = (
            "" if self.start is None else f"from {utc_time(self.start)}",
            "" if self.end is None else f"before {utc_time(self.end)}",
        )
        return " and ".join(part for part in parts if part)


def milliseconds_of(moment: datetime) -> int:
    """Return a time with a zone as milliseconds since 1970, rounded."""
    return round((moment - _EPOCH) / _MILLISECOND)


def utc_time(milliseconds: int) -> str:
    """Return a time, milliseconds since 1970, as ISO 8601; to the second if it is a whole one."""
    precision = "milliseconds" if milliseconds % 1000 else "seconds"
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    return moment.isoformat(timespec=precision).replace("+00:00", "Z")


def data_window(start: str, end: str) -> DataWindow | None:
    """Return the window of two bounds as the user gives them, ``None`` if both are empty.

    Parameters
    ----------
    start, end
        A date, which is its midnight in UTC, or a time with a zone (RFC 3339); empty for no bound.

    Raises
    ------
    UsageError
        If a bound is neither, or the window ends before it begins.
    """
    if not (start or end):
        return None
    window = DataWindow(start=_bound("data_start", start), end=_bound("data_end", end))
    if window.start is not None and window.end is not None and window.start >= window.end:
        raise UsageError(
            f"The data window ends at {end}, which is not after its start, {start}.",
            code=ErrorCode.INVALID_OPTION,
            subject="data_end",
        )
    return window


def _bound(name: str, text: str) -> int | None:
    if not text:
        return None
    try:
        if not _RFC_3339.fullmatch(text):
            raise ValueError(text)
        moment = datetime.fromisoformat(text.upper())
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return milliseconds_of(aware.astimezone(UTC))
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"The {name} {text!r} is neither a date such as 2026-01-31 nor a time with a zone such "
            "as 2026-01-31T12:00:00Z.",
            code=ErrorCode.INVALID_OPTION,
            subject=name,
        ) from error
