"""The Go client's own tests, vet, format and frozen interface, run from here with any toolchain."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from benchmarks.bench_agreement import library
from dwcp_ml.training_run import go_client_check

pytestmark = [pytest.mark.go, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def client():
    return go_client_check.find_client()


def go(client, *words, **environment):
    done = subprocess.run(
        [str(client.go), *words], cwd=client.source, env={**os.environ, **environment},
        capture_output=True, text=True, timeout=800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_machine_without_go_gets_one_from_the_index(tmp_path, monkeypatch):
    uv = shutil.which("uv") or str(
        go_client_check.Path(__file__).parents[2] / ".tools" / "bin" / "uv"
    )
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "uv").symlink_to(uv)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin")
    client = go_client_check.find_client(cache=tmp_path)
    assert client.go.is_relative_to(tmp_path)
    assert client.frozen_interface().passed


def test_is_formatted_and_vetted(client):
    assert go(client, "vet", "./...") == ""
    gofmt = shutil.which("gofmt", path=str(client.go.resolve().parent)) or "gofmt"
    done = subprocess.run(
        [gofmt, "-l", "."], cwd=client.source, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_passes_its_own_tests(client):
    go(client, "test", "./...")


def test_has_the_messages_of_the_server(client):
    """Go keeps the result of a test whose files outside of its module have changed."""
    output = go(client, "test", "-v", "-count=1", "-run", "SameMessages", "./internal/inference")
    assert "--- PASS: TestTheServerHasTheSameMessages" in output


def test_runs_the_graphs_inside_the_go_process(client):
    output = go(
        client, "test", "-v", "-count=1", "-tags", "onnxruntime", ".",
        DWCP_ONNXRUNTIME_LIBRARY=str(library()),
    )  # fmt: skip
    ours = [
        line for line in output.splitlines() if "SKIP" in line and "SKIPPED: THERE IS NO" in line
    ]
    assert not ours, "ONNX Runtime was not found"


def test_keeps_the_frozen_interface(client):
    check = client.frozen_interface()
    assert check.passed, check.detail


def test_a_changed_signature_is_named(client, tmp_path):
    copy = tmp_path / "go"
    shutil.copytree(client.source, copy)
    frozen = json.loads((copy / "frozen.json").read_text())
    frozen["ModelInferenceClient.DetectHighLatency"] = "func(context.Context) bool"
    (copy / "frozen.json").write_text(json.dumps(frozen))
    check = go_client_check.GoClient(client.go, copy).frozen_interface()
    assert not check.passed
    assert "DetectHighLatency" in check.detail


def test_repeats_the_contract_word_for_word(client):
    directory = client.source / "testdata"
    done = subprocess.run(
        [sys.executable, str(directory / "contract.py")], capture_output=True, check=True
    )
    assert done.stdout == (directory / "contract.json").read_bytes()
