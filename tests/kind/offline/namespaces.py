"""Namespaces without a way out, and a container engine in them.

All that runs in there ends with their first process (``inside.sh``): containers, interfaces and
mounts. What stays is in ``store``: the engine's images.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.cluster.processes import ClusterFailed
from tests.kind.offline import groups
from tests.kind.offline.needs import MAKE, NAMESPACES

HERE = Path(__file__).parent
_START_SECONDS = 60.0
_END_SECONDS = 30.0


class Namespaces:
    """A place with a network of its own, in which commands can be run.

    Parameters
    ----------
    work
        A directory for sockets, settings and logs; its path must be short, as sockets are in it.
    store
        Where the engine keeps its images.
    """

    def __init__(self, work, store):
        self.work, self._store = Path(work), Path(store)
        self._file = self.work / "first.pid"

    @property
    def socket(self):
        return f"unix://{self.work}/docker.sock"

    def first(self):
        """Return the first process, 0 if there are no namespaces."""
        try:
            found = int(self._file.read_text())
        except (OSError, ValueError):
            return 0
        return found if Path(f"/proc/{found}").exists() else 0

    def start(self, coredns):
        """Make the namespaces, unless they are there; return when the engine responds.

        Raises
        ------
        ClusterFailed
            If it does not.
        """
        if self.first():
            return
        for one in (self.work, self._store):
            one.mkdir(parents=True, exist_ok=True)
        groups.make()
        settings = {
            "hosts": [self.socket], "data-root": str(self._store), "dns": ["192.0.2.53"],
            "cgroup-parent": f"/{groups.NAME}", "default-runtime": "here",
            # What earlier builds leave would fill the disk: two gigabytes each.
            "builder": {"gc": {"enabled": True, "defaultKeepStorage": "8GB"}},
            "runtimes": {"here": {"path": str(self._runtime())}},
        }  # fmt: skip
        (self.work / "daemon.json").write_text(json.dumps(settings))
        command = [*MAKE, "bash", str(HERE / "inside.sh"), str(self.work), str(coredns)]
        with (self.work / "engine.log").open("wb") as log:
            parent = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "PATH": self._path()},
            )  # fmt: skip
        deadline = time.monotonic() + _START_SECONDS
        while not self._responds(parent.pid):
            if parent.poll() is not None or time.monotonic() > deadline:
                self.end()
                said = " ".join((self.work / "engine.log").read_text(errors="replace").split())
                raise ClusterFailed(f"the container engine did not start: {said[-600:]}")
            time.sleep(0.2)
        # A node that was killed with its namespaces would be started again.
        left = self.output("docker", "ps", "--all", "--quiet").split()
        if left:
            self.output("docker", "rm", "--force", "--volumes", *left)

    def words(self, *command, directory=None):
        """Return the words that run a command in here, as a process of the caller's."""
        where = f"--wd={directory or Path.cwd()}"
        return ["nsenter", "-t", str(self.first()), *NAMESPACES, where, *map(str, command)]

    def environment(self):
        """Return the environment of the commands in here."""
        return {**os.environ, "DOCKER_HOST": self.socket, "PATH": self._path()}

    def run(self, *command, seconds=600, given=None, directory=None):
        """Run a command in here to its end; return it with its output."""
        return subprocess.run(
            self.words(*command, directory=directory), env=self.environment(), input=given,
            capture_output=True, text=True, errors="replace", timeout=seconds, check=False,
        )  # fmt: skip

    def output(self, *command, **more):
        """Return what a command in here prints.

        Raises
        ------
        ClusterFailed
            If it fails.
        """
        done = self.run(*command, **more)
        if done.returncode != 0:
            said = " ".join((done.stderr or done.stdout).split())[-800:]
            raise ClusterFailed(f"'{' '.join(map(str, command[:4]))}' failed: {said}")
        return done.stdout

    def end(self):
        """End all that runs in here; return what is left of it, which should be nothing."""
        first = self.first()
        if first:
            _signal(first, signal.SIGTERM)  # the engine ends its containers
            self._await_end(first)
            _signal(first, signal.SIGKILL)  # and the kernel whatever is left
            self._await_end(first)
        self._file.unlink(missing_ok=True)
        left = [str(one) for one in groups.remove()]
        mounts = Path("/proc/mounts").read_text().splitlines()
        left += [line for line in mounts if f" {self.work}/" in line or f" {self._store}/" in line]
        return left + ([f"process {first}"] if first and Path(f"/proc/{first}").exists() else [])

    def _responds(self, parent):
        if not self.first():
            children = Path(f"/proc/{parent}/task/{parent}/children")
            try:
                self._file.write_text(children.read_text().split()[0])
            except (OSError, IndexError):
                return False
        return self.run("docker", "info", seconds=30).returncode == 0

    def _path(self):
        """Return the search path, with our own programs and where Debian has the tools of root."""
        return os.pathsep.join([f"{self.work}/bin", "/usr/sbin", "/sbin", os.environ["PATH"]])

    def _runtime(self):
        """Return where the engine finds its runtime: a copy that it can execute."""
        target = self.work / "runc.py"
        shutil.copyfile(HERE / "runc.py", target)
        target.chmod(0o755)
        return target

    def _await_end(self, first):
        deadline = time.monotonic() + _END_SECONDS
        while Path(f"/proc/{first}").exists() and time.monotonic() < deadline:
            time.sleep(0.1)


def _signal(process, number):
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)
