"""What a person sees of a run on Kubeflow: a table that changes, or a line a change in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
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
    """Yield who shows a run on standard error: a table on a terminal, else a line a change.

    Parameters
    ----------
    titles
        Kubeflow's name of a task -> what people call it, in the order to show them in.
    """
    if not sys.stderr.isatty():
        yield Lines(titles)
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), refresh_per_second=4) as live:
        yield _Table(titles, live)


class Lines:
    """A line for each change of a task or of the run."""

    def __init__(self, titles: Mapping[str, str]) -> None:
        self._titles = titles
        self._states: dict[str, str] = {}

    def show(self, run: RunState) -> None:
        """Print what has changed since the last look."""
        for name, task in shown(run, self._titles).items():
            if task.state and self._states.get(name) != task.state:
                self._states[name] = task.state
                self._line(self._titles[name], task.state, _seconds(task), task.message)
        if self._states.get("") != run.state:
            self._states[""] = run.state
            self._line("run", run.state or "PENDING", "", run.error)

    def trouble(self, sentence: str) -> None:
        """Print what is in the way."""
        self._line("kubeflow", sentence)

    def _line(self, *words: str) -> None:
        at = datetime.now(UTC).strftime("%H:%M:%SZ")
        click.echo(f"{at}  {words[0]:<22} {' '.join(word for word in words[1:] if word)}", err=True)


class _Table:
    """A table of all tasks, drawn anew at each look."""

    def __init__(self, titles: Mapping[str, str], live: Any) -> None:
        self._titles, self._live = titles, live
        self._run: RunState | None = None

    def show(self, run: RunState) -> None:
        """Draw where the run stands."""
        self._run = run
        self._live.update(picture(run, self._titles))

    def trouble(self, sentence: str) -> None:
        """Draw the same, with what is in the way below it."""
        self._live.update(picture(self._run, self._titles, sentence))


def picture(run: RunState | None, titles: Mapping[str, str], trouble: str = "") -> Any:
    """Return a run as a table; ``None`` for one that nothing is known of yet."""
    from rich.markup import escape
    from rich.table import Table

    state = "PENDING" if run is None else run.state or "PENDING"
    table = Table(title=f"run {_coloured(state)}", title_justify="left")
    for name in ("task", "state", "seconds", ""):
        table.add_column(name, overflow="fold", justify="right" if name == "seconds" else "left")
    tasks = {} if run is None else shown(run, titles)
    missing = _NEVER if run is not None and run.ended else _NOT_YET
    for name, title in titles.items():
        task = tasks.get(name)
        cells = ("", "", "") if task is None else (task.state, _seconds(task), task.message)
        table.add_row(title, _coloured(cells[0] or missing), cells[1], escape(cells[2]))
    table.caption = escape(trouble) or None
    table.caption_justify = "left"
    return table


def shown(run: RunState, titles: Mapping[str, str]) -> dict[str, TaskState]:
    """Return the tasks of the pipeline by name; what Kubeflow runs beside them is left out.

    Its drivers and executors are listed as tasks, too, under names of their own.
    """
    found = {task.name: task for task in run.tasks if task.name in titles}
    by_title = {title: name for name, title in titles.items()}
    for task in run.tasks:
        name = by_title.get(task.name)
        if name is not None:
            found.setdefault(name, task)
    return found


def _coloured(state: str) -> str:
    colour = _COLOURS.get(state)
    return f"[dim]{state}[/]" if colour is None else f"[{colour}]{state}[/]"


def _seconds(task: TaskState) -> str:
    """Return how long a task has taken, once it has ended."""
    try:
        begun, ended = (
            datetime.fromisoformat(time) for time in (task.started_at, task.finished_at)
        )
    except ValueError:
        return ""
    if begun.year <= 1970 or ended < begun:
        return ""
    return f"{(ended - begun).total_seconds():.0f} s"
