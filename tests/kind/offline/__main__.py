"""`make kind-test OFFLINE=1`: a real cluster of kind without any image registry.

python -m tests.kind.offline [STEP...]      the steps of tests/kind/run.sh, by default all
python -m tests.kind.offline --prepare      build what they need, and stop
python -m tests.kind.offline --in COMMAND   run a command where a cluster was left (KEEP=1)
python -m tests.kind.offline --down         remove that cluster, and all that runs for it
python -m tests.kind.offline --can          nothing, if it could be run here: exit code 0
python -m tests.kind.offline --install ...  with apt-get, before anything else, what is missing

Every program is built from pinned Go modules, the images from the Debian archive and the wheels of
the lock files; a network is needed for those only. The cluster is in namespaces that no way leads
out of. Needs Linux, root, and the programs that it names where one is missing. What was built is
kept in ~/.cache/dwcp-ml. Exit codes: 2 if something is missing or can't be built; else run.sh's.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from dwcp_ml.training_run.go_client_check import GoMissing
from tests.cluster.build import ROOT, alone, build, cache
from tests.cluster.processes import ClusterFailed
from tests.cluster.programs import PINNED_BY, PROGRAMS, RELEASES
from tests.kind.offline import images, node_image, site
from tests.kind.offline.namespaces import Namespaces
from tests.kind.offline.needs import install, missing, packages

CAN_NOT = 2
_END_SECONDS = 150.0
"""In which the script exports its logs and removes the cluster: .ci/run kills it after 180."""

_WORK = Path("/tmp/dwcp-kind")
"""Of the namespaces; one at a time, as there is one control group."""

_MODULES = tuple(sorted({*PROGRAMS, *RELEASES} - {"kwok", "h2spec", "kstatus", *PINNED_BY}))


def main(words):
    """Build what is missing, run the steps, leave nothing unless asked to."""
    space = Namespaces(_WORK, place() / "docker")
    if words[:1] == ["--install"]:
        said, words = install(), words[1:]
        if packages():
            print(said, file=sys.stderr)
    command = words[0] if words and words[0].startswith("--") else ""
    if command == "--in":
        return _inside(space, words[1:])
    if command == "--down":
        return _down(space)
    reason = missing()
    if reason:
        return _refuse(reason)
    return 0 if command == "--can" else _run(space, words, steps=command != "--prepare")


def _inside(space, words):
    if not space.first():
        return _refuse("there is no cluster; KEEP=1 leaves one.")
    return subprocess.run(space.words(*words), env=_environment(space), check=False).returncode


def _run(space, words, *, steps):
    with alone(place(), _say):
        try:
            environment = _prepare(space)
        except (ClusterFailed, GoMissing) as error:
            _down(space)
            return _refuse(str(error))
        return _steps(space, words, environment) if steps else _down(space)


def place():
    """Return where what outlives a cluster is kept."""
    return cache().parent / "kind"


def _prepare(space):
    """Build what needs a network, then the images inside; return the environment of the steps."""
    built = build(_say, _MODULES)
    root = node_image.root_file_system(place(), _say)
    images.download(place(), _say)
    programs = {"docker": images.client(), "kind": built.program("kind"),
                "kubectl": built.program("kubectl")}  # fmt: skip
    (space.work / "bin").mkdir(parents=True, exist_ok=True)
    for name, program in programs.items():
        link = space.work / "bin" / name
        link.unlink(missing_ok=True)
        link.symlink_to(program)
    space.start(built.program("coredns"))
    node_image.build(space, built, root, _say)
    others = images.build(space, built, place(), _say)
    target = space.work / "site"
    versions = site.write(target, built, others)
    return {
        **_environment(space), **versions, "OFFLINE": "1", "KIND_NODE_IMAGE": node_image.NAME,
        "OTHER_IMAGES": " ".join(others.values()), "ENVOY_IMAGE": others["envoy"],
        "STORE_IMAGE": others["versitygw"],
        "BASE": images.BASE, "SITE": str(target),
        "KUBE_ROUTER_IMAGE": node_image.kube_router(),
    }  # fmt: skip


def _environment(space):
    return {**space.environment(), "KUBECONFIG": str(ROOT / ".cache/kind/kubeconfig")}


def _steps(space, words, environment):
    # Steps without the one that makes a cluster run on one that is there, and stays.
    keep = bool(os.environ.get("KEEP")) or (bool(words) and "cluster" not in words)
    # A session of its own: the terminal's Ctrl-C comes here, and from here once to the script.
    command = space.words("bash", str(ROOT / "tests/kind/run.sh"), *words, directory=ROOT)
    child = subprocess.Popen(command, env=environment, start_new_session=True)

    def end(number, frame):
        os.killpg(child.pid, number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    try:
        code = child.wait()
        if code < 0:  # nsenter itself has ended; the script removes the cluster
            _await_group(child.pid)
        return code if code >= 0 else 128 - code
    finally:
        if not keep:
            _down(space)


def _await_group(group):
    """Return when every process of a group has ended, or the script has had its time."""
    deadline = time.monotonic() + _END_SECONDS
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.2)


def _down(space):
    left = space.end()
    for one in left:
        _say(f"left over: {one}")
    return 1 if left else 0


def _refuse(reason):
    print(f"kind-test: {reason}", file=sys.stderr)
    return CAN_NOT


def _say(line):
    print(f"kind-test: {line.removeprefix('cluster tests: ')}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
