"""A rollout's directory: everything that a killed controller needs to continue.

<state>/
  spec.json              the rollout and its options
  status.json            state after the last decision; stored before its write is applied
  reconciliations.jsonl  one line for each reconciliation, for the timeline
  logs/                  of the servers
  predictions/           the prediction logs of both arms
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field, ValidationError

from dwcp_ml.contract.champion import DifferenceRecord
from dwcp_ml.contract.errors import DwcpError, UsageError
from dwcp_ml.contract.record import Record
from dwcp_ml.files import make_directory, write_text
from dwcp_ml.rollout.spec import RolloutSpec
from dwcp_ml.rollout.status import Phase, RolloutStatus
from dwcp_ml.rollout.timeline import Reconciliation
from dwcp_ml.training_run.session import run_of

SPEC_NAME = "spec.json"
STATUS_NAME = "status.json"
RECONCILIATIONS_NAME = "reconciliations.jsonl"


class LocalRun(Record):
    """The options of a rollout on this machine, in addition to its spec."""

    stable_bundle: str
    candidate_bundle: str
    telemetry: str
    requests_per_second: float
    mirror_percent: int = 0
    incidents: str | None = None
    label_delay_seconds: float = 5.0
    record: DifferenceRecord | None = Field(
        default=None, description="how the gate found the candidate to differ from this stable"
    )

    def files(self) -> tuple[Path, ...]:
        """Return the bundles, stable and candidate, and the other files that it reads."""
        paths = (self.stable_bundle, self.candidate_bundle, self.telemetry, self.incidents)
        return tuple(Path(path) for path in paths if path is not None)


class RolloutRequest(Record):
    """The file ``spec.json``: the rollout, and its options on this machine."""

    rollout: RolloutSpec
    run: LocalRun


def stores_of_runs(runs: Path) -> list[Store]:
    """Return the rollouts in the runs of a directory."""
    return [Store(path.parent) for path in sorted(runs.glob(f"*/rollouts/*/{SPEC_NAME}"))]


class Store:
    """The directory of one rollout."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def logs(self) -> Path:
        """Where the servers log."""
        return self.directory / "logs"

    def predictions(self, arm: str) -> Path:
        """Where an arm's predictions are logged."""
        return self.directory / "predictions" / arm

    def create(self, request: RolloutRequest) -> None:
        """Store a new rollout.

        Raises
        ------
        UsageError
            If the directory holds a rollout already.
        """
        if (self.directory / SPEC_NAME).exists():
            raise UsageError(
                f"{self.directory} holds a rollout already: dwcp-ml rollout resume --state "
                f"{self.directory} continues it, or name another directory."
            )
        write_text(make_directory(self.directory) / SPEC_NAME, request.to_json())

    def request(self) -> RolloutRequest:
        """Return the rollout and its options.

        Raises
        ------
        UsageError
            If the directory holds no rollout.
        """
        if not (self.directory / SPEC_NAME).is_file():
            raise UsageError(f"{self.directory} holds no rollout: it has no {SPEC_NAME}.")
        return RolloutRequest.read(self.directory / SPEC_NAME)

    def status(self) -> RolloutStatus:
        """Return the last status; an empty one before the first decision.

        Raises
        ------
        DwcpError
            If the file is damaged.
        """
        path = self.directory / STATUS_NAME
        return RolloutStatus.read(path) if path.exists() else RolloutStatus()

    def files_in_use(self) -> tuple[Path, ...]:
        """Return what the rollout still needs, or has made live, outside of its directory's run.

        A rollout that has not ended needs all its files, and its own directory to continue from.
        One that has ended leaves the stable bundle live, or the candidate if it was promoted; in
        the run that the rollout belongs to it needs no protection.

        Raises
        ------
        DwcpError
            If a file of the rollout is damaged.
        """
        options, status = self.request().run, self.status()
        if not status.ended:
            return (self.directory, *options.files())
        promoted = status.phase is Phase.PROMOTED
        live = Path(options.candidate_bundle if promoted else options.stable_bundle)
        own = run_of(self.directory)
        return () if own is not None and run_of(live) == own else (live,)

    def save(self, status: RolloutStatus, reconciliation: Reconciliation) -> None:
        """Store a status, then append the reconciliation."""
        write_text(self.directory / STATUS_NAME, status.to_json())
        line = json.dumps(reconciliation.model_dump(mode="json")) + "\n"
        try:
            with (self.directory / RECONCILIATIONS_NAME).open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise DwcpError(f"can't write {RECONCILIATIONS_NAME}: {error.strerror}.") from error

    def reconciliations(self) -> Iterator[Reconciliation]:
        """Yield the reconciliations in order, without a last line that was cut off by a kill."""
        path = self.directory / RECONCILIATIONS_NAME
        if not path.exists():
            return
        with path.open(encoding="utf-8") as file:
            for line in file:
                with contextlib.suppress(ValidationError):
                    yield Reconciliation.model_validate_json(line)
