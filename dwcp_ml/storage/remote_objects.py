"""Objects in a remote store: each operation is tried at most ``MAX_TRIES`` times.

What a store says will not change, such as that there is no such object, is not tried again.
"""

from __future__ import annotations

import contextlib
import errno
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, TypeVar

from fsspec.callbacks import Callback

from dwcp_ml.contract.errors import DwcpError, ErrorCode, UsageError
from dwcp_ml.files import cant_write
from dwcp_ml.storage.addresses import without_query
from dwcp_ml.storage.drivers import HTTP, Driver, Redirected, opened

MAX_TRIES: Final = 4
MIN_BYTES_PER_SECOND: Final = 50_000
SLOW_SECONDS: Final = 60.0
"""A download that is slower on average after this time is stopped: one byte now and then would
otherwise last forever."""

FIRST_WAIT_SECONDS: Final = 0.5
"""Before the second try; each wait is twice the one before."""

_NO_CREDENTIALS: Final = frozenset(
    ("NoCredentialsError", "DefaultCredentialsError", "ClientAuthenticationError")
)
"""Exceptions of the drivers' libraries, by name: not every library is installed."""

_DENIED: Final = frozenset((HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN))
_PASSING: Final = frozenset((HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS))
_REJECTED: Final = frozenset((errno.EINVAL, errno.EPERM, errno.ENOSYS))
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT))

T = TypeVar("T")


class StorageError(DwcpError):
    """A store can't be reached, denies access, or does not hold what an address names."""


class _Limit(Callback):  # type: ignore[misc]  # fsspec has no types
    """Counts the bytes that arrive, and stops a store that sends too many, or too slowly."""

    def __init__(self, address: str, max_bytes: int | None, now: Callable[[], float]) -> None:
        super().__init__()
        self._address, self._max_bytes = address, max_bytes
        self._now, self._began = now, now()

    def set_size(self, size: int | None) -> None:
        """Check the size that the store announces."""
        super().set_size(size)
        self.check(size or 0)

    def relative_update(self, inc: int = 1) -> None:
        """Check the bytes that have arrived."""
        super().relative_update(inc)
        self._arrived()

    def absolute_update(self, value: int) -> None:
        """Check the bytes that have arrived."""
        super().absolute_update(value)
        self._arrived()

    def _arrived(self) -> None:
        self.check(self.value)
        seconds = self._now() - self._began
        if seconds > SLOW_SECONDS and self.value < seconds * MIN_BYTES_PER_SECOND:
            raise StorageError(
                f"{self._address} is sent too slowly: {self.value:,} bytes in {seconds:.0f} s, and "
                f"at least {MIN_BYTES_PER_SECOND:,} a second are needed.",
                code=ErrorCode.TIMEOUT,
                subject=self._address,
            )

    def check(self, size: int) -> None:
        """Raise ``StorageError`` if ``size`` is above the limit."""
        if self._max_bytes is not None and size > self._max_bytes:
            raise StorageError(
                f"{self._address} has more than {self._max_bytes:,} bytes.",
                code=ErrorCode.TOO_LARGE,
                subject=self._address,
            )


@dataclass(frozen=True)
class Entry:
    """What a store says of an object; ``modified`` is ``None`` if it does not say."""

    size_bytes: int
    modified: datetime | None


@dataclass(frozen=True)
class Remote:
    """What a remote address names: an object, or the prefix of several.

    Parameters
    ----------
    address
        As messages show it.
    path
        As the driver names it.
    files
        The driver's file system.
    """

    address: str
    path: str
    files: Any
    driver: Driver
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.monotonic

    def below(self, name: str) -> Remote:
        """Return what ``name``, a relative POSIX path, names below this prefix."""
        base, path = self.address.rstrip("/"), self.path.rstrip("/")
        return replace(self, address=f"{base}/{name}", path=f"{path}/{name}")

    def download(self, target: Path, max_bytes: int | None = None) -> None:
        """Copy an object to the file ``target``.

        Raises
        ------
        StorageError
            If there is none, it is larger than ``max_bytes``, or the store does not give it, or not
            fast enough.
        DwcpError
            If the disk is full.
        """

        def copy() -> None:
            arrived = _Limit(self.address, max_bytes, self.now)
            self.files.get_file(self.path, str(target), callback=arrived)
            size = target.stat().st_size
            arrived.check(size)
            # A web server may send it compressed, and its client then checks the length.
            if self.driver is not HTTP and arrived.size not in (None, size):
                raise ConnectionError(f"{size} of {arrived.size} bytes arrived")

        self._attempt(copy)

    def read(self, max_bytes: int) -> bytes:
        """Return the content of an object; see ``download``."""
        with tempfile.TemporaryDirectory(prefix="dwcp-ml-") as scratch:
            copy = Path(scratch) / "object"
            self.download(copy, max_bytes)
            return copy.read_bytes()

    def create(self, content: bytes) -> bool:
        """Write an object unless there is one already; return whether it was written.

        The store decides, so that one of two writers succeeds. A store that does not know
        conditional writes may overwrite what another writer has written meanwhile: read the object
        afterwards. After a lost response the object is there, and the result is false.

        Raises
        ------
        UsageError
            If the address can only be read.
        StorageError
            If the store does not take it.
        """
        if not self.driver.writes:
            raise UsageError(
                f"{self.address} can only be read: write to a path, s3://, gs://, az:// or pvc://.",
                code=ErrorCode.UNSUPPORTED,
                subject=self.address,
            )

        def write() -> bool:
            if self.files.exists(self.path):
                return False
            try:
                self.files.pipe_file(self.path, content, mode="create")
            except Exception:
                # Neither every store nor every driver says that the condition is why it failed.
                if self.files.exists(self.path):
                    return False
                raise
            return True

        return self._attempt(write)

    def exists(self) -> bool:
        """Return whether there is such an object."""
        return self._attempt(lambda: bool(self.files.exists(self.path)))

    def names(self) -> list[str]:
        """Return the names directly below this prefix, of objects and prefixes, sorted."""
        own = self.path.rstrip("/")

        def listed() -> list[str]:
            try:
                entries = self.files.ls(own, detail=False)
            except FileNotFoundError:
                return []
            names = {entry.rstrip("/").removeprefix(f"{own}/") for entry in entries}
            return sorted(names - {own})  # a folder's marker is listed below itself

        return self._attempt(listed)

    def listing(self) -> dict[str, Entry]:
        """Return relative POSIX path -> object, of all objects below this prefix, sorted.

        Markers of folders, which are empty and end in ``/``, are left out: consoles and
        synchronizing tools make them, and no reader takes them for files.
        """
        prefix = f"{self.path.rstrip('/')}/"

        def listed() -> dict[str, Entry]:
            try:
                found = self.files.find(prefix.rstrip("/"), detail=True)
            except FileNotFoundError:
                return {}
            return {
                path.removeprefix(prefix): _entry(info, self.driver)
                for path, info in sorted(found.items())
                if path.startswith(prefix) and not (path.endswith("/") and not info.get("size"))
            }

        return self._attempt(listed)

    def objects(self) -> list[str]:
        """Return the relative POSIX paths of all objects below this prefix, sorted."""
        return list(self.listing())

    def remove(self) -> None:
        """Remove an object; do nothing if there is none."""

        def removed() -> None:
            with contextlib.suppress(FileNotFoundError):
                self.files.rm_file(self.path)

        self._attempt(removed)

    def _attempt(self, action: Callable[[], T]) -> T:
        """Return what ``action`` returns; try it again while the store may recover."""
        seconds, left = FIRST_WAIT_SECONDS, MAX_TRIES
        while True:
            left -= 1
            try:
                return action()
            except DwcpError:
                raise
            except Exception as error:  # each driver raises exceptions of its own libraries
                failure = self._lasting(error)
                if failure is None and not left:
                    failure = StorageError(
                        f"{self.address} can't be reached: {_reason(error)}; it was tried "
                        f"{MAX_TRIES} times.",
                        code=ErrorCode.NO_RESPONSE,
                        subject=self.address,
                    )
                if failure is not None:
                    raise failure from error
            self.sleep(seconds)
            seconds *= 2.0

    def _lasting(self, error: Exception) -> DwcpError | None:
        """Return the error that the user sees if no retry can help; else ``None``."""
        if isinstance(error, Redirected):
            where = f"redirects to {error.target}" if error.target else "redirects"
            return StorageError(
                f"{self.address} {where} (status {error.status}), which is not followed: write the "
                f"address of the file itself.",
                code=ErrorCode.STATUS,
                subject=self.address,
            )
        status = _status(error)
        number = error.errno if isinstance(error, OSError) else None
        if isinstance(error, FileNotFoundError):
            return StorageError(
                f"There is no {self.address}.", code=ErrorCode.MISSING, subject=self.address
            )
        if number in _FULL and isinstance(error, OSError):
            what = f"the copy of {self.address}"
            return cant_write(what, error, remedy="free some space, or set TMPDIR")
        if (
            isinstance(error, PermissionError)
            or status in _DENIED
            or type(error).__name__ in _NO_CREDENTIALS
        ):
            return StorageError(
                f"The store denies access to {self.address}: {_reason(error)}; check "
                f"{self.driver.credentials}.",
                code=ErrorCode.FORBIDDEN,
                subject=self.address,
            )
        rejected = status is not None and 400 <= status < 500 and status not in _PASSING
        if rejected or number in _REJECTED:
            return StorageError(
                f"The store rejects the request for {self.address}: {_reason(error)}.",
                code=ErrorCode.STATUS,
                subject=self.address,
            )
        return None


def remote(
    address: str,
    *,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> Remote:
    """Return what a remote address names; nothing is requested yet.

    Raises
    ------
    UsageError
        If the address is invalid, or its driver is not installed or not configured.
    """
    driver, files, path = opened(address)
    return Remote(without_query(address), path, files, driver, sleep, now)


def _entry(info: dict[str, Any], driver: Driver) -> Entry:
    modified = info.get(driver.modified)
    is_known = isinstance(modified, datetime) and modified.tzinfo is not None
    return Entry(int(info.get("size") or 0), modified if is_known else None)


def _status(error: Exception) -> int | None:
    """Return the HTTP status in an exception of a driver; each library names it otherwise."""
    for name in ("status", "code", "status_code"):
        value = getattr(error, name, None)
        if isinstance(value, int):
            return value
    return None


def _reason(error: Exception) -> str:
    status = _status(error)
    if status is not None and isinstance(message := getattr(error, "message", None), str):
        text = f"{status} {message}"
    else:
        text = str(error) or type(error).__name__
    # A query may hold a signature.
    return re.sub(r"\?\S+", "", " ".join(text.split()))[:300].rstrip(". ")
