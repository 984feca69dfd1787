"""What the plots of a report are drawn from: arrays of the test split, bounded in size."""

from __future__ import annotations

import os
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.files import cant_write

MAX_SAMPLE: Final = 20_000
"""Examples that are kept at most: what a plot can show, and a few hundred kilobytes."""


@dataclass(frozen=True)
class PlotData:
    """Named arrays behind the plots of one model; every one of numbers, booleans or plain text."""

    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]

    def __contains__(self, name: object) -> bool:
        return name in self.arrays

    def scores(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return the arrays called ``<prefix>:<name>``, by name."""
        start = f"{prefix}:"
        return {k.removeprefix(start): v for k, v in self.arrays.items() if k.startswith(start)}

    def save(self, path: Path) -> None:
        """Write the arrays to an ``.npz`` file, without pickle, in one step.

        Raises
        ------
        DwcpError
            If the file can't be written.
        ValueError
            If an array would need pickle.
        """
        for name, array in self.arrays.items():
            if array.dtype.hasobject:
                raise ValueError(f"the plot_data '{name}' holds Python objects, not numbers.")
        try:
            descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        except OSError as error:
            raise cant_write(path, error) from error
        try:
            with os.fdopen(descriptor, "wb") as stream:
                arrays: dict[str, Any] = dict(self.arrays)
                np.savez_compressed(stream, **arrays)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except OSError as error:
            raise cant_write(path, error) from error
        finally:
            Path(temporary).unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what ``save`` wrote.

        Raises
        ------
        DwcpError
            If the file is missing or is no such file; nothing is ever unpickled.
        """
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                return cls({name: stored[name] for name in stored.files})
        except OSError as error:
            raise DwcpError(f"Can't read {path}: {error.strerror or error}.") from error
        except (ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
            raise DwcpError(f"{path} holds no plot_data: evaluate the model again.") from error


def sample(count: int, keep: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """Return the rows of ``count`` that are kept, in order, ``MAX_SAMPLE`` at most.

    The rows lie evenly; the same rows every time. ``keep`` marks rows that matter more (positives,
    wrong answers): up to half of the sample is theirs.
    """
    if count <= MAX_SAMPLE:
        return np.arange(count, dtype=np.int64)
    wanted = np.flatnonzero(keep) if keep is not None else np.zeros(0, np.int64)
    first = _evenly(wanted, MAX_SAMPLE // 2)
    rest = np.setdiff1d(np.arange(count), first, assume_unique=True)
    return np.sort(np.concatenate([first, _evenly(rest, MAX_SAMPLE - len(first))]))


def _evenly(rows: NDArray[Any], most: int) -> NDArray[np.int64]:
    if len(rows) <= most:
        return rows.astype(np.int64)
    return rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)].astype(np.int64)
