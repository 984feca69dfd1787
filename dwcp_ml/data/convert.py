"""Convert the cells of a file to numbers, times and words; mark those that can't be converted.

Every function takes one Arrow array as CSV or Parquet delivered it and returns numpy arrays of the
same length. Values are not checked here but in ``checks``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from dwcp_ml.contract.arrays import Floats, Ints, Mask
from dwcp_ml.contract.keys import key_of
from dwcp_ml.data.arrow import array_of, null_mask, strings_of, values_of

NULL_WORDS: Final = tuple(pacsv.ConvertOptions().null_values)
"""Spellings of a missing number or time in a CSV file; a missing word is an empty cell."""

_NUMBER: Final = r"(?i)^[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?)$"
_TRUTH: Final = {"true": "1", "false": "0"}


@dataclass(frozen=True)
class Numbers:
    """Cells as float64; NaN where ``missing`` or ``wrong``. A mask of ``None`` is all False."""

    values: Floats
    missing: Mask | None = None
    wrong: Mask | None = None


@dataclass(frozen=True)
class Times:
    """Cells as milliseconds since 1970 (int64, rounded); 0 where ``missing`` or ``wrong``."""

    values: Ints
    missing: Mask | None = None
    wrong: Mask | None = None


@dataclass(frozen=True)
class Words:
    """Cells as indices (int64) into the distinct ``words``; -1 where the cell is missing."""

    indices: Ints
    words: tuple[str, ...]

    @property
    def missing(self) -> Mask | None:
        """Which cells are missing, ``None`` for none."""
        return _mask_or_none(self.indices < 0)

    def to_objects(self) -> NDArray[np.object_]:
        """Return the words row by row, ``None`` where missing."""
        return np.array([*self.words, None], object)[self.indices]


def _mask_or_none(mask: Mask) -> Mask | None:
    return mask if mask.any() else None


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _plain(array: Any) -> Any:
    """Return the array without dictionary encoding."""
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def numbers(array: Any) -> Numbers:
    """Return the cells of a numeric column."""
    array = _plain(array)
    kind = array.type
    if pa.types.is_null(kind):
        everything = np.ones(len(array), np.bool_)
        return Numbers(np.full(len(array), np.nan), missing=everything)
    if _is_text(kind):
        return _numbers_of_text(array)
    if pa.types.is_boolean(kind):
        array = array.cast(pa.int8())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        nulls = _mask(null_mask(array), len(array))
        return Numbers(np.full(len(array), np.nan), _mask_or_none(nulls), _mask_or_none(~nulls))
    if not kind.equals(pa.float64()):
        array = array.cast(pa.float64(), safe=False)
    values, null = values_of(array), null_mask(array)
    if null is not None:
        values = np.where(null, np.nan, values)
    return Numbers(values, _mask_or_none(np.isnan(values)))


def _numbers_of_text(array: Any) -> Numbers:
    """Convert text; regular expressions find bad cells, because a cast stops at the first."""
    import pyarrow.compute as pc

    text = pc.utf8_trim_whitespace(array)
    missing = _mask(null_mask(array), len(array))
    missing |= _truth(pc.is_in(text, strings_of(NULL_WORDS).cast(text.type)))
    for word, digit in _TRUTH.items():
        text = pc.replace_substring_regex(text, f"(?i)^{word}$", digit)
    readable = _truth(pc.match_substring_regex(text, _NUMBER))
    usable = readable & ~missing
    places = np.flatnonzero(usable)
    digits = pc.utf8_ltrim(text.take(array_of(places)), "+")
    values = np.full(len(array), np.nan)
    values[places] = values_of(pc.cast(digits, pa.float64()))
    return Numbers(values, _mask_or_none(missing), _mask_or_none(~usable & ~missing))


def _truth(array: Any) -> Mask:
    """Return a boolean array as a mask; null is False."""
    null = null_mask(array)
    return values_of(array) if null is None else values_of(array) & ~null


def _mask(mask: Mask | None, length: int) -> Mask:
    return np.zeros(length, np.bool_) if mask is None else mask


def times(array: Any) -> Times:
    """Return the cells of a time column: ISO 8601 (without a zone: UTC), or epoch seconds."""
    array = _plain(array)
    kind = array.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _times_of_moments(array)
    if _is_text(kind):
        return _times_of_text(array)
    return _times_of_numbers(numbers(array))


MILLISECONDS: Final = 1000
"""In a second: telemetry of ten rows a second, and clocks that jitter, keep their times apart."""

_TICKS: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def _times_of_moments(array: Any) -> Times:
    if not pa.types.is_timestamp(array.type):
        array = array.cast(pa.timestamp("s"))
    missing, ticks = null_mask(array), values_of(array.view(pa.int64()))
    a_second = _TICKS[array.type.unit]
    if a_second < MILLISECONDS:
        time = ticks * MILLISECONDS
    else:
        a_millisecond = a_second // MILLISECONDS
        time = (ticks + a_millisecond // 2) // a_millisecond
    return Times(time if missing is None else np.where(missing, 0, time), missing)


_MAX_SECONDS: Final = 1e14
"""Larger numbers are no times, and would not fit an integer."""


def _times_of_numbers(cells: Numbers) -> Times:
    with np.errstate(invalid="ignore"):
        usable = np.abs(cells.values) < _MAX_SECONDS
    time = np.rint(np.where(usable, cells.values, 0.0) * MILLISECONDS).astype(np.int64)
    unusable = ~usable if cells.missing is None else ~usable & ~cells.missing
    return Times(time, cells.missing, _mask_or_none(unusable))


def _times_of_text(array: Any) -> Times:
    cells = _numbers_of_text(array)
    times_of_numbers = _times_of_numbers(cells)
    if cells.wrong is None:
        return times_of_numbers
    values, wrong = times_of_numbers.values.copy(), cells.wrong.copy()
    rows = np.flatnonzero(wrong)
    for row, text in zip(rows, array.take(array_of(rows)).to_pylist(), strict=True):
        moment = _moment(text)
        if moment is not None:
            values[row], wrong[row] = moment, False
    other = times_of_numbers.wrong
    unusable = wrong if other is None else wrong | (other & ~cells.wrong)
    return Times(values, cells.missing, _mask_or_none(unusable))


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def _moment(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return round((aware - _EPOCH) / _MILLISECOND)


def words(array: Any) -> Words:
    """Return the cells of a key or category column; numbers become words without a fraction."""
    array = array if pa.types.is_dictionary(array.type) else _text_of(array).dictionary_encode()
    distinct = _text_of(array.dictionary).to_pylist()
    indices, null = values_of(array.indices).astype(np.int64), null_mask(array.indices)
    if null is not None:
        indices[null] = -1
    if all(word and key_of(word) == word for word in distinct):
        return Words(indices, tuple(distinct))
    names: dict[str, int] = {}
    table = np.full(len(distinct) + 1, -1, np.int64)
    for position, word in enumerate(distinct):
        name = key_of(word or "")
        if name:
            table[position] = names.setdefault(name, len(names))
    return Words(table[indices], tuple(names))


def _text_of(array: Any) -> Any:
    kind = array.type
    if _is_text(kind):
        return array
    castable = ("is_null", "is_integer", "is_floating", "is_boolean")
    if any(getattr(pa.types, check)(kind) for check in castable):
        return array.cast(pa.string())
    return strings_of(["" if cell is None else str(cell) for cell in array.to_pylist()])
