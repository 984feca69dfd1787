"""`make cluster-test`: a real one-node Kubernetes in namespaces of its own, and the tests on it.

python -m tests.node                     all of it
python -m tests.node -k canary           some of it, as pytest names them
python -m tests.node --install ...       with apt-get, before anything else, what is missing
python -m tests.node --can               nothing, if all of it could be run: exit code 0

Root, Linux, and the programs that it names where one is missing. Images and Go programs are kept
in ~/.cache/dwcp-ml. Exit codes: 2 if something is missing here or can't be built; else those of
pytest, with 1 also where tests can't be read.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from dwcp_ml.training_run.go_client_check import GoMissing
from tests.cluster.build import PROGRAMS, ROOT, alone, build
from tests.cluster.processes import ClusterFailed
from tests.node import groups
from tests.node.images import archive, place
from tests.node.inside import COVERED
from tests.node.needs import NAMESPACES, install, missing, packages

CAN_NOT = 2


def main(words):
    """Build what is missing, run the tests in namespaces of their own, leave nothing."""
    if words[:1] == ["--install"]:
        said, words = install(), words[1:]
        if packages():
            print(said, file=sys.stderr)
    reason = missing()
    if reason:
        print(f"cluster-test: {reason}", file=sys.stderr)
        return CAN_NOT
    if words == ["--can"]:
        return 0
    # One at a time: the engine and the node keep their images in one place.
    with alone(place(), _say):
        try:
            built = build(_say, PROGRAMS)
            saved, names = archive(built, _say)
        except (ClusterFailed, GoMissing) as error:
            print(f"cluster-test: {error}", file=sys.stderr)
            return CAN_NOT
        groups.remove()
        return _in_namespaces(words, saved, names)


def _in_namespaces(words, saved, names):
    """Run the tests; whatever they leave is in one directory, and goes once nothing holds it."""
    chosen = os.environ.get("DWCP_NODE_LOGS")
    logs = Path(chosen or tempfile.mkdtemp(prefix="dwcp-node-logs-")).resolve()
    if any(logs.is_relative_to(place) for place in (*COVERED, "/run")):
        _say(f"what is written to {logs} does not last; set DWCP_NODE_LOGS to another place.")
        return CAN_NOT
    group, scratch = groups.new_name(), tempfile.mkdtemp(prefix="dwcp-node-")
    environment = {
        **os.environ, "DWCP_NODE_IMAGES": str(saved), "DWCP_NODE_NAMES": json.dumps(names),
        "DWCP_NODE_CGROUP": group, "DWCP_NODE_STORE": str(place() / "containerd"),
        "DWCP_NODE_LOGS": str(logs), "TMPDIR": scratch,
    }  # fmt: skip
    command = ["unshare", *NAMESPACES, sys.executable, "-m", "tests.node.inside", *words]
    # A session of its own: the terminal's Ctrl-C comes here, and from here once to the tests.
    child = subprocess.Popen(command, env=environment, cwd=ROOT, start_new_session=True)

    def end(number, frame):
        first = _first_process(child.pid)
        if first:
            os.kill(first, signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    code = None
    try:
        code = exit_code(child.wait())
        return code
    finally:
        child.kill()
        child.wait()
        groups.remove(group)
        shutil.rmtree(scratch, ignore_errors=True)
        if code == 0 and not chosen:
            shutil.rmtree(logs, ignore_errors=True)
        else:
            _say(f"the logs of programs and pods are in {logs}")


def exit_code(of_pytest):
    """Return our exit code: 2, of pytest a failure, here says that the machine lacks something."""
    return 1 if of_pytest == CAN_NOT else of_pytest


def _first_process(parent):
    """Return the child of ``unshare``: process 1 of the namespaces."""
    try:
        return int(Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0])
    except (OSError, IndexError):
        return 0


def _say(line):
    print(f"cluster-test: {line.removeprefix('cluster tests: ')}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
