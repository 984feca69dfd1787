"""Progress of long work, as events that cross process borders.

A stage reports through a ``Reporter``. In a worker or a Kubeflow task on this machine the events
are lines on standard output that the parent reads back with ``parse`` and draws; in a pod they are
plain log lines; otherwise nothing is printed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Final, Literal, TextIO

from dwcp_ml.contract.errors import DwcpError

ProgressState = Literal["running", "done", "failed"]

PREFIX: Final = "::dwcp::"
"""What an event's line begins with."""

MODE_VARIABLE: Final = "DWCP_PROGRESS"
"""Environment variable: ``events`` (JSON lines for a parent), ``log`` (plain lines) or ``none``."""


@dataclass(frozen=True)
class ProgressEvent:
    """One piece of progress of one task.

    ``fraction`` is the done share, 0 to 1, or ``None`` where it isn't known; ``exit_code`` goes
    with a failure.
    """

    task: str
    state: ProgressState
    text: str = ""
    fraction: float | None = None
    exit_code: int | None = None


Reporter = Callable[[ProgressEvent], None]


def ignore_event(_event: ProgressEvent) -> None:
    """Report nothing."""


def parse(line: str) -> ProgressEvent | None:
    """Return the event that a line of a worker's output holds, ``None`` for any other line."""
    if not line.startswith(PREFIX):
        return None
    try:
        return ProgressEvent(**json.loads(line[len(PREFIX) :]))
    except (ValueError, TypeError):
        return None


def reporter_of(
    environment: Mapping[str, str] = os.environ, stream: TextIO | None = None
) -> Reporter:
    """Return the reporter that ``DWCP_PROGRESS`` asks for; plain log lines where it is unset."""
    mode = environment.get(MODE_VARIABLE, "log")
    out = stream if stream is not None else sys.stdout

    def events(event: ProgressEvent) -> None:
        print(PREFIX + json.dumps(asdict(event)), file=out, flush=True)

    def log(event: ProgressEvent) -> None:
        share = "" if event.fraction is None else f" {event.fraction:4.0%}"
        print(f"{event.task}: {event.state}{share} {event.text}".rstrip(), file=out, flush=True)

    return {"events": events, "log": log}.get(mode, ignore_event)


class ProgressTask:
    """One named task of a stage: reports that it runs, how far it is, and how it ended.

    Used as a context manager; an exception that leaves the block is reported and goes on.
    """

    def __init__(self, name: str, report: Reporter) -> None:
        self.name = name
        self._report = report
        self._summary = ""

    def __enter__(self) -> ProgressTask:
        self._report(ProgressEvent(self.name, "running"))
        return self

    def advance(self, fraction: float | None, text: str = "") -> None:
        """Report the done share (0 to 1, ``None`` for unknown) and what is being done."""
        self._report(ProgressEvent(self.name, "running", text, fraction))

    def finish(self, summary: str) -> None:
        """Say in a few words how the task ended, for the line that stays on the screen."""
        self._summary = summary

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if error is None:
            self._report(ProgressEvent(self.name, "done", self._summary, 1.0))
            return
        code = error.exit_code if isinstance(error, DwcpError) else 1
        if isinstance(error, KeyboardInterrupt):
            text, code = "interrupted", 130
        elif isinstance(error, DwcpError):
            text = str(error)
        else:
            text = f"{type(error).__name__}: {error}"
        self._report(ProgressEvent(self.name, "failed", text, None, code))
