"""Shows the progress of long work without a terminal: a line for each step, and every 30 s.

Work that ends within five seconds prints nothing: its result is enough.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

import click

from dwcp_ml.training_run.progress import ProgressEvent, Reporter

INTERVAL_SECONDS: Final = 30.0
"""The longest time without a line."""

QUIET_SECONDS: Final = 5.0
"""No line is printed before the work has lasted this long."""


@contextmanager
def printing(
    interval_seconds: float = INTERVAL_SECONDS,
    quiet_seconds: float = QUIET_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Reporter]:
    """Yield a reporter that prints lines on standard error."""
    lines, stop = _Steps(interval_seconds, quiet_seconds, clock), threading.Event()
    thread = threading.Thread(target=lines.keep_printing, args=(stop,), daemon=True)
    thread.start()
    try:
        yield lines.show
    finally:
        stop.set()
        thread.join()


def print_line(*words: str) -> None:
    """Print a line with the time on standard error; the first word is what it is about."""
    _print_at(datetime.now(UTC), words)


def _print_at(moment: datetime, words: tuple[str, ...]) -> None:
    at = moment.strftime("%H:%M:%SZ")
    rest = " ".join(word for word in words[1:] if word)
    with contextlib.suppress(OSError):  # a full disk does not stop the work
        click.echo(f"{at}  {words[0]:<22} {rest}".rstrip(), err=True)


class _Steps:
    """The state of each task, and the lines that wait until the work has lasted long enough."""

    def __init__(self, interval: float, quiet: float, clock: Callable[[], float]) -> None:
        self._interval, self._quiet, self._clock = interval, quiet, clock
        self._lock = threading.Lock()
        self._latest: dict[str, ProgressEvent] = {}
        self._waiting: list[tuple[datetime, tuple[str, ...]]] | None = []
        self._printed_at = clock()

    def show(self, event: ProgressEvent) -> None:
        """Print a line if the state of a task has changed."""
        with self._lock:
            before = self._latest.get(event.task)
            self._latest[event.task] = event
            if before is None or before.state != event.state:
                # The reason of a failure is the command's own last line.
                text = "" if event.state == "failed" else event.text
                self._print((event.task, event.state, text))

    def keep_printing(self, stop: threading.Event) -> None:
        """Print which tasks are running whenever nothing was printed for the interval."""
        seconds = self._quiet
        while not stop.wait(seconds):
            with self._lock:
                waiting, self._waiting = self._waiting, None
                for moment, line in waiting or ():
                    _print_at(moment, line)
                    self._printed_at = self._clock()
                if self._clock() - self._printed_at >= self._interval:
                    running = [each for each in self._latest.values() if each.state == "running"]
                    for event in running:
                        share = "" if event.fraction is None else f"{event.fraction:.0%}"
                        self._print((event.task, event.state, share, event.text))
                    if not running:
                        self._print(("next step", "not started yet"))
                seconds = max(self._interval - (self._clock() - self._printed_at), 0.01)

    def _print(self, line: tuple[str, ...]) -> None:
        if self._waiting is not None:
            self._waiting.append((datetime.now(UTC), line))
            return
        print_line(*line)
        self._printed_at = self._clock()
