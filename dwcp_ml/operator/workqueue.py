"""When each object is reconciled: due times, workers, and a backoff after failures.

Every object has a time at which it is reconciled again, whatever happens; a watch event only moves
that time forward. So an event that is lost, repeated or late, or a watch that stopped, delays a
reconciliation by one interval at most. If more objects are due than the workers can handle, the
preferred ones go first, three times of four: a bad candidate does not wait behind a thousand good
ones, and those are still reconciled.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.operator.settings import Key

FIRST_PAUSE_SECONDS: Final = 1.0
MAX_PAUSE_SECONDS: Final = 60.0

IN_A_ROW: Final = 3
"""After this many preferred objects in a row, one of the others that are due goes first."""

Item = tuple[str, Key]
"""Kind and key of an object."""

_LOG = logging.getLogger("dwcp_ml.operator")


class Queue:
    """Objects and when they are due; an object is with one worker at a time."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._due: dict[Item, float] = {}
        self._preferred: set[Item] = set()
        self._first: list[tuple[float, Item]] = []
        self._usual: list[tuple[float, Item]] = []
        self._in_a_row = 0
        self._busy: set[Item] = set()
        self._again: dict[Item, float] = {}
        self._changed = threading.Condition()
        self._closed = False

    def add(self, item: Item, after: float = 0.0) -> None:
        """Reconcile an object after this many seconds, or earlier if it was due earlier."""
        at = self._monotonic() + after
        with self._changed:
            if item in self._busy:
                self._again[item] = min(at, self._again.get(item, at))
                return
            if item in self._due and self._due[item] <= at:
                return
            self._due[item] = at
            heapq.heappush(self._first if item in self._preferred else self._usual, (at, item))
            self._changed.notify()

    def prefer(self, item: Item, preferred: bool) -> None:
        """Set whether an object goes before others that are due, from its next time on."""
        with self._changed:
            (self._preferred.add if preferred else self._preferred.discard)(item)

    def take(self, timeout: float | None = None) -> Item | None:
        """Return an object that is due, waiting for one; ``None`` if none came due in time."""
        deadline = None if timeout is None else self._monotonic() + timeout
        with self._changed:
            while not self._closed:
                now = self._monotonic()
                item = self._next(now)
                if item is not None:
                    return item
                waits = [heap[0][0] - now for heap in (self._first, self._usual) if heap]
                if deadline is not None:
                    if now >= deadline:
                        return None
                    waits.append(deadline - now)
                self._changed.wait(max(0.0, min(waits)) if waits else None)
        return None

    def done(self, item: Item, after: float | None) -> None:
        """Release an object; it is due again after this many seconds, or never for ``None``."""
        with self._changed:
            self._busy.discard(item)
            again = self._again.pop(item, None)
            if after is None and again is None:
                self._preferred.discard(item)
        if again is not None:
            self.add(item, max(0.0, again - self._monotonic()))
        if after is not None:
            self.add(item, after)

    def due(self) -> int:
        """Return how many objects are due now."""
        with self._changed:
            now = self._monotonic()
            return sum(at <= now for at in self._due.values())

    def items(self) -> set[Item]:
        """Return every object that is known."""
        with self._changed:
            return set(self._due) | self._busy

    def close(self) -> None:
        """Let every worker stop."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether the workers are to stop."""
        return self._closed

    def _next(self, now: float) -> Item | None:
        heaps = [self._first, self._usual]
        if self._in_a_row >= IN_A_ROW:
            heaps.reverse()
        for heap in heaps:
            item = self._pop(heap, now)
            if item is not None:
                self._in_a_row = self._in_a_row + 1 if heap is self._first else 0
                return item
        return None

    def _pop(self, heap: list[tuple[float, Item]], now: float) -> Item | None:
        while heap and heap[0][0] <= now:
            at, item = heapq.heappop(heap)
            if self._due.get(item) != at:
                continue  # It was moved forward, and is in the heap twice.
            del self._due[item]
            self._busy.add(item)
            return item
        return None


class Pauses:
    """Seconds until an object whose reconciliation failed is reconciled again."""

    def __init__(self) -> None:
        self._failures: dict[Item, int] = {}
        self._lock = threading.Lock()

    def after_failure(self, item: Item, least: float | None = None) -> float:
        """Return seconds: twice as many each time, and at least ``least``."""
        with self._lock:
            count = self._failures[item] = self._failures.get(item, 0) + 1
        pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(count - 1, 30), MAX_PAUSE_SECONDS)
        return max(pause, least or 0.0)

    def forget(self, item: Item) -> None:
        """Start at the first pause again: a reconciliation has succeeded."""
        with self._lock:
            self._failures.pop(item, None)


def work(
    queue: Queue,
    reconcile: Callable[[Item], float | None],
    failed: Callable[[Item, Exception], float],
) -> None:
    """Reconcile what is due until the queue is closed; no error ends it.

    Parameters
    ----------
    reconcile
        Reconciles an object; returns seconds until the next time, ``None`` for never.
    failed
        Counts an error; returns seconds until the next attempt.
    """
    while not queue.closed:
        item = queue.take()
        if item is None:
            continue
        after: float | None = MAX_PAUSE_SECONDS
        try:
            after = reconcile(item)
        except DwcpError as error:
            _LOG.warning("%s %s/%s: %s", item[0], *item[1], error)
            after = failed(item, error)
        except Exception as error:  # One object must not stop the others.
            _LOG.exception("%s %s/%s", item[0], *item[1])
            after = failed(item, error)
        finally:
            queue.done(item, after)
