"""A rollout's directory: everything that a killed controller needs to go on.

<state>/
  spec.json     what was asked for
  status.json   what the last decision remembered; written before its write is made
  looks.jsonl   one line a look, for the timeline
  logs/         of the servers
  predictions/  the prediction logs of both arms
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from dwcp_ml.contract.errors import DwcpError, UsageError
from dwcp_ml.contract.records import Record
from dwcp_ml.files import make_directory, write_text
from dwcp_ml.rollout.cause import Reason, Verdict
from dwcp_ml.rollout.drift import Drift
from dwcp_ml.rollout.spec import RolloutSpec
from dwcp_ml.rollout.status import Phase, RolloutStatus

SPEC_NAME = "spec.json"
STATUS_NAME = "status.json"
LOOKS_NAME = "looks.jsonl"


class Look(Record):
    """One look, as the timeline shows it."""

    at: float
    phase: Phase
    target_percent: int
    live_percent: int | None
    candidate_requests: int
    verdicts: tuple[Verdict, ...]
    reason: Reason
    message: str
    drift: tuple[Drift, ...] = ()


class LocalRun(Record):
    """What is run on this machine, beside the rollout's own spec."""

    stable_bundle: str
    candidate_bundle: str
    telemetry: str
    requests_per_second: float
    mirror_percent: int = 0
    incidents: str | None = None
    label_delay_seconds: float = 5.0


class Request(Record):
    """The file ``spec.json``: the rollout, and how it is run here."""

    rollout: RolloutSpec
    run: LocalRun


class Store:
    """The directory of one rollout.

    Parameters
    ----------
    directory
        Created if it is not there.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = make_directory(directory)

    @property
    def logs(self) -> Path:
        """Where the servers log."""
        return self.directory / "logs"

    def predictions(self, arm: str) -> Path:
        """Where an arm's predictions are logged."""
        return self.directory / "predictions" / arm

    def begin(self, request: Request) -> None:
        """Store what is asked for.

        Raises
        ------
        UsageError
            If another rollout lives here.
        """
        if (self.directory / SPEC_NAME).exists():
            raise UsageError(
                f"{self.directory} holds a rollout already: dwcp-ml rollout resume --state "
                f"{self.directory} goes on with it, or name another directory."
            )
        write_text(self.directory / SPEC_NAME, request.to_json())

    def request(self) -> Request:
        """Return what was asked for.

        Raises
        ------
        UsageError
            If there is no rollout here.
        """
        if not (self.directory / SPEC_NAME).is_file():
            raise UsageError(f"{self.directory} holds no rollout: {SPEC_NAME} is not there.")
        return Request.read(self.directory / SPEC_NAME)

    def status(self) -> RolloutStatus:
        """Return the last status; a fresh one if nothing was decided yet.

        Raises
        ------
        DwcpError
            If the file is damaged.
        """
        path = self.directory / STATUS_NAME
        return RolloutStatus.read(path) if path.exists() else RolloutStatus()

    def keep(self, status: RolloutStatus, look: Look) -> None:
        """Store a status, then note the look."""
        write_text(self.directory / STATUS_NAME, status.to_json())
        line = json.dumps(look.model_dump(mode="json")) + "\n"
        try:
            with (self.directory / LOOKS_NAME).open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise DwcpError(f"can't write {LOOKS_NAME}: {error.strerror}.") from error

    def looks(self) -> Iterator[Look]:
        """Yield the looks in order; a line that a kill cut off is left out."""
        path = self.directory / LOOKS_NAME
        if not path.exists():
            return
        with path.open(encoding="utf-8") as file:
            for line in file:
                with contextlib.suppress(ValidationError):
                    yield Look.model_validate_json(line)
