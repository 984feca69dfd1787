"""The directory of a run, and the link ``runs/latest``.

runs/<session>/
  run.json                    the run's options
  work/                       dataset/, trained/<model>/, evaluated/<model>/
  models/<model>/<version>/   the bundles
  manifests/<model>/          for the approved models
  rollouts/<name>/            demonstrated rollouts: status, timeline
  logs/                       one log per task
  report.json  report.md  report.html
runs/latest -> <session>
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
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
        """The name of the run, which is the version of its models."""
        return self.directory.name

    @property
    def work(self) -> Path:
        """Intermediate results of the steps."""
        return self.directory / "work"

    @property
    def dataset(self) -> Path:
        """The validated telemetry."""
        return self.work / "dataset"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints of unfinished trainings."""
        return self.work / "checkpoints"

    @property
    def models(self) -> Path:
        """The bundles."""
        return self.directory / "models"

    @property
    def rollouts(self) -> Path:
        """Rollouts on this machine, one directory each."""
        return self.directory / "rollouts"

    @property
    def logs(self) -> Path:
        """One log per task."""
        return self.directory / "logs"

    @property
    def api_checks(self) -> Path:
        """The results of the check of the endpoint and the Go client."""
        return self.work / "api_checks.json"

    def trained(self, model: str) -> Path:
        """Return the directory of one trained model."""
        return self.work / "trained" / model

    def evaluated(self, model: str) -> Path:
        """Return the directory of one model's evaluation."""
        return self.work / "evaluated" / model

    def options(self) -> RunOptions:
        """Return the run's options.

        Raises
        ------
        UsageError
            If the directory is not that of a run.
        """
        path = self.directory / OPTIONS_NAME
        try:
            return RunOptions.model_validate_json(path.read_bytes())
        except OSError as error:
            raise UsageError(
                f"{self.directory} is not the directory of a run: it has no {OPTIONS_NAME}; "
                "name the directory of a run, such as runs/latest."
            ) from error
        except ValidationError as error:
            raise UsageError(f"{path} is damaged: {error.errors()[0]['msg']}.") from error

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep other processes from removing the run, as long as the block takes.

        The lock is shared, and ends with the process. Without it, on a file system that has none,
        ``not_in_use`` fails.

        Raises
        ------
        UsageError
            If the run has been removed.
        """
        path = self.directory / OPTIONS_NAME
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                fcntl.flock(stack.enter_context(path.open("rb")), fcntl.LOCK_SH)
            if not path.is_file():
                self.options()
            yield

    @contextmanager
    def not_in_use(self) -> Iterator[bool]:
        """Yield whether no process uses the run, and none starts to as long as the block takes.

        Raises
        ------
        OSError
            If that can't be found out.
        """
        with (self.directory / OPTIONS_NAME).open("r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def publish(self) -> None:
        """Point the link ``latest`` at this run."""
        link(self.directory.parent / LATEST_NAME, self.directory)


def session_name() -> str:
    """Return the name of a run that starts now: the time in UTC, valid as a Kubernetes label."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")


def new_session(root: Path, options: RunOptions) -> Session:
    """Create the directory of a new run in ``root``, named by the time in UTC."""
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
    raise UsageError(f"{root} already has 100 runs of this second.")


def run_directories(root: Path) -> list[Path]:
    """Return the directories in ``root`` that may be runs; a link to one is none."""
    return [
        path
        for path in root.iterdir()
        if path.is_dir() and not path.is_symlink() and not path.name.startswith(".")
    ]


def run_of(path: Path) -> Session | None:
    """Return the run that a file or directory belongs to; ``None`` if it is in none."""
    places = (path.resolve(), *path.resolve().parents)
    return next((Session(each) for each in places if (each / OPTIONS_NAME).is_file()), None)


def open_session(path: Path) -> Session:
    """Return the run at ``path``: its directory, or a link to it.

    Raises
    ------
    UsageError
        If there is no run.
    """
    session = Session(path.resolve())
    session.options()
    return session
