"""Fakes of the programs that ``run.sh`` calls: one script under all their names.

It writes down each call, and responds as a cluster on which everything succeeds. Which calls
fail is said by a pattern.
"""

import shutil
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

RUN = Path(__file__).with_name("run.sh")
TOOLS = ("docker", "kind", "kubectl", "git", "make", "python", "dwcp-ml", "pytest")
_BASICS = (
    "bash", "cat", "cut", "date", "dirname", "env", "grep", "head", "mkdir", "rm", "sed", "sh",
    "sleep", "tail", "tar",
)  # fmt: skip

_SCRIPT = r"""#!/bin/sh
name=${0##*/}
line="$name $*"
printf '%s\n' "$line" >>"$FAKE/calls"
if [ -n "$SLOW" ] && printf '%s' "$line" | grep -qE -- "$SLOW"; then exec sleep 60; fi
if [ -n "$FAIL" ] && printf '%s' "$line" | grep -qE -- "$FAIL"; then
  echo "fake: $line fails${WHY:+: $WHY}" >&2
  exit "${CODE:-1}"
fi
case $line in
  'kind version') echo "kind ${FAKE_KIND:-v0.33.0} go1.26 linux/amd64" ;;
  'kind get clusters') printf '%s\n' "$CLUSTERS" ;;
  'docker info --format'*) echo '8 17179869184' ;;
  *port-forward*) exec sleep 60 ;;
  *go-template*) printf 'minio ' ;;
  *'get service'*) printf 10.96.0.7 ;;
  *'phase=Pending'*) printf '%s\n' "$PENDING" ;;
esac
"""


class Machine:
    """A directory of fakes, and what a call of ``run.sh`` among them did.

    Parameters
    ----------
    directory
        Empty.
    missing
        Programs that are not there.
    """

    def __init__(self, directory, missing=()):
        self.directory, self.work = directory, directory / "work"
        self.bin = directory / "bin"
        self.bin.mkdir()
        (directory / "fake").mkdir()
        fake = self.bin / "fake"
        fake.write_text(_SCRIPT)
        fake.chmod(0o755)
        for name in set(TOOLS) - set(missing):
            (self.bin / name).symlink_to("fake")
        for name in set(_BASICS) - set(missing):
            (self.bin / name).symlink_to(shutil.which(name))

    def __call__(self, *steps, check=None, **settings):
        """Run ``run.sh``; return the completed process, with ``calls`` and ``steps``."""
        with ExitStack() as stack:
            environment = self.environment(stack, **settings)
            done = subprocess.run(
                [str(self.bin / "bash"), str(RUN), *steps], env=environment, capture_output=True,
                text=True, timeout=60, check=False,
            )  # fmt: skip
        done.calls = self.calls
        done.steps = steps_of(done.stdout)
        if check is not None:
            assert done.returncode == check, done.stdout + done.stderr
        return done

    def environment(self, stack, **settings):
        """Return the environment of a call; ports are listened on until the stack is closed."""
        ports = {}
        for name in ("UI_PORT", "S3_PORT"):
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            ports[name] = str(listening.getsockname()[1])
        settings = {name: str(value) for name, value in settings.items()}
        return {
            "PATH": str(self.bin), "HOME": str(self.directory),
            "FAKE": str(self.directory / "fake"),
            "KIND_TEST_BIN": str(self.bin), "KIND_TEST_WORK": str(self.work),
            "KIND_TEST_PAUSE": "0", "WORK": str(self.work),
            "FAIL": "", "SLOW": "", "CLUSTERS": "", **ports, **settings,
        }  # fmt: skip

    @property
    def calls(self):
        path = self.directory / "fake" / "calls"
        return path.read_text().splitlines() if path.exists() else []


def steps_of(output):
    """Return the names of the steps in the output, each once, in their order."""
    lines = [line for line in output.splitlines() if line.startswith("== ")]
    return list(dict.fromkeys(line[3:].partition(":")[0] for line in lines))
