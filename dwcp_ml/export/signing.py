"""Signing a bundle, and checking whose it is, with a key and offline.

The signature is that of the ``model-signing`` library: a DSSE envelope around an in-toto statement
that names the SHA-256 of ``manifest.json`` and of every file of the bundle. The library would read
the files itself; it is given the digests of what was read already instead, so that what is loaded
is what was signed. It is imported where it is used: it takes half a second.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dwcp_ml.contract.bundle import SIGNATURE_NAME
from dwcp_ml.contract.errors import BundleRefused, DwcpError
from dwcp_ml.export.keys import PUBLIC_KEY_NAME, make_key_pair, pem, public_half
from dwcp_ml.export.keys import public_key as read_public_key
from dwcp_ml.export.verify import open_bundle, signed_digests
from dwcp_ml.files import cant_write, sync

if TYPE_CHECKING:
    from model_signing.manifest import Manifest

__all__ = ["check_signature", "make_key_pair", "sign_bundle"]


def sign_bundle(path: Path, private_key: Path) -> Path:
    """Sign the bundle in ``path``; a signature that it carries already is replaced.

    The bundle is opened as a stranger would open it, so that none is signed that is refused, and
    the signature is checked before it takes its name.

    Parameters
    ----------
    path
        The directory that holds ``manifest.json``.
    private_key
        An EC private key (P-256, P-384 or P-521), PEM, not encrypted.

    Returns
    -------
    Path
        ``model.sig`` in the bundle.

    Raises
    ------
    BundleRefused
        If the bundle is refused.
    UsageError
        If the key can't be used.
    DwcpError
        If the signature can't be written.
    """
    public = public_half(private_key)
    bundle = open_bundle(path)
    digests = signed_digests(bundle.manifest, bundle.digest)
    home = path.resolve()
    try:
        with tempfile.TemporaryDirectory(
            prefix=f".{home.name}.", suffix=".partial", dir=home.parent
        ) as scratch:
            draft = Path(scratch) / SIGNATURE_NAME
            _sign(draft, f"{bundle.manifest.name}/{bundle.manifest.version}", digests, private_key)
            key = Path(scratch) / PUBLIC_KEY_NAME
            key.write_bytes(pem(public))
            check_signature(path, draft.read_bytes(), digests, key)
            draft.chmod(0o644)
            sync(draft)
            draft.replace(home / SIGNATURE_NAME)
            sync(home)
    except OSError as error:
        raise cant_write(home / SIGNATURE_NAME, error) from error
    return path / SIGNATURE_NAME


def check_signature(
    path: Path, signature: bytes, digests: Mapping[str, str], public_key: Path
) -> None:
    """Refuse a signature that is not that of ``public_key`` over exactly ``digests``.

    Parameters
    ----------
    path
        The bundle, as the refusal names it; it is not read.
    signature
        The content of ``model.sig``.
    digests
        POSIX path of every file of the bundle and the SHA-256 of what was read of it.
    public_key
        An EC public key (P-256, P-384 or P-521), PEM.

    Raises
    ------
    BundleRefused
        If it is of another key, is not valid, or is of other files.
    UsageError
        If the key can't be used.
    DwcpError
        If there is no place for a temporary file: the library wants the signature in one.
    """
    key = pem(read_public_key(public_key))
    hint = _hint(signature)
    if hint is None:
        raise BundleRefused(
            f"{path}: {SIGNATURE_NAME} is no signature made with a key; "
            "sign the bundle again with dwcp-ml bundle sign."
        )
    if hint != hashlib.sha256(key).hexdigest():
        raise BundleRefused(
            f"{path}: {SIGNATURE_NAME} was made with another key than that of {public_key}; "
            "name the key of whoever signed it, or don't use the bundle."
        )
    try:
        with tempfile.TemporaryDirectory(prefix="dwcp-ml-") as scratch:
            held = Path(scratch) / SIGNATURE_NAME
            held.write_bytes(signature)
            trusted = Path(scratch) / PUBLIC_KEY_NAME
            trusted.write_bytes(key)
            fault = _library_fault(held, trusted, digests)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DwcpError(
            f"there is no place for a temporary file: {reason}; "
            "set TMPDIR to a directory that can be written."
        ) from error
    if fault:
        raise BundleRefused(f"{path}: {SIGNATURE_NAME} is refused: {fault}.")


class _Digests:
    """Stands where the library wants a hasher of files, and gives what was read already."""

    def __init__(self, name: str, digests: Mapping[str, str]) -> None:
        self._name = name
        self._digests = digests
        self.asked = False

    def add_ignored_paths(self, **_: object) -> None:
        """Ignore nothing, whatever a signature asks for."""

    def hash(self, *_: object, **__: object) -> Manifest:
        """Return the digests as the library's own manifest."""
        from model_signing import manifest
        from model_signing._hashing.hashing import Digest  # nothing public makes one

        self.asked = True
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


def _sign(draft: Path, name: str, digests: Mapping[str, str], private_key: Path) -> None:
    from model_signing import signing

    held = _Digests(name, digests)
    signer = cast("Any", signing.Config)()
    signer.use_elliptic_key_signer(private_key=private_key)
    signer.set_hashing_config(held).sign(draft.parent, draft)


def _library_fault(signature: Path, public_key: Path, digests: Mapping[str, str]) -> str | None:
    """Return why the library refuses the signature, ``None`` if it does not."""
    from model_signing import verifying

    held = _Digests("", digests)
    verifier = cast("Any", verifying.Config)()
    try:
        verifier.use_elliptic_key_verifier(public_key=public_key)
        verifier.set_hashing_config(held).verify(signature.parent, signature)
    except Exception:  # a stranger's file in a library's hands: whatever goes wrong refuses it
        if held.asked:
            return (
                "it is of other files than those of the bundle; sign what is there, or restore it"
            )
        return "it is damaged or forged; sign the bundle again with dwcp-ml bundle sign"
    return None


def _hint(signature: bytes) -> str | None:
    """Return the SHA-256 of the public key that a signature claims to be of."""
    try:
        hint = json.loads(signature)["verificationMaterial"]["publicKey"]["hint"]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None
    return hint if isinstance(hint, str) else None
