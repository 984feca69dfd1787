"""Which runs in a directory are outdated, and their removal.

A run is removed only if it is not among the newest, was not written lately, no process uses it,
none of its bundles is in use, and none is the one that came before one in use. ``plan`` is pure.

What is in use is said by the caller, from the rollouts on this machine, and by the directory
itself: what ``latest`` links to, and of each model the newest bundle that was approved. The gate
of the next run takes that for the stable one; the stable one of its own canary is in use, too.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dwcp_ml.bundle_store.retention import Decision, Fate, Policy, unused
from dwcp_ml.bundle_store.usage import ALL_MODELS, Stored, Used, normalized
from dwcp_ml.contract.bundle import MANIFEST_NAME
from dwcp_ml.contract.errors import BundleRefused, ErrorCode, UsageError
from dwcp_ml.contract.models import MODELS
from dwcp_ml.export.verify import bundle_digest
from dwcp_ml.files import cant_write, remove_directory
from dwcp_ml.training_run.gate_step import MANIFESTS_NAME
from dwcp_ml.training_run.previous_run import approved_bundles
from dwcp_ml.training_run.session import LATEST_NAME, OPTIONS_NAME, Session, run_directories, run_of


@dataclass(frozen=True)
class StoredRun:
    """One run in a directory.

    Parameters
    ----------
    bundles
        Those with a manifest, whatever the gate said of them.
    approved
        The models that the gate approved, and whose bundle is there.
    written
        When its newest file was last changed.
    size_bytes
        Of all its files.
    is_under_way
        Whether a process uses it.
    fault
        Why it may not be a run, as a sentence.
    """

    name: str
    directory: Path
    bundles: tuple[Stored, ...] = ()
    approved: frozenset[str] = frozenset()
    written: datetime | None = None
    size_bytes: int = 0
    is_under_way: bool = False
    fault: str = ""


def plan(
    stored: Iterable[StoredRun], used: Used, policy: Policy, now: datetime
) -> list[Decision[StoredRun]]:
    """Decide on each run of a directory, the newest first."""
    decisions: list[Decision[StoredRun]] = []
    newer: dict[str, str] = {}  # model -> the run whose bundle of it came next, if that is in use
    runs = sorted(stored, key=lambda run: run.name, reverse=True)
    for run in sorted(runs, key=lambda run: bool(run.fault)):
        users = {each.model: user for each in run.bundles if (user := used.by_name(each))}
        own = used.addresses.get(normalized(str(run.directory)), "")
        user = next(iter(users.values()), own)
        successor = next((newer[model] for model in sorted(run.approved & newer.keys())), "")
        if run.fault:
            fate, why = Fate.UNKNOWN, run.fault
        elif len(decisions) < policy.keep:
            fate, why = Fate.NEWEST, f"It is among the newest {policy.keep}."
        elif run.is_under_way:
            fate, why = Fate.UNDER_WAY, "A process uses it."
        elif user:
            fate, why = Fate.IN_USE, f"{user} uses it."
        elif successor:
            fate, why = Fate.PREDECESSOR, f"A bundle came before that of {successor}, in use."
        else:
            fate, why = unused(run.written, used.unknown.get(ALL_MODELS, ""), policy, now)
        decisions.append(Decision(run, fate, why))
        newer = {model: name for model, name in newer.items() if model not in run.approved}
        newer |= dict.fromkeys(users, run.name)
    return decisions


def list_runs(root: Path) -> list[StoredRun]:
    """Return every run in a directory; links to runs are none.

    Raises
    ------
    UsageError
        If there is no such directory.
    """
    if not root.is_dir():
        raise UsageError(
            f"{root} is not a directory of runs.", code=ErrorCode.MISSING, subject=root
        )
    root = root.resolve()
    approved: dict[str, set[str]] = {}
    for model, bundle in approved_bundles(root):
        approved.setdefault(bundle.parents[2].name, set()).add(model)
    return [
        _read_run(path, frozenset(approved.get(path.name, ())))
        for path in sorted(run_directories(root))
    ]


def _read_run(path: Path, approved: frozenset[str]) -> StoredRun:
    session = Session(path)
    if not (path / OPTIONS_NAME).is_file():
        fault = f"It has no {OPTIONS_NAME}: it is no run, or one that is just being started."
        return StoredRun(path.name, path, fault=fault)
    try:
        with session.not_in_use() as free:
            is_under_way = not free
    except OSError as error:
        fault = f"Whether a process uses it is unknown: {error.strerror}."
        return StoredRun(path.name, path, fault=fault)
    written, size = _written(path)
    return StoredRun(
        path.name,
        path,
        bundles=tuple(
            _read_bundle(each.parent) for each in session.models.glob(f"*/*/{MANIFEST_NAME}")
        ),
        approved=approved,
        written=written,
        size_bytes=size,
        is_under_way=is_under_way,
    )


def _read_bundle(path: Path) -> Stored:
    digest = ""
    with contextlib.suppress(BundleRefused):  # its name is enough
        digest = bundle_digest(path)
    return Stored(path.parent.name, path.name, str(path.absolute()), digest)


def _written(path: Path) -> tuple[datetime, int]:
    """Return when a file of a directory was last changed, and the bytes of all."""
    newest, size = path.stat().st_ctime, 0
    for directory, _, names in os.walk(path):
        for name in (".", *names):
            with contextlib.suppress(FileNotFoundError):
                status = (Path(directory) / name).lstat()
                newest = max(newest, status.st_ctime)
                size += status.st_size if name != "." else 0
    return datetime.fromtimestamp(newest, UTC), size


def used_by_runs(root: Path) -> Used:
    """Return what the runs of a directory use: the next run's stable bundles, and ``latest``."""
    used = Used()
    live: dict[str, Path] = {}
    for model, bundle in approved_bundles(root):
        live.setdefault(model, bundle)
    for model, bundle in live.items():
        run = bundle.parents[2]
        for file in sorted((run / MANIFESTS_NAME / model).glob("*.yaml")):
            used.add(file.read_text(encoding="utf-8"), f"The canary of {run.name}")
    for bundle in live.values():
        add_use(used, bundle, "The next run, as the stable one,")
    latest = run_of(root / LATEST_NAME)
    if latest is not None:
        add_use(used, latest.directory, f"The link {LATEST_NAME}")
    return used


def add_use(used: Used, path: Path, user: str) -> None:
    """Add a bundle, a run, or the run that a file belongs to, to what is in use."""
    if path.parent.name in MODELS:
        used.bundles[f"{path.parent.name}/{path.name}"] = user
    if (run := run_of(path)) is not None:
        used.addresses[normalized(str(run.directory))] = user


def remove(run: StoredRun) -> bool:
    """Remove a run, and return whether it is gone: a process may use it, or have written to it.

    Raises
    ------
    DwcpError
        If it can't be removed.
    """
    try:
        with Session(run.directory).not_in_use() as free:
            if not free or _written(run.directory) != (run.written, run.size_bytes):
                return False
            remove_directory(run.directory)
    except OSError as error:
        raise cant_write(run.directory, error, remedy="check who owns it") from error
    return True
