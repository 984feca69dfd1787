"""Sign a bundle with an EC key, offline; see ``signature`` for the format."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from dwcp_ml.contract.bundle import SIGNATURE_NAME
from dwcp_ml.export.keys import PUBLIC_KEY_NAME, pem, public_half
from dwcp_ml.export.signature import KnownDigests, check_signature, signed_digests
from dwcp_ml.export.verify import open_bundle
from dwcp_ml.files import cant_write, sync


def sign_bundle(path: Path, private_key: Path) -> Path:
    """Sign the bundle in ``path``; a signature that it carries already is replaced.

    The bundle is first opened and checked like any untrusted bundle, so an invalid one is never
    signed. The new signature is checked before it replaces an old one.

    Parameters
    ----------
    private_key
        An EC private key (P-256, P-384 or P-521), PEM, not encrypted.

    Returns
    -------
    Path
        ``model.sig`` in the bundle.

    Raises
    ------
    BundleRefused
        If the bundle is invalid.
    UsageError
        If the key can't be used.
    DwcpError
        If the signature can't be written.
    """
    public = public_half(private_key)
    bundle = open_bundle(path)
    digests = signed_digests(bundle.manifest, bundle.digest)
    directory = path.resolve()
    try:
        with tempfile.TemporaryDirectory(
            prefix=f".{directory.name}.", suffix=".partial", dir=directory.parent
        ) as scratch:
            draft = Path(scratch) / SIGNATURE_NAME
            _sign(draft, f"{bundle.manifest.name}/{bundle.manifest.version}", digests, private_key)
            key = Path(scratch) / PUBLIC_KEY_NAME
            key.write_bytes(pem(public))
            check_signature(path, draft.read_bytes(), digests, key)
            draft.chmod(0o644)
            sync(draft)
            draft.replace(directory / SIGNATURE_NAME)
            sync(directory)
    except OSError as error:
        raise cant_write(directory / SIGNATURE_NAME, error) from error
    return path / SIGNATURE_NAME


def _sign(draft: Path, name: str, digests: Mapping[str, str], private_key: Path) -> None:
    from model_signing import signing

    known = KnownDigests(name, digests)
    signer = cast("Any", signing.Config)()
    signer.use_elliptic_key_signer(private_key=private_key)
    signer.set_hashing_config(known).sign(draft.parent, draft)
