"""Reading a prediction log, also while servers write it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dwcp_ml.contract.errors import DataRefused
from dwcp_ml.prediction_log.format import (
    HEADER,
    PARTIAL_SUFFIX,
    SEGMENT_NAME,
    SUFFIX,
    LogRecord,
    decode,
)

LONGEST_LINE: Final = 16_000_000
"""Bytes; a longer line is no record."""


def read_log(directory: Path) -> Iterator[LogRecord]:
    """Yield the records of a log, segment by segment, the oldest segment first.

    Memory does not grow with the log. The last line of an unfinished segment may be cut off, and
    is then passed over; a segment that is removed meanwhile is, too. Hidden files and directories
    are none of the log's.

    Raises
    ------
    DataRefused
        If the directory can't be read, holds a file that is no segment, or a segment is damaged.
    """
    for path in _segments(directory):
        yield from _records(path)


def _segments(directory: Path) -> list[Path]:
    try:
        found = sorted(directory.iterdir(), key=lambda path: path.name)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataRefused(f"can't read the prediction log {directory}: {reason}.") from error
    files = [path for path in found if not path.name.startswith(".") and not path.is_dir()]
    for path in files:
        if not SEGMENT_NAME.fullmatch(path.name):
            raise DataRefused(
                f"{path} is no segment of a prediction log: name the directory that the server "
                "logs to, and keep other files out of it."
            )
    return files


def _records(path: Path) -> Iterator[LogRecord]:
    partial = path.name.endswith(PARTIAL_SUFFIX)
    try:
        try:
            stream = path.open("rb")
        except FileNotFoundError:
            if not partial:
                return
            # Its writer finished it since the directory was listed.
            stream = path.with_name(path.name.removesuffix(PARTIAL_SUFFIX) + SUFFIX).open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataRefused(f"can't read {path}: {reason}.") from error
    with stream:
        for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE), b""), start=1):
            if not line.endswith(b"\n"):
                if partial and len(line) < LONGEST_LINE:
                    return
                raise DataRefused(f"line {number} of {path} is cut off: copy the file again.")
            if number == 1:
                _check_header(path, line)
                continue
            try:
                record = decode(line)
            except ValueError as error:
                raise DataRefused(
                    f"line {number} of {path} is no record of a prediction ({error}): copy the "
                    "file again, or leave it out."
                ) from error
            yield record


def _check_header(path: Path, line: bytes) -> None:
    if line == HEADER:
        return
    if line.startswith(b'{"format":"dwcp-prediction-log"'):
        raise DataRefused(
            f"{path} was written in another version of the format: read it with the dwcp-ml that "
            "belongs to it."
        )
    raise DataRefused(f"{path} does not begin as a segment of a prediction log does.")
