"""Check a bundle's signature with a public key, offline.

The signature is that of the ``model-signing`` library: a DSSE envelope around an in-toto statement
that names the SHA-256 of ``manifest.json`` and of every file of the bundle. The library would read
the files itself. It gets the digests of the content that was read already, so the bytes that are
loaded are the bytes that were signed. Importing it takes half a second, so functions import it.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dwcp_ml.contract.bundle import MANIFEST_NAME, SIGNATURE_NAME
from dwcp_ml.contract.bundle import Manifest as BundleManifest
from dwcp_ml.contract.errors import BundleRefused, DwcpError, ErrorCode
from dwcp_ml.export.keys import PUBLIC_KEY_NAME, pem
from dwcp_ml.export.keys import public_key as read_public_key

if TYPE_CHECKING:
    from model_signing.manifest import Manifest


def signed_digests(manifest: BundleManifest, digest: str) -> dict[str, str]:
    """Return the files that a signature covers, each with its SHA-256 in hexadecimal."""
    files = {name: record.sha256 for name, record in manifest.files.items()}
    return {MANIFEST_NAME: digest} | files


def check_signature(
    path: Path, signature: bytes, digests: Mapping[str, str], public_key: Path
) -> None:
    """Check that a signature was made with the key of ``public_key`` over exactly ``digests``.

    Parameters
    ----------
    path
        The bundle, for the error message; it is not read.
    signature
        The content of ``model.sig``.
    digests
        POSIX path of every file of the bundle and the SHA-256 of what was read of it.
    public_key
        An EC public key (P-256, P-384 or P-521), PEM.

    Raises
    ------
    BundleRefused
        If it was made with another key, is invalid, or covers other files.
    UsageError
        If the key can't be used.
    DwcpError
        If no temporary file can be written: the library reads the signature from one.
    """
    key = pem(read_public_key(public_key))
    hint = _hint(signature)
    if hint is None:
        raise BundleRefused(
            f"{path}: {SIGNATURE_NAME} is not a signature with a key; "
            "sign the bundle again with dwcp-ml bundle sign.",
            code=ErrorCode.MALFORMED,
            subject=SIGNATURE_NAME,
        )
    if hint != hashlib.sha256(key).hexdigest():
        raise BundleRefused(
            f"{path}: {SIGNATURE_NAME} was made with another key than that of {public_key}; "
            "name the signer's public key, or don't use the bundle.",
            code=ErrorCode.WRONG_KEY,
            subject=public_key,
        )
    try:
        with tempfile.TemporaryDirectory(prefix="dwcp-ml-") as scratch:
            draft = Path(scratch) / SIGNATURE_NAME
            draft.write_bytes(signature)
            trusted = Path(scratch) / PUBLIC_KEY_NAME
            trusted.write_bytes(key)
            fault = _library_fault(draft, trusted, digests)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DwcpError(
            f"There is no place for a temporary file: {reason}; "
            "set TMPDIR to a directory that can be written.",
            code=ErrorCode.CANT_WRITE,
            subject="TMPDIR",
        ) from error
    if fault:
        raise BundleRefused(
            f"{path}: {SIGNATURE_NAME} is rejected: {fault}.",
            code=ErrorCode.SIGNATURE,
            subject=SIGNATURE_NAME,
        )


class KnownDigests:
    """Takes the place of the library's file hasher and returns digests computed before."""

    def __init__(self, name: str, digests: Mapping[str, str]) -> None:
        self._name = name
        self._digests = digests
        self.was_read = False

    def add_ignored_paths(self, **_: object) -> None:
        """Ignore no file, whatever a signature names."""

    def hash(self, *_: object, **__: object) -> Manifest:
        """Return the digests as the library's own manifest."""
        from model_signing import manifest
        from model_signing._hashing.hashing import Digest  # nothing public makes one

        self.was_read = True
        form = manifest.SerializationType.from_args(
            {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE_NAME],
            }
        )
        items = [
            form.new_item(name, Digest("sha256", bytes.fromhex(digest)))
            for name, digest in sorted(self._digests.items())
        ]
        return manifest.Manifest(self._name, items, form)


def _library_fault(signature: Path, public_key: Path, digests: Mapping[str, str]) -> str | None:
    """Return why the library rejects the signature, ``None`` if it accepts it."""
    from model_signing import verifying

    known = KnownDigests("", digests)
    verifier = cast("Any", verifying.Config)()
    try:
        verifier.use_elliptic_key_verifier(public_key=public_key)
        verifier.set_hashing_config(known).verify(signature.parent, signature)
    except Exception:  # the library parses an untrusted file: any error rejects it
        if known.was_read:
            return (
                "it covers other files than those of the bundle; "
                "sign the bundle again, or restore it"
            )
        return "it is damaged or forged; sign the bundle again with dwcp-ml bundle sign"
    return None


def _hint(signature: bytes) -> str | None:
    """Return the SHA-256 of the public key that a signature names."""
    try:
        hint = json.loads(signature)["verificationMaterial"]["publicKey"]["hint"]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None
    return hint if isinstance(hint, str) else None
