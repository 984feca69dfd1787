"""The version of a data file: md5, size, and the ``.dvc`` pointer that dvc accepts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dwcp_ml.contract.errors import DataRefused, ErrorCode
from dwcp_ml.files import write_text


@dataclass(frozen=True)
class FileVersion:
    """The md5 (32 hexadecimal digits) and the size of a file in bytes."""

    md5: str
    size_bytes: int


def file_version(path: Path) -> FileVersion:
    """Read a file once and return its md5 and size; ``DataRefused`` if it can't be read."""
    # dvc names files by md5; it detects accidents here, not attacks.
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False))
            return FileVersion(digest.hexdigest(), file.tell())
    except OSError as error:
        raise DataRefused(
            f"Can't read {path}: {error.strerror}.", code=ErrorCode.CANT_READ, subject=path
        ) from error


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
