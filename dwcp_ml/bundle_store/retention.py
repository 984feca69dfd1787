"""Which bundles of a store are outdated, and their removal.

A bundle is removed only if it is known to be complete, is not among the newest of its model, was
not written lately, nothing serves it or may go back to it, and everything that could say so has
been asked. The version that came before one in use is kept, too: it is what a user goes back to by
hand. Right before each removal all of that is asked again.

``plan`` is pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final, Generic, TypeVar

from dwcp_ml.bundle_store.objects import check_listing, read_manifest
from dwcp_ml.bundle_store.usage import ALL_MODELS, Stored, Used
from dwcp_ml.contract.bundle import MANIFEST_NAME, Manifest
from dwcp_ml.contract.errors import BundleRefused, ErrorCode, UsageError
from dwcp_ml.contract.models import MODELS
from dwcp_ml.export.verify import bundle_digest, verify_bundle
from dwcp_ml.files import remove_directory
from dwcp_ml.storage.addresses import local_path
from dwcp_ml.storage.remote_objects import Entry, Remote, StorageError, remote

DEFAULT_MIN_AGE_HOURS: Final = 24.0


class Fate(StrEnum):
    """Why a bundle, or a run, is kept or removed."""

    NEWEST = "Newest"
    IN_USE = "InUse"
    PREDECESSOR = "PredecessorOfOneInUse"
    UNDER_WAY = "UnderWay"
    RECENT = "Recent"
    DAMAGED = "Damaged"
    UNKNOWN = "Unknown"
    OUTDATED = "Outdated"


@dataclass(frozen=True)
class Policy:
    """What is kept in any case.

    Parameters
    ----------
    keep
        Versions of each model, or runs: the newest, at least 1.
    min_age
        Those that were written less than this time ago.
    """

    keep: int
    min_age: timedelta = timedelta(hours=DEFAULT_MIN_AGE_HOURS)


T = TypeVar("T")


@dataclass(frozen=True)
class Decision(Generic[T]):
    """What happens to one bundle or run, and why, as a sentence."""

    item: T
    fate: Fate
    why: str


def plan(
    stored: Iterable[Stored], used: Used, policy: Policy, now: datetime
) -> list[Decision[Stored]]:
    """Decide on each version of a store, the newest of each model first."""
    decisions = []
    by_model: dict[str, list[Stored]] = {}
    for bundle in stored:
        by_model.setdefault(bundle.model, []).append(bundle)
    for model, bundles in sorted(by_model.items()):
        dated = [(bundle.trained, bundle.version, bundle) for bundle in bundles if bundle.trained]
        ordered = [bundle for *_, bundle in sorted(dated, key=lambda each: each[:2], reverse=True)]
        unknown = used.unknown.get(model) or used.unknown.get(ALL_MODELS, "")
        if any(used.by(bundle) for bundle in bundles if not bundle.trained):
            unknown = unknown or "A version in use can't be read, so which came before is unknown."
        newer = ""
        for index, bundle in enumerate(ordered):
            user = used.by(bundle)
            if index < policy.keep:
                fate, why = Fate.NEWEST, f"It is among the newest {policy.keep}."
            elif user:
                fate, why = Fate.IN_USE, f"{user} uses it."
            elif newer:
                fate, why = Fate.PREDECESSOR, f"It came before {newer}, which is in use."
            else:
                fate, why = unused(bundle.written, unknown, policy, now)
            decisions.append(Decision(bundle, fate, why))
            newer = bundle.version if user else ""
        decisions += [
            Decision(bundle, Fate.DAMAGED if bundle.is_damaged else Fate.UNKNOWN, bundle.fault)
            for bundle in bundles
            if not bundle.trained
        ]
    return decisions


def unused(
    written: datetime | None, unknown: str, policy: Policy, now: datetime
) -> tuple[Fate, str]:
    """Return what happens to what is old and is not known to be used, and why.

    Parameters
    ----------
    written
        When a part of it was last written; ``None`` if that is unknown.
    unknown
        Why it is not known whether it is used; empty if it is known.
    """
    if unknown:
        return Fate.UNKNOWN, unknown
    if written is None:
        return Fate.UNKNOWN, "The store does not say when it was written."
    if now - written < policy.min_age:
        hours = policy.min_age / timedelta(hours=1)
        return Fate.RECENT, f"It was written less than {hours:g} hours ago."
    return Fate.OUTDATED, f"There are {policy.keep} newer ones, and nothing uses it."


def remove_outdated(
    decisions: Iterable[Decision[T]],
    again: Callable[[], list[Decision[T]]],
    remove: Callable[[T], bool],
) -> list[Decision[T]]:
    """Remove what is outdated in a plan, and return the decisions as they were in the end.

    What has come into use since the plan stays.

    Parameters
    ----------
    again
        Makes the same plan by what is in use now; it is called right before each removal.
    remove
        Removes one, and returns whether it did: not if a process uses it.

    Raises
    ------
    DwcpError
        If what is in use can't be found out, or something can't be removed.
    """
    final = []
    for decision in decisions:
        latest = decision
        if decision.fate is Fate.OUTDATED:
            latest = next(each for each in again() if each.item == decision.item)
            if latest.fate is Fate.OUTDATED and not remove(latest.item):
                latest = Decision(latest.item, Fate.UNDER_WAY, "A process uses or changes it.")
        final.append(latest)
    return final


def list_store(prefix: str) -> list[Stored]:
    """Return every version below ``<prefix>/<model>/``.

    Raises
    ------
    StorageError
        If the store can't be read.
    UsageError
        If there is no such directory, or an object store has nothing of any model there.
    """
    base = prefix.rstrip("/")
    directory = local_path(base)
    if directory is None:
        store = remote(base)
        found = [each for model in sorted(MODELS) for each in _list_remote(store, base, model)]
        if not found:
            raise UsageError(
                f"There is no bundle below {store.address}/<model>/: check the address.",
                code=ErrorCode.MISSING,
                subject=store.address,
            )
        return found
    if not directory.is_dir():
        raise UsageError(
            f"{prefix} is not a directory of bundles.", code=ErrorCode.MISSING, subject=prefix
        )
    return [
        _read_path(model, path, f"{base}/{model}/{path.name}")
        for model in sorted(MODELS)
        for path in sorted((directory / model).glob("*"))
        if not path.name.startswith(".")  # unfinished
    ]


def remove(bundle: Stored) -> bool:
    """Remove a bundle: first its name or its manifest, so that no reader finds half of it.

    Returns
    -------
    bool
        True.

    Raises
    ------
    StorageError
        If it has changed since it was listed, or is written again meanwhile.
    DwcpError
        If it can't be removed.
    """
    path = local_path(bundle.address)
    if path is not None:
        _check_unchanged(bundle, _read_path(bundle.model, path, bundle.address))
        remove_directory(path)
        return True
    target = remote(bundle.address)
    entries = target.listing()
    _check_unchanged(bundle, _read_remote(bundle, target, entries))
    manifest = target.below(MANIFEST_NAME)
    manifest.remove()
    for name in sorted(entries.keys() - {MANIFEST_NAME}):
        # A push of the same bundle would have found these files, and has verified them.
        if manifest.exists():
            raise _changed(bundle)
        target.below(name).remove()
    if manifest.exists():
        manifest.remove()
        raise _changed(bundle)
    return True


def _check_unchanged(before: Stored, now: Stored) -> None:
    if before != now:
        raise _changed(before)


def _changed(bundle: Stored) -> StorageError:
    return StorageError(
        f"{bundle.address} was written while it was being removed: push it again, unless it is "
        f"outdated.",
        code=ErrorCode.CONFLICT,
        subject=bundle.address,
    )


def _list_remote(store: Remote, base: str, model: str) -> Iterator[Stored]:
    versions: dict[str, dict[str, Entry]] = {}
    for name, entry in store.below(model).listing().items():
        version, separator, file = name.partition("/")
        if separator:
            versions.setdefault(version, {})[file] = entry
    for version, entries in versions.items():
        empty = Stored(model, version, f"{base}/{model}/{version}")
        yield _read_remote(empty, store.below(f"{model}/{version}"), entries)


def _read_remote(bundle: Stored, target: Remote, entries: Mapping[str, Entry]) -> Stored:
    """Return what is in a store now under the name of a version."""
    model, version, address = bundle.model, bundle.version, bundle.address

    def read() -> tuple[Manifest, str] | None:
        found = read_manifest(target)
        if found is not None:
            check_listing(found[0], entries, target.address)
        return found

    times = [entry.modified for entry in entries.values()]
    known = [each for each in times if each is not None]
    written = max(known) if known and len(known) == len(times) else None
    return _stored(partial(Stored, model, version, address, written=written), read)


def _read_path(model: str, path: Path, address: str) -> Stored:
    def read() -> tuple[Manifest, str] | None:
        if not (path / MANIFEST_NAME).exists():
            return None
        return verify_bundle(path), bundle_digest(path)

    try:  # of the change, because a copy keeps the times of the content
        written = max(each.stat().st_ctime for each in (path, *path.rglob("*")))
    except OSError:  # removed meanwhile
        return Stored(model, path.name, address, fault="It can't be read.")
    stored = partial(
        Stored, model, path.name, address, written=datetime.fromtimestamp(written, UTC)
    )
    return _stored(stored, read)


def _stored(
    stored: Callable[..., Stored], read: Callable[[], tuple[Manifest, str] | None]
) -> Stored:
    """Return one version, with the reason if it is no complete bundle of this name.

    Parameters
    ----------
    stored
        Makes the result.
    read
        Returns its manifest and its digest; ``None`` if it has no manifest.
    """
    try:
        found = read()
    except BundleRefused as error:
        return stored(fault=str(error), is_damaged=True)
    if found is None:
        fault = f"It has no {MANIFEST_NAME}: it is being written, or an unfinished copy."
        return stored(fault=fault)
    manifest, digest = found
    empty = stored()
    if (manifest.name, manifest.version) != (empty.model, empty.version):
        fault = f"Its manifest is that of {manifest.name} {manifest.version}."
        return stored(digest=digest, fault=fault, is_damaged=True)
    try:
        trained = datetime.fromisoformat(manifest.provenance.training_date)
        _ = trained.timestamp() if trained.tzinfo else trained.astimezone()
    except (ValueError, OverflowError):
        return stored(digest=digest, fault="Its training date is unknown.")
    return stored(digest=digest, trained=trained.astimezone())
