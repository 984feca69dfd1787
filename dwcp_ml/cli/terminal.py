"""Draws the progress of long-running tasks, and tables of results.

On a terminal every task is a line with a bar; in a pipe each step is a line of text.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dwcp_ml.training_run.progress import ProgressEvent, Reporter

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_MARKS = {"running": "[cyan]…[/]", "done": "[green]✓[/]", "failed": "[red]✗[/]"}


@contextmanager
def drawing() -> Iterator[Reporter]:
    """Yield a reporter that draws on the terminal, or prints lines if there is none."""
    if not sys.stderr.isatty():
        from dwcp_ml.cli.step_lines import printing

        with printing() as report:
            yield report
        return
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    display = Progress(
        TextColumn("{task.fields[mark]}"),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}", style="dim", markup=False),
        console=error_console(),
    )
    known: dict[str, TaskID] = {}

    def draw(event: ProgressEvent) -> None:
        if event.task not in known:
            known[event.task] = display.add_task(visible(event.task), total=1.0, mark="", text="")
        total = None if event.fraction is None and event.state == "running" else 1.0
        display.update(
            known[event.task],
            total=total,
            completed=1.0 if event.state != "running" else (event.fraction or 0.0),
            mark=_MARKS[event.state],
            text=visible(event.text),
        )
        if event.state != "running":
            display.stop_task(known[event.task])

    with display:
        yield draw


def console() -> Console:
    """Return a console on standard output; 140 columns wide if it is not a terminal."""
    from rich.console import Console

    wide = None if sys.stdout.isatty() else 140
    return Console(width=wide, highlight=False, soft_wrap=False, markup=False, emoji=False)


def error_console() -> Console:
    """Return a console on standard error."""
    from rich.console import Console

    return Console(stderr=True, markup=False, emoji=False)


def visible(text: str) -> str:
    """Return foreign text without the characters that move a terminal's cursor or colour it."""
    return "".join(
        character if character.isprintable() or character == "\n" else "?" for character in text
    )


def plain(text: str, style: str = "") -> Text:
    """Return text for rich as it is: ``[red]`` and ``:x:`` are no markup and no emoji."""
    from rich.text import Text

    return Text(visible(text), style=style)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the cells APPROVED and REJECTED are coloured."""
    from rich.table import Table

    table = Table(title=plain(title), title_justify="left", header_style="bold")
    for name in header:
        table.add_column(plain(name), overflow="fold")
    colours = {"APPROVED": "green", "REJECTED": "red"}
    for row in rows:
        table.add_row(*(plain(cell, colours.get(cell, "")) for cell in row))
    console().print(table)
