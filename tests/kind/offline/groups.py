"""The control group that holds all containers of the cluster, in every hierarchy."""

import contextlib
import os
import time
from pathlib import Path

NAME = "dwcp-kind"

_ROOT = Path("/sys/fs/cgroup")
_REMOVE_SECONDS = 10.0
_SHARES = "8192"
"""Version 1 weighs a group like one process: without this, a busy machine starves the cluster."""


def hierarchies():
    """Return the roots of the hierarchies: one in version 2, one for each controller in 1."""
    if (_ROOT / "cgroup.controllers").exists():
        return [_ROOT]
    return [one for one in _ROOT.iterdir() if one.is_dir() and not one.is_symlink()]


def make():
    """Make the group everywhere."""
    for top in hierarchies():
        (top / NAME).mkdir(exist_ok=True)
        shares = top / NAME / "cpu.shares"
        if shares.exists():
            shares.write_text(_SHARES)


def remove():
    """Remove the group with all below it, once its processes are gone; return what is left."""
    deadline = time.monotonic() + _REMOVE_SECONDS
    while True:
        left = [top / NAME for top in hierarchies() if (top / NAME).exists()]
        for found in left:
            for directory, _, _ in os.walk(found, topdown=False):
                with contextlib.suppress(OSError):
                    Path(directory).rmdir()
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)
