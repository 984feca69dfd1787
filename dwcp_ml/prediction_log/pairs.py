"""Joins the predictions of both arms for the same request, from their prediction logs.

The time of a request is that of the stable's response. A request is settled when the time limit
for the other half has passed. Each reading settles the time since the last one, so that a request
counts once, even if logs are read again. The cursor is the time up to which everything is settled
and, to read less, its offset in each segment.
"""

from __future__ import annotations

import heapq
import json
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Final

from pydantic import Field, ValidationError

from dwcp_ml.contract.errors import DataRefused, ErrorCode, UsageError
from dwcp_ml.contract.models import MODELS
from dwcp_ml.contract.record import Record
from dwcp_ml.prediction_log.divergence import absolute, answer, score_difference, signed
from dwcp_ml.prediction_log.format import LogRecord
from dwcp_ml.prediction_log.reader import SegmentReader, segments_since
from dwcp_ml.rollout.observation import Pair

WAIT_SECONDS: Final = 10.0
MAX_RECORDS: Final = 200_000
MAX_WAITING_REQUESTS: Final = 500_000


class _Cursor(Record):
    settled: float = Field(allow_inf_nan=False)
    offsets: dict[str, int] = Field(default_factory=dict)


@dataclass(frozen=True)
class Arms:
    """The logs of the two arms, and how they are joined.

    Parameters
    ----------
    stable_log, candidate_log
        The directories of the logs; they may be the same.
    stable_version, candidate_version
        Of the model; they must differ if the directories are the same.
    since
        Epoch seconds; earlier requests do not count.
    wait_seconds
        How long after one half the other may be received, by the servers' clocks. A line that is
        written later than this after its response is lost.
    max_records
        At most this number is read at a time; the next reading continues.

    Raises
    ------
    UsageError
        If the model is unknown, a number out of its range, or the arms can't be distinguished.
    """

    model: str
    stable_log: Path
    candidate_log: Path
    stable_version: str
    candidate_version: str
    since: float = 0.0
    wait_seconds: float = WAIT_SECONDS
    max_records: int = MAX_RECORDS

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise UsageError(
                f"There is no model {self.model!r}: it is one of {', '.join(MODELS)}.",
                code=ErrorCode.UNKNOWN_NAME,
                subject=self.model,
            )
        if not (0 < self.wait_seconds < math.inf and math.isfinite(self.since)):
            raise UsageError(
                "The time limit of a pair must be more than 0 s, and finite.",
                code=ErrorCode.OUT_OF_RANGE,
                subject="time_limit",
            )
        if self.max_records < 1:
            raise UsageError(
                "At least one record must be read at a time.",
                code=ErrorCode.OUT_OF_RANGE,
                subject="records",
            )
        if self.stable_log.resolve() == self.candidate_log.resolve() and (
            self.stable_version == self.candidate_version
        ):
            raise UsageError(
                "Stable and candidate are the same version and log to the same directory: give "
                "each arm a directory of its own.",
                code=ErrorCode.AMBIGUOUS,
                subject="arms",
            )


@dataclass
class Half:
    """The predictions of one arm for a request.

    Parameters
    ----------
    received_at
        Time of the response, epoch seconds by its own clock.
    link, moment
        The link of the features, and when they were observed (epoch seconds).
    answers
        Row -> outputs by name.
    """

    received_at: float
    link: str | None = None
    moment: float = 0.0
    answers: dict[int, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Both:
    """One request, and the predictions of both arms."""

    request_id: str
    stable: Half
    candidate: Half


@dataclass(frozen=True)
class Joined:
    """The requests that one reading settled.

    Parameters
    ----------
    pairs
        In the order of the stable's responses.
    stable_only
        Requests that only the stable logged in time: not mirrored, or the copy failed.
    """

    pairs: tuple[Pair, ...]
    both: tuple[Both, ...]
    cursor: str
    stable_only: int


def read_pairs(arms: Arms, cursor: str, now: float) -> Joined:
    """Return the pairs that were settled since ``cursor``.

    The same logs, cursor and time give the same result; nothing is stored between two calls, and
    memory is bounded by the requests within three time limits and the pairs of ``max_records``.

    Parameters
    ----------
    cursor
        Of the last reading whose result was stored; empty for the first.
    now
        Epoch seconds.

    Raises
    ------
    DataRefused
        If a log can't be read or is damaged, or too many requests wait for their other half.
    UsageError
        If the cursor is invalid.
    """
    start = _parse(cursor, arms.since)
    wait = arms.wait_seconds
    read_from = start.settled - wait
    logs = {
        log: segments_since(log, read_from, start.offsets)
        for log in dict.fromkeys((arms.stable_log, arms.candidate_log))
    }
    join = _Join(arms, start.settled)
    reached = _read(arms, logs, join, start.settled, now)
    settled = max(start.settled, reached - wait)
    join.settle(settled)
    offsets = {}
    for segment in chain.from_iterable(logs.values()):
        offset = segment.offset_at(settled - wait)
        if offset:
            offsets[segment.name] = offset
    after = _Cursor(settled=settled, offsets=offsets)
    pairs = tuple(_pair(arms.model, each) for each in join.both)
    return Joined(pairs, tuple(join.both), after.model_dump_json(), join.stable_only)


def _read(
    arms: Arms, logs: Mapping[Path, list[SegmentReader]], join: _Join, start: float, now: float
) -> float:
    """Add the records of all segments to the join, and return up to which time all were read.

    One record of each segment is in memory. A segment is in the order of time except where a clock
    was set back; such a record comes late.
    """
    streams = [_with_log(log, segment) for log, segments in logs.items() for segment in segments]
    count = 0
    for log, record in heapq.merge(*streams, key=lambda each: each[1].received_at):
        if record.received_at > now:
            break
        if record.model != arms.model or record.received_at < start - arms.wait_seconds:
            continue
        is_stable = log == arms.stable_log and record.version == arms.stable_version
        is_candidate = log == arms.candidate_log and record.version == arms.candidate_version
        join.add(record, is_stable, is_candidate)
        if join.waiting > MAX_WAITING_REQUESTS:
            raise DataRefused(
                f"More than {MAX_WAITING_REQUESTS} requests wait for their other half: log a "
                "smaller fraction of them, or shorten the time limit.",
                code=ErrorCode.TOO_LARGE,
                subject="waiting requests",
            )
        count += 1
        if count >= arms.max_records and record.received_at - arms.wait_seconds > start:
            return record.received_at
    return now


def _with_log(log: Path, segment: SegmentReader) -> Iterator[tuple[Path, LogRecord]]:
    for record in segment.records():
        yield log, record


class _Halves:
    """The requests of one arm whose other half may still be read, oldest first.

    A request id that is repeated within the time limit is a retry: the first prediction counts.
    """

    def __init__(self, wait_seconds: float) -> None:
        self._wait_seconds = wait_seconds
        self._by_id: OrderedDict[str, Half] = OrderedDict()  # first keys are removed

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, record: LogRecord) -> None:
        half = self._by_id.get(record.request_id)
        if half is None:
            half = Half(record.received_at, record.link, record.moment)
            self._by_id[record.request_id] = half
        half.answers.setdefault(record.row, record.outputs)

    def find(self, name: str, received_at: float) -> Half | None:
        half = self._by_id.get(name)
        if half is None or abs(half.received_at - received_at) > self._wait_seconds:
            return None
        return half

    def take(self, moment: float) -> Iterator[tuple[str, Half]]:
        """Remove and yield what was received before ``moment``."""
        while self._by_id:
            name = next(iter(self._by_id))
            if self._by_id[name].received_at >= moment:
                break
            yield name, self._by_id.pop(name)


class _Join:
    """The requests within the time limit of the time that is being settled."""

    def __init__(self, arms: Arms, start: float) -> None:
        self._wait_seconds = arms.wait_seconds
        self._start = self._settled = start
        self._stable = _Halves(arms.wait_seconds)
        self._candidate = _Halves(arms.wait_seconds)
        self.both: list[Both] = []
        self.stable_only = 0

    @property
    def waiting(self) -> int:
        return len(self._stable) + len(self._candidate)

    def add(self, record: LogRecord, is_stable: bool, is_candidate: bool) -> None:
        """Add the next record; records come in the order of time."""
        self.settle(record.received_at - self._wait_seconds)
        if record.received_at < self._settled - self._wait_seconds:
            return  # it can no longer be paired
        if is_candidate:
            self._candidate.add(record)
        if is_stable:
            self._stable.add(record)

    def settle(self, moment: float) -> None:
        """Settle everything before ``moment``, and drop what can no longer be paired."""
        if moment <= self._settled:
            return
        self._settled = moment
        for name, half in self._stable.take(moment):
            if half.received_at < self._start:
                continue  # an earlier reading counted it; it is here to recognize its retries
            other = self._candidate.find(name, half.received_at)
            if other is None:
                self.stable_only += 1
            else:
                self.both.append(Both(name, half, other))
        for _ in self._candidate.take(moment - self._wait_seconds):
            pass


def _pair(model: str, both: Both) -> Pair:
    """Return the pair: the mean difference of the instances, and the signed one of the first."""
    stable, candidate = both.stable.answers, both.candidate.answers
    found = [
        signed(model, stable.get(row, {}), candidate.get(row, {}))
        for row in sorted(stable.keys() | candidate.keys())
    ]
    mean = math.fsum(map(absolute, found)) / len(found)
    first = min(stable.keys() | candidate.keys())
    outputs = stable.get(first, {}), candidate.get(first, {})
    return Pair(
        request_id=both.request_id, difference=min(1.0, mean), signed=found[0],
        answer=answer(model, outputs[0]), score=score_difference(model, *outputs),
    )  # fmt: skip


def _parse(cursor: str, since: float) -> _Cursor:
    if not cursor:
        return _Cursor(settled=since)
    try:
        return _Cursor.model_validate(json.loads(cursor))
    except (ValueError, ValidationError):
        raise UsageError(
            f"{cursor[:60]!r} is not a cursor of the pairs: leave it out to start again.",
            code=ErrorCode.MALFORMED,
            subject="cursor",
        ) from None
