"""Reads a prediction log, also while servers write it.

A segment may be finished, adopted or removed while it is read. A line is never split: what is not
complete is left for the next reading.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

from dwcp_ml.contract.errors import DataRefused, ErrorCode
from dwcp_ml.prediction_log.format import (
    HEADER,
    PARTIAL_SUFFIX,
    SEGMENT_NAME,
    SUFFIX,
    LogRecord,
    decode,
)

MAX_LINE_BYTES: Final = 16_000_000
"""A longer line is not a record."""

_MARK_EVERY: Final = 64
"""Lines between two places where a later reading may begin."""

_CLOCK_SLACK_SECONDS: Final = 60.0
"""How far the clock of a file system may be from the servers'."""


class SegmentReader:
    """Reads one segment from an offset.

    Parameters
    ----------
    path
        Finished or not.
    offset
        Of the first line to read, bytes; beyond the end of the file it counts as 0.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.name = _base_name(path)
        self._offset = offset
        self._marks = [(offset, float("-inf"))]

    def records(self) -> Iterator[LogRecord]:
        """Yield the records of its complete lines.

        The last line of an unfinished segment may be cut off, and is then passed over. A segment
        that was removed since the directory was listed has no records.

        Raises
        ------
        DataRefused
            If it is damaged, or can't be read.
        """
        try:
            stream = self._open()
        except FileNotFoundError:
            return
        except OSError as error:
            raise _unreadable(str(self.path), error) from error
        with stream:
            if self._has_header(stream):
                yield from self._records(stream)

    def offset_at(self, moment: float) -> int:
        """Return where to begin reading to see every record received from ``moment`` on."""
        return max(offset for offset, latest in self._marks if latest < moment)

    def _open(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except FileNotFoundError:
            # Its writer finished it since the directory was listed.
            return self.path.with_name(f"{self.name}{SUFFIX}").open("rb")

    @property
    def _is_partial(self) -> bool:
        return self.path.name.endswith(PARTIAL_SUFFIX)

    def _has_header(self, stream: BinaryIO) -> bool:
        """Return whether the header is written; it is an error if something else is."""
        header = stream.readline(MAX_LINE_BYTES)
        if header == HEADER:
            return True
        if not header or (self._is_partial and HEADER.startswith(header)):
            return False
        if header.startswith(b'{"format":"dwcp-prediction-log",'):
            raise DataRefused(
                f"{self.path} was written in another version of the format: read it with the "
                "dwcp-ml that belongs to it.",
                code=ErrorCode.UNSUPPORTED,
                subject=self.path.name,
            )
        raise DataRefused(
            f"{self.path} does not begin as a segment of a prediction log does.",
            code=ErrorCode.MALFORMED,
            subject=self.path.name,
        )

    def _records(self, stream: BinaryIO) -> Iterator[LogRecord]:
        if not len(HEADER) <= self._offset <= stream.seek(0, 2):
            self._offset = len(HEADER)
            self._marks = [(self._offset, float("-inf"))]
        stream.seek(self._offset)
        latest = float("-inf")
        lines = iter(lambda: stream.readline(MAX_LINE_BYTES), b"")
        for count, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                if self._is_partial and len(line) < MAX_LINE_BYTES:
                    break
                raise self._damaged(
                    stream, "is cut off: copy the file again.", ErrorCode.INCOMPLETE
                )
            try:
                record = decode(line)
            except ValueError as error:
                raise self._damaged(
                    stream,
                    f"is no record of a prediction ({error}): copy the file again, or leave it "
                    "out.",
                    ErrorCode.MALFORMED,
                ) from error
            self._offset += len(line)
            latest = max(latest, record.received_at)
            if count % _MARK_EVERY == 0:
                self._marks.append((self._offset, latest))
            yield record
        self._marks.append((self._offset, latest))

    def _damaged(self, stream: BinaryIO, what: str, code: ErrorCode) -> DataRefused:
        stream.seek(0)
        number = stream.read(self._offset).count(b"\n") + 1
        return DataRefused(
            f"Line {number} of {self.path} {what}", code=code, subject=f"line {number}"
        )


def read_log(directory: Path) -> Iterator[LogRecord]:
    """Yield the records of a log, segment by segment, the oldest segment first.

    Memory does not grow with the log. Hidden files and directories are not part of the log.

    Raises
    ------
    DataRefused
        If the directory can't be read, holds a file that is no segment, or a segment is damaged.
    """
    paths = _files(directory)
    for path in paths:
        if not SEGMENT_NAME.fullmatch(path.name):
            raise DataRefused(
                f"{path} is no segment of a prediction log: name the directory that the server "
                "logs to, and keep other files out of it.",
                code=ErrorCode.FORBIDDEN,
                subject=path.name,
            )
    for path in paths:
        yield from SegmentReader(path).records()


def segments_since(
    directory: Path, moment: float, offsets: Mapping[str, int]
) -> list[SegmentReader]:
    """Return readers of the segments that may hold records received from ``moment`` on.

    Parameters
    ----------
    offsets
        Name of a segment without its suffix -> where to begin, bytes.

    Raises
    ------
    DataRefused
        If the directory can't be read.
    """
    return [
        SegmentReader(path, offsets.get(_base_name(path), 0))
        for path in _files(directory)
        if SEGMENT_NAME.fullmatch(path.name) and not _is_older(path, moment - _CLOCK_SLACK_SECONDS)
    ]


def _files(directory: Path) -> list[Path]:
    try:
        entries = sorted(directory.iterdir(), key=lambda path: path.name)
        return [path for path in entries if not path.name.startswith(".") and not path.is_dir()]
    except OSError as error:
        raise _unreadable(f"the prediction log {directory}", error) from error


def _base_name(path: Path) -> str:
    return path.name.removesuffix(PARTIAL_SUFFIX).removesuffix(SUFFIX)


def _is_older(path: Path, moment: float) -> bool:
    if path.name.endswith(PARTIAL_SUFFIX):
        return False
    try:
        return path.stat().st_mtime < moment
    except FileNotFoundError:
        return True


def _unreadable(what: str, error: OSError) -> DataRefused:
    return DataRefused(
        f"Can't read {what}: {(error.strerror or str(error)).lower()}.",
        code=ErrorCode.CANT_READ,
        subject=what,
    )
