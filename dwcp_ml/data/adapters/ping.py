"""The text of ``ping -D`` of Linux iputils: a row for each interval of replies.

``rtt_ms`` is the mean of the replies, ``jitter_ms`` the mean absolute difference of one reply from
the one before, and ``packet_loss`` the share of the sequence numbers up to the last reply that no
reply had. Requests of an interval without any reply count in the next one that has one.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dwcp_ml.data.adapters.options import Choices, Row, epoch_seconds, malformed, name_of

_HEADER: Final = re.compile(r"PING (\S+)")
_REPLY: Final = re.compile(
    r"\[(?P<time>\d+\.\d+)\] \d+ bytes from .*?: icmp_seq=(?P<seq>\d+) .*?time=(?P<rtt>[\d.]+) "
    r"(?P<unit>\S+)(?P<repeated> \(DUP!\))?"
)
_WITHOUT_TIME: Final = re.compile(r"\d+ bytes from .*icmp_seq=")
_SEQUENCE_NUMBERS: Final = 1 << 16


@dataclass(frozen=True)
class _Reply:
    """A reply: which run of ping it belongs to, its time, its number without a limit, its RTT."""

    run: int
    host: str
    time: float
    number: int
    rtt_ms: float


def rows(path: Path, choices: Choices) -> Iterator[Row]:
    """Yield a row for each interval that has a reply.

    ``DataRefused`` if the lines have no times, or a time is not in ms.
    """
    newest, last = 0, None
    seconds = choices.interval_seconds
    intervals = itertools.groupby(
        _replies(path), lambda reply: (reply.run, math.floor(reply.time / seconds))
    )
    for _, group in intervals:
        replies = list(group)
        if last is None or last.run != replies[0].run:
            newest, last = 0, None
        pairs = itertools.pairwise(replies if last is None else [last, *replies])
        differences = [abs(after.rtt_ms - before.rtt_ms) for before, after in pairs]
        numbers = {reply.number for reply in replies}
        row: Row = {
            "timestamp": max(reply.time for reply in replies),
            "node_id": name_of(choices.node, None, "node_id", path),
            "peer_id": name_of(choices.peer, replies[0].host, "peer_id", path),
            "rtt_ms": sum(reply.rtt_ms for reply in replies) / len(replies),
        }
        if differences:
            row["jitter_ms"] = sum(differences) / len(differences)
        if max(numbers) > newest:
            received = sum(number > newest for number in numbers)
            row["packet_loss"] = 1.0 - received / (max(numbers) - newest)
        yield row
        newest, last = max(newest, *numbers), replies[-1]


def _replies(path: Path) -> Iterator[_Reply]:
    run, host, near = 0, "", 0
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line_number, line in enumerate(lines, 1):
            if header := _HEADER.match(line):
                run, host, near = run + 1, header[1], 0
                continue
            match = _REPLY.match(line)
            where = f"{path}, line {line_number}"
            if match is None:
                if _WITHOUT_TIME.match(line):
                    raise malformed(where, "it has no time: use ping -D")
            elif match["unit"] != "ms":
                raise malformed(where, f"the time is in {match['unit']}, not ms")
            elif not host:
                raise malformed(where, "no line before it begins with PING")
            elif not match["repeated"]:
                near = _unwrapped(int(match["seq"]), near)
                time = epoch_seconds(float(match["time"]), where)
                yield _Reply(run, host, time, near, float(match["rtt"]))


def _unwrapped(number: int, near: int) -> int:
    """Return a sequence number of 16 bits as the one without a limit that is nearest to another."""
    half = _SEQUENCE_NUMBERS // 2
    return near + (number - near + half) % _SEQUENCE_NUMBERS - half
