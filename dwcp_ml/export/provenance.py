"""The provenance of a bundle: what is needed to build it again."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Final

import dwcp_ml
from dwcp_ml.contract.bundle import Provenance
from dwcp_ml.contract.champion import Lineage
from dwcp_ml.contract.records import ModelReport
from dwcp_ml.files import sha256_of

CHECKOUT: Final = Path(dwcp_ml.__file__).resolve().parent.parent
"""The directory that holds the package: the checkout, or site-packages."""

LOCK_NAME: Final = "requirements.lock"

COMMIT_VARIABLE: Final = "DWCP_SOURCE_COMMIT"
"""The commit, where there is no checkout; the trainer image sets it."""

LOCK_VARIABLE: Final = "DWCP_LOCK_FILE"
"""The path of the lock file, where there is no checkout; the trainer image sets it."""

_SOURCES: Final = ("dwcp_ml", "components", "pipelines", "pyproject.toml", LOCK_NAME)
"""Files that determine the content of a bundle; changes of others do not count."""

_LIBRARIES: Final = (
    "keras",
    "numpy",
    "onnx",
    "onnxruntime",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "tensorflow",
    "tensorflow-cpu",
    "tf2onnx",
)


def provenance(report: ModelReport, *, checkout: Path = CHECKOUT) -> Provenance:
    """Return the provenance of one model: its data, source, libraries and metrics."""
    champion, data = report.evaluation.champion, report.data
    return Provenance(
        data_md5=report.data.md5,
        data_source=report.data.source,
        source_commit=source_commit(checkout),
        lock_sha256=lock_sha256(checkout),
        seed=report.training.seed,
        libraries={
            "python": platform.python_version(),
            **library_versions(_LIBRARIES),
            **report.training.libraries,
        },
        training_date=report.training_date,
        achieved_metrics=report.achieved_metrics,
        verdict=report.verdict,
        findings=report.findings,
        accepted_leaks=report.evaluation.accepted_leaks,
        champion=None if champion is None else champion.record,
        lineage=Lineage(
            parent_version=None if champion is None else champion.version,
            parent_digest=None if champion is None else champion.digest,
            data_first=_moment(data.first_timestamp),
            data_last=_moment(data.last_timestamp),
            data_start=_moment(data.data_start),
            data_end=_moment(data.data_end),
            trigger=report.export.trigger,
        ),
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def source_commit(checkout: Path = CHECKOUT) -> str | None:
    """Return the commit of the checkout, ``-dirty`` appended where its sources differ from it.

    Outside a checkout it is the value of ``DWCP_SOURCE_COMMIT``, else ``None``: where
    ``checkout`` is not the top of a git work tree (a package installed below another repository
    is not part of it), has no commit, or git is missing.
    """
    top = _git(checkout, "rev-parse", "--show-toplevel")
    commit = _git(checkout, "rev-parse", "--verify", "HEAD")
    if top is None or commit is None or Path(top).resolve() != checkout.resolve():
        return os.environ.get(COMMIT_VARIABLE) or None
    changes = _git(checkout, "status", "--porcelain", "--", *_SOURCES)
    return commit if changes == "" else f"{commit}-dirty"


def lock_sha256(checkout: Path = CHECKOUT) -> str | None:
    """Return the SHA-256 of the lock file, ``None`` where there is none.

    Outside a checkout it is the file that ``DWCP_LOCK_FILE`` names.
    """
    lock = checkout / LOCK_NAME
    if not lock.is_file():
        lock = Path(os.environ.get(LOCK_VARIABLE, lock))
    return sha256_of(lock) if lock.is_file() else None


def library_versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of those of the libraries that are installed."""
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _git(directory: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(directory), *arguments]
    # In a git hook, variables such as GIT_DIR point at the repository of the hook.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=20, check=False, env=env
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
