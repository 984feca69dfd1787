"""Processes that end with the tests, free ports, and waiting without waiting for ever."""

import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_ROOT = Path(__file__).parents[2]
_ANSWER_SECONDS = 60.0


class ClusterFailed(Exception):
    """The cluster, or something in it, did not do its part; the message says which and why."""


class Processes:
    """The processes of one cluster, run by a supervisor that outlives nobody. Any thread may ask.

    Parameters
    ----------
    directory
        A directory of the cluster's own; it is removed when the supervisor ends.
    keep
        Let the directory stay: somebody else removes it.
    """

    def __init__(self, directory, keep=False):
        self.directory = Path(directory)
        self.logs = self.directory / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._supervisor = subprocess.Popen(
            [sys.executable, str(_SUPERVISOR), str(directory), *(["keep"] if keep else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def start(self, name, command):
        """Start a process that writes to ``logs/<name>.log``; return its process id."""
        words = [str(word) for word in command]
        # The operator is that of these tests, also where another tree of it is installed.
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self.directory),
            "PYTHONPATH": str(_ROOT),
        }
        return self._ask(
            do="start", name=name, command=words, log=str(self.logs / f"{name}.log"),
            environment=environment,
        )["pid"]  # fmt: skip

    def again(self, name):
        """Start a process that was stopped again, with the command that it had."""
        return self._ask(do="start", name=name)["pid"]

    def stop(self, name, signal_name="SIGTERM", seconds=20.0):
        """End a process; return its exit code."""
        return self._ask(do="stop", name=name, signal_name=signal_name, seconds=seconds)["code"]

    def forget(self, name):
        """Let ``check`` pass over a process that was stopped for good."""
        self._ask(do="forget", name=name)

    def signal(self, name, signal_name):
        """Send a process a signal by its name, ``SIGSTOP`` for example."""
        self._ask(do="signal", name=name, signal_name=signal_name)

    def ids(self):
        """Return name -> process id of what runs."""
        shown = self._ask(do="show")
        return {name: one["pid"] for name, one in shown.items() if one["code"] is None}

    def check(self):
        """Raise ``ClusterFailed`` with the end of its log where a process has ended by itself."""
        for name, one in self._ask(do="show").items():
            if one["code"] is not None:
                raise ClusterFailed(f"{name} ended with {one['code']}:\n{self.log(name)}")

    def log(self, name, lines=25):
        """Return the last lines of what a process said."""
        path = self.logs / f"{name}.log"
        if not path.exists():
            return ""
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])

    def end(self):
        """Kill everything and remove the directory."""
        self._supervisor.stdin.close()
        self._supervisor.stdout.close()
        try:
            self._supervisor.wait(30.0)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()
            self._supervisor.wait(10.0)

    def _ask(self, **wish):
        with self._lock:  # one question at a time: answers do not say what they answer
            return self._ask_alone(wish)

    def _ask_alone(self, wish):
        try:
            self._supervisor.stdin.write(json.dumps(wish).encode() + b"\n")
            self._supervisor.stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise ClusterFailed("the cluster's supervisor is gone") from error
        ready, _, _ = select.select([self._supervisor.stdout], [], [], _ANSWER_SECONDS)
        line = self._supervisor.stdout.readline() if ready else b""
        if not line:
            raise ClusterFailed(f"the cluster's supervisor gave no answer to {wish['do']}")
        answer = json.loads(line)
        if "error" in answer:
            raise ClusterFailed(f"{wish['do']} {wish.get('name', '')}: {answer['error']}")
        return answer


def free_ports(number):
    """Return ports of 127.0.0.1 that nobody listens on, all different."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def eventually(question, seconds=30.0, every=0.05, alive=None):
    """Ask again and again until the answer is true; return that answer.

    Parameters
    ----------
    question
        A function. An ``AssertionError`` or a false answer means "not yet".
    seconds
        When to give up, with the last ``AssertionError`` or a ``ClusterFailed``.
    every
        Seconds between two questions.
    alive
        Called before each question; raises where waiting has become pointless.
    """
    deadline = time.monotonic() + seconds
    while True:
        if alive is not None:
            alive()
        late = time.monotonic() > deadline
        try:
            answer = question()
        except AssertionError:
            if late:
                raise
        else:
            if answer:
                return answer
            if late:
                name = getattr(question, "__name__", "question")
                raise ClusterFailed(f"{name}: not after {seconds:.0f} s, the answer is {answer!r}")
        time.sleep(every)
