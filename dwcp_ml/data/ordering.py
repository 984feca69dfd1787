"""The checks across rows: duplicates, order, gaps, and peers of a node that disagree.

A file in the order of time is checked while it streams: a row newer than the newest of its link
is no duplicate. Once a row is out of order, an equal key may be anywhere before it. The scan then
starts again and spills an exact key of eight bytes for each row to a temporary file, which
``spill`` reads back sorted, one part at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dwcp_ml.contract.arrays import Array, Floats, Ints, Mask
from dwcp_ml.contract.examples import GAP_FACTOR
from dwcp_ml.data.checks import EARLIEST
from dwcp_ml.data.convert import MILLISECONDS, Words
from dwcp_ml.data.windows import own_or_common, usual_step

TIME_BITS: Final = 42
"""Milliseconds since 2000 fit in 42 bits until 2139."""

MAX_SERIES: Final = 1 << (63 - TIME_BITS)
"""Nodes, and links, of one file: more would not fit a key beside the time."""

AGREEMENT: Final = 1e-6
"""Relative difference up to which two latencies of one node at one time agree."""

_MAX_STEP: Final = 7 * 86_400 * MILLISECONDS
_STEP_BITS: Final = 30
"""Milliseconds of seven days fit in 30 bits."""

_DIGITS: Final = 4
_CANDIDATES: Final = 64


def _rounded(step: Ints) -> Ints:
    """Return positive steps, milliseconds, to four significant digits, seven days at most.

    The number of different steps of a link is bounded so, and with it the memory.
    """
    step = np.minimum(step, _MAX_STEP)
    unit = 10 ** np.maximum(np.floor(np.log10(step)).astype(np.int64) + 1 - _DIGITS, 0)
    result: Ints = (step + unit // 2) // unit * unit
    return result


@dataclass
class LinkIndex:
    """Gives every node and every link a number, in the order in which they appear."""

    names: dict[str, int] = field(default_factory=dict)
    _pairs: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    _codes: Ints = field(default_factory=lambda: np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self._pairs)

    def nodes(self, words: Words) -> Ints:
        """Return the number of each node, -1 where it is missing."""
        table = [self.names.setdefault(word, len(self.names)) for word in words.words]
        return np.array([*table, -1], np.int64)[words.indices]

    def links(self, node: Ints, peer: Ints) -> Ints:
        """Return the number of each link."""
        distinct, inverse = np.unique((node << TIME_BITS) | peer, return_inverse=True)
        self._add(distinct)
        codes: Ints = self._codes[np.searchsorted(self._pairs, distinct)][inverse]
        return codes

    def pairs(self) -> tuple[Ints, Ints]:
        """Return the numbers of the node and of the peer of each link, by the link's number."""
        pairs = np.empty_like(self._pairs)
        pairs[self._codes] = self._pairs
        return pairs >> TIME_BITS, pairs & ((1 << TIME_BITS) - 1)

    def _add(self, distinct: Ints) -> None:
        new = distinct[~np.isin(distinct, self._pairs)]
        if len(new):
            pairs = np.concatenate([self._pairs, new])
            codes = np.concatenate([self._codes, len(self._pairs) + np.arange(len(new))])
            order = np.argsort(pairs)
            self._pairs, self._codes = pairs[order], codes[order]


def _stable_order(code: Ints) -> Ints:
    """Return the order by code; numpy sorts 16-bit numbers by radix, many times faster."""
    small = len(code) > 0 and int(code.max()) < 1 << 16
    return np.argsort(code.astype(np.uint16) if small else code, kind="stable")


@dataclass
class LatestTimes:
    """The newest time of every series so far."""

    newest: Ints = field(default_factory=lambda: np.full(1024, -1, np.int64))

    def before(self, code: Ints, time: Ints) -> Ints:
        """Return the newest time of each row's series before it, -1 for none, and update it.

        ``code`` (number of the series) and ``time`` (not negative) are int64 (n,), in the file's
        order.
        """
        if len(code) == 0:
            return np.empty(0, np.int64)
        self.reserve(int(code.max()))
        order = _stable_order(code)
        series, times = code[order], time[order]
        first = np.concatenate([[True], series[1:] != series[:-1]])
        # One running maximum serves all series when each is lifted above the one before it.
        lift = np.cumsum(first) << (TIME_BITS + 1)
        known = self.newest[series]
        running = np.maximum.accumulate(np.maximum(times, known) + lift) - lift
        before = np.where(first, known, np.concatenate([[-1], running[:-1]]))
        last = np.concatenate([first[1:], [True]])
        self.newest[series[last]] = running[last]
        result = np.empty_like(before)
        result[order] = before
        return result

    def reserve(self, code: int) -> None:
        """Make space for the series up to this number."""
        if code >= len(self.newest):
            more = np.full(2 * (code + 1) - len(self.newest), -1, np.int64)
            self.newest = np.concatenate([self.newest, more])


_NEVER: Final = np.iinfo(np.int64).max


@dataclass
class SeriesEnds:
    """The first and the last time of every series so far, and the row of the first.

    The arrays have one element for each number of a series, and some more; a series without a row
    has a ``last`` of -1.
    """

    first: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    row: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    last: Ints = field(default_factory=lambda: np.empty(0, np.int64))

    def add(self, code: Ints, time: Ints, row: Ints) -> None:
        """Add rows: the number of the series, the time and the number of each, int64 (n,)."""
        if len(code) == 0:
            return
        self.reserve(int(code.max()))
        order = np.lexsort((time, code))
        series, times = code[order], time[order]
        begins = np.flatnonzero(np.append(True, series[1:] != series[:-1]))
        ends = np.append(begins[1:], len(series)) - 1
        place = series[begins]
        earlier = times[begins] < self.first[place]
        self.first[place[earlier]] = times[begins][earlier]
        self.row[place[earlier]] = row[order][begins][earlier]
        self.last[place] = np.maximum(self.last[place], times[ends])

    def reserve(self, code: int) -> None:
        """Make space for the series up to this number."""
        if code >= len(self.last):
            more = 2 * (code + 1) - len(self.last)
            self.first = np.append(self.first, np.full(more, _NEVER))
            self.row = np.append(self.row, np.zeros(more, np.int64))
            self.last = np.append(self.last, np.full(more, -1, np.int64))

    def present(self) -> Ints:
        """Return the numbers of the series that have rows."""
        return np.flatnonzero(self.last >= 0)


@dataclass
class Steps:
    """The steps between rows of one link: how often each occurs, and the rows after long ones.

    Steps are milliseconds, to four significant digits; those over seven days count as seven days.
    Which steps are gaps is known once the cadences of the whole file are; until then candidates
    are kept.
    """

    gap_factor: float = GAP_FACTOR
    _keys: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    _counts: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    _pending: list[tuple[Ints, Ints]] = field(default_factory=list)
    _candidates: list[tuple[int, int, int]] = field(default_factory=list)
    _total: int = 0
    _measured: int = 0
    _limits: Floats = field(default_factory=lambda: np.zeros(1))

    def add(self, link: Ints, step: Ints, row: Ints) -> None:
        """Count positive steps, each with its link and the number of the row after it."""
        step = _rounded(step)
        self._pending.append(np.unique((link << _STEP_BITS) | step, return_counts=True))
        self._total += len(step)
        if sum(len(keys) for keys, _ in self._pending) > len(self._keys):
            self._merge()
        if self._total > 2 * self._measured:
            self._measured, self._limits = self._total, self._long_steps()
        if len(self._candidates) < _CANDIDATES:
            limit = self._limits[np.where(link < len(self._limits) - 1, link, -1)]
            long = np.flatnonzero(step > limit)[:_CANDIDATES]
            self._candidates += [(int(row[k]), int(link[k]), int(step[k])) for k in long]

    def _merge(self) -> None:
        """Count the pending steps: seldom, because all known ones are sorted with them."""
        parts = [(self._keys, self._counts), *self._pending]
        keys, counts = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
        self._keys, place = np.unique(keys, return_inverse=True)
        self._counts = np.bincount(place, counts, len(self._keys)).astype(np.int64)
        self._pending = []

    def counted(self) -> tuple[Ints, Ints, Ints]:
        """Return the link, the milliseconds and the count of each distinct step, (k,)."""
        self._merge()
        return self._keys >> _STEP_BITS, self._keys & ((1 << _STEP_BITS) - 1), self._counts

    @property
    def candidates(self) -> tuple[tuple[int, int, int], ...]:
        """Some of the long steps: the number of the row after it, the link, the milliseconds."""
        return tuple(self._candidates)

    def absorb(
        self,
        counted: tuple[Ints, Ints, Ints],
        candidates: Iterable[tuple[int, int, int]],
    ) -> None:
        """Add the steps of a later partition: what its ``counted`` and ``candidates`` are."""
        link, step, counts = counted
        self._pending.append(((link << _STEP_BITS) | step, counts))
        self._total += int(counts.sum())
        self._candidates += candidates

    def cadence(self) -> float | None:
        """Return the usual step of all links, in seconds."""
        usual = self._usual()
        return None if usual is None else usual / MILLISECONDS

    def _usual(self) -> float | None:
        self._merge()
        steps, place = np.unique(self._keys & ((1 << _STEP_BITS) - 1), return_inverse=True)
        return usual_step(steps, np.bincount(place, self._counts).astype(np.int64))

    def _long_steps(self) -> Floats:
        """Return the longest step of each link that is no gap; the last one is of other links."""
        self._merge()
        link, step = self._keys >> _STEP_BITS, self._keys & ((1 << _STEP_BITS) - 1)
        size = int(link.max(initial=-1)) + 2
        return self.gap_factor * own_or_common(step, self._counts, link, size)

    def gaps(self) -> tuple[int, Ints]:
        """Return how many steps are gaps, and the numbers of some of the first rows after one."""
        limits = self._long_steps()
        long = (self._keys & ((1 << _STEP_BITS) - 1)) > limits[self._keys >> _STEP_BITS]
        rows = sorted(row for row, link, step in self._candidates if step > limits[link])
        return int(self._counts[long].sum()), np.array(rows, np.int64)


@dataclass
class Agreement:
    """The latency of every node at its newest time; rows of other peers must agree with it."""

    clock: LatestTimes = field(default_factory=LatestTimes)
    _value: Floats = field(default_factory=lambda: np.full(1024, np.nan))

    def check(self, node: Ints, time: Ints, value: Floats) -> tuple[Mask, Mask]:
        """Return which rows are late for their node, and which disagree with an earlier one.

        The second mask is valid only if no row is late.
        """
        if len(node) == 0:
            return np.zeros(0, np.bool_), np.zeros(0, np.bool_)
        known_time = self._known(node)
        before = self.clock.before(node, time)
        order = _stable_order(node)
        nodes, times, values = node[order], time[order], value[order]
        begins = np.ones(len(order), np.bool_)
        begins[1:] = (nodes[1:] != nodes[:-1]) | (times[1:] != times[:-1])
        starts = np.flatnonzero(begins)
        group = np.cumsum(begins) - 1
        carried = known_time[order][starts] == times[starts]
        first = np.where(carried, self._value[nodes[starts]], values[starts])
        self._value[nodes[starts]] = first
        disagrees = np.zeros(len(order), np.bool_)
        disagrees[order] = ~agree(first[group], values)
        return time < before, disagrees

    def _known(self, node: Ints) -> Ints:
        self.clock.reserve(int(node.max()))
        if more := len(self.clock.newest) - len(self._value):
            self._value = np.concatenate([self._value, np.full(more, np.nan)])
        return self.clock.newest[node]


def agree(first: Floats, second: Floats) -> Mask:
    """Return whether two latencies are equal up to rounding."""
    return np.abs(first - second) <= AGREEMENT * np.maximum(np.abs(first), 1.0)


def key_of(code: Ints, time: Ints) -> NDArray[np.uint64]:
    """Pack series and time into eight bytes; keys sort by series, then by time."""
    return ((code << TIME_BITS) | (time - EARLIEST * MILLISECONDS)).astype(np.uint64)


def series_of(key: Array) -> Array:
    """Return the series of a key."""
    return key >> np.uint64(TIME_BITS)
