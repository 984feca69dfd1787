"""Local copies of remote files, for readers that need a path."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from dwcp_ml.contract.errors import DwcpError, ErrorCode
from dwcp_ml.storage.addresses import local_path, without_query
from dwcp_ml.storage.remote_objects import Remote, StorageError, remote

MAX_FETCHED_BYTES: Final = 20 * 2**30
"""Of a file that is copied: about 200 million rows of CSV. A larger one belongs on a volume."""


@contextmanager
def fetched(*addresses: str, max_bytes: int = MAX_FETCHED_BYTES) -> Iterator[dict[str, Path]]:
    """Yield address -> file: the file itself if it is local, else a copy until the block ends.

    An error that the block raises names the addresses, not the copies.

    Parameters
    ----------
    max_bytes
        Of a copy.

    Raises
    ------
    StorageError
        If one can't be read.
    """
    with tempfile.TemporaryDirectory(prefix="dwcp-ml-") as scratch:
        paths: dict[str, Path] = {}
        for index, address in enumerate(addresses):
            path = local_path(address)
            if path is None:
                name = PurePosixPath(urlsplit(address).path).name or "data"
                path = Path(scratch) / str(index) / name
                path.parent.mkdir()
                remote(address).download(path, max_bytes)
            paths[address] = path
        with _named(paths):
            yield paths


@contextmanager
def fetched_directory(address: str) -> Iterator[Path]:
    """Yield the directory of an address: itself if it is local, else a copy of what is below it.

    Raises
    ------
    StorageError
        If it can't be read, or there is nothing below it.
    """
    path = local_path(address)
    if path is not None:
        with _named({address: path}):
            yield path
        return
    with tempfile.TemporaryDirectory(prefix="dwcp-ml-") as scratch:
        source, directory = remote(address), Path(scratch)
        download_below(source, source.objects(), directory)
        with _named({source.address: directory}):
            yield directory


def download_below(
    source: Remote, names: list[str], directory: Path, max_bytes: int | None = None
) -> None:
    """Copy the named objects below a prefix into a directory.

    Parameters
    ----------
    names
        Relative POSIX paths, as the store lists them.
    max_bytes
        Of one object.

    Raises
    ------
    StorageError
        If there is none, one can't be read, or a name leads out of the directory.
    """
    if not names:
        raise StorageError(
            f"There is nothing below {source.address}.",
            code=ErrorCode.MISSING,
            subject=source.address,
        )
    for name in names:
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or parts[0] == "/":
            raise StorageError(
                f"{source.address} holds an object called {name!r}, which can't be a file.",
                code=ErrorCode.FORBIDDEN,
                subject=name,
            )
        target = directory.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        source.below(name).download(target, max_bytes)


def renamed(text: str, paths: Mapping[str, Path]) -> str:
    """Return a text that names the addresses instead of the copies."""
    for address, path in paths.items():
        if "://" in address:
            text = text.replace(str(path), without_query(address))
    return text


@contextmanager
def _named(paths: Mapping[str, Path]) -> Iterator[None]:
    try:
        yield
    except DwcpError as error:
        error.args = (renamed(str(error), paths), *error.args[1:])
        raise
