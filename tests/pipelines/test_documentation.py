"""docs/pipeline.md agrees with the code: its session is run, and its tables are compared."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dwcp_ml.cli.submit import command
from dwcp_ml.contract.errors import GateRejected, RunFailed, RunUnfinished, UsageError
from pipelines.resources import TaskSettings
from tests.pipelines.fake_kubeflow import FakeKubeflow, polls

PAGE = Path(__file__).parents[2] / "docs/pipeline.md"
ADDRESS = "http://localhost:8080"
CHAIN = (
    ["validate-data"], ["train-bandwidth-predictor"], ["evaluate", "export"], ["check-api", "gate"],
    ["rejected"],
)  # fmt: skip


@pytest.fixture(scope="module")
def page():
    return PAGE.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_session_is_what_happens(page, tmp_path):
    (session,) = re.findall(r"```console\n(.*?)```", page, re.DOTALL)
    fake = FakeKubeflow()
    fake.script = polls(*CHAIN)

    def break_off():
        if fake.polls == 3 and not fake.faults:
            fake.faults = {("GET", "/runs/run-1"): ["dropped", "dropped"]}

    fake.before = break_off
    try:
        seen = transcript(session, fake.address, tmp_path)
    finally:
        fake.stop()
    assert fake.violations == []
    assert seen == session


def transcript(session, address, place):
    """Return what the commands of a session print, with the page's times and address."""
    out, code = [], 0
    times = iter(re.findall(r"^\d\d:\d\d:\d\dZ", session, re.MULTILINE))
    for line in re.findall(r"^\$ (.*)$", session, re.MULTILINE):
        out.append(f"$ {line}\n")
        if line == "echo $?":
            out.append(f"{code}\n")
            continue
        program, *words = shlex.split(line.replace(ADDRESS, address))
        assert program == "dwcp-ml"
        done = subprocess.run(
            [sys.executable, "-m", "dwcp_ml.cli", *words], cwd=place, text=True, timeout=120,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
            env={**os.environ, "DWCP_POLL_SECONDS": "1"},
        )  # fmt: skip
        code = done.returncode
        text = done.stdout.replace(address, ADDRESS)
        out.append(
            re.sub(r"^\d\d:\d\d:\d\dZ", lambda m: next(times, m[0]), text, flags=re.MULTILINE)
        )
    return "".join(out)


def test_the_keys_of_the_settings_are_all_there(page):
    rows = re.findall(r"^\| (`.*?) \|", page[page.index("## What each task gets") :], re.MULTILINE)
    keys = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    assert keys == set(TaskSettings.model_fields)


def test_the_exit_codes_and_variables_are_those_of_the_code(page):
    codes = {int(code) for code in re.findall(r"^\| (\d) \|", page, re.MULTILINE)}
    named = (UsageError, GateRejected, RunFailed, RunUnfinished)
    assert codes == {0, 1, *(error.exit_code for error in named)}
    options = {f"DWCP_{one.name.upper()}" for one in command.params}
    assert set(re.findall(r"DWCP_\w+", page)) <= options
