"""Builds the cluster's programs once, from pinned Go modules: ``python -m tests.cluster.build``.

What is built is pinned in ``binaries/*/go.mod`` and its ``go.sum``. Each of those modules goes into
a directory of the user's cache that is named after its files, so that another pin is another
directory and what did not change is not built again.
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

import yaml

from dwcp_ml.files import atomic_directory
from dwcp_ml.training_run.go_client_check import find_client
from tests.cluster.processes import ClusterFailed

ROOT = Path(__file__).parents[2]
PINS = Path(__file__).with_name("binaries")

PROGRAMS = {
    "etcd": {"etcd": "go.etcd.io/etcd/server/v3"},
    "kubernetes": {
        "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
        "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
        "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
        "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    },
    "kwok": {"kwok": "sigs.k8s.io/kwok/cmd/kwok"},
    "kserve": {"kserve-manager": "ml.dwcp.io/dwcpml/tests/cluster/kserve"},
    "kstatus": {"kstatus": "ml.dwcp.io/dwcpml/tests/cluster/kstatus"},
    "gateway": {},
    "node": {
        "kubelet": "k8s.io/kubernetes/cmd/kubelet",
        "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
        "pause": "ml.dwcp.io/dwcpml/tests/cluster/node/pause",
    },
    "envoy-gateway": {
        "envoy-gateway": "github.com/envoyproxy/gateway/cmd/envoy-gateway",
        "helm": "helm.sh/helm/v3/cmd/helm",
    },
    "h2spec": {"h2spec": "github.com/summerwind/h2spec/cmd/h2spec"},
}
"""Module of ours -> program -> the package that it is built from."""

USUAL = tuple(one for one in PROGRAMS if one not in ("node", "envoy-gateway", "h2spec"))
"""What a cluster with a simulated node needs; a real one needs more (``tests/node``)."""

FILES = {
    "kwok": (
        "sigs.k8s.io/kwok",
        ["kustomize/stage/node/fast/node-initialize.yaml",
         "kustomize/stage/node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
         "kustomize/stage/pod/fast/pod-ready.yaml",
         "kustomize/stage/pod/fast/pod-complete.yaml",
         "kustomize/stage/pod/fast/pod-delete.yaml"],
    ),
    "gateway": (
        "sigs.k8s.io/gateway-api",
        ["config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
         "config/crd/standard/gateway.networking.k8s.io_gateways.yaml",
         "config/crd/standard/gateway.networking.k8s.io_gatewayclasses.yaml"],
    ),
    "envoy-gateway": (  # which reads all of the standard channel
        "sigs.k8s.io/gateway-api",
        ["config/crd/standard/gateway.networking.k8s.io_backendtlspolicies.yaml",
         "config/crd/standard/gateway.networking.k8s.io_grpcroutes.yaml",
         "config/crd/standard/gateway.networking.k8s.io_listenersets.yaml",
         "config/crd/standard/gateway.networking.k8s.io_referencegrants.yaml",
         "config/crd/standard/gateway.networking.k8s.io_tlsroutes.yaml"],
    ),
    "kserve": (
        "github.com/kserve/kserve",
        ["config/crd/full/serving.kserve.io_inferenceservices.yaml",
         "config/crd/full/serving.kserve.io_servingruntimes.yaml",
         "config/crd/full/serving.kserve.io_clusterservingruntimes.yaml",
         "config/crd/full/serving.kserve.io_trainedmodels.yaml",
         "config/crd/full/serving.kserve.io_inferencegraphs.yaml",
         "config/crd/full/clusterstoragecontainer/"
         "serving.kserve.io_clusterstoragecontainers.yaml",
         "test/crds/knative_service.yaml",
         "config/storagecontainers/default.yaml",
         "config/configmap/inferenceservice.yaml",
         "config/webhook/manifests.yaml"],
    ),
}  # fmt: skip
"""Module of ours -> the module that holds Kubernetes objects, and which of its files are taken."""

CHARTS = {"envoy-gateway": ("github.com/envoyproxy/gateway", "charts/gateway-helm")}
"""Module of ours -> the module that holds a Helm chart, and the chart's directory."""

_BUILD_SECONDS = 3600
_DOWNLOAD_SECONDS = 900


@dataclass(frozen=True)
class Built:
    """What was built.

    Parameters
    ----------
    directory
        Holds a directory for each module of ours: its programs in ``bin``, its objects in
        ``objects``, its Helm chart in ``chart``.
    """

    directory: Path

    def program(self, name):
        module = next(one for one, programs in PROGRAMS.items() if name in programs)
        return self.directory / pinned(module) / "bin" / name

    def objects(self, module):
        """Return the Kubernetes objects that were taken of a module, in the order of ``FILES``."""
        directory = self.directory / pinned(module) / "objects"
        files = [directory / f"{Path(path).stem}.json" for path in FILES[module][1]]
        return [one for path in files for one in json.loads(path.read_text())]

    def chart(self, module):
        return self.directory / pinned(module) / "chart"


def cache():
    """Return where all versions are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "dwcp-ml" / "cluster"


def sources(module):
    """Return the files that say what is built of a module: pins, sums, programs of our own."""
    found = (PINS / module).rglob("*")
    return sorted(path for path in found if path.suffix in (".mod", ".sum", ".go"))


def pinned(module):
    """Return the name of a module's directory: everything that decides what is built is in it."""
    chosen = [PROGRAMS[module], FILES.get(module), sys.platform]
    chosen += [CHARTS[module]] if module in CHARTS else []
    digest = hashlib.sha256(json.dumps(chosen).encode())
    for path in sources(module):
        digest.update(path.relative_to(PINS).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{module}-{digest.hexdigest()[:16]}"


def build(say=None, modules=USUAL):
    """Return what was built, after building what is not there yet.

    Parameters
    ----------
    say
        Called with a line of progress; by default it goes to standard error.
    modules
        Of ``PROGRAMS``, those that are needed.

    Raises
    ------
    ClusterFailed
        If a module can't be had or a program can't be built.
    GoMissing
        If there is no Go and none can be installed.
    """
    say = say or _to_stderr
    built = Built(cache())
    if _missing(modules):
        with alone(cache(), say):
            missing = _missing(modules)  # another process may have built some while this one waited
            go = find_client(ROOT / "go", ROOT / ".cache").go if missing else None
            for module in missing:
                say(f"cluster tests: building {module} once, which takes minutes ({go})")
                _build(go, module, say)
    return built


def _missing(modules):
    return [module for module in modules if not (cache() / pinned(module)).is_dir()]


def _build(go, module, say):
    target = cache() / pinned(module)
    for left in cache().glob(f".{target.name}.*"):  # half-built, of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    start = time.monotonic()
    with atomic_directory(target) as staging:
        for name, package in PROGRAMS[module].items():
            say(f"cluster tests: {name} ...")
            output = str(staging / "bin" / name)
            words = ["build", "-p", "2", "-trimpath", "-ldflags", "-s -w", "-o", output, package]
            _go(go, module, words, _BUILD_SECONDS)
        if module in FILES:
            _copy(go, module, *FILES[module], staging / "objects")
        if module in CHARTS:
            source, directory = CHARTS[module]
            shutil.copytree(_source(go, module, source) / directory, staging / "chart")
            for place, _, _ in os.walk(staging / "chart"):
                Path(place).chmod(0o755)  # Go's are read-only, and could not be deleted
    say(f"cluster tests: built {module} in {time.monotonic() - start:.0f} s into {target}")


def _copy(go, module, source, paths, target):
    root = _source(go, module, source)
    target.mkdir(parents=True)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # five times as fast, where it is there
    for path in paths:
        # As JSON: to read megabytes of YAML would take longer than all the rest of a start.
        documents = [one for one in yaml.load_all((root / path).read_text(), loader) if one]
        (target / f"{Path(path).stem}.json").write_text(json.dumps(documents))


def _source(go, module, source):
    """Return the directory of a module's files, which is read-only."""
    said = _go(go, module, ["mod", "download", "-json", source], _DOWNLOAD_SECONDS)
    return Path(json.loads(said)["Dir"])


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
def alone(directory, say):
    """Hold the lock of a directory; processes that make the same wait for each other."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("cluster tests: another process makes what is needed; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _to_stderr(line):
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(build().directory)
