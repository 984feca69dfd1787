"""Progress of long-running steps, as events that can cross process boundaries.

A step reports through a ``Reporter``. A worker, or a task of the local Kubeflow runner, prints
events as lines that its parent reads with ``parse`` and draws; a pod prints plain log lines;
otherwise nothing is printed.
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
"""Start of the line of an event."""

MODE_VARIABLE: Final = "DWCP_PROGRESS"
"""Environment variable: ``events`` (JSON lines for a parent), ``log`` (plain lines) or ``none``."""


@dataclass(frozen=True)
class ProgressEvent:
    """The progress of one task.

    ``fraction`` is the share that is done, 0 to 1, or ``None`` if unknown; ``exit_code`` belongs to
    a failure.
    """

    task: str
    state: ProgressState
    text: str = ""
    fraction: float | None = None
    exit_code: int | None = None


Reporter = Callable[[ProgressEvent], None]


def ignore_event(_event: ProgressEvent) -> None:
    """Do nothing: a reporter that discards its events."""


def parse(line: str) -> ProgressEvent | None:
    """Return the event in a line of a worker's output, ``None`` for any other line."""
    if not line.startswith(PREFIX):
        return None
    try:
        return ProgressEvent(**json.loads(line[len(PREFIX) :]))
    except (ValueError, TypeError):
        return None


def reporter_of(
    environment: Mapping[str, str] = os.environ, stream: TextIO | None = None
) -> Reporter:
    """Return the reporter that ``DWCP_PROGRESS`` selects; plain log lines if it is unset."""
    mode = environment.get(MODE_VARIABLE, "log")
    out = stream if stream is not None else sys.stdout

    def events(event: ProgressEvent) -> None:
        print(PREFIX + json.dumps(asdict(event)), file=out, flush=True)

    def log(event: ProgressEvent) -> None:
        share = "" if event.fraction is None else f" {event.fraction:4.0%}"
        print(f"{event.task}: {event.state}{share} {event.text}".rstrip(), file=out, flush=True)

    return {"events": events, "log": log}.get(mode, ignore_event)


class ProgressTask:
    """One named task of a step: reports its start, its progress and its end.

    Used as a context manager; an exception that leaves the block is reported and propagates.
    """

    def __init__(self, name: str, report: Reporter) -> None:
        self.name = name
        self._report = report
        self._summary = ""

    def __enter__(self) -> ProgressTask:
        self._report(ProgressEvent(self.name, "running"))
        return self

    def advance(self, fraction: float | None, text: str = "") -> None:
        """Report the share that is done (0 to 1, ``None`` for unknown) and the current activity."""
        self._report(ProgressEvent(self.name, "running", text, fraction))

    def finish(self, summary: str) -> None:
        """Set a short summary of the result, for the line that stays on the screen."""
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
