"""Control groups of a node, in whichever hierarchies this machine has."""

import contextlib
import os
import time
import uuid
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_PREFIX = "dwcp-node-"
_REMOVE_SECONDS = 10.0


def new_name():
    return f"{_PREFIX}{uuid.uuid4().hex[:8]}"


def hierarchies():
    """Return the roots of the hierarchies: one in version 2, one for each controller in 1."""
    if (_ROOT / "cgroup.controllers").exists():
        return [_ROOT]
    return [one for one in _ROOT.iterdir() if one.is_dir() and not one.is_symlink()]


def make(name):
    """Make a group everywhere; a kubelet wants to find its own."""
    for top in hierarchies():
        (top / name).mkdir(exist_ok=True)


def remove(name=f"{_PREFIX}*"):
    """Remove groups with all below them; their processes are gone, or go in this moment."""
    deadline = time.monotonic() + _REMOVE_SECONDS
    while True:
        left = [found for top in hierarchies() for found in top.glob(name)]
        for found in left:
            for directory, _, _ in os.walk(found, topdown=False):
                with contextlib.suppress(OSError):
                    Path(directory).rmdir()
        if not left or time.monotonic() > deadline:
            return
        time.sleep(0.1)
