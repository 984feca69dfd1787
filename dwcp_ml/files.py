"""Write files atomically: a final name never holds a half-written file."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dwcp_ml.contract.errors import DwcpError, ErrorCode


def cant_write(
    what: object,
    error: OSError,
    *,
    remedy: str = "free some space or name another output",
) -> DwcpError:
    """Return the error for a failed write, as one sentence.

    Parameters
    ----------
    what
        A path, or words that name the output.
    remedy
        What the user can do about it.

    Examples
    --------
    >>> print(cant_write("report.md", OSError(errno.ENOSPC, "No space left on device")))
    Can't write report.md: the disk is full; free some space or name another output.
    """
    reason = {
        errno.ENOSPC: "the disk is full",
        errno.EACCES: "permission denied",
        errno.EROFS: "the file system is read-only",
        errno.ENOTDIR: "a part of the path is a file",
        errno.EEXIST: "a file of that name exists",
    }.get(error.errno or 0, (error.strerror or str(error)).lower())
    return DwcpError(
        f"Can't write {what}: {reason}; {remedy}.",
        code=ErrorCode.DISK_FULL if error.errno == errno.ENOSPC else ErrorCode.CANT_WRITE,
        subject=what,
    )


def sync(path: Path) -> None:
    """Force a file, or the names in a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically.

    Raises
    ------
    DwcpError
        If the file can't be written, saying why.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise cant_write(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 atomically; see ``write_bytes``."""
    write_bytes(path, text.encode())


def make_directory(path: Path) -> Path:
    """Create a writable directory with its parents.

    Raises
    ------
    DwcpError
        If it can't be created or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = tempfile.TemporaryFile(dir=path)  # noqa: SIM115
        probe.close()
    except OSError as error:
        raise cant_write(path, error) from error
    return path


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a staging directory that replaces ``path`` when the block succeeds.

    When the block fails, ``path`` stays as it was.
    """
    make_directory(path.parent)
    staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        staging.chmod(0o755)
        yield staging
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)
        staging.replace(path)
    except OSError as error:
        raise cant_write(path, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


REMOVED_PREFIX: Final = ".removed."


def remove_directory(path: Path) -> None:
    """Remove a directory: it loses its name as a whole, and then its files are deleted.

    Symbolic links in it are deleted, and not followed. What an interrupted removal leaves is found
    by ``clear_removed``.

    Raises
    ------
    DwcpError
        If it can't be removed, saying why.
    """
    try:
        trash = Path(tempfile.mkdtemp(prefix=f"{REMOVED_PREFIX}{path.name}.", dir=path.parent))
        path.rename(trash / path.name)
        shutil.rmtree(trash)
    except OSError as error:
        raise cant_write(f"to {path.parent}", error, remedy="check who owns it") from error


def clear_removed(directory: Path) -> None:
    """Delete what interrupted removals have left in a directory."""
    for path in directory.glob(f"{REMOVED_PREFIX}*"):
        shutil.rmtree(path, ignore_errors=True)


def link(path: Path, target: Path) -> None:
    """Make ``path`` a relative symbolic link to ``target``, replacing an older link."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.symlink_to(os.path.relpath(target, path.parent))
    temporary.replace(path)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
