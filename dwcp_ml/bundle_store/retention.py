"""Which bundles of a store are outdated, and their removal.

A bundle is removed only if it is known to be complete, is not among the newest of its model,
nothing serves it or may go back to it, and everything that could say so has been asked. The version
that came before one in use is kept, too: it is what a user goes back to by hand.

``plan`` and ``used_on_cluster`` are pure.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Final

from dwcp_ml.bundle_store.transfer import read_manifest
from dwcp_ml.contract.bundle import MANIFEST_NAME, Manifest
from dwcp_ml.contract.errors import BundleRefused, ErrorCode, UsageError
from dwcp_ml.contract.models import MODELS
from dwcp_ml.export.verify import bundle_digest, verify_bundle
from dwcp_ml.files import cant_write
from dwcp_ml.kube.api import INFERENCE_SERVICE, MODEL_ROLLOUT, Api, Gone, Object
from dwcp_ml.kube.manifests import MODEL_FORMAT
from dwcp_ml.storage.addresses import local_path
from dwcp_ml.storage.remote_objects import remote

ALL_MODELS: Final = ""
"""The key of what is unknown about every model."""

_ADDRESSES: Final = ("storageUri", "uri")
"""The second in ``storageUris``, which is a list."""

_MODE: Final = "serving.kserve.io/deploymentMode"
_KNATIVE: Final = ("Knative", "Serverless")


class Fate(StrEnum):
    """Why a bundle is kept or removed."""

    NEWEST = "Newest"
    IN_USE = "InUse"
    PREDECESSOR = "PredecessorOfOneInUse"
    UNKNOWN = "Unknown"
    OUTDATED = "Outdated"


@dataclass(frozen=True)
class Stored:
    """One version in a store.

    Parameters
    ----------
    digest
        Empty if the bundle can't be read.
    trained
        When; ``None`` if that is unknown.
    fault
        Why it can't be read, as a sentence.
    """

    model: str
    version: str
    address: str
    digest: str = ""
    trained: datetime | None = None
    fault: str = ""


@dataclass
class Used:
    """What is served, or may be gone back to, and what could not be found out.

    Attributes
    ----------
    addresses, digests
        What is used -> by whom.
    unknown
        Full name of a model, or ``ALL_MODELS`` -> why its use is not known.
    """

    addresses: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)

    def by(self, bundle: Stored) -> str:
        """Return who uses a bundle; empty for nobody.

        An address counts by its last two parts as well, because one bundle may be known by several
        addresses, and one above the bundle because a server there chooses a version itself.
        """
        if bundle.digest and bundle.digest in self.digests:
            return self.digests[bundle.digest]
        own = bundle.address.rstrip("/")
        for address, user in self.addresses.items():
            used = address.rstrip("/")
            if own == used or own.startswith(f"{used}/"):
                return user
            if used.split("/")[-2:] == [bundle.model, bundle.version]:
                return user
        return ""


@dataclass(frozen=True)
class Decision:
    """What happens to one version, and why, as a sentence."""

    bundle: Stored
    fate: Fate
    why: str


def plan(stored: Iterable[Stored], used: Used, keep: int) -> list[Decision]:
    """Decide on each version of a store, the newest of each model first.

    Parameters
    ----------
    keep
        Versions of each model that are kept in any case, at least 1.
    """
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
            if index < keep:
                fate, why = Fate.NEWEST, f"It is among the newest {keep}."
            elif user:
                fate, why = Fate.IN_USE, f"{user} uses it."
            elif newer:
                fate, why = Fate.PREDECESSOR, f"It came before {newer}, which is in use."
            elif unknown:
                fate, why = Fate.UNKNOWN, unknown
            else:
                fate, why = Fate.OUTDATED, f"There are {keep} newer ones, and nothing uses it."
            decisions.append(Decision(bundle, fate, why))
            newer = bundle.version if user else ""
        decisions += [
            Decision(bundle, Fate.UNKNOWN, bundle.fault) for bundle in bundles if not bundle.trained
        ]
    return decisions


def used_on_cluster(rollouts: Iterable[Object], services: Iterable[Object]) -> Used:
    """Return what ModelRollouts and InferenceServices name, in their specs and statuses.

    In Knative mode the spec of an InferenceService names the newest revision only. Where its
    traffic is split and no ModelRollout says what the rest serves, the use of its model is unknown.
    """
    used = Used()
    known = set()
    for rollout in rollouts:
        name = _name(rollout)
        for key, text in _texts(rollout):
            if key in _ADDRESSES:
                used.addresses[text] = f"ModelRollout {name}"
            elif key == "digest":
                used.digests[text.removeprefix("sha256:")] = f"ModelRollout {name}"
        status = rollout.get("status")
        if isinstance(status, dict) and status.get("stable"):
            known.add(name)
    for service in services:
        name = _name(service)
        texts = list(_texts(service))
        if ("name", MODEL_FORMAT) not in texts:
            continue  # it serves other models
        addresses = [text for key, text in texts if key in _ADDRESSES]
        used.addresses |= dict.fromkeys(addresses, f"InferenceService {name}")
        models = {address.rstrip("/").split("/")[-2:][0] for address in addresses}
        if not models or not models <= set(MODELS):
            used.unknown[ALL_MODELS] = (
                f"InferenceService {name} does not say which model and version it serves."
            )
        elif _is_split(service) and name not in known:
            used.unknown |= dict.fromkeys(
                models,
                f"InferenceService {name} splits its traffic in Knative mode, and no ModelRollout "
                f"says which bundle is the stable one.",
            )
    return used


def ask_cluster(api: Api) -> Used:
    """Return what the whole cluster uses.

    Raises
    ------
    KubeError
        If it does not say: then nothing may be removed.
    """
    try:
        rollouts = api.list(MODEL_ROLLOUT)
    except Gone:  # a cluster without the operator
        rollouts = []
    return used_on_cluster(rollouts, api.list(INFERENCE_SERVICE))


def list_store(prefix: str) -> list[Stored]:
    """Return every version below ``<prefix>/<model>/``.

    Raises
    ------
    StorageError
        If the store can't be read.
    UsageError
        If there is no such directory.
    """
    base = prefix.rstrip("/")
    directory = local_path(base)
    if directory is None:
        store = remote(base)
        return [
            _read(
                model,
                version,
                f"{base}/{model}/{version}",
                partial(read_manifest, store.below(f"{model}/{version}")),
            )
            for model in sorted(set(store.names()) & set(MODELS))
            for version in store.below(model).names()
        ]
    if not directory.is_dir():
        raise UsageError(
            f"{prefix} is not a directory of bundles.", code=ErrorCode.MISSING, subject=prefix
        )
    return [
        _read(model, path.name, f"{base}/{model}/{path.name}", partial(_read_path, path))
        for model in sorted(MODELS)
        for path in sorted((directory / model).glob("*"))
        if not path.name.startswith(".")  # unfinished
    ]


def remove(bundle: Stored) -> None:
    """Remove a bundle: first its name or its manifest, so that no reader finds half of it.

    Raises
    ------
    DwcpError
        If it can't be removed.
    """
    path = local_path(bundle.address)
    if path is not None:
        try:
            trash = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
            os.rename(path, trash / path.name)  # noqa: PTH104 - Path.rename is the same
            shutil.rmtree(trash)
        except OSError as error:
            raise cant_write(f"to {path.parent}", error, remedy="check who owns it") from error
        return
    target = remote(bundle.address)
    target.below(MANIFEST_NAME).remove()
    for name in target.objects():
        target.below(name).remove()


def _read_path(path: Path) -> tuple[Manifest, str]:
    return verify_bundle(path), bundle_digest(path)


def _read(
    model: str, version: str, address: str, read: Callable[[], tuple[Manifest, str] | None]
) -> Stored:
    """Return one version, with the reason if it is no complete bundle of this name.

    Parameters
    ----------
    read
        Returns its manifest and its digest; ``None`` if it has no manifest.
    """
    try:
        found = read()
    except BundleRefused as error:
        return Stored(model, version, address, fault=str(error))
    if found is None:
        fault = f"It has no {MANIFEST_NAME}: it is being written, or an unfinished copy."
        return Stored(model, version, address, fault=fault)
    manifest, digest = found
    if (manifest.name, manifest.version) != (model, version):
        fault = f"Its manifest is that of {manifest.name} {manifest.version}."
        return Stored(model, version, address, digest, fault=fault)
    try:
        trained = datetime.fromisoformat(manifest.provenance.training_date)
        _ = trained.timestamp() if trained.tzinfo else trained.astimezone()
    except (ValueError, OverflowError):
        return Stored(model, version, address, digest, fault="Its training date is unknown.")
    return Stored(model, version, address, digest, trained.astimezone())


def _name(obj: Mapping[str, Any]) -> str:
    metadata = obj.get("metadata") or {}
    return f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"


def _texts(value: Any) -> Iterator[tuple[str, str]]:
    """Yield the key and the value of every text in an object."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(inner, str):
                yield key, inner
            else:
                yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _is_split(service: Object) -> bool:
    annotations = (service.get("metadata") or {}).get("annotations") or {}
    predictor = (service.get("spec") or {}).get("predictor") or {}
    share = predictor.get("canaryTrafficPercent")
    return annotations.get(_MODE) in _KNATIVE and share is not None and share != 100
