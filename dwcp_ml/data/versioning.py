"""The version of a data file: md5, size, and the ``.dvc`` pointer that dvc accepts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dwcp_ml.contract.errors import DataRefused, ErrorCode
from dwcp_ml.files import write_text
from dwcp_ml.storage.partitions import parquet_files


@dataclass(frozen=True)
class FileVersion:
    """The md5 (32 hexadecimal digits) and the size of a file in bytes."""

    md5: str
    size_bytes: int


def version_of_set(files: Iterable[tuple[str, FileVersion]]) -> FileVersion:
    """Return the version of a data set from the relative names and versions of its files.

    The md5 is that of the text with one line ``<md5> <size> <name>`` for each file, in the order of
    the names; the size is the sum of the sizes.
    """
    listed = sorted(files, key=lambda item: item[0])
    text = "".join(f"{file.md5} {file.size_bytes} {name}\n" for name, file in listed)
    digest = hashlib.md5(text.encode(), usedforsecurity=False)
    return FileVersion(digest.hexdigest(), sum(file.size_bytes for _, file in listed))


def file_version(path: Path) -> FileVersion:
    """Read a file once and return its md5 and size; of a directory those of its data set.

    Raises
    ------
    DataRefused
        If it can't be read.
    """
    if path.is_dir():
        parts = parquet_files(path)
        return version_of_set((part.name, file_version(path / part.name)) for part in parts)
    # dvc names files by md5; it detects accidents here, not attacks.
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False))
            return FileVersion(digest.hexdigest(), file.tell())
    except OSError as error:
        raise DataRefused(
            f"Can't read {path}: {error.strerror}.", code=ErrorCode.CANT_READ, subject=path
        ) from error


def check_version(name: str, actual: FileVersion, expected_md5: str | None) -> None:
    """Check the md5 of data; ``None`` expects nothing.

    Raises
    ------
    DataRefused
        If it is another one.
    """
    if expected_md5 not in (None, actual.md5):
        raise DataRefused(
            f"{name} has the md5 {actual.md5}, but {expected_md5} is expected: it is another file, "
            "or it was changed.",
            code=ErrorCode.CHANGED,
            subject=name,
        )


def write_dvc_pointer(path: Path, version: FileVersion | None = None) -> Path:
    """Write ``<path>.dvc`` beside a file, whose version may be known already, and return its path.

    ``dvc commit`` or ``dvc add`` then puts the file itself into dvc's cache; the pointer alone is
    committed to the repository.
    """
    import yaml

    known = version or file_version(path)
    out = {"md5": known.md5, "size": known.size_bytes, "hash": "md5", "path": path.name}
    pointer = path.with_name(f"{path.name}.dvc")
    write_text(pointer, yaml.safe_dump({"outs": [out]}, sort_keys=False))
    return pointer
