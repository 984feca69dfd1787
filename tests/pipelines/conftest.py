"""The command ``pipeline submit`` and a fake Kubeflow to send to."""

from pathlib import Path

import pytest

from dwcp_ml.cli import main
from tests.pipelines.fake_kubeflow import FakeKubeflow

PACKAGE = Path(__file__).parents[2] / "pipelines/training.yaml"
CHAIN = (
    ["validate-data"], ["train-bandwidth-predictor"], ["evaluate"], ["export"], ["check-api"],
    ["gate"],
)  # fmt: skip
FAST = ("--poll-seconds", "0.1")


@pytest.fixture
def kubeflow():
    """A fake Kubeflow; all its requests and responses are valid for the API's description."""
    fake = FakeKubeflow()
    yield fake
    fake.stop()
    assert fake.violations == []


@pytest.fixture
def submit(kubeflow, capsys):
    """Run the command against the fake; return its exit code, stdout and stderr."""

    def run(*words, host=None):
        where = ("--host", host or kubeflow.address, "--package", str(PACKAGE))
        code = main(["pipeline", "submit", *where, *FAST, *words])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return code, captured.out, captured.err

    return run
