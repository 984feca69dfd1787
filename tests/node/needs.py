"""What a node needs of this machine."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NEEDS = {
    "unshare": "util-linux", "ip": "iproute2", "iptables": "iptables", "sysctl": "procps",
    "dockerd": "docker.io", "docker": "docker.io", "containerd": "containerd", "runc": "runc",
    "debootstrap": "debootstrap",
}  # fmt: skip
"""Program -> Debian's package of it."""

PLUGINS = Path("/usr/lib/cni")
"""Where Debian's ``containernetworking-plugins`` has them."""

NAMESPACES = ("--net", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc")


_INSTALL_SECONDS = 600


def missing():
    """Return one sentence on what is not here; empty if everything is."""
    if sys.platform != "linux":
        return "it needs Linux."
    if os.geteuid() != 0:
        return "only root can make a node: sudo make cluster-test."
    absent = packages()
    if absent:
        return f"it needs more programs: apt-get install {' '.join(absent)}."
    try:
        done = subprocess.run(["unshare", *NAMESPACES, "true"], capture_output=True, check=False)
    except OSError as error:
        return f"no namespaces can be made here ({error})."
    if done.returncode != 0:
        return f"no namespaces can be made here ({done.stderr.decode().strip()})."
    return ""


def packages():
    """Return Debian's packages of the programs that are not here."""
    absent = {package for program, package in NEEDS.items() if shutil.which(program) is None}
    if not (PLUGINS / "bridge").exists():
        absent.add("containernetworking-plugins")
    return sorted(absent)


def install():
    """Install what is not here, where this is a Debian and ours to change; return what it said."""
    absent = packages()
    if not absent or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return ""
    said = ""
    for words in (["update"], ["install", "--yes", "--no-install-recommends", *absent]):
        done = subprocess.run(
            ["apt-get", "-qq", *words], capture_output=True, text=True, errors="replace",
            timeout=_INSTALL_SECONDS, check=False,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )  # fmt: skip
        said += done.stdout + done.stderr
    return said
