"""Copy one bundle to a store, or out of it."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dwcp_ml.contract.bundle import (
    MANIFEST_NAME,
    MAX_FILE_BYTES,
    SIGNATURE_NAME,
    Manifest,
    parse_manifest,
)
from dwcp_ml.contract.errors import BundleRefused, ErrorCode, ExportFailed, UsageError
from dwcp_ml.export.bundle import copy_version
from dwcp_ml.export.plain_files import MAX_MANIFEST_BYTES, MAX_SIGNATURE_BYTES, opened
from dwcp_ml.export.verify import Bundle, open_bundle
from dwcp_ml.files import write_bytes
from dwcp_ml.storage.addresses import is_writable, local_path
from dwcp_ml.storage.remote_objects import Remote, StorageError, remote


@dataclass(frozen=True)
class Pushed:
    """A bundle in the store.

    Parameters
    ----------
    address
        ``<prefix>/<model>/<version>``.
    digest
        SHA-256 of its ``manifest.json``, 64 hexadecimal digits.
    is_new
        False if the same bundle was there already.
    """

    address: str
    digest: str
    is_new: bool


def push(bundle: Path, prefix: str, *, digest: str | None = None) -> Pushed:
    """Copy a bundle to ``<prefix>/<model>/<version>``, and verify every file there.

    If the same bundle is there already, it is verified only. A bundle is never overwritten.

    Parameters
    ----------
    digest
        The digest that was approved; ``None`` for any.

    Raises
    ------
    BundleRefused
        If the bundle is invalid or not the approved one, or what arrived differs from it.
    ExportFailed
        If another bundle of this version is there, complete or not.
    StorageError
        If the store can't be reached, or denies access.
    UsageError
        If the address can't be written to.
    """
    source = open_bundle(bundle, digest=digest)
    address = f"{prefix.rstrip('/')}/{source.manifest.name}/{source.manifest.version}"
    if not is_writable(address):
        raise UsageError(
            f"{address} can only be read: push to a path, s3://, gs://, az:// or pvc://.",
            code=ErrorCode.UNSUPPORTED,
            subject=address,
        )
    destination = local_path(address)
    if destination is not None:
        is_new = not (destination / MANIFEST_NAME).exists()
        copy_version(bundle, destination)
        if source.signature != "none" and not (destination / SIGNATURE_NAME).exists():
            write_bytes(destination / SIGNATURE_NAME, (bundle / SIGNATURE_NAME).read_bytes())
        open_bundle(destination, digest=source.digest, strict_location=True)
    else:
        target = remote(address)
        _check_kserve_reads(source, remote(address.rpartition("/")[0]))
        is_new = _upload(source, target)
        _verify(target, source)
    return Pushed(address, source.digest, is_new)


def pull(
    address: str, output: Path, *, digest: str | None = None, public_key: Path | None = None
) -> Path:
    """Copy the bundle at an address to ``<output>/<model>/<version>``, and verify it.

    Parameters
    ----------
    address
        ``<prefix>/<model>/<version>``.
    digest, public_key
        What it must have, or be signed with; see ``open_bundle``.

    Raises
    ------
    BundleRefused
        If it is no bundle, or an invalid one.
    ExportFailed
        If ``output`` has another bundle of this version.
    StorageError
        If it can't be read.
    """
    source = local_path(address)
    with tempfile.TemporaryDirectory(prefix="dwcp-ml-") as scratch:
        if source is None:
            source = Path(scratch)
            _download(remote(address), source)
        try:
            found = open_bundle(source, digest=digest, public_key=public_key)
        except BundleRefused as error:
            error.args = (str(error).replace(str(source), address),)
            raise
        destination = output / found.manifest.name / found.manifest.version
        copy_version(source, destination)
    open_bundle(destination, digest=found.digest)
    return destination


def read_manifest(target: Remote) -> tuple[Manifest, str] | None:
    """Return the manifest of a bundle in an object store, and its digest; ``None`` without one.

    Raises
    ------
    BundleRefused
        If it is invalid.
    """
    try:
        content = target.below(MANIFEST_NAME).read(MAX_MANIFEST_BYTES)
    except StorageError as error:
        if error.code is ErrorCode.MISSING:
            return None
        raise
    return parse_manifest(content, target.address), hashlib.sha256(content).hexdigest()


def _check_kserve_reads(source: Bundle, model: Remote) -> None:
    """Check that KServe's storage initializer would copy the bundle, and nothing else.

    Version 0.20 copies every object of a bucket whose name begins with the address: of ``v1`` those
    of ``v10`` as well. It leaves empty files out. Servers reject both.

    Parameters
    ----------
    model
        The prefix of all versions of the model.

    Raises
    ------
    ExportFailed
        If it would not.
    """
    version = source.manifest.version
    for other in model.names():
        if other != version and (other.startswith(version) or version.startswith(other)):
            raise ExportFailed(
                f"{model.address} has the version {other}, which KServe can't tell from {version}, "
                f"because one begins with the other: publish under another version.",
                code=ErrorCode.AMBIGUOUS,
                subject=version,
            )
    for name, record in sorted(source.manifest.files.items()):
        if record.size_bytes == 0:
            raise ExportFailed(
                f"{source.path}: {name} is empty, and KServe does not copy empty files.",
                code=ErrorCode.UNSUPPORTED,
                subject=name,
            )


def _upload(source: Bundle, target: Remote) -> bool:
    """Copy a bundle to an object store, the manifest last; return false if it was there."""
    files = set(source.manifest.files)
    with opened(source.path) as directory:
        manifest = directory.read(MANIFEST_NAME)
        signature = directory.read(SIGNATURE_NAME) if source.signature != "none" else None
        is_new = not target.below(MANIFEST_NAME).exists()
        if is_new:
            others = set(target.objects()) - files - {SIGNATURE_NAME}
            if others:
                raise _clash(target, min(others))
            for name in sorted(files):
                _create(target, name, directory.read(name))
        else:
            _create(target, MANIFEST_NAME, manifest)
    if signature is not None:
        target.below(SIGNATURE_NAME).create(signature)
    if is_new:
        _create(target, MANIFEST_NAME, manifest)
    return is_new


def _create(target: Remote, name: str, content: bytes) -> None:
    """Write an object of a bundle, or find the same one there.

    Raises
    ------
    ExportFailed
        If another one is there: of another bundle, or of an unfinished copy of one.
    """
    file = target.below(name)
    if not file.create(content) and file.read(MAX_FILE_BYTES) != content:
        raise _clash(target, name)


def _clash(target: Remote, name: str) -> ExportFailed:
    return ExportFailed(
        f"{target.address} holds another {name}, and a version is never overwritten: publish under "
        f"another version, or remove it first.",
        code=ErrorCode.ALREADY_EXISTS,
        subject=target.address,
    )


def _verify(target: Remote, source: Bundle) -> None:
    """Check that the store holds a bundle, byte for byte, and nothing else beside it.

    Raises
    ------
    BundleRefused
        If it does not.
    """
    others = set(target.objects()) - set(source.manifest.files) - {MANIFEST_NAME, SIGNATURE_NAME}
    if others:
        raise BundleRefused(
            f"{target.address} holds {min(others)}, which is not in {MANIFEST_NAME}: servers would "
            f"reject the bundle.",
            code=ErrorCode.FORBIDDEN,
            subject=min(others),
        )
    with tempfile.TemporaryDirectory(prefix="dwcp-ml-") as scratch:
        copy = Path(scratch)
        _download(target, copy)
        try:
            open_bundle(copy, digest=source.digest)
        except BundleRefused as error:
            error.args = (str(error).replace(scratch, target.address),)
            raise


def _download(source: Remote, directory: Path) -> None:
    """Copy the files that the manifest of a bundle names, and its signature.

    Raises
    ------
    BundleRefused
        If there is no manifest, or an invalid one.
    StorageError
        If a file can't be read, or is larger than a bundle's may be.
    """
    found = read_manifest(source)
    if found is None:
        raise BundleRefused(
            f"{source.address} is not a bundle: it has no {MANIFEST_NAME}, which is written last.",
            code=ErrorCode.MISSING,
            subject=MANIFEST_NAME,
        )
    for name in (MANIFEST_NAME, *sorted(found[0].files)):
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        source.below(name).download(target, MAX_FILE_BYTES)
    try:
        source.below(SIGNATURE_NAME).download(directory / SIGNATURE_NAME, MAX_SIGNATURE_BYTES)
    except StorageError as error:
        if error.code is not ErrorCode.MISSING:
            raise
        (directory / SIGNATURE_NAME).unlink(missing_ok=True)
