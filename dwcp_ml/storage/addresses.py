"""The forms of an address: a path, or a URI of a known scheme. Nothing is requested."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

from dwcp_ml.contract.errors import ErrorCode, UsageError

OBJECT_STORES: Final = ("s3", "gs", "az")
WEB: Final = ("https", "http")
VOLUMES: Final = ("pvc", "file")
SCHEMES: Final = (*OBJECT_STORES, *WEB, *VOLUMES)
"""The schemes of an address; a path has none."""

CLAIMS_VARIABLE: Final = "DWCP_PVC_ROOT"
DEFAULT_CLAIMS: Final = "/mnt/pvc"
"""Below it, each claim is mounted in a directory of its name."""

_URI: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_AZURE_HOST: Final = re.compile(r"([a-z0-9]+)\.blob\.core\.windows\.net")
_DIGEST: Final = re.compile(r"#md5=([0-9a-f]{32})$")
_BUCKET: Final = re.compile(r"\$?[a-z0-9][a-z0-9._-]*")
_CLAIM: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def scheme_of(address: str) -> str:
    """Return the scheme of an address, empty for a path.

    Raises
    ------
    UsageError
        If there is no such scheme, or the address holds credentials.
    """
    parts = _URI.fullmatch(address)
    if parts is None:
        return ""
    scheme = parts[1].lower()
    if scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise UsageError(
            f"{without_query(address)} can't be used, because there is no reader for "
            f"{scheme}://: write a path, or one of {known}.",
            code=ErrorCode.UNSUPPORTED,
            subject=scheme,
        )
    if _holds_credentials(scheme, parts[2]):
        raise UsageError(
            f"{without_query(address)} was given with credentials, which reports and logs would "
            f"show: set them in the environment instead.",
            code=ErrorCode.FORBIDDEN,
            subject=scheme,
        )
    return scheme


def without_query(address: str) -> str:
    """Return an address without credentials: neither a user, nor the query of a web address."""
    parts = _URI.fullmatch(address)
    if parts is None:
        return address
    scheme, rest = parts[1].lower(), parts[2]
    shown = rest.partition("?")[0] if scheme in WEB else rest
    if _holds_credentials(scheme, shown) or _holds_credentials(scheme, rest):
        shown = shown.rpartition("@")[2] if "@" in shown else "…"
    return f"{parts[1]}://{shown}"


def _holds_credentials(scheme: str, rest: str) -> bool:
    """Return whether what follows ``://`` begins with credentials, or could.

    A secret key may contain ``/``, so what comes before the first one is not always all of it.
    """
    first, _, below = rest.partition("/")
    if "@" in first:
        return True
    host, colon, port = re.split(r"[?#]", first, maxsplit=1)[0].partition(":")
    if scheme in VOLUMES or (scheme in WEB and host.startswith("[")):
        return False
    if colon:
        return scheme in OBJECT_STORES or not port.isdecimal()
    return scheme in OBJECT_STORES and "@" in below and not _BUCKET.fullmatch(first)


def without_digest(address: str) -> tuple[str, str | None]:
    """Return an address without its suffix ``#md5=``, and its md5; ``None`` if absent."""
    suffix = _DIGEST.search(address)
    return (address, None) if suffix is None else (address[: suffix.start()], suffix[1])


def absolute(address: str) -> str:
    """Return a path as an absolute one, for a process in another directory; a URI as it is."""
    return address if scheme_of(address) else str(Path(address).absolute())


def azure_account(address: str) -> str | None:
    """Return the account of ``https://ACCOUNT.blob.core.windows.net/…``, KServe's form for Azure.

    ``None`` for any other address, also one with a query: its signature is for any HTTP client.
    """
    parts = urlsplit(address)
    host = _AZURE_HOST.fullmatch(parts.netloc)
    return host[1] if host is not None and parts.scheme == "https" and not parts.query else None


def is_writable(address: str) -> bool:
    """Return whether bundles can be written to an address of a valid scheme."""
    return scheme_of(address) not in WEB or azure_account(address) is not None


def claim_of(address: str) -> tuple[str, str]:
    """Return the claim and the relative path of a ``pvc://`` address.

    Raises
    ------
    UsageError
        If it is not one.
    """
    scheme, _, rest = address.partition("://")
    claim, _, inside = rest.partition("/")
    if scheme != "pvc" or not _CLAIM.fullmatch(claim) or ".." in PurePosixPath(inside).parts:
        raise UsageError(
            f"{address} is not an address of a volume: write pvc://claim/path.",
            code=ErrorCode.INVALID_ADDRESS,
            subject=address,
        )
    return claim, inside.lstrip("/")


def file_path(address: str) -> Path:
    """Return the path of a ``file://`` address.

    Raises
    ------
    UsageError
        If it names another machine, or a relative path.
    """
    parts = urlsplit(address)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise UsageError(
            f"{address} is not a file of this machine: write file:///path.",
            code=ErrorCode.INVALID_ADDRESS,
            subject=address,
        )
    return Path(unquote(parts.path))


def local_path(address: str) -> Path | None:
    """Return the path of an address on this machine; ``None`` if it is a remote one.

    Raises
    ------
    UsageError
        If the address is invalid, or the claim of a ``pvc://`` address is not mounted.
    """
    match scheme_of(address):
        case "":
            return Path(address)
        case "file":
            return file_path(address)
        case "pvc":
            claim, inside = claim_of(address)
            mount = Path(os.environ.get(CLAIMS_VARIABLE) or DEFAULT_CLAIMS) / claim
            if not mount.is_dir():
                raise UsageError(
                    f"{address} needs the claim {claim} mounted at {mount}: name it among the "
                    f"volumes of the task in pipelines/resources.yaml, or set {CLAIMS_VARIABLE}.",
                    code=ErrorCode.MISSING,
                    subject=claim,
                )
            return mount / inside
    return None
