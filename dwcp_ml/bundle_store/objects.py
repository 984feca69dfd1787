"""A bundle in an object store: written, read back, read, and compared with its listing."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path

from dwcp_ml.contract.bundle import (
    MANIFEST_NAME,
    MAX_FILE_BYTES,
    SIGNATURE_NAME,
    Manifest,
    parse_manifest,
    printable,
)
from dwcp_ml.contract.errors import BundleRefused, ErrorCode, ExportFailed
from dwcp_ml.export.plain_files import (
    MAX_BUNDLE_BYTES,
    MAX_ENTRIES,
    MAX_MANIFEST_BYTES,
    MAX_SIGNATURE_BYTES,
    OpenDirectory,
    opened,
)
from dwcp_ml.export.verify import Bundle, open_bundle
from dwcp_ml.storage.remote_objects import Entry, Remote, StorageError


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


def check_listing(manifest: Manifest, entries: Mapping[str, Entry], address: str) -> None:
    """Check that a store lists the files of a manifest with their sizes, and nothing else.

    Raises
    ------
    BundleRefused
        If it does not.
    """
    listed = {name: entry.size_bytes for name, entry in entries.items()}
    expected = {name: record.size_bytes for name, record in manifest.files.items()}
    for name in sorted((listed.keys() | expected.keys()) - {MANIFEST_NAME, SIGNATURE_NAME}):
        if listed.get(name) == expected.get(name):
            continue
        code, fault = ErrorCode.CHANGED, f"its {name} has another size than {MANIFEST_NAME} says"
        if name not in listed:
            code, fault = ErrorCode.MISSING, f"its {name} is missing"
        elif name not in expected:
            code, fault = (
                ErrorCode.FORBIDDEN,
                f"it holds {printable(name)}, outside {MANIFEST_NAME}",
            )
        raise BundleRefused(
            f"{address} is damaged, because {fault}: servers would reject it.",
            code=code,
            subject=name,
        )


def upload(source: Bundle, target: Remote, model: Remote) -> bool:
    """Copy a bundle to an object store, the manifest last; return false if it was there.

    Everything else is read back before the manifest is written, so what has a manifest is a bundle.

    Parameters
    ----------
    model
        The prefix of all versions of the model.
    """
    _check_kserve_reads(source, model)
    with opened(source.path) as directory:
        manifest = _read(directory, MANIFEST_NAME, source.digest)
        signature = directory.read(SIGNATURE_NAME) if source.signature != "none" else None
        is_new = not target.below(MANIFEST_NAME).exists()
        written = []
        if is_new:
            files = source.manifest.files
            others = set(target.objects()) - set(files) - {SIGNATURE_NAME}
            if others:
                raise clash(target.address, min(others))
            for name, record in sorted(files.items()):
                if _create(target, name, _read(directory, name, record.sha256)):
                    written.append(name)
        else:
            _create(target, MANIFEST_NAME, manifest)
    if signature is not None and _create(target, SIGNATURE_NAME, signature):
        written.append(SIGNATURE_NAME)
    _verify(target, source, manifest)
    if is_new:
        try:
            _check_kserve_reads(source, model)  # another version may have been pushed meanwhile
        except ExportFailed:
            with contextlib.suppress(StorageError):  # the store may not permit it
                for name in written:
                    target.below(name).remove()
            raise
        _create(target, MANIFEST_NAME, manifest)
    _check_published(target, source)
    return is_new


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


def _read(directory: OpenDirectory, name: str, sha256: str) -> bytes:
    """Return the content of a file of a bundle that was opened.

    Raises
    ------
    BundleRefused
        If it has changed since.
    """
    content = directory.read(name)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise BundleRefused(
            f"{directory.path}: {name} has changed while the bundle was copied: copy it again.",
            code=ErrorCode.CHANGED,
            subject=name,
        )
    return content


def _create(target: Remote, name: str, content: bytes) -> bool:
    """Write an object of a bundle, or find the same one there; return whether it was written.

    Raises
    ------
    ExportFailed
        If another one is there: of another bundle, or of an unfinished copy of one.
    """
    file = target.below(name)
    if file.create(content):
        return True
    if file.read(MAX_FILE_BYTES) != content:
        raise clash(target.address, name)
    return False


def _verify(target: Remote, source: Bundle, manifest: bytes) -> None:
    """Check that the store holds the files of a bundle, byte for byte.

    Parameters
    ----------
    manifest
        What the store will have as the manifest, or has.

    Raises
    ------
    BundleRefused
        If it does not.
    """
    with tempfile.TemporaryDirectory(prefix="dwcp-ml-") as scratch:
        copy = Path(scratch)
        (copy / MANIFEST_NAME).write_bytes(manifest)
        _download_files(target, source.manifest, copy)
        try:
            open_bundle(copy, digest=source.digest)
        except BundleRefused as error:
            error.args = (str(error).replace(scratch, target.address),)
            raise


def _check_published(target: Remote, source: Bundle) -> None:
    """Check that a bundle is in the store under its manifest, with nothing else beside it.

    It is the last step: what removed a part of the bundle meanwhile is noticed.

    Raises
    ------
    BundleRefused
        If it is not.
    """
    check_listing(source.manifest, target.listing(), target.address)
    found = read_manifest(target)
    if found is None or found[1] != source.digest:
        raise BundleRefused(
            f"{target.address} has another {MANIFEST_NAME} than was written, or none: it was "
            f"changed or removed meanwhile.",
            code=ErrorCode.CHANGED if found else ErrorCode.MISSING,
            subject=MANIFEST_NAME,
        )


def download(source: Remote, directory: Path) -> None:
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
    manifest = source.below(MANIFEST_NAME)
    manifest.download(directory / MANIFEST_NAME, MAX_MANIFEST_BYTES)
    _download_files(source, found[0], directory)


def _download_files(source: Remote, manifest: Manifest, directory: Path) -> None:
    """Copy the files that a manifest names, and the signature, within the limits of a bundle."""
    sizes = [record.size_bytes for record in manifest.files.values()]
    if (
        len(sizes) > MAX_ENTRIES
        or sum(sizes) > MAX_BUNDLE_BYTES
        or max(sizes, default=0) > MAX_FILE_BYTES
    ):
        raise BundleRefused(
            f"{source.address} is larger than a bundle may be: {len(sizes)} files of together "
            f"{sum(sizes):,} bytes.",
            code=ErrorCode.TOO_LARGE,
            subject=MANIFEST_NAME,
        )
    for name, record in sorted(manifest.files.items()):
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        source.below(name).download(target, record.size_bytes)
    try:
        source.below(SIGNATURE_NAME).download(directory / SIGNATURE_NAME, MAX_SIGNATURE_BYTES)
    except StorageError as error:
        if error.code is not ErrorCode.MISSING:
            raise
        (directory / SIGNATURE_NAME).unlink(missing_ok=True)


def clash(address: object, name: str) -> ExportFailed:
    """Return the error that another file of this name is where a bundle was to be copied."""
    return ExportFailed(
        f"{address} holds another {name}, and a version is never overwritten: publish under "
        f"another version, or remove it first.",
        code=ErrorCode.ALREADY_EXISTS,
        subject=address,
    )
