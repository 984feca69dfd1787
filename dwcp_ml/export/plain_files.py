"""The files of an untrusted directory: plain files only, bounded, never outside the directory.

The directory stays open and everything below it is opened from its descriptor, part by part, so
neither a link nor a directory that is replaced meanwhile leads elsewhere. All sizes are checked
before anything is read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dwcp_ml.contract.bundle import (
    MANIFEST_NAME,
    MAX_DEPTH,
    MAX_FILE_BYTES,
    SIGNATURE_NAME,
    printable,
)
from dwcp_ml.contract.errors import BundleRefused, ErrorCode

MAX_ENTRIES: Final = 200
MAX_MANIFEST_BYTES: Final = 1_000_000
MAX_SIGNATURE_BYTES: Final = 200_000
MAX_BUNDLE_BYTES: Final = 200_000_000
"""All files together; a larger bundle is rejected before anything is read."""

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PLAIN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class OpenDirectory:
    """An open directory: another directory that takes its name is ignored."""

    path: Path
    root: int

    def files(self) -> set[str]:
        """Return the POSIX paths of all files, after checking that all are plain files.

        Raises
        ------
        BundleRefused
            If there is a link or anything else that is not a plain file, a file that is too large,
            or too many files, bytes or levels.
        """
        path = self.path
        names: set[str] = set()
        seen = total = 0
        pending = [""]
        while pending:
            for name, info in self._entries(pending.pop()):
                seen += 1
                if seen > MAX_ENTRIES:
                    raise BundleRefused(
                        f"{path} holds more than {MAX_ENTRIES} files and directories; "
                        "it is not a bundle.",
                        code=ErrorCode.TOO_LARGE,
                    )
                if stat.S_ISDIR(info.st_mode):
                    if name.count("/") + 1 >= MAX_DEPTH:
                        raise BundleRefused(
                            f"{path} holds directories more than {MAX_DEPTH} deep; "
                            "it is not a bundle.",
                            code=ErrorCode.TOO_LARGE,
                        )
                    pending.append(f"{name}/")
                    continue
                self._check_plain_file(name, info)
                total += info.st_size
                if total > MAX_BUNDLE_BYTES:
                    raise BundleRefused(
                        f"{path} holds more than {MAX_BUNDLE_BYTES:,} bytes; it is not a bundle.",
                        code=ErrorCode.TOO_LARGE,
                    )
                names.add(name)
        return names

    def read(self, name: str) -> bytes:
        """Return the content of a plain file, checked again on the open file itself.

        Parameters
        ----------
        name
            The POSIX path of the file below the directory.

        Raises
        ------
        BundleRefused
            If it is not a plain file, too large, or can't be read.
        """
        try:
            with os.fdopen(self._open_below(name, _PLAIN), "rb") as stream:
                self._check_plain_file(name, os.fstat(stream.fileno()))
                return stream.read(_limit(name))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise BundleRefused(
                f"{self.path}: {name} can't be read: {reason}.",
                code=ErrorCode.CANT_READ,
                subject=name,
            ) from error

    def _entries(self, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
        try:
            directory = self._open_below(f"{prefix}.", _DIRECTORY)
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        yield prefix + entry.name, entry.stat(follow_symlinks=False)
            finally:
                os.close(directory)
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def _open_below(self, name: str, flags: int) -> int:
        """Open ``name`` part by part, so that no directory on the way may be a link."""
        *parents, last = name.split("/")
        directory = os.dup(self.root)
        try:
            for part in parents:
                inner = os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
                os.close(directory)
                directory = inner
            return os.open(last, flags, dir_fd=directory)
        finally:
            os.close(directory)

    def _check_plain_file(self, name: str, info: os.stat_result) -> None:
        what = f"{self.path}: {printable(name)}"
        if stat.S_ISLNK(info.st_mode):
            raise BundleRefused(
                f"{what} is a symbolic link; a bundle holds plain files only.",
                code=ErrorCode.FORBIDDEN,
                subject=what,
            )
        if not stat.S_ISREG(info.st_mode):
            raise BundleRefused(
                f"{what} is not a plain file; a bundle holds plain files only.",
                code=ErrorCode.FORBIDDEN,
                subject=what,
            )
        if info.st_nlink > 1:
            raise BundleRefused(
                f"{what} is a hard link to a file elsewhere; copy the bundle instead.",
                code=ErrorCode.FORBIDDEN,
                subject=what,
            )
        limit = _limit(name)
        if info.st_size > limit:
            raise BundleRefused(
                f"{what} has {info.st_size:,} bytes; a bundle may hold {limit:,} of it.",
                code=ErrorCode.TOO_LARGE,
                subject=what,
            )


@contextmanager
def opened(path: Path) -> Iterator[OpenDirectory]:
    """Yield the directory, open while the block runs.

    Raises
    ------
    BundleRefused
        If it is not a directory or can't be opened.
    """
    try:
        root = os.open(path, _DIRECTORY)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        yield OpenDirectory(path, root)
    finally:
        os.close(root)


def _limit(name: str) -> int:
    limits = {MANIFEST_NAME: MAX_MANIFEST_BYTES, SIGNATURE_NAME: MAX_SIGNATURE_BYTES}
    return limits.get(name, MAX_FILE_BYTES)


def _unreadable(path: Path, error: OSError) -> BundleRefused:
    reason = (error.strerror or str(error)).lower()
    return BundleRefused(f"{path} can't be read as a bundle: {reason}.", code=ErrorCode.CANT_READ)
