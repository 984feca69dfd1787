"""Programs of Debian's packages, for tests of what only the real program can tell.

A package is fetched once, into ``.cache/``, by the system's own package tool: apt checks its
signature, and neither step needs root.
"""

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

CACHE = Path(__file__).parents[1] / ".cache" / "debian"
"""Beside what other tests fetched; removed by ``make clean``."""

FETCH_SECONDS = 300


def debian_program(package, name):
    """Return the path of a program: the machine's own, else that of Debian's package.

    Only a machine without either is let off; where the package can't be had the test fails.
    """
    if found := shutil.which(name):
        return Path(found)
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        pytest.skip(f"no {name} on the path, and no apt-get to get it with")
    return _unpacked(package) / "usr/bin" / name


def _unpacked(package):
    place = CACHE / package
    place.mkdir(parents=True, exist_ok=True)
    with (place / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = place / "unpacked"
        if not done.exists():
            _run(["apt-get", "download", package], place)
            (archive,) = place.glob("*.deb")
            _run(["dpkg", "-x", archive.name, "partial"], place)
            archive.unlink()
            (place / "partial").rename(done)
    return done


def _run(command, place):
    done = subprocess.run(
        command, check=False, cwd=place, capture_output=True, text=True, timeout=FETCH_SECONDS
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
