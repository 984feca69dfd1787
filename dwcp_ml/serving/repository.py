"""Which bundles a directory holds, and which of them are served."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from dwcp_ml.contract.bundle import MANIFEST_NAME
from dwcp_ml.contract.errors import BundleRefused, UsageError, did_you_mean
from dwcp_ml.contract.models import model_spec
from dwcp_ml.serving.served_model import ServedModel

_log = logging.getLogger(__name__)


def find_bundles(directory: Path, name: str | None = None) -> dict[str, Path]:
    """Return the bundle of each model below ``directory``, the newest version of each.

    ``directory`` is a bundle itself (what KServe mounts), a model's directory of versions, or a
    directory of models, such as ``runs/latest/models``. A model's own name is believed only when
    its manifest is verified; here it is the name of the directory.

    Parameters
    ----------
    directory
        Where to look, at most two levels down.
    name
        The one model that is wanted; by default, all.

    Raises
    ------
    UsageError
        If there is no bundle, or none of that name.
    """
    if not directory.is_dir():
        raise UsageError(f"{directory} is no directory: --model_dir names where the bundles are.")
    if (directory / MANIFEST_NAME).is_file():
        return {name or directory.parent.name: directory}
    found: dict[str, Path] = {}
    for level in ("*", "*/*"):
        for manifest in directory.glob(f"{level}/{MANIFEST_NAME}"):
            bundle = manifest.parent
            held = bundle.parent.name
            if bundle.name.startswith(".") or held.startswith("."):  # half written
                continue
            if held not in found or _version_key(bundle) > _version_key(found[held]):
                found[held] = bundle
    if not found:
        raise UsageError(
            f"{directory} holds no bundle: expected <model>/<version>/{MANIFEST_NAME} below it."
        )
    if name is None:
        return found
    full = model_spec(name).name
    if full not in found:
        raise UsageError(f"{directory} holds no {full}: {did_you_mean(full, found)}.")
    return {full: found[full]}


def load_models(
    directory: Path,
    name: str | None = None,
    *,
    digests: Mapping[str, str] | None = None,
    public_key: Path | None = None,
) -> dict[str, ServedModel]:
    """Verify, load and warm up every model that is to be served.

    One bad bundle stops the server rather than leaving it half filled: a rollout must not find
    a pod that is ready and lacks its model.

    Parameters
    ----------
    digests
        For each full name the digest that was approved; a bundle with another one is refused.
    public_key
        Whose signature every bundle must carry.

    Raises
    ------
    BundleRefused
        If a bundle fails its verification or its warm-up.
    UsageError
        If there is nothing to serve, or a digest names a model that is not there.
    """
    bundles = find_bundles(directory, name)
    models: dict[str, ServedModel] = {}
    approved = digests or {}
    for held, path in bundles.items():
        model = ServedModel.load(
            path,
            digest=_digest_for(held, path == directory, approved),
            public_key=public_key,
            # Where a bundle is mounted alone, as KServe does, its directory is called anything.
            strict_location=path.parent.parent == directory,
        )
        if name is not None and model.name != model_spec(name).name:
            raise BundleRefused(f"{path} holds {model.name}, not {model_spec(name).name}.")
        if model.name in models:
            raise BundleRefused(f"{directory} holds {model.name} twice; move one away.")
        model.warm_up()
        models[model.name] = model
        _log.info("serving %s %s, digest %s", model.name, model.version, model.digest)
    missing = set(approved) - set(models)
    if missing:
        raise UsageError(f"--digest names {min(missing)}, which is not among what is served.")
    return models


def _digest_for(held: str, alone: bool, approved: Mapping[str, str]) -> str | None:
    """Return the digest that a bundle must have, before anything of it is believed."""
    if alone and len(approved) == 1:
        return next(iter(approved.values()))
    return approved.get(held)


def _version_key(bundle: Path) -> list[tuple[int, int, str]]:
    """Order versions as people do: 9 before 10, 20260101-120000 before 20260102-000000."""
    parts: list[tuple[int, int, str]] = []
    number = ""
    for letter in [*bundle.name, ""]:
        if letter.isdecimal():
            number += letter
            continue
        if number:
            parts.append((1, int(number), ""))
            number = ""
        if letter:
            parts.append((0, 0, letter))
    return parts
