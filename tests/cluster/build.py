"""Builds the cluster's programs once, from pinned Go modules: ``python -m tests.cluster.build``.

What is built is pinned in ``binaries/*/go.mod`` and its ``go.sum``, or by the checksum of a release
that is built with its own pins (``RELEASES``). Each goes into a directory of the user's cache that
is named after what decides the result, so that another pin is another directory and what did not
change is not built again.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from dwcp_ml.files import atomic_directory
from dwcp_ml.training_run.go_client_check import find_client
from tests.cluster.processes import ClusterFailed
from tests.cluster.programs import (
    CHARTS,
    FILES,
    KUBERNETES_VERSION,
    OF_KUBERNETES,
    PINNED_BY,
    PROGRAMS,
    RELEASES,
    USUAL,
)

ROOT = Path(__file__).parents[2]
PINS = Path(__file__).with_name("binaries")
OWN = "ml.dwcp.io/dwcpml/tests/cluster/"
"""What the packages of our own programs begin with; the rest is their place in ``PINS``."""

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
        programs = {**PROGRAMS, **{one: release.programs for one, release in RELEASES.items()}}
        module = next(one for one, names in programs.items() if name in names)
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


def pins(module):
    """Return the directory of a module's pins and sums."""
    return PINS / PINNED_BY.get(module, module)


def sources(module):
    """Return the files that say what is built of a module: pins, sums, programs of our own."""
    own = [one.removeprefix(OWN) for one in PROGRAMS[module].values() if one.startswith(OWN)]
    programs = [path for one in own for path in (PINS / one).glob("*.go")]
    return sorted([*pins(module).glob("go.*"), *programs])


def pinned(module):
    """Return the name of a module's directory: everything that decides what is built is in it."""
    if module in RELEASES:
        release = json.dumps([asdict(RELEASES[module]), sys.platform])
        return f"{module}-{hashlib.sha256(release.encode()).hexdigest()[:16]}"
    chosen = [PROGRAMS[module], FILES.get(module), sys.platform]
    chosen += [KUBERNETES_VERSION] if module in OF_KUBERNETES else []
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
        Of ``PROGRAMS`` and ``RELEASES``, those that are needed.

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
            go = _find_go() if missing else None
            for module in missing:
                say(f"cluster tests: building {module} once, which takes minutes ({go})")
                _build(go, module, say)
    return built


def release_source(release):
    """Return the directory of a release's files, which is read-only."""
    found = _download(_find_go(), PINS, f"{release.module}@{release.version}")
    if found["Sum"] != release.checksum:
        raise ClusterFailed(
            f"{release.module} {release.version} has the checksum {found['Sum']}, not its own."
        )
    return Path(found["Dir"])


def module_source(module, source):
    """Return the directory of a module's files, at the version that a module of ours pins."""
    return _source(_find_go(), module, source)


def module_version(module, source):
    """Return the version of a module that the ``go.mod`` of a module of ours pins."""
    text = (pins(module) / "go.mod").read_text()
    return re.search(rf"^(?:require)?\s+{re.escape(source)} (\S+)", text, re.MULTILINE)[1]


def _find_go():
    return find_client(ROOT / "go", ROOT / ".cache").go


def _missing(modules):
    return [module for module in modules if not (cache() / pinned(module)).is_dir()]


def _build(go, module, say):
    target = cache() / pinned(module)
    for left in cache().glob(f".{target.name}.*"):  # half-built, of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    start = time.monotonic()
    with atomic_directory(target) as staging:
        if module in RELEASES:
            _build_release(go, RELEASES[module], staging, say)
        else:
            for name, package in PROGRAMS[module].items():
                say(f"cluster tests: {name} ...")
                _compile(go, pins(module), staging / "bin" / name, package, _linked(module))
        if module in FILES:
            _copy(go, module, *FILES[module], staging / "objects")
        if module in CHARTS:
            source, directory = CHARTS[module]
            shutil.copytree(_source(go, module, source) / directory, staging / "chart")
            _writable(staging / "chart")
    say(f"cluster tests: built {module} in {time.monotonic() - start:.0f} s into {target}")


def _linked(module):
    if module not in OF_KUBERNETES:
        return ""
    where, (major, minor, _) = "k8s.io/component-base/version", KUBERNETES_VERSION[1:].split(".")
    return (
        f" -X {where}.gitVersion={KUBERNETES_VERSION} -X {where}.gitMajor={major}"
        f" -X {where}.gitMinor={minor}"
    )


def _build_release(go, release, staging, say):
    """Build in a copy of the module: only the main module's own pins and replacements count."""
    copy = staging / "source"
    shutil.copytree(release_source(release), copy, copy_function=shutil.copyfile)
    _writable(copy)
    shutil.rmtree(copy / "vendor", ignore_errors=True)  # of which an archive may have but a list
    linked = f" -X {release.variable}={release.version}" if release.variable else ""
    for name, package in release.programs.items():
        say(f"cluster tests: {name} ...")
        _compile(go, copy, staging / "bin" / name, package, linked, release.tags)
    shutil.rmtree(copy)


def _compile(go, directory, target, package, linked, tags=""):
    words = ["build", "-p", "2", "-trimpath", "-tags", tags, "-ldflags", f"-s -w{linked}"]
    _go(go, directory, [*words, "-o", str(target), package], _BUILD_SECONDS)


def _writable(directory):
    for place, _, _ in os.walk(directory):
        Path(place).chmod(0o755)  # Go's are read-only, and could not be deleted


def _copy(go, module, source, paths, target):
    root = _source(go, module, source)
    target.mkdir(parents=True)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # five times as fast, where it is there
    for path in paths:
        # As JSON: to read megabytes of YAML would take longer than all the rest of a start.
        documents = [one for one in yaml.load_all((root / path).read_text(), loader) if one]
        (target / f"{Path(path).stem}.json").write_text(json.dumps(documents))


def _source(go, module, source):
    return Path(_download(go, pins(module), source)["Dir"])


def _download(go, directory, source):
    return json.loads(_go(go, directory, ["mod", "download", "-json", source], _DOWNLOAD_SECONDS))


def _go(go, directory, words, seconds):
    nice = ["nice", "-n", "10"] if shutil.which("nice") else []
    # A toolchain that is too old may get a newer one as a module; what is pinned stays as it is.
    environment = {
        **os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "auto",
        "GOWORK": "off",
    }  # fmt: skip
    done = subprocess.run(
        [*nice, str(go), *words],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        check=False,
    )
    if done.returncode != 0:
        reason = " ".join((done.stderr or done.stdout).split())[-600:]
        raise ClusterFailed(f"go {words[0]} in {directory.name} failed: {reason}")
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
