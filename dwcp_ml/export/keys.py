"""The key pair that bundles are signed with: EC, PEM files, no passphrase.

``cryptography`` is imported where it is used, so that the command line starts without it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.files import cant_write

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

PRIVATE_KEY_NAME: Final = "bundle-signing.key"
PUBLIC_KEY_NAME: Final = "bundle-signing.pub"

MAX_KEY_BYTES: Final = 10_000

_CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")
_MAKE_KEYS: Final = "make a pair with dwcp-ml bundle keygen"


def make_key_pair(directory: Path) -> tuple[Path, Path]:
    """Write a new EC P-256 key pair, PEM, into ``directory``.

    Returns
    -------
    tuple of Path
        The private key, readable by its owner only and not encrypted, and the public key.

    Raises
    ------
    UsageError
        If one of the two files exists: a key is never overwritten.
    DwcpError
        If they can't be written.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private, public = directory / PRIVATE_KEY_NAME, directory / PUBLIC_KEY_NAME
    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path in (private, public):
            if os.path.lexists(path):
                raise FileExistsError(path)
        _write_new(private, secret, 0o600)
        _write_new(public, pem(key.public_key()), 0o644)
    except FileExistsError as error:
        raise UsageError(
            f"{directory} has a key, and a key is never overwritten; name another directory.",
            code=ErrorCode.ALREADY_EXISTS,
            subject=directory,
        ) from error
    except OSError as error:
        what = f"a key into {directory}"
        raise cant_write(what, error, remedy="name another directory") from error
    return private, public


def public_key(path: Path) -> EllipticCurvePublicKey:
    """Return the public key in a PEM file.

    Raises
    ------
    UsageError
        If the file can't be read, holds no such key, or one on another curve.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        key: object = serialization.load_pem_public_key(_key_bytes(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(
            f"{path} holds no public key in PEM; {_MAKE_KEYS}.",
            code=ErrorCode.MALFORMED,
            subject=path,
        ) from error
    return _of_known_curve(path, key)


def public_half(path: Path) -> EllipticCurvePublicKey:
    """Return the public key that belongs to the private key in a PEM file.

    Raises
    ------
    UsageError
        If the file can't be read, holds no such key, or one on another curve, or is encrypted.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_private_key(_key_bytes(path), None)
    except TypeError as error:
        raise UsageError(
            f"{path} is encrypted; decrypt it before signing.",
            code=ErrorCode.ENCRYPTED,
            subject=path,
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(
            f"{path} holds no private key in PEM; {_MAKE_KEYS}.",
            code=ErrorCode.MALFORMED,
            subject=path,
        ) from error
    return _of_known_curve(path, key.public_key())


def _of_known_curve(path: Path, key: object) -> EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

    if isinstance(key, EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key
    raise UsageError(
        f"{path} is not an EC key on P-256, P-384 or P-521; {_MAKE_KEYS}.",
        code=ErrorCode.UNSUPPORTED,
        subject=path,
    )


def _key_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_KEY_BYTES)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(
            f"The key {path} can't be read: {reason}; {_MAKE_KEYS}.",
            code=ErrorCode.CANT_READ,
            subject=path,
        ) from error


def pem(key: EllipticCurvePublicKey) -> bytes:
    """Return a public key as PEM."""
    from cryptography.hazmat.primitives import serialization

    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file atomically, and only if it does not exist: a hard link never replaces."""
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(descriptor, mode)
            stream.write(content)
            stream.flush()
            os.fsync(descriptor)
        os.link(draft, path)
    finally:
        Path(draft).unlink()
