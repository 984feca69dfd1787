"""``dwcp-ml pipeline submit --wait``: how it follows a run, and what its exit code says."""

import json
import os
import pty
import subprocess
import sys

import pytest

from dwcp_ml.contract.errors import ErrorCode, GateRejected
from tests.errors import about
from tests.pipelines.conftest import CHAIN, FAST, PACKAGE
from tests.pipelines.fake_kubeflow import TOKEN, polls

pytestmark = pytest.mark.server


def test_approved(submit, kubeflow):
    kubeflow.script = polls(*CHAIN, ["approved"])
    code, out, err = submit("--wait")
    assert (code, out.splitlines()[-1]) == (0, "The gate said APPROVED.")
    lines = err.splitlines()
    assert [line.split()[1:] for line in lines if "train bandwidth" in line] == [
        ["train", "bandwidth", "RUNNING"], ["train", "bandwidth", "SUCCEEDED", "30", "s"],
    ]  # fmt: skip
    assert len(lines) == 2 * (len(CHAIN) + 1) + 3, "one line a change"
    assert "driver" not in err
    assert "executor" not in err


def test_rejected_is_exit_code_3(submit, kubeflow, failures):
    kubeflow.script = polls(*CHAIN, ["rejected"])
    code, out, _ = submit("--wait", "--json")
    assert code == 3
    assert json.loads(out) == {
        "run_id": "run-1", "run_name": kubeflow.run["display_name"], "state": "SUCCEEDED",
        "verdict": "REJECTED", "link": f"{kubeflow.address}/#/runs/details/run-1",
    }  # fmt: skip
    assert isinstance(failures[-1], GateRejected)


@pytest.mark.parametrize("said", [(), ("approved", "rejected")])
def test_a_run_without_a_verdict_is_never_approved(submit, kubeflow, failures, said):
    kubeflow.script = polls(*CHAIN, list(said))
    assert submit("--wait")[0] == 6
    assert about(ErrorCode.MISSING, "verdict")(failures[-1])


def test_a_failed_run_says_where_and_why(submit, kubeflow):
    why = "This step is in Error state with this message: OOMKilled (exit code 137)"
    kubeflow.script = polls(*CHAIN[:2], state="FAILED", message=why)
    code, _, err = submit("--wait")
    assert code == 6
    assert err.splitlines()[-1] == f"dwcp-ml: The run run-1 failed in train bandwidth: {why}."


def test_a_publication_that_fails_is_a_failed_run(submit, kubeflow, failures):
    kubeflow.script = polls(*CHAIN, ["approved"], ["publish-candidate"], state="FAILED",
                            message="exit 1")  # fmt: skip
    code, _, err = submit("--wait")
    assert code == 6
    assert about(ErrorCode.STATUS, "FAILED")(failures[-1])
    assert "publish-candidate" in err.splitlines()[-1]


def test_a_cancelled_run_is_no_success(submit, kubeflow, failures):
    kubeflow.script = polls(["validate-data"], state="CANCELED")
    assert submit("--wait")[0] == 6
    assert about(ErrorCode.STATUS, "CANCELED")(failures[-1])


@pytest.mark.parametrize(
    ("state", "subject"), [("SKIPPED", "SKIPPED"), ("RUNTIME_STATE_UNSPECIFIED", "")]
)
def test_every_end_is_an_end(submit, kubeflow, failures, state, subject):
    kubeflow.script = [{"state": state, "finished_at": "2026-01-01T00:10:00Z"}]
    assert submit("--wait", "--timeout", "20")[0] == 6
    assert about(ErrorCode.STATUS, subject)(failures[-1])


def test_a_run_that_does_not_end_in_time_goes_on(submit, kubeflow, failures):
    kubeflow.script = polls(["validate-data"])[:2]
    code, _, err = submit("--wait", "--timeout", "0.5")
    assert code == 7
    assert "has not ended after 0.5 s (it is running); it goes on" in err.splitlines()[-1]
    assert about(ErrorCode.TIMEOUT, failures[-1].subject)(failures[-1])
    assert not [path for _, path, *_ in kubeflow.requests if path.endswith(":terminate")]


def test_a_run_that_was_deleted_is_missing(submit, kubeflow, failures):
    kubeflow.faults = {("GET", "/runs/run-1"): [404]}
    assert submit("--wait")[0] == 6
    assert about(ErrorCode.MISSING, "run-1")(failures[-1])


def test_a_connection_that_breaks_while_waiting_is_tried_again_and_said(submit, kubeflow):
    kubeflow.script = polls(*CHAIN, ["approved"])
    kubeflow.faults = {("GET", "/runs/run-1"): ["dropped", "dropped", 503, "dropped", "dropped"]}
    code, _, err = submit("--wait")
    assert code == 0
    waits = [line.split(" in ")[-1] for line in err.splitlines() if "Retrying in" in line]
    assert waits == ["0.1 s.", "0.2 s.", "0.4 s."], "each wait is twice the one before"
    assert err.count("Kubeflow responds again.") == 1


def test_a_connection_that_stays_lost_is_a_timeout(submit, kubeflow, failures):
    kubeflow.faults = {("GET", "/runs/run-1"): ["dropped"] * 200}
    assert submit("--wait", "--timeout", "1")[0] == 7
    assert about(ErrorCode.TIMEOUT, ErrorCode.NO_RESPONSE)(failures[-1])


def test_a_token_that_expires_is_read_again(submit, kubeflow, tmp_path):
    """At the submission; the file gets the new one a little later."""
    token = tmp_path / "token"
    token.write_text("expired")
    kubeflow.tokens, kubeflow.script = {TOKEN}, polls(*CHAIN, ["approved"])

    def renew():
        if kubeflow.refused == 2:
            token.write_text(TOKEN)

    kubeflow.before = renew
    code, out, err = submit("--wait", "--token-file", str(token))
    assert code == 0
    assert "APPROVED" in out.splitlines()[-1]
    assert "the token has expired. Reading the token again in 0.1 s." in err
    assert len(kubeflow.runs) == 1


def test_a_token_that_expires_while_waiting_is_read_again(submit, kubeflow, tmp_path):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    kubeflow.tokens, kubeflow.script = {TOKEN}, polls(*CHAIN, ["approved"])

    def rotate():
        if kubeflow.polls == 2:
            kubeflow.tokens = {"new"}
        if kubeflow.refused == 2:
            token.write_text("new")

    kubeflow.before = rotate
    code, _, err = submit("--wait", "--token-file", str(token))
    assert (code, kubeflow.refused) == (0, 3)
    assert err.count("Reading the token again in") == 3


def test_without_a_token_file_a_refusal_is_final(submit, kubeflow, failures):
    kubeflow.tokens = {TOKEN}
    code, out, err = submit()
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert about(ErrorCode.STATUS, 401)(failures[-1])


def test_on_a_terminal_it_is_a_table(kubeflow):
    kubeflow.script = polls(*CHAIN, ["approved"])
    here, there = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "dwcp_ml.cli", "pipeline", "submit", "--host", kubeflow.address,
         "--package", str(PACKAGE), *FAST, "--wait"],
        stdout=subprocess.PIPE, stderr=there, env={**os.environ, "COLUMNS": "100", "LINES": "40"},
    )  # fmt: skip
    os.close(there)
    seen = b""
    while True:
        try:
            block = os.read(here, 4096)
        except OSError:  # the other side is closed
            break
        if not block:
            break
        seen += block
    os.close(here)
    assert done.wait(60) == 0
    assert b"The gate said APPROVED." in done.stdout.read()
    text = seen.decode()
    assert "train bandwidth" in text
    assert "not run" in text, "what the gate did not need"
    assert text.count("\x1b[") > 20, "drawn over and over"
    done.stdout.close()


def test_ctrl_c_leaves_the_run_alone(submit, kubeflow, monkeypatch, capsys):
    def interrupted(*given, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr("dwcp_ml.kubeflow.wait.wait", interrupted)
    with pytest.raises(SystemExit) as ended:
        submit("--wait")
    assert ended.value.code == 130
    assert f"the run goes on: {kubeflow.address}/#/runs/details/run-1" in capsys.readouterr().err
    assert [method for method, *_ in kubeflow.requests].count("POST") == 2


def test_what_ended_a_pod_is_found_at_its_executor(submit, kubeflow):
    kubeflow.script = polls(["validate-data"], ["train-consensus-latency"], state="FAILED")
    tasks = kubeflow.script[-1]["run_details"]["task_details"]
    tasks[2] |= {"state": "FAILED", "error": {"code": 13, "message": "OOMKilled (exit code 137)"}}
    code, _, err = submit("--wait")
    assert code == 6
    assert "failed in train latency: OOMKilled (exit code 137)." in err
