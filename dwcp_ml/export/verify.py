"""Open an untrusted bundle.

Nothing in the bundle is used before it is checked: first the kinds of files, then the manifest,
then that the files are exactly those of the manifest, byte for byte, then the signature, if the
caller names a key, then the graph. Every file is read once, and what is returned are the
bytes that were checked. No file but the manifest, the signature and ``model.onnx`` is parsed;
nothing is unpickled. TensorFlow is not needed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from dwcp_ml.contract.bundle import (
    MANIFEST_NAME,
    ONNX_NAME,
    SIGNATURE_NAME,
    Manifest,
    parse_manifest,
    printable,
)
from dwcp_ml.contract.errors import BundleRefused, ErrorCode, UsageError
from dwcp_ml.export.plain_files import OpenDirectory, opened
from dwcp_ml.export.signature import check_signature, signed_digests
from dwcp_ml.export.untrusted_graph import graph_fault

SignatureState = Literal["valid", "unchecked", "none"]


@dataclass(frozen=True)
class Bundle:
    """A bundle that was checked.

    Parameters
    ----------
    digest
        SHA-256 of ``manifest.json``, which names the SHA-256 of every other file.
    onnx : bytes
        The graph that was checked: load these bytes, not the file, which may have changed since.
    signature
        ``valid`` for the key that the caller named; ``unchecked`` if there is one and the caller
        named no key, so it proves nothing; ``none``.
    """

    path: Path
    manifest: Manifest
    digest: str
    onnx: bytes
    signature: SignatureState = "none"


def verify_bundle(path: Path, *, digest: str | None = None) -> Manifest:
    """Check a bundle and return its manifest; see ``open_bundle``."""
    return open_bundle(path, digest=digest).manifest


def open_bundle(
    path: Path,
    *,
    digest: str | None = None,
    public_key: Path | None = None,
    not_before: datetime | None = None,
    strict_location: bool = False,
) -> Bundle:
    """Check the bundle in the directory ``path`` and return it.

    ``path`` itself may be a link, because the caller chose it; nothing below it may.

    Parameters
    ----------
    digest
        The result of ``bundle_digest`` when the bundle was approved; ``None``: any digest.
    public_key
        An EC public key, PEM. The bundle must carry a signature made with its private key over
        the manifest and every file in it; ``None``: a signature is neither needed nor checked.
    not_before
        The earliest accepted training date, with a time zone: once a newer bundle was served, an
        older one with a valid signature must not replace it. The date is trustworthy only with
        a digest or a signature, so one of them must be given too.
    strict_location
        Whether ``path`` must end in ``<name>/<version>`` of the manifest, so that a moved
        version does not pass for another one.

    Raises
    ------
    BundleRefused
        If a file is missing, extra, changed, too large, a link, or not a plain file; if the
        manifest is invalid or names a path outside the bundle; if the signature is missing, not
        of that key, or of other files; if the training date is too early or the location is not
        that of the manifest; if the graph is not ONNX, keeps data outside its file, uses
        operators of no known domain, would allocate without bound, or differs from the manifest.
    UsageError
        If the key can't be used, or a date is given without a digest or key.
    """
    _check_date_is_trustworthy(digest, public_key, not_before)
    with opened(path) as directory:
        names = directory.files()
        if MANIFEST_NAME not in names:
            raise BundleRefused(
                f"{path} is not a bundle: it has no {MANIFEST_NAME}; export the model again.",
                code=ErrorCode.MISSING,
                subject=MANIFEST_NAME,
            )
        content = directory.read(MANIFEST_NAME)
        actual = hashlib.sha256(content).hexdigest()
        if digest is not None and actual != digest:
            raise BundleRefused(
                f"{path} is not the bundle that was approved: its digest is {actual}, not "
                f"{printable(digest)}.",
                code=ErrorCode.CHANGED,
                subject="digest",
            )
        manifest = parse_manifest(content, path)
        _compare_lists(path, names - {MANIFEST_NAME, SIGNATURE_NAME}, set(manifest.files))
        graph = _read_files(directory, manifest)
        state: SignatureState = "unchecked" if SIGNATURE_NAME in names else "none"
        if public_key is not None:
            signature = _read_signature(directory, names)
            check_signature(path, signature, signed_digests(manifest, actual), public_key)
            state = "valid"
    if not_before is not None:
        _check_not_older(path, manifest.provenance.training_date, not_before)
    if strict_location:
        _check_location(path, manifest)
    fault = graph_fault(graph, manifest)
    if fault:
        raise BundleRefused(
            f"{path}: {ONNX_NAME} is rejected: {printable(fault)}.",
            code=ErrorCode.UNSAFE,
            subject=ONNX_NAME,
        )
    return Bundle(path, manifest, actual, graph, state)


def bundle_digest(path: Path) -> str:
    """Return the SHA-256 of the bundle's ``manifest.json``: the bundle's name by content.

    Raises
    ------
    BundleRefused
        If there is no plain ``manifest.json``.
    """
    with opened(path) as directory:
        return hashlib.sha256(directory.read(MANIFEST_NAME)).hexdigest()


def _read_files(directory: OpenDirectory, manifest: Manifest) -> bytes:
    """Read and check every file of the manifest, and return the graph."""
    graph = b""
    for name, record in sorted(manifest.files.items()):
        content = directory.read(name)
        same_size = len(content) == record.size_bytes
        if not same_size or hashlib.sha256(content).hexdigest() != record.sha256:
            raise BundleRefused(
                f"{directory.path}: {name} has changed since the bundle was finalized; "
                "export the model again.",
                code=ErrorCode.CHANGED,
                subject=name,
            )
        if name == ONNX_NAME:
            graph = content
    return graph


def _read_signature(directory: OpenDirectory, names: set[str]) -> bytes:
    if SIGNATURE_NAME not in names:
        raise BundleRefused(
            f"{directory.path} is not signed: it has no {SIGNATURE_NAME}; "
            "sign it with dwcp-ml bundle sign.",
            code=ErrorCode.UNSIGNED,
        )
    return directory.read(SIGNATURE_NAME)


def _compare_lists(path: Path, present: set[str], listed: set[str]) -> None:
    missing, extra = sorted(listed - present), sorted(present - listed)
    if missing:
        raise BundleRefused(
            f"{path}: {missing[0]} is missing; export the model again.",
            code=ErrorCode.MISSING,
            subject=missing[0],
        )
    if extra:
        raise BundleRefused(
            f"{path}: '{printable(extra[0])}' is not in {MANIFEST_NAME}; "
            "a finalized bundle takes no other file.",
            code=ErrorCode.FORBIDDEN,
            subject=extra[0],
        )


def _check_date_is_trustworthy(
    digest: str | None, public_key: Path | None, not_before: datetime | None
) -> None:
    if not_before is None:
        return
    if not_before.tzinfo is None:
        raise UsageError(
            f"{not_before.isoformat()} has no time zone: write it with an offset.",
            code=ErrorCode.INVALID_OPTION,
            subject="not_before",
        )
    if digest is None and public_key is None:
        raise UsageError(
            "A bundle's date is trustworthy only with a public key or a digest: name one of them.",
            code=ErrorCode.MISSING,
            subject="public_key or digest",
        )


def _check_not_older(path: Path, training_date: str, not_before: datetime) -> None:
    try:
        trained = datetime.fromisoformat(training_date)
    except ValueError:
        trained = None
    if trained is None or trained.tzinfo is None:
        raise BundleRefused(
            f"{path}: {MANIFEST_NAME} has the training date '{printable(training_date)}', "
            "which is not a time with a time zone; train the model again.",
            code=ErrorCode.MALFORMED,
            subject="training_date",
        )
    if trained < not_before:
        raise BundleRefused(
            f"{path} was trained on {trained.astimezone(UTC).isoformat()}, before "
            f"{not_before.astimezone(UTC).isoformat()}: an older version must not come back; "
            "deploy a newer one or name an earlier date.",
            code=ErrorCode.TOO_OLD,
        )


def _check_location(path: Path, manifest: Manifest) -> None:
    place = path.resolve()
    if (place.parent.name, place.name) != (manifest.name, manifest.version):
        raise BundleRefused(
            f"{path} holds {manifest.name}/{manifest.version}, not what its directory is called; "
            "put it back where it was exported.",
            code=ErrorCode.MISMATCH,
            subject=f"{manifest.name}/{manifest.version}",
        )
