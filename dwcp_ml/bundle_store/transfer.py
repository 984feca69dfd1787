"""Copy one bundle to a store, or out of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dwcp_ml.bundle_store.objects import clash, download, upload
from dwcp_ml.contract.bundle import MANIFEST_NAME, SIGNATURE_NAME
from dwcp_ml.contract.errors import BundleRefused, ErrorCode, UsageError
from dwcp_ml.export.bundle import copy_version
from dwcp_ml.export.plain_files import opened
from dwcp_ml.export.verify import Bundle, open_bundle
from dwcp_ml.files import write_bytes
from dwcp_ml.storage.addresses import is_writable, local_path, without_query
from dwcp_ml.storage.remote_objects import remote


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
            f"{without_query(address)} can only be read: push to a path, s3://, gs://, az:// or "
            f"pvc://.",
            code=ErrorCode.UNSUPPORTED,
            subject=without_query(address),
        )
    destination = local_path(address)
    if destination is not None:
        is_new = _copy(source, destination)
        open_bundle(destination, digest=source.digest, strict_location=True)
    else:
        is_new = upload(source, remote(address), remote(address.rpartition("/")[0]))
    return Pushed(address, source.digest, is_new)


@contextmanager
def opened_at(
    address: str, *, digest: str | None = None, public_key: Path | None = None
) -> Iterator[Bundle]:
    """Verify the bundle at an address and yield it; a copy of a remote one lasts for the block.

    Parameters
    ----------
    address
        Of the bundle itself, such as ``<prefix>/<model>/<version>``.
    digest, public_key
        What it must have, or be signed with; see ``open_bundle``.

    Raises
    ------
    BundleRefused
        If it is no bundle, or an invalid one.
    StorageError
        If it can't be read.
    UsageError
        If the address is invalid.
    """
    source = local_path(address)
    with tempfile.TemporaryDirectory(prefix="dwcp-ml-") as scratch:
        if source is None:
            source = Path(scratch)
            download(remote(address), source)
        try:
            bundle = open_bundle(source, digest=digest, public_key=public_key)
        except BundleRefused as error:
            error.args = (str(error).replace(str(source), without_query(address)),)
            raise
        yield bundle


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
    with opened_at(address, digest=digest, public_key=public_key) as found:
        destination = output / found.manifest.name / found.manifest.version
        copy_version(found.path, destination, digest=found.digest)
    open_bundle(destination, digest=found.digest)
    return destination


def _copy(source: Bundle, destination: Path) -> bool:
    """Copy a bundle to a file system; return false if it was there.

    Raises
    ------
    ExportFailed
        If there is something else of this name, be it no bundle, or another signature.
    """
    is_new = not (destination / MANIFEST_NAME).exists()
    copy_version(source.path, destination, digest=source.digest)
    if source.signature != "none":
        with opened(source.path) as directory:
            signature = directory.read(SIGNATURE_NAME)
        with opened(destination) as directory:
            found = directory.read(SIGNATURE_NAME) if SIGNATURE_NAME in directory.files() else None
        if found is None:
            write_bytes(destination / SIGNATURE_NAME, signature)
        elif found != signature:
            raise clash(destination, SIGNATURE_NAME)
    return is_new
