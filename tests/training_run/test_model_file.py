"""``--output FILE`` of the training commands: the trained model as one file."""

import json
import shutil
import subprocess
import sys

import pytest

from dwcp_ml.contract.bundle import MANIFEST_NAME
from dwcp_ml.contract.errors import DwcpError, ErrorCode, UsageError
from dwcp_ml.contract.models import BANDWIDTH, RELIABILITY
from dwcp_ml.evaluation import gate_model, gate_session
from dwcp_ml.training_run.model_file import ModelFile
from dwcp_ml.training_run.session import Session
from tests.errors import about
from tests.evaluation.conftest import good_records


@pytest.fixture
def session(tmp_path):
    """A run whose bundle holds three formats of one model."""
    session = Session(tmp_path / "runs" / "20260101-000000")
    bundle = session.models / BANDWIDTH.name / session.name
    bundle.mkdir(parents=True)
    for name in (MANIFEST_NAME, "model.onnx", "model.keras"):
        (bundle / name).write_bytes(name.encode() * 100)
    return session


def report_of(export=None, **changes):
    training, evaluation, good, data = good_records()
    model = gate_model(training, evaluation, (export or good).replace(**changes), data)
    return gate_session("20260101-000000", [model], data)


@pytest.mark.parametrize("suffix", [".keras", ".onnx"])
def test_the_file_is_the_model_of_the_bundle(session, tmp_path, suffix):
    path = tmp_path / "checkpoints" / f"bandwidth_predictor{suffix}"
    assert ModelFile.parse(str(path), BANDWIDTH).write(session, report_of())
    assert path.read_bytes() == f"model{suffix}".encode() * 100
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_rejected_model_is_written_too(session, tmp_path):
    report = report_of(latency_p99_ms=12.0)
    assert not report.overall_success
    path = tmp_path / "bandwidth_predictor.keras"
    assert ModelFile.parse(str(path), BANDWIDTH).write(session, report)
    assert path.is_file()


@pytest.mark.parametrize("lacking", ["export", MANIFEST_NAME, "model.keras", "report"])
def test_without_an_exported_model_an_older_file_stays(session, tmp_path, lacking):
    path = tmp_path / "bandwidth_predictor.keras"
    path.write_bytes(b"older")
    report = report_of(success=lacking != "export")
    if lacking == "report":
        report = report.replace(models={})
    (session.models / BANDWIDTH.name / session.name / lacking).unlink(missing_ok=True)
    assert not ModelFile.parse(str(path), BANDWIDTH).write(session, report)
    assert path.read_bytes() == b"older"


def test_a_file_that_cannot_be_written_leaves_the_older_one_whole(session, tmp_path, monkeypatch):
    path = tmp_path / "checkpoints" / "bandwidth_predictor.keras"
    target = ModelFile.parse(str(path), BANDWIDTH)
    path.write_bytes(b"older")

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dwcp_ml.files.os.fdopen", full_disk)
    with pytest.raises(DwcpError, check=about(ErrorCode.DISK_FULL, "bandwidth_predictor.keras")):
        target.write(session, report_of())
    assert path.read_bytes() == b"older"
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("name", "spec", "allowed"),
    [
        ("bandwidth_predictor.pkl", BANDWIDTH, ".keras or .onnx"),
        ("bandwidth_predictor.KERAS", BANDWIDTH, ".keras or .onnx"),
        ("bandwidth_predictor", BANDWIDTH, ".keras or .onnx"),
        ("runs/", BANDWIDTH, ".keras or .onnx"),
        ("reliability_model.keras", RELIABILITY, ".pkl or .onnx"),
    ],
)
def test_another_suffix_is_invalid_and_creates_nothing(tmp_path, name, spec, allowed):
    with pytest.raises(UsageError, check=about(ErrorCode.UNSUPPORTED, name.rstrip("/"))):
        ModelFile.parse(str(tmp_path / "checkpoints" / name), spec)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_of_that_name_is_invalid(tmp_path):
    path = tmp_path / "bandwidth_predictor.keras"
    path.mkdir()
    with pytest.raises(UsageError, check=about(ErrorCode.WRONG_TYPE, "bandwidth_predictor.keras")):
        ModelFile.parse(str(path), BANDWIDTH)


def test_a_directory_that_cannot_be_created_is_known_before_the_training(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(DwcpError, check=about(ErrorCode.CANT_WRITE, "checkpoints")):
        ModelFile.parse(str(tmp_path / "checkpoints" / "x.keras"), BANDWIDTH)


def test_the_format_of_the_file_is_exported_whatever_else_is_asked_for(tmp_path):
    keras = ModelFile.parse(str(tmp_path / "x.keras"), BANDWIDTH)
    assert keras.formats(("onnx",)) == ("onnx", "keras")
    assert keras.formats(("keras", "onnx")) == ("keras", "onnx")
    pickled = ModelFile.parse(str(tmp_path / "x.pkl"), RELIABILITY)
    assert pickled.formats(("onnx",)) == ("onnx",)


def train(*words, cwd):
    command = [sys.executable, "-m", "dwcp_ml.cli", "train", *words, "--no-check-api"]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def telemetry(tmp_path_factory):
    place = tmp_path_factory.mktemp("telemetry")
    settings = [word for each in ("days=1", "nodes=4") for word in ("--set", each)]
    subprocess.run(
        [
            sys.executable,
            "-m",
            "dwcp_ml.cli",
            "data",
            "simulate",
            *settings,
            "--output-dir",
            "data",
        ],
        cwd=place,
        check=True,
    )
    return place


@pytest.mark.train
def test_the_commands_of_the_document_write_the_files_that_they_name(telemetry):
    import keras

    done = train(
        "bandwidth", "--data-path", "data/telemetry.csv",
        "--output", "checkpoints/bandwidth_predictor.keras", "--epochs", "1",
        "--export-format", "onnx", cwd=telemetry,
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stderr
    path = telemetry / "checkpoints" / "bandwidth_predictor.keras"
    assert f"Model     {path.relative_to(telemetry)}" in done.stdout
    bundle = next((telemetry / "runs/latest/models/bandwidth_predictor").resolve().iterdir())
    assert path.read_bytes() == (bundle / "model.keras").read_bytes()
    assert keras.saving.load_model(path, compile=False).input_shape == (None, 10, 7)

    done = train(
        "reliability", "--data-path", "data/telemetry.csv",
        "--incidents-path", "data/incidents.json",
        "--output", "checkpoints/reliability_model.pkl", "--json", cwd=telemetry,
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stderr
    assert list(json.loads(done.stdout)["models"]) == ["reliability_detector"]
    path = telemetry / "checkpoints" / "reliability_model.pkl"
    bundle = next((telemetry / "runs/latest/models/reliability_detector").resolve().iterdir())
    assert path.read_bytes() == (bundle / "model.pkl").read_bytes()
    assert sorted(each.name for each in path.parent.iterdir()) == [
        "bandwidth_predictor.keras",
        "reliability_model.pkl",
    ]


@pytest.mark.train
def test_a_model_that_cannot_be_trained_leaves_no_file(telemetry):
    header, *rows = (telemetry / "data/telemetry.csv").read_text().splitlines()[:60]
    short = telemetry / "short.csv"
    short.write_text("\n".join([header, *rows, ""]))
    done = train(
        "bandwidth", "--data-path", "short.csv", "--output", "short/model.keras", cwd=telemetry
    )
    assert done.returncode == 3, done.stderr
    assert "short/model.keras is not written" in done.stderr
    assert list((telemetry / "short").iterdir()) == []
    shutil.rmtree(telemetry / "short")
