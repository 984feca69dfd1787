"""The version of a data file: md5, size, and the ``.dvc`` pointer that dvc accepts."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dwcp_ml.contract.errors import DataRefused
from dwcp_ml.files import write_text

_BLOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class FileVersion:
    """The md5 (32 hexadecimal digits) and the size of a file in bytes."""

    md5: str
    size_bytes: int


def file_version(path: Path) -> FileVersion:
    """Read a file once and return its md5 and size.

    Raises
    ------
    DataRefused
        If the file can't be read.
    """
    # dvc names files by md5; it detects accidents here, not attacks.
    digest, size = hashlib.md5(usedforsecurity=False), 0
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
    except OSError as error:
        raise DataRefused(f"Can't read {path}: {error.strerror}.") from error
    return FileVersion(digest.hexdigest(), size)


class VersionInBackground:
    """Hashes a file in a thread while it is read elsewhere; hashing releases the GIL.

    Use it as a context manager; ``result`` waits for the thread.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: FileVersion | None = None
        self._error: DataRefused | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> VersionInBackground:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        # After an error the result is not needed, and the daemon thread ends with the process.
        return

    def _run(self) -> None:
        try:
            self._version = file_version(self._path)
        except DataRefused as error:
            self._error = error

    def result(self) -> FileVersion:
        """Return the version of the file.

        Raises
        ------
        DataRefused
            If the file can't be read.
        """
        self._thread.join()
        if self._version is None:
            raise self._error or DataRefused(f"Can't read {self._path}.")
        return self._version


def write_dvc_pointer(path: Path, version: FileVersion | None = None) -> Path:
    """Write ``<path>.dvc`` beside a file and return its path.

    ``dvc commit`` or ``dvc add`` then puts the file itself into dvc's cache; the pointer alone is
    committed to the repository.

    Parameters
    ----------
    version
        The version of the file, if it is known already.
    """
    import yaml

    known = version or file_version(path)
    out = {"md5": known.md5, "size": known.size_bytes, "hash": "md5", "path": path.name}
    pointer = path.with_name(f"{path.name}.dvc")
    write_text(pointer, yaml.safe_dump({"outs": [out]}, sort_keys=False))
    return pointer
