"""What a cluster without a network needs of this machine."""

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

NAMESPACES = ("--net", "--mount", "--pid", "--uts", "--ipc")
MAKE = ("unshare", *NAMESPACES, "--fork", "--kill-child", "--mount-proc")


_MODULES = {"br_netfilter": "/proc/sys/net/bridge"}
_INSTALL_SECONDS = 600
_NO_SERVICES = Path("/usr/sbin/policy-rc.d")
"""Debian runs it to find out whether a service may be started."""


def missing():
    """Return one sentence on what is not here; empty if everything is."""
    if sys.platform != "linux":
        return "it needs Linux."
    if os.geteuid() != 0:
        return "only root can make namespaces: sudo make kind-test OFFLINE=1."
    absent = packages()
    if absent:
        return f"it needs more programs: apt-get install {' '.join(absent)}."
    return _kernel_lacks()


def _kernel_lacks():
    done = subprocess.run([*MAKE, "true"], capture_output=True, check=False)
    if done.returncode != 0:
        return f"no namespaces can be made here ({done.stderr.decode().strip()})."
    for module, where in _MODULES.items():
        if not Path(where).exists() and shutil.which("modprobe"):
            subprocess.run(["modprobe", module], capture_output=True, check=False)
        if not Path(where).exists():
            return f"the kernel has no {module}: modprobe {module}."
    if "overlay" not in Path("/proc/filesystems").read_text():
        return "the kernel has no overlay file system: modprobe overlay."
    return ""


def packages():
    """Return Debian's packages of the programs that are not here."""
    absent = {package for program, package in NEEDS.items() if shutil.which(program) is None}
    return sorted(absent)


def install():
    """Install what is not here, where this is a Debian and ours to change; return what it said."""
    absent = packages()
    if not absent or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return ""
    said, ours = "", not _NO_SERVICES.exists()
    try:
        if ours:  # the programs are desired, and not the services that come with them
            _NO_SERVICES.write_text("#!/bin/sh\nexit 101\n")
            _NO_SERVICES.chmod(0o755)
        for words in (["update"], ["install", "--yes", "--no-install-recommends", *absent]):
            done = subprocess.run(
                ["apt-get", "-qq", *words], capture_output=True, text=True, errors="replace",
                timeout=_INSTALL_SECONDS, check=False,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            )  # fmt: skip
            said += done.stdout + done.stderr
    except subprocess.TimeoutExpired as error:
        said += str(error)
    finally:
        if ours:
            _NO_SERVICES.unlink(missing_ok=True)
    return said
