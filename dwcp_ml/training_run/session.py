"""A run's directory: where everything of one session lies, and ``runs/latest``.

runs/<session>/
  run.json                    what was asked for
  work/                       dataset/, trained/<model>/, evaluated/<model>/
  models/<model>/<version>/   the bundles
  manifests/<model>/          for the approved models
  rollouts/<name>/            the rollouts that were shown: status, timeline
  logs/                       one log a task
  report.json  report.md  report.html
runs/latest -> <session>
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.files import link, make_directory, write_text
from dwcp_ml.training_run.options import RunOptions

OPTIONS_NAME = "run.json"
LATEST_NAME = "latest"


@dataclass(frozen=True)
class Session:
    """The directory of one run."""

    directory: Path

    @property
    def name(self) -> str:
        """The session's name; it is the version of the models it trains as well."""
        return self.directory.name

    @property
    def work(self) -> Path:
        """What the stages pass on to one another."""
        return self.directory / "work"

    @property
    def dataset(self) -> Path:
        """The validated telemetry."""
        return self.work / "dataset"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints of the trainings that have not ended."""
        return self.work / "checkpoints"

    @property
    def models(self) -> Path:
        """The bundles."""
        return self.directory / "models"

    @property
    def rollouts(self) -> Path:
        """The rollouts on this machine, one directory each."""
        return self.directory / "rollouts"

    @property
    def logs(self) -> Path:
        """One log a task."""
        return self.directory / "logs"

    @property
    def api_checks(self) -> Path:
        """What the check of the live endpoint and the Go client found."""
        return self.work / "api_checks.json"

    def trained(self, model: str) -> Path:
        """Where one trained model lies."""
        return self.work / "trained" / model

    def evaluated(self, model: str) -> Path:
        """Where the evaluation of one model lies."""
        return self.work / "evaluated" / model

    def options(self) -> RunOptions:
        """Return what the run was asked for.

        Raises
        ------
        UsageError
            If the directory does not hold a run.
        """
        path = self.directory / OPTIONS_NAME
        try:
            return RunOptions.model_validate_json(path.read_bytes())
        except OSError as error:
            raise UsageError(
                f"{self.directory} holds no run: {OPTIONS_NAME} is not there; "
                "name the directory of a run, such as runs/latest."
            ) from error
        except ValidationError as error:
            raise UsageError(f"{path} is damaged: {error.errors()[0]['msg']}.") from error

    def publish(self) -> None:
        """Point ``latest``, beside the session, at it."""
        link(self.directory.parent / LATEST_NAME, self.directory)


def session_name() -> str:
    """Return the name of a session that begins now: the time in UTC, fit for a Kubernetes label."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")


def new_session(root: Path, options: RunOptions) -> Session:
    """Create the directory of a new run below ``root``, named after the time in UTC."""
    make_directory(root)
    base = session_name()
    for attempt in range(100):
        directory = root / (base if attempt == 0 else f"{base}-{attempt}")
        try:
            directory.mkdir()
        except FileExistsError:
            continue
        session = Session(directory)
        write_text(directory / OPTIONS_NAME, options.model_dump_json(indent=2) + "\n")
        return session
    raise UsageError(f"{root} already holds a hundred runs of this very second.")


def open_session(path: Path) -> Session:
    """Return the run at ``path``, a run's directory or a link to one.

    Raises
    ------
    UsageError
        If there is no run.
    """
    session = Session(path.resolve())
    session.options()
    return session
