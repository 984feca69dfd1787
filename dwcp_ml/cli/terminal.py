"""Draws the progress of long-running tasks, and tables of results.

On a terminal every task is a line with a bar; in a pipe nothing is drawn.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dwcp_ml.training_run.progress import ProgressEvent, Reporter, ignore_event

if TYPE_CHECKING:
    from rich.console import Console

_MARKS = {"running": "[cyan]…[/]", "done": "[green]✓[/]", "failed": "[red]✗[/]"}


@contextmanager
def drawing() -> Iterator[Reporter]:
    """Yield a reporter that draws on the terminal, or ignores all events if there is none."""
    if not sys.stderr.isatty():
        yield ignore_event
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    display = Progress(
        TextColumn("{task.fields[mark]}"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[text]}[/]"),
        console=Console(stderr=True),
    )
    known: dict[str, TaskID] = {}

    def draw(event: ProgressEvent) -> None:
        if event.task not in known:
            known[event.task] = display.add_task(event.task, total=1.0, mark="", text="")
        total = None if event.fraction is None and event.state == "running" else 1.0
        display.update(
            known[event.task],
            total=total,
            completed=1.0 if event.state != "running" else (event.fraction or 0.0),
            mark=_MARKS[event.state],
            text=escape(event.text),
        )
        if event.state != "running":
            display.stop_task(known[event.task])

    with display:
        yield draw


def console() -> Console:
    """Return a console on standard output; 140 columns wide if it is not a terminal."""
    from rich.console import Console

    wide = None if sys.stdout.isatty() else 140
    return Console(width=wide, highlight=False, soft_wrap=False)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the cells APPROVED and REJECTED are coloured."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold")
    for name in header:
        table.add_column(name, overflow="fold")
    colours = {"APPROVED": "green", "REJECTED": "red"}
    for row in rows:
        cells = [f"[{colours[cell]}]{cell}[/]" if cell in colours else escape(cell) for cell in row]
        table.add_row(*cells)
    console().print(table)
