"""The parent of a cluster's processes: they end with it, and it ends with whoever started it.

It runs as a program of its own and needs the standard library only. One JSON object a line on
standard input is a wish, one a line on standard output the answer. When standard input closes,
because the tests are done or because they were killed, every process is killed and the directory
of the cluster is removed. When it is killed itself, the kernel kills its children (Linux).
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>


class Supervisor:
    """Starts, stops and shows processes by name."""

    def __init__(self):
        self.processes = {}
        self.commands = {}
        library = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
        self._prctl = library.prctl if library else None
        self._own = os.getpid()

    def start(self, name, command=None, log=None, environment=None):
        """Start a process, or start the one of that name again with the same command."""
        if command is not None:
            self.commands[name] = (command, log, environment)
        command, log, environment = self.commands[name]
        with Path(log).open("ab") as stream:
            self.processes[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=environment,
                cwd=Path(log).parent,
                preexec_fn=self._die_with_me,  # noqa: PLW1509 - it has one thread
            )
        return {"pid": self.processes[name].pid}

    def stop(self, name, signal_name="SIGTERM", seconds=20.0):
        """End one process and wait for it; it is killed where it does not end in time."""
        process = self.processes[name]
        process.send_signal(getattr(signal, signal_name))
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10.0)
        return {"code": process.returncode}

    def forget(self, name):
        """Take a process that has ended out of what ``show`` tells."""
        if self.processes[name].poll() is None:
            raise RuntimeError("it runs")
        del self.processes[name], self.commands[name]
        return {}

    def signal(self, name, signal_name):
        """Send a signal, ``SIGSTOP`` for example."""
        self.processes[name].send_signal(getattr(signal, signal_name))
        return {}

    def show(self):
        """Return the process id and exit code (None while it runs) of each process."""
        return {
            name: {"pid": process.pid, "code": process.poll()}
            for name, process in self.processes.items()
        }

    def end(self):
        """Kill everything that still runs; nothing of a cluster is worth a graceful end."""
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10.0)

    def _die_with_me(self):
        if self._prctl is not None:
            self._prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
            if os.getppid() != self._own:  # it was gone before the wish was heard
                os._exit(1)


def serve(directory, wishes, answers, keep=False):
    """Do what the lines say until there are no more, then end everything and tidy up."""
    supervisor = Supervisor()
    try:
        for line in wishes:
            wish = json.loads(line)
            try:
                answer = getattr(supervisor, wish.pop("do"))(**wish)
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    finally:
        supervisor.end()
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)


def _leave(number, _):
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for pytest, which then closes the pipe
    with contextlib.suppress(BrokenPipeError):
        serve(sys.argv[1], sys.stdin, sys.stdout, keep=sys.argv[2:] == ["keep"])
