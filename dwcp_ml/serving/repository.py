"""Find the bundles in a directory, and load those that are served."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from dwcp_ml.contract.bundle import MANIFEST_NAME
from dwcp_ml.contract.errors import BundleRefused, ErrorCode, UsageError
from dwcp_ml.contract.models import model_spec
from dwcp_ml.serving.served_model import ServedModel

_log = logging.getLogger(__name__)


def find_bundles(directory: Path, name: str | None = None) -> dict[str, Path]:
    """Return the bundle of each model below ``directory``, the newest version of each.

    ``directory`` is a bundle itself (what KServe mounts), a model's directory of versions, or a
    directory of models, such as ``runs/latest/models``. The keys are the names of
    directories; a model's own name is known once its manifest is verified.

    Parameters
    ----------
    directory
        Is searched two levels deep.
    name
        The only model to return; all by default.

    Raises
    ------
    UsageError
        If there is no bundle, or none of that name.
    """
    if not directory.is_dir():
        raise UsageError(
            f"{directory} is not a directory: --model_dir must name a directory of bundles.",
            code=ErrorCode.WRONG_TYPE,
            subject=directory,
        )
    if (directory / MANIFEST_NAME).is_file():
        return {name or directory.parent.name: directory}
    bundles: dict[str, Path] = {}
    for level in ("*", "*/*"):
        for manifest in directory.glob(f"{level}/{MANIFEST_NAME}"):
            bundle = manifest.parent
            model = bundle.parent.name
            if bundle.name.startswith(".") or model.startswith("."):  # unfinished
                continue
            if model not in bundles or _version_key(bundle) > _version_key(bundles[model]):
                bundles[model] = bundle
    if not bundles:
        raise UsageError(
            f"{directory} holds no bundle: expected <model>/<version>/{MANIFEST_NAME} below it.",
            code=ErrorCode.NO_DATA,
            subject=directory,
        )
    if name is None:
        return bundles
    full = model_spec(name).name
    if full not in bundles:
        raise UsageError(
            f"{directory} holds no {full}, only {', '.join(sorted(bundles))}.",
            code=ErrorCode.MISSING,
            subject=full,
        )
    return {full: bundles[full]}


def load_models(
    directory: Path,
    name: str | None = None,
    *,
    digests: Mapping[str, str] | None = None,
    public_key: Path | None = None,
) -> dict[str, ServedModel]:
    """Verify, load and warm up every model that is to be served.

    One invalid bundle stops the start: otherwise a pod could become ready without the model that a
    rollout expects of it.

    Parameters
    ----------
    digests
        The approved digest by full name; a bundle with another digest is rejected.
    public_key
        The key that every bundle must be signed with.

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
    for directory_name, path in bundles.items():
        model = ServedModel.load(
            path,
            digest=_digest_for(directory_name, path == directory, approved),
            public_key=public_key,
            # KServe mounts a single bundle in a directory that is not named after the model.
            strict_location=path.parent.parent == directory,
        )
        if name is not None and model.name != model_spec(name).name:
            raise BundleRefused(
                f"{path} holds {model.name}, not {model_spec(name).name}.",
                code=ErrorCode.MISMATCH,
                subject=model.name,
            )
        if model.name in models:
            raise BundleRefused(
                f"{directory} holds {model.name} twice; remove one of them.",
                code=ErrorCode.AMBIGUOUS,
                subject=model.name,
            )
        model.warm_up()
        models[model.name] = model
        _log.info("serving %s %s, digest %s", model.name, model.version, model.digest)
    missing = set(approved) - set(models)
    if missing:
        raise UsageError(
            f"--digest names {min(missing)}, which is not served.",
            code=ErrorCode.UNKNOWN_NAME,
            subject=min(missing),
        )
    return models


def _digest_for(
    directory_name: str, is_only_bundle: bool, approved: Mapping[str, str]
) -> str | None:
    """Return the digest that a bundle must have; it is checked before the manifest is read."""
    if is_only_bundle and len(approved) == 1:
        return next(iter(approved.values()))
    return approved.get(directory_name)


def _version_key(bundle: Path) -> list[tuple[int, str]]:
    """Return a key that sorts numbers by value: 9 before 10, 20260101-120000 before 20260102-0."""
    parts = re.findall(r"\d+|\D", bundle.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
