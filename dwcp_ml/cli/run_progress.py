"""Shows a run on Kubeflow: a live table on a terminal, one line for each change in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from dwcp_ml.cli.step_lines import INTERVAL_SECONDS, print_line
from dwcp_ml.cli.terminal import error_console, plain, visible

if TYPE_CHECKING:
    from rich.text import Text

    from dwcp_ml.kubeflow.client import RunState, TaskState
    from dwcp_ml.kubeflow.wait import Screen

_COLOURS: Final = {
    "SUCCEEDED": "green", "CACHED": "green", "FAILED": "red", "RUNNING": "cyan",
    "CANCELED": "yellow",
}  # fmt: skip
_NOT_YET: Final = "waiting"
_NEVER: Final = "not run"


@contextmanager
def following(titles: Mapping[str, str]) -> Iterator[Screen]:
    """Yield what shows a run on standard error: a table on a terminal, else one line a change.

    Parameters
    ----------
    titles
        Kubeflow's name of a task -> its display name, in display order.
    """
    if not sys.stderr.isatty():
        yield Lines(titles)
        return
    from rich.live import Live

    with Live(console=error_console(), refresh_per_second=4) as live:
        yield _Table(titles, live)


class Lines:
    """A line for each change of a task or of the run, and every 30 s."""

    def __init__(
        self, titles: Mapping[str, str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._titles = titles
        self._states: dict[str, str] = {}
        self._clock, self._printed_at = clock, clock()

    def show(self, run: RunState) -> None:
        """Print what has changed since the last poll."""
        for name, task in shown(run, self._titles).items():
            if task.state and self._states.get(name) != task.state:
                self._states[name] = task.state
                self._line(self._titles[name], task.state, _seconds(task), task.message)
        if self._states.get("") != run.state:
            self._states[""] = run.state
            self._line("run", run.state or "PENDING", "", run.error)
        if self._clock() - self._printed_at >= INTERVAL_SECONDS:
            running = [
                title for name, title in self._titles.items()
                if self._states.get(name) == "RUNNING"
            ]  # fmt: skip
            self._line("run", run.state or "PENDING", ", ".join(running))

    def warn(self, sentence: str) -> None:
        """Print why a poll failed."""
        self._line("kubeflow", sentence)

    def _line(self, *words: str) -> None:
        print_line(*map(visible, words))
        self._printed_at = self._clock()


class _Table:
    """A table of all tasks, drawn again after each poll."""

    def __init__(self, titles: Mapping[str, str], live: Any) -> None:
        self._titles, self._live = titles, live
        self._run: RunState | None = None

    def show(self, run: RunState) -> None:
        """Draw the state of the run."""
        self._run = run
        self._live.update(picture(run, self._titles))

    def warn(self, sentence: str) -> None:
        """Draw the last known state, with the reason of a failed poll below it."""
        self._live.update(picture(self._run, self._titles, sentence))


def picture(run: RunState | None, titles: Mapping[str, str], warning: str = "") -> Any:
    """Return a run as a table; ``None`` stands for a run that was not polled yet."""
    from rich.table import Table

    state = "PENDING" if run is None else run.state or "PENDING"
    table = Table(title=plain("run ").append(_coloured(state)), title_justify="left")
    for name in ("task", "state", "seconds", ""):
        table.add_column(name, overflow="fold", justify="right" if name == "seconds" else "left")
    tasks = {} if run is None else shown(run, titles)
    missing = _NEVER if run is not None and run.ended else _NOT_YET
    for name, title in titles.items():
        task = tasks.get(name)
        cells = ("", "", "") if task is None else (task.state, _seconds(task), task.message)
        table.add_row(
            plain(title), _coloured(cells[0] or missing), plain(cells[1]), plain(cells[2])
        )
    table.caption = plain(warning) if warning else None
    table.caption_justify = "left"
    return table


def shown(run: RunState, titles: Mapping[str, str]) -> dict[str, TaskState]:
    """Return the tasks of the pipeline by name; Kubeflow's drivers and executors are left out.

    Its API lists those as tasks, too, under names of their own.
    """
    shown_tasks = {task.name: task for task in run.tasks if task.name in titles}
    by_title = {title: name for name, title in titles.items()}
    for task in run.tasks:
        name = by_title.get(task.name)
        if name is not None:
            shown_tasks.setdefault(name, task)
    return shown_tasks


def _coloured(state: str) -> Text:
    return plain(state, _COLOURS.get(state, "dim"))


def _seconds(task: TaskState) -> str:
    """Return how long a task has taken, once it has ended."""
    try:
        started, ended = (
            datetime.fromisoformat(time) for time in (task.started_at, task.finished_at)
        )
    except ValueError:
        return ""
    if started.year <= 1970 or ended < started:
        return ""
    return f"{(ended - started).total_seconds():.0f} s"
