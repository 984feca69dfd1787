"""The libraries that read and write each kind of store, and their settings.

Credentials and endpoints come from where each platform puts them: the drivers' own variables and
workload identities (``AWS_*``, ``GOOGLE_APPLICATION_CREDENTIALS``, ``AZURE_*``), among them
``AWS_ENDPOINT_URL``, and the variables that KServe makes of its S3 secrets: ``S3_ENDPOINT``,
``S3_USE_HTTPS``, ``S3_VERIFY_SSL`` and ``awsAnonymousCredential``.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.storage.addresses import azure_account, scheme_of, without_query

CONNECT_SECONDS: Final = 10.0
READ_SECONDS: Final = 60.0
"""A store that sends nothing for so long is tried again."""


class Redirected(Exception):
    """A web server responded with a redirect; ``target`` is where to, without credentials."""

    def __init__(self, status: int, target: str) -> None:
        super().__init__(f"{status}, {target}")
        self.status, self.target = status, target


@dataclass(frozen=True)
class Driver:
    """One library.

    Parameters
    ----------
    protocol
        Its name in fsspec, and the scheme of its addresses.
    module
        What must be installed.
    extra
        The extra of this project that installs it.
    settings
        Returns its settings, from the environment of the moment.
    credentials
        What a user checks if the store denies access.
    modified
        Where it puts the time of an object's last change in a listing; empty if nowhere.
    """

    protocol: str
    module: str
    extra: str
    settings: Callable[[], dict[str, Any]]
    credentials: str
    modified: str = ""
    writes: bool = True


def _s3() -> dict[str, Any]:
    environment = os.environ
    timeouts = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS}
    settings: dict[str, Any] = {
        "config_kwargs": {**timeouts, "retries": {"total_max_attempts": 1}},
        "anon": environment.get("awsAnonymousCredential", "").lower() == "true",
    }
    endpoint = environment.get("S3_ENDPOINT")
    if endpoint and not environment.get("AWS_ENDPOINT_URL"):
        web = "http" if environment.get("S3_USE_HTTPS") == "0" else "https"
        settings["endpoint_url"] = endpoint if "://" in endpoint else f"{web}://{endpoint}"
    if environment.get("S3_VERIFY_SSL") == "0":
        settings["client_kwargs"] = {"verify": False}
    return settings


def _timeout() -> Any:
    import aiohttp

    return aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)


async def _check_not_redirected(response: Any) -> None:
    """Raise ``Redirected`` for every 3xx: each would pass for the file itself."""
    if 300 <= response.status < 400:
        location = response.headers.get("Location", "")
        try:
            target = without_query(urljoin(str(response.url), location)) if location else ""
        except ValueError:
            target = ""
        text = "".join(character for character in target if character.isprintable())
        raise Redirected(response.status, text[:300])


def _http() -> dict[str, Any]:
    # A redirect may lead to a service that only this machine can reach, and of which an error
    # would then show the content. `trust_env` would also read .netrc: see `opened` for the proxy.
    client = {"timeout": _timeout(), "raise_for_status": _check_not_redirected}
    return {"allow_redirects": False, "client_kwargs": client}


def _proxy_of(address: str) -> str | None:
    """Return the proxy that ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY`` name."""
    parts = urlsplit(address)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


def _azure() -> dict[str, Any]:
    return {
        "anon": os.environ.get("AZURE_STORAGE_ANON", "").lower() == "true",
        "connection_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
    }


S3: Final = Driver(
    "s3",
    "s3fs",
    "s3",
    _s3,
    "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL",
    modified="LastModified",
)
GCS: Final = Driver(
    "gs",
    "gcsfs",
    "gs",
    lambda: {"requests_timeout": _timeout()},
    "GOOGLE_APPLICATION_CREDENTIALS",
    modified="mtime",
)
AZURE: Final = Driver(
    "az",
    "adlfs",
    "az",
    _azure,
    "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    modified="last_modified",
)
HTTP: Final = Driver("http", "aiohttp", "http", _http, "the address", writes=False)

DRIVERS: Final = {"s3": S3, "gs": GCS, "az": AZURE, "https": HTTP, "http": HTTP}
"""The driver of each remote scheme."""


def opened(address: str) -> tuple[Driver, Any, str]:
    """Return the driver of a remote address, its file system, and the path there.

    Nothing is requested yet.

    Raises
    ------
    UsageError
        If the driver is not installed or not configured, or the address names no bucket.
    """
    scheme = scheme_of(address)
    driver, path = DRIVERS[scheme], address
    settings: dict[str, Any] = {}
    account = azure_account(address)
    if account is not None:
        driver, settings = AZURE, {"account_name": account}
        path = f"az://{urlsplit(address).path.lstrip('/')}"
    if not path.partition("://")[2].partition("/")[0]:
        raise UsageError(
            f"{without_query(address)} names no bucket or host: write {scheme}://bucket/path.",
            code=ErrorCode.INVALID_ADDRESS,
            subject=without_query(address),
        )
    try:
        importlib.import_module(driver.module)
    except ImportError as error:
        raise UsageError(
            f"{scheme}:// needs {driver.module}: pip install 'dwcp-ml[{driver.extra}]'.",
            code=ErrorCode.MISSING,
            subject=driver.module,
        ) from error
    import fsspec

    if driver is HTTP:
        settings = {"proxy": _proxy_of(address)}
    try:
        files = fsspec.filesystem(
            driver.protocol,
            skip_instance_cache=True,
            use_listings_cache=False,
            **driver.settings(),
            **settings,
        )
        path = path if driver is HTTP else files._strip_protocol(path)
    except (ValueError, OSError) as error:  # what the driver says of its settings
        raise UsageError(
            f"{without_query(address)} can't be opened: {' '.join(str(error).split())}; check "
            f"{driver.credentials}.",
            code=ErrorCode.INVALID_OPTION,
            subject=driver.module,
        ) from error
    if driver is S3:
        files.retries = 1  # the caller counts the tries
    return driver, files, path
