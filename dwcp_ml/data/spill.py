"""Keys of rows in a temporary file, read back sorted without ever holding all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dwcp_ml.contract.arrays import Array, Floats, Ints
from dwcp_ml.contract.examples import GAP_FACTOR
from dwcp_ml.data.ordering import Steps, agree, series_of

PART_ROWS: Final = 1 << 19
"""Maximum rows in memory."""

_RECORD: Final = np.dtype([("key", np.uint64), ("row", np.int64), ("value", np.float64)])
_SAMPLES: Final = 1 << 16


@dataclass
class Spill:
    """Records of (key, row number, value), appended in the order of the file."""

    path: Path
    rows: int = 0
    _file: Any = field(init=False)

    def __post_init__(self) -> None:
        self._file = self.path.open("w+b")

    def append(self, key: NDArray[np.uint64], row: Ints, value: Floats | None = None) -> None:
        """Append rows."""
        records = np.empty(len(key), _RECORD)
        records["key"], records["row"] = key, row
        records["value"] = 0.0 if value is None else value
        self._file.write(records.tobytes())
        self.rows += len(key)

    def close(self) -> None:
        """Close and remove the file."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def parts(self) -> Iterator[Array]:
        """Yield all records in parts, sorted by key, then row; equal keys are in one part."""
        self._file.flush()
        bounds = self._bounds()
        for number in range(len(bounds) + 1):
            found = [
                records[np.searchsorted(bounds, records["key"], "right") == number]
                for records in self._chunks()
            ]
            part = np.concatenate(found) if found else np.empty(0, _RECORD)
            yield part[np.argsort(part["key"], kind="stable")]

    def _chunks(self) -> Iterator[Array]:
        self._file.seek(0)
        while block := self._file.read(PART_ROWS * _RECORD.itemsize):
            yield np.frombuffer(block, _RECORD)

    def _bounds(self) -> NDArray[np.uint64]:
        """Return keys that divide a sample of the records into about equal parts."""
        parts = -(-self.rows // PART_ROWS)
        if parts < 2:
            return np.empty(0, np.uint64)
        stride = max(1, self.rows // _SAMPLES)
        sample = np.sort(np.concatenate([chunk["key"][::stride] for chunk in self._chunks()]))
        places = np.arange(1, parts) * len(sample) // parts
        return np.unique(sample[places])


def duplicates_and_steps(spill: Spill, gap_factor: float = GAP_FACTOR) -> tuple[Ints, Steps]:
    """Return the rows whose key an earlier row has, ascending, and the steps of all links."""
    duplicates = [np.empty(0, np.int64)]
    steps = Steps(gap_factor)
    last = np.empty(0, np.uint64)
    for part in spill.parts():
        if len(part) == 0:
            continue
        repeated = np.concatenate([[False], part["key"][1:] == part["key"][:-1]])
        duplicates.append(part["row"][repeated])
        single = part[~repeated]
        keys = np.concatenate([last, single["key"]])
        rows = single["row"][1 - len(last) :]
        step = np.diff(keys).astype(np.int64)
        link = series_of(keys[1:]).astype(np.int64)
        within = link == series_of(keys[:-1])
        steps.add(link[within], step[within], rows[within])
        last = keys[-1:]
    return np.sort(np.concatenate(duplicates)), steps


def disagreements(spill: Spill, duplicates: Ints) -> Ints:
    """Return the rows whose value differs from that of the first row of the same key, ascending.

    ``duplicates`` are rows that are left out: they repeat another row of the same link.
    """
    rows = [np.empty(0, np.int64)]
    for records in spill.parts():
        part = records[~np.isin(records["row"], duplicates)] if len(duplicates) else records
        begins = np.ones(len(part), np.bool_)
        begins[1:] = part["key"][1:] != part["key"][:-1]
        first = part["value"][np.flatnonzero(begins)][np.cumsum(begins) - 1]
        rows.append(part["row"][~agree(first, part["value"])])
    return np.sort(np.concatenate(rows))
