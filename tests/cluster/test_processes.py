"""Processes of a cluster end with whoever started them, and waiting ends too."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.processes import ClusterFailed, Processes, eventually, free_ports
from tests.cluster.supervisor import Supervisor

_STARTER = """
import json, sys, time
from tests.cluster.processes import Processes
found = Processes(sys.argv[1])
ids = [found.start(name, ["sleep", "600"]) for name in ("one", "two")]
print(json.dumps([found._supervisor.pid, *ids]), flush=True)
time.sleep(600)
"""


@pytest.fixture
def processes(tmp_path):
    found = Processes(tmp_path / "cluster")
    yield found
    found.end()


@pytest.fixture
def starter(tmp_path):
    """A program that started two processes: (itself, their supervisor, the two)."""
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", _STARTER, str(tmp_path / "cluster")],
        stdout=subprocess.PIPE, cwd=root,
    ) as program:  # fmt: skip
        supervisor, *ids = json.loads(program.stdout.readline())
        yield program, supervisor, ids
        program.kill()


def runs(process_id):
    """Return whether a process is there and is no zombie."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_everything_ends_and_the_directory_goes(tmp_path):
    processes = Processes(tmp_path / "cluster")
    process_id = processes.start("sleeper", ["sleep", "600"])
    assert processes.ids() == {"sleeper": process_id}
    processes.end()
    assert not runs(process_id)
    assert not (tmp_path / "cluster").exists()


def test_a_killed_program_takes_its_processes_with_it(starter, tmp_path):
    program, supervisor, ids = starter
    assert all(runs(one) for one in ids)
    program.kill()
    eventually(lambda: not any(runs(one) for one in (supervisor, *ids)), 10.0)
    assert not (tmp_path / "cluster").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does it, on Linux only")
def test_a_killed_supervisor_takes_its_processes_with_it(starter):
    _, supervisor, ids = starter
    os.kill(supervisor, signal.SIGKILL)
    eventually(lambda: not any(runs(one) for one in ids), 10.0)


def test_where_the_kernel_does_not_help_the_supervisor_ends_them_itself(tmp_path):
    supervisor = Supervisor()
    supervisor._prctl = None
    process_id = supervisor.start("sleeper", ["sleep", "600"], str(tmp_path / "log"))["pid"]
    assert runs(process_id)
    supervisor.end()
    assert not runs(process_id)


def test_ctrl_c_is_not_for_the_processes(starter):
    _, supervisor, ids = starter
    os.kill(supervisor, signal.SIGINT)
    with pytest.raises(ClusterFailed):
        eventually(lambda: not all(runs(one) for one in ids), 0.3)


def test_a_process_that_ends_by_itself_is_reported_with_its_last_words(processes):
    processes.start("talker", ["sh", "-c", "echo no such flag >&2; exit 3"])
    with pytest.raises(ClusterFailed, match=r"talker ended with 3:\nno such flag"):
        eventually(lambda: False, 10.0, alive=processes.check)


def test_a_stopped_process_starts_again_with_the_same_command(processes):
    first = processes.start("sleeper", ["sleep", "600"])
    assert processes.stop("sleeper", "SIGKILL") == -signal.SIGKILL
    second = processes.again("sleeper")
    assert first != second
    assert processes.ids() == {"sleeper": second}


def test_one_that_will_not_end_is_killed(processes):
    processes.start(
        "stubborn", ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"]
    )
    eventually(lambda: processes.log("stubborn") == "ready", 10.0)
    assert processes.stop("stubborn", seconds=0.2) == -signal.SIGKILL


def test_an_unknown_program_is_one_sentence(processes):
    with pytest.raises(ClusterFailed, match="start ghost: FileNotFoundError"):
        processes.start("ghost", ["/no/such/program"])


def test_a_process_sees_none_of_our_credentials(processes, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "secret")
    processes.start("env", ["env"])
    eventually(lambda: "HOME=" in processes.log("env"), 10.0)
    assert "secret" not in processes.log("env")


def test_free_ports_are_free_and_different():
    ports = free_ports(20)
    assert len(set(ports)) == 20


def test_waiting_raises_what_was_wrong_last():
    def never():
        raise AssertionError("99 to 1, not 100 to 0")

    with pytest.raises(AssertionError, match="99 to 1"):
        eventually(never, 0.1)
    with pytest.raises(ClusterFailed, match="the answer is 0"):
        eventually(lambda: 0, 0.1)
    assert eventually(lambda: 7, 0.1) == 7
