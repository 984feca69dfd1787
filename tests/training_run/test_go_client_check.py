"""Finding a toolchain, and reading the output of ``go test``; Go itself is not run."""

import json
from pathlib import Path

import pytest

from dwcp_ml.contract.models import MODELS
from dwcp_ml.training_run import go_client_check
from dwcp_ml.training_run.go_client_check import GoClient, GoMissing, find_client


def events(*lines):
    return "\n".join(json.dumps(line) for line in lines)


class FakeGo(GoClient):
    """A named fake: a client whose ``go`` prints the given output."""

    output = ""
    status = 0

    def _run(self, *words, more=None):
        import subprocess

        return subprocess.CompletedProcess(list(words), self.status, self.output, "broken")


TEST = "TestBandwidthPredictorCompatibility"


def checks(output, status=0):
    client = FakeGo(Path("go"), Path())
    object.__setattr__(client, "output", output)
    object.__setattr__(client, "status", status)
    return list(client.integration_tests(["bandwidth_predictor"], "h:1", "g:1"))


def test_names_one_test_a_model():
    assert [go_client_check.test_name(model) for model in MODELS] == [
        "TestBandwidthPredictorCompatibility",
        "TestCompressionSelectorCompatibility",
        "TestReliabilityDetectorCompatibility",
        "TestConsensusLatencyCompatibility",
    ]


def test_passes_when_the_test_and_both_protocols_passed():
    (check,) = checks(
        events(
            {"Action": "pass", "Test": f"{TEST}/HTTP"},
            {"Action": "pass", "Test": f"{TEST}/gRPC"},
            {"Action": "pass", "Test": TEST},
        )
    )
    assert check.passed


@pytest.mark.parametrize(
    "output",
    [
        "",
        "no JSON at all",
        events({"Action": "fail", "Test": TEST}),
        events({"Action": "skip", "Test": f"{TEST}/gRPC"}, {"Action": "pass", "Test": TEST}),
        events({"Action": "pass", "Test": "TestSomethingElse"}),
    ],
    ids=["nothing", "garbage", "failed", "one protocol skipped", "another test"],
)
def test_anything_else_is_no_pass(output):
    (check,) = checks(output, status=1)
    assert not check.passed
    assert check.detail


def test_says_what_the_test_said():
    (check,) = checks(
        events(
            {"Action": "output", "Test": TEST, "Output": "=== RUN\n"},
            {"Action": "output", "Test": f"{TEST}/HTTP", "Output": "  the level 12 is too high\n"},
            {"Action": "fail", "Test": TEST},
        )
    )
    assert check.detail == "the level 12 is too high"


def test_without_the_source_nothing_can_be_checked(tmp_path):
    with pytest.raises(GoMissing, match=r"source is not here; set DWCP_GO_SOURCE"):
        find_client(tmp_path)


def test_without_go_and_without_the_lock_nothing_can_be_checked(tmp_path, monkeypatch):
    (tmp_path / "go").mkdir()
    (tmp_path / "go" / "go.mod").write_text("module m\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(go_client_check.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(GoMissing, match="not on PATH"):
        find_client(tmp_path / "go", tmp_path / "cache")
