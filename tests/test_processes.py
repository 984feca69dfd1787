"""A child process is awaited, says why it failed, and ends with its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dwcp_ml import processes
from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.processes import ChildProcess

MAX_SECONDS = 20.0


def child(program, log, **options):
    return ChildProcess("the program", [sys.executable, "-c", program], log, **options)


def is_alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_its_output_is_appended_to_the_log_and_its_end_is_awaited(tmp_path):
    log, ready = tmp_path / "log", tmp_path / "ready"
    log.write_text("before\n")
    program = f"import time; print('up', flush=True); open({str(ready)!r}, 'w'); time.sleep(60)"
    with child(program, log) as running:
        running.wait_until(ready.exists, MAX_SECONDS)
        assert is_alive(running.process.pid)
    assert running.process.returncode == -signal.SIGTERM
    assert log.read_text() == "before\nup\n"


def test_a_failed_start_names_the_exit_code_and_the_last_line_of_the_log(tmp_path):
    program = "import sys; print('first'); sys.exit('dwcp-ml: the port is taken.')"
    with (
        child(program, tmp_path / "log") as running,
        pytest.raises(DwcpError, match=r"^the program did not start \(exit code 1\): the port is"),
    ):
        running.wait_until(lambda: False, MAX_SECONDS)


def test_a_start_that_takes_too_long_is_an_error(tmp_path):
    with (
        child("import time; time.sleep(60)", tmp_path / "log") as running,
        pytest.raises(DwcpError, match=r"^the program was not ready after 0.1 s\.$"),
    ):
        running.wait_until(lambda: False, 0.1)


def test_a_program_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.2)
    ready = tmp_path / "ready"
    program = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"open({str(ready)!r}, 'w'); time.sleep(60)"
    )
    with child(program, tmp_path / "log") as running:
        running.wait_until(ready.exists, MAX_SECONDS)
    assert running.process.returncode == -signal.SIGKILL


def test_without_a_log_the_caller_reads_the_output():
    program = "import os, sys; print(os.environ['WORD']); print('end', file=sys.stderr)"
    with child(program, None, environment={"WORD": "one"}) as running:
        assert list(running.process.stdout) == ["one\n", "end\n"]
        assert running.process.wait() == 0


def test_a_program_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DwcpError, match=r"can't start .*no such file"):
        child("", tmp_path / "missing" / "log")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the end of a parent")
def test_it_ends_when_its_parent_is_killed(tmp_path):
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from dwcp_ml.processes import ChildProcess\n"
        "words = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
        "print(ChildProcess('it', words, Path(sys.argv[1])).process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ)) as parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + MAX_SECONDS
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
