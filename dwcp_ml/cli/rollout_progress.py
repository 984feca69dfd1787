"""The display of a running rollout: its step, its traffic, and each test's evidence as a bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dwcp_ml.cli.step_lines import INTERVAL_SECONDS, print_line
from dwcp_ml.cli.terminal import error_console, plain, visible

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from dwcp_ml.local_rollout.driver import Watcher
    from dwcp_ml.rollout.observation import Observation
    from dwcp_ml.rollout.spec import RolloutSpec
    from dwcp_ml.rollout.status import RolloutStatus
    from dwcp_ml.rollout.verdict import Verdict

_BAR = 20
_COLOURS = {"Pass": "green", "Fail": "red", "Error": "yellow", "InsufficientData": "cyan"}


@contextmanager
def watching(spec: RolloutSpec) -> Iterator[Watcher]:
    """Yield what shows each reconciliation: a table on a terminal, lines in a pipe."""
    if not sys.stderr.isatty():
        yield StepLines(spec)
        return
    from rich.live import Live

    with Live(console=error_console(), refresh_per_second=4) as live:

        def watch(status: RolloutStatus, observation: Observation) -> None:
            live.update(picture(spec, status, observation))

        yield watch


class StepLines:
    """A line for each step and phase, and every 30 s."""

    def __init__(self, spec: RolloutSpec, clock: Callable[[], float] = time.monotonic) -> None:
        self._name, self._clock = f"{spec.model} {spec.candidate.version}", clock
        self._shown: tuple[str, int | None] | None = None
        self._at = 0.0

    def __call__(self, status: RolloutStatus, observation: Observation) -> None:
        """Print a line if the step or the phase has changed, or the last line is 30 s old."""
        state, now = (status.phase.value, observation.live_percent), self._clock()
        if state == self._shown and now - self._at < INTERVAL_SECONDS:
            return
        self._shown, self._at = state, now
        live = (
            "unknown weight"
            if observation.live_percent is None
            else f"{observation.live_percent} %"
        )
        requests = f"{status.exposed_requests:,} requests."
        print_line(self._name, f"{state[0]}, {live}:", visible(status.cause.sentence), requests)


def picture(spec: RolloutSpec, status: RolloutStatus, observation: Observation) -> Any:
    """Return one reconciliation as a table."""
    title = plain(f"{spec.model} {spec.candidate.version}   ")
    for index, share in enumerate((0, *spec.shares)):
        title.append(" → " if index else "")
        title.append(f"{share} %", "bold reverse" if share == observation.live_percent else "")
    table = verdict_table(title, status.verdicts)
    table.caption = plain(
        f"{status.phase.value}: {status.cause.sentence} "
        f"{status.step_requests:,} requests at this step, {status.exposed_requests:,} in all."
        f"{advice(observation)}"
    )
    return table


def advice(observation: Observation) -> str:
    """Return which inputs and predictions of the candidate drift; empty if none does."""
    from dwcp_ml.local_rollout.driver import drifts

    drifting = [each.name for each in drifts(observation) if each.level in ("some", "large")]
    return f" Drift (advice only): {', '.join(drifting)}." if drifting else ""


def verdict_table(title: Text, verdicts: Sequence[Verdict]) -> Table:
    """Return the verdict of each test as a row, its evidence as a bar."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in ("test", "says", "evidence", "in words"):
        table.add_column(name, overflow="fold")
    for verdict in verdicts:
        table.add_row(
            plain(verdict.test),
            plain(verdict.outcome, _COLOURS[verdict.outcome]),
            bar(verdict),
            plain(verdict.sentence),
        )
    return table


def bar(verdict: Verdict) -> str:
    """Return the evidence as a bar up to the decision threshold, on a logarithmic scale."""
    if verdict.evidence is None or verdict.needed is None:
        return ""
    filled = round(_BAR * verdict.progress)
    return "█" * filled + "░" * (_BAR - filled)
