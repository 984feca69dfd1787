"""The lines of a prediction log in the order of time, from where a reader once stopped.

A segment may be finished, adopted or removed while it is read. A line is never split: what is not
complete is left for the next time.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import orjson

from dwcp_ml.contract.errors import DataRefused
from dwcp_ml.prediction_log.format import (
    HEADER,
    PARTIAL_SUFFIX,
    SEGMENT_NAME,
    SUFFIX,
)
from dwcp_ml.prediction_log.reader import LONGEST_LINE

_MARK_EVERY: Final = 64
"""Lines between two places where a later reader may begin."""

_CLOCK_SLACK_SECONDS: Final = 60.0
"""How far the clock of a file system may be from the servers'."""


class Line(NamedTuple):
    """One instance of a request, as far as pairing and its truth need it."""

    received_at: float
    model: str
    version: str
    request_id: str
    row: int
    outputs: Mapping[str, Any]
    link: str | None = None
    moment: float = 0.0
    """When the features were true, epoch seconds."""
    steps: int = 1
    """Length of the input's first axis: the time steps of a window."""


class SegmentTail:
    """One segment, read from an offset.

    Parameters
    ----------
    path
        Finished or not.
    offset
        Of the first line that is wanted, bytes; beyond the end of the file it counts as 0.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.name = path.name.removesuffix(PARTIAL_SUFFIX).removesuffix(SUFFIX)
        self._offset = offset
        self._marks = [(offset, float("-inf"))]

    def lines(self) -> Iterator[Line]:
        """Yield its whole lines.

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
            reason = (error.strerror or str(error)).lower()
            raise DataRefused(f"can't read {self.path}: {reason}.") from error
        with stream:
            yield from self._lines(stream)

    def offset_at(self, moment: float) -> int:
        """Return where a reader may begin who wants what was received from ``moment`` on."""
        return max(offset for offset, latest in self._marks if latest < moment)

    def _open(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except FileNotFoundError:
            # Its writer finished it since the directory was listed.
            return self.path.with_name(f"{self.name}{SUFFIX}").open("rb")

    def _lines(self, stream: BinaryIO) -> Iterator[Line]:
        header = stream.readline(LONGEST_LINE)
        if header != HEADER:
            if HEADER.startswith(header):
                return  # it is just being begun
            raise DataRefused(f"{self.path} does not begin as a segment of a prediction log does.")
        size = stream.seek(0, 2)
        if not len(header) <= self._offset <= size:
            self._offset = len(header)
            self._marks = [(self._offset, float("-inf"))]
        stream.seek(self._offset)
        latest = float("-inf")
        contents = iter(lambda: stream.readline(LONGEST_LINE), b"")
        for count, content in enumerate(contents, start=1):
            if not content.endswith(b"\n"):
                if len(content) < LONGEST_LINE:
                    break
                raise DataRefused(f"{self.path} holds a line that is too long.")
            line = self._line(content)
            self._offset += len(content)
            latest = max(latest, line.received_at)
            if count % _MARK_EVERY == 0:
                self._marks.append((self._offset, latest))
            yield line
        self._marks.append((self._offset, latest))

    def _line(self, content: bytes) -> Line:
        try:
            fields = orjson.loads(content)
            received_at = float(fields["received_at"])
            observed_at = fields.get("observed_at")
            line = Line(
                received_at,
                fields["model"],
                fields["version"],
                fields["request_id"],
                fields["row"],
                fields["outputs"],
                fields.get("link"),
                received_at if observed_at is None else float(observed_at),
                len(fields.get("inputs") or ()),
            )
        except (ValueError, TypeError, KeyError) as error:
            raise DataRefused(
                f"{self.path} holds a line at byte {self._offset} that is no record of a "
                f"prediction ({error})."
            ) from error
        texts = (line.model, line.version, line.request_id)
        if (
            not all(isinstance(text, str) for text in texts)
            or not isinstance(line.row, int)
            or not isinstance(line.outputs, dict)
            or not isinstance(line.link, str | None)
        ):
            raise DataRefused(
                f"{self.path} holds a line at byte {self._offset} that is no record of a "
                "prediction (a field has the wrong type)."
            )
        return line


def segments_since(directory: Path, moment: float, offsets: Mapping[str, int]) -> list[SegmentTail]:
    """Return the segments that may hold lines received from ``moment`` on.

    Parameters
    ----------
    offsets
        Name of a segment without its endings -> where to begin, bytes.

    Raises
    ------
    DataRefused
        If the directory can't be read.
    """
    found = []
    try:
        for path in sorted(directory.iterdir(), key=lambda each: each.name):
            if not SEGMENT_NAME.fullmatch(path.name):
                continue
            if _is_older(path, moment - _CLOCK_SLACK_SECONDS):
                continue
            name = path.name.removesuffix(PARTIAL_SUFFIX).removesuffix(SUFFIX)
            found.append(SegmentTail(path, offsets.get(name, 0)))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataRefused(f"can't read the prediction log {directory}: {reason}.") from error
    return found


def merged(segments: list[SegmentTail]) -> Iterator[Line]:
    """Yield the lines of all segments by the time of receipt.

    In memory is one line a segment. A segment is in the order of time but for a clock that was set
    back; such a line comes late.
    """
    return heapq.merge(*(segment.lines() for segment in segments), key=lambda line: line[0])


def _is_older(path: Path, moment: float) -> bool:
    if path.name.endswith(PARTIAL_SUFFIX):
        return False
    try:
        return path.stat().st_mtime < moment
    except FileNotFoundError:
        return True
