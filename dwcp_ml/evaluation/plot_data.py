"""The arrays that the plots of a report are drawn from, limited in size."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from dwcp_ml.contract.arrays import Array, Ints, Mask
from dwcp_ml.contract.errors import DwcpError, ErrorCode
from dwcp_ml.files import write_bytes

MAX_SAMPLE: Final = 20_000
"""Maximum number of examples in the plots of a report; the file has a few hundred kilobytes."""


@dataclass(frozen=True)
class PlotData:
    """Named arrays of the plots of one model: numbers, booleans or plain text."""

    arrays: dict[str, Array] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]

    def __contains__(self, name: object) -> bool:
        return name in self.arrays

    def scores(self, prefix: str) -> dict[str, Array]:
        """Return the arrays called ``<prefix>:<name>``, by name."""
        start = f"{prefix}:"
        return {k.removeprefix(start): v for k, v in self.arrays.items() if k.startswith(start)}

    def save(self, path: Path) -> None:
        """Write the arrays to an ``.npz`` file, without pickle, in one step.

        Raises ``DwcpError`` if the file can't be written, ``ValueError`` if an array would need
        pickle.
        """
        for name, array in self.arrays.items():
            if array.dtype.hasobject:
                raise ValueError(f"The array '{name}' holds Python objects, not numbers.")
        stream, arrays = io.BytesIO(), dict[str, Any](self.arrays)
        np.savez_compressed(stream, **arrays)
        write_bytes(path, stream.getvalue())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what ``save`` wrote, without pickle; ``DwcpError`` if it is missing or invalid."""
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                return cls({name: stored[name] for name in stored.files})
        except OSError as error:
            raise DwcpError(
                f"Can't read {path}: {error.strerror or error}.",
                code=ErrorCode.CANT_READ,
                subject=path,
            ) from error
        except (ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
            raise DwcpError(
                f"{path} holds no plot data: evaluate the model again.",
                code=ErrorCode.MALFORMED,
                subject=path,
            ) from error


def sample(count: int, keep: Mask | None = None) -> Ints:
    """Return at most ``MAX_SAMPLE`` of ``count`` rows, in order.

    The rows are evenly spaced and the same in every call. ``keep`` marks rows that are more
    important, such as positives: up to half of the sample is chosen from them.
    """
    if count <= MAX_SAMPLE:
        return np.arange(count, dtype=np.int64)
    important = np.flatnonzero(keep) if keep is not None else np.zeros(0, np.int64)
    first = _evenly(important, MAX_SAMPLE // 2)
    rest = np.setdiff1d(np.arange(count), first, assume_unique=True)
    return np.sort(np.concatenate([first, _evenly(rest, MAX_SAMPLE - len(first))]))


def _evenly(rows: Array, maximum: int) -> Ints:
    if len(rows) <= maximum:
        return rows.astype(np.int64)
    return rows[np.linspace(0, len(rows) - 1, maximum).astype(np.int64)].astype(np.int64)
