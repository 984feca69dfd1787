"""`make cluster-test`: a real one-node Kubernetes in namespaces of its own, and the tests on it.

python -m tests.node                     all of it
python -m tests.node -k canary           some of it, as pytest names them
python -m tests.node --install ...       with apt-get, before anything else, what is missing
python -m tests.node --can               nothing, if all of it could be run: exit code 0

Root, Linux, and the programs that it names where one is missing. Images and Go programs are kept
in ~/.cache/dwcp-ml; nothing else is left. Exit codes: those of pytest; 2 if something is missing.
"""

import contextlib
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

from dwcp_ml.stages.go_client import GoMissing
from tests.cluster.build import PROGRAMS, ROOT, build
from tests.cluster.processes import ClusterFailed
from tests.node.images import archive, place
from tests.node.needs import NAMESPACES, install, missing, packages

_CGROUPS = Path("/sys/fs/cgroup")


def main(words):
    """Build what is missing, run the tests in namespaces of their own, leave nothing."""
    if words[:1] == ["--install"]:
        said, words = install(), words[1:]
        if packages():
            print(said, file=sys.stderr)
    reason = missing()
    if reason:
        print(f"cluster-test: {reason}", file=sys.stderr)
        return 2
    if words == ["--can"]:
        return 0
    try:
        built = build(_say, PROGRAMS)
        saved, names = archive(built, _say)
    except (ClusterFailed, GoMissing) as error:
        print(f"cluster-test: {error}", file=sys.stderr)
        return 1
    group = f"dwcp-node-{uuid.uuid4().hex[:8]}"
    environment = {
        **os.environ, "DWCP_NODE_IMAGES": str(saved), "DWCP_NODE_NAMES": json.dumps(names),
        "DWCP_NODE_CGROUP": group, "DWCP_NODE_STORE": str(place() / "containerd"),
    }  # fmt: skip
    command = ["unshare", *NAMESPACES, sys.executable, "-m", "tests.node.inside", *words]
    try:
        return subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode
    finally:
        remove_groups(group)


def remove_groups(name):
    """Remove a control group, with all below it, from every hierarchy; its processes are gone."""
    for top in _CGROUPS.glob(f"*/{name}"):
        for directory, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                Path(directory).rmdir()


def _say(line):
    print(f"cluster-test: {line.removeprefix('cluster tests: ')}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
