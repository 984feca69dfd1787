"""Builds the cluster's programs once, from pinned Go modules: ``python -m tests.cluster.build``.

What is built is pinned in ``binaries/*/go.mod`` and its ``go.sum``. It goes into a directory of the
user's cache that is named after those files, so that another pin is another directory.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dwcp_ml.files import whole_directory
from dwcp_ml.stages.go_client import find_client
from tests.cluster.processes import ClusterFailed

ROOT = Path(__file__).parents[2]
PINS = Path(__file__).with_name("binaries")

PROGRAMS = {
    "etcd": {"etcd": "go.etcd.io/etcd/server/v3"},
    "kubernetes": {
        "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
        "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
        "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    },
    "kwok": {"kwok": "sigs.k8s.io/kwok/cmd/kwok"},
}
"""Module of ours -> program -> the package that it is built from."""

FILES = {
    "stages": (
        "kwok",
        "sigs.k8s.io/kwok",
        ["kustomize/stage/node/fast/node-initialize.yaml",
         "kustomize/stage/node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
         "kustomize/stage/pod/fast/pod-ready.yaml",
         "kustomize/stage/pod/fast/pod-complete.yaml",
         "kustomize/stage/pod/fast/pod-delete.yaml"],
    ),
    "gateway": (
        "gateway",
        "sigs.k8s.io/gateway-api",
        ["config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
         "config/crd/standard/gateway.networking.k8s.io_gateways.yaml",
         "config/crd/standard/gateway.networking.k8s.io_gatewayclasses.yaml"],
    ),
}  # fmt: skip
"""Directory beside ``bin`` -> module of ours, module that holds the files, what is taken of it."""

_BUILD_SECONDS = 3600
_DOWNLOAD_SECONDS = 900


@dataclass(frozen=True)
class Built:
    """What was built.

    Parameters
    ----------
    directory
        Holds ``bin``, ``stages`` and ``gateway``.
    """

    directory: Path

    def program(self, name):
        return self.directory / "bin" / name

    def files(self, kind):
        """Return the YAML files of ``stages`` or ``gateway``."""
        return sorted((self.directory / kind).glob("*.yaml"))


def cache():
    """Return where all versions are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "dwcp-ml" / "cluster"


def pinned():
    """Return the SHA-256, shortened, of everything that decides what is built."""
    digest = hashlib.sha256(json.dumps([PROGRAMS, FILES, sys.platform], default=list).encode())
    for path in sorted(PINS.rglob("go.*")):
        digest.update(path.relative_to(PINS).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def build(say=None):
    """Return what was built, after building it where it is not there yet.

    Parameters
    ----------
    say
        Called with a line of progress; by default it goes to standard error.

    Raises
    ------
    ClusterFailed
        If a module can't be had or a program can't be built.
    GoMissing
        If there is no Go and none can be installed.
    """
    say = say or _to_stderr
    target = cache() / pinned()
    if target.is_dir():
        return Built(target)
    with _alone(cache(), say):
        if target.is_dir():  # another process built it while this one waited
            return Built(target)
        for left in cache().glob(f".{target.name}.*"):  # half-built, of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        go = find_client(ROOT / "go", ROOT / ".cache").go
        say(f"cluster tests: building their programs once, which takes minutes ({go})")
        start = time.monotonic()
        with whole_directory(target) as staging:
            for module, programs in PROGRAMS.items():
                _compile(go, module, programs, staging / "bin", say)
            for name, (module, source, paths) in FILES.items():
                _copy(go, module, source, paths, staging / name)
        say(f"cluster tests: built in {time.monotonic() - start:.0f} s into {target}")
    return Built(target)


def _compile(go, module, programs, target, say):
    for name, package in programs.items():
        start = time.monotonic()
        say(f"cluster tests: {name} ...")
        words = ["build", "-p", "2", "-trimpath", "-ldflags", "-s -w", "-o", str(target / name)]
        _go(go, module, [*words, package], _BUILD_SECONDS)
        say(f"cluster tests: {name}, {time.monotonic() - start:.0f} s")


def _copy(go, module, source, paths, target):
    said = _go(go, module, ["mod", "download", "-json", source], _DOWNLOAD_SECONDS)
    root = Path(json.loads(said)["Dir"])
    target.mkdir(parents=True)
    for path in paths:
        shutil.copyfile(root / path, target / Path(path).name)


def _go(go, module, words, seconds):
    nice = ["nice", "-n", "10"] if shutil.which("nice") else []
    # A toolchain that is too old may get a newer one as a module; what is pinned stays as it is.
    environment = {
        **os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "auto",
        "GOWORK": "off",
    }  # fmt: skip
    done = subprocess.run(
        [*nice, str(go), *words],
        cwd=PINS / module,
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        check=False,
    )
    if done.returncode != 0:
        reason = " ".join((done.stderr or done.stdout).split())[-600:]
        raise ClusterFailed(f"go {words[0]} in binaries/{module} failed: {reason}")
    return done.stdout


@contextmanager
def _alone(directory, say):
    """Hold the lock of a directory; processes that build the same wait for each other."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("cluster tests: another process builds their programs; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _to_stderr(line):
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(build().directory)
