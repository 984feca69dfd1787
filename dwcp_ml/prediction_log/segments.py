"""The files of the prediction log: started, appended to, finished, adopted, removed.

A process holds a lock on the segment that it writes. The system releases the lock when the
process ends: a ``.part`` file that can be locked has no writer any more, and another writer
finishes it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dwcp_ml.files import sync
from dwcp_ml.prediction_log.format import (
    HEADER,
    PARTIAL_SUFFIX,
    SEGMENT_NAME,
    SUFFIX,
)

MODE: Final = 0o640
"""The log holds telemetry: other users of the machine may not read it."""


class LogSegment:
    """A segment that this process writes, locked until it is finished.

    Parameters
    ----------
    directory, name
        Where it goes, and its final name.

    Raises
    ------
    OSError
        If it can't be created.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.path = directory / name
        self.partial = self.path.with_suffix(PARTIAL_SUFFIX)
        self.size = 0
        self.synced = 0
        # Locked before it gets the name by which other processes find it.
        hidden = directory / f".{self.partial.name}"
        self._file = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, MODE)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.append(HEADER)
            hidden.rename(self.partial)
            sync(directory)
        except BaseException:
            os.close(self._file)
            hidden.unlink(missing_ok=True)
            raise

    def append(self, content: bytes) -> None:
        """Append ``content`` as a whole; where that fails the segment stays as it was.

        Raises
        ------
        OSError
            If the disk is full, or fails.
        """
        rest = memoryview(content)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError:
            os.ftruncate(self._file, self.size)
            raise
        self.size += len(content)

    def sync(self) -> None:
        """Make what was appended survive a crash of the machine, not only of the process."""
        if self.synced < self.size:
            os.fsync(self._file)
            self.synced = self.size

    def finish(self) -> None:
        """Give the segment its final name; the object is used up, even where that fails.

        Raises
        ------
        OSError
            If the disk fails; what was written stays under the name of an unfinished segment.
        """
        try:
            self.sync()
            self.partial.rename(self.path)
            sync(self.path.parent)
        finally:
            os.close(self._file)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other processes from starting a segment: two at once would exceed the quota."""
    file = os.open(directory / ".lock", os.O_WRONLY | os.O_CREAT, MODE)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def segments(directory: Path) -> list[Path]:
    """Return the segments of a log, finished and unfinished, oldest first."""
    paths = (each for each in directory.iterdir() if SEGMENT_NAME.fullmatch(each.name))
    return sorted(paths, key=lambda path: path.name)


def adopt_orphans(directory: Path) -> int:
    """Finish the segments whose writers have ended, and return how many there were.

    A line that was cut off is removed; a segment with no record in it is, too.
    """
    adopted = 0
    for path in segments(directory):
        if path.name.endswith(PARTIAL_SUFFIX):
            try:
                adopted += _adopt(path)
            except (FileNotFoundError, PermissionError):
                continue  # another process was faster, or the file belongs to another user
    return adopted


def _adopt(path: Path) -> bool:
    file = os.open(path, os.O_RDWR)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        whole = _end_of_last_line(file)
        if whole <= len(HEADER):
            path.unlink()
            return True
        os.ftruncate(file, whole)
        os.fsync(file)
        path.rename(path.with_name(path.name.removesuffix(PARTIAL_SUFFIX) + SUFFIX))
        return True
    finally:
        os.close(file)


def _end_of_last_line(file: int, step: int = 1 << 16) -> int:
    """Return how many bytes of a file are whole lines."""
    end = os.fstat(file).st_size
    while end > 0:
        start = max(0, end - step)
        position = os.pread(file, end - start, start).rfind(b"\n")
        if position >= 0:
            return start + position + 1
        end = start
    return 0


def free_space(directory: Path, max_bytes: int, reserve: int) -> int:
    """Remove the oldest finished segments to keep the quota, and return how many were removed.

    Parameters
    ----------
    reserve
        Size that each unfinished segment may reach, and the one that is about to be started.
    """
    paths = segments(directory)
    finished = [path for path in paths if path.name.endswith(SUFFIX)]
    capacity = max_bytes - reserve * (len(paths) - len(finished) + 1)
    sizes = {path: _size(path) for path in finished}
    used, removed = sum(sizes.values()), 0
    for path in finished:
        if used <= capacity:
            break
        path.unlink(missing_ok=True)
        used -= sizes[path]
        removed += 1
    return removed


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
