"""A real Prometheus for the tests, fetched once into .cache/ by the system's own package tool."""

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

CACHE = Path(__file__).parents[2] / ".cache" / "prometheus"
"""Beside what other tests fetched; removed by ``make clean``."""

FETCH_SECONDS = 300


def _fetch():
    """Unpack Debian's package: apt checks its signature, and neither step needs root."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        binary = CACHE / "usr/bin/prometheus"
        if binary.exists():
            return binary
        for command in (["apt-get", "download", "prometheus"], ["dpkg", "-x", "DEB", "unpacked"]):
            if "DEB" in command:
                command[command.index("DEB")] = str(next(CACHE.glob("prometheus_*.deb")))
            done = subprocess.run(
                command,
                check=False,
                cwd=CACHE,
                capture_output=True,
                text=True,
                timeout=FETCH_SECONDS,
            )
            assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
        (CACHE / "usr/bin").mkdir(parents=True)
        (CACHE / "unpacked/usr/bin/prometheus").rename(binary)
        shutil.rmtree(CACHE / "unpacked")
        for package in CACHE.glob("prometheus_*.deb"):
            package.unlink()
        return binary


@pytest.fixture(scope="session")
def prometheus_binary():
    """The path of Prometheus: the machine's own, else Debian's package.

    Only a machine without either is let off; where the package can't be had the test fails.
    """
    found = shutil.which("prometheus")
    if found:
        return Path(found)
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        pytest.skip("no prometheus on the path, and no apt-get to get it with")
    return _fetch()
