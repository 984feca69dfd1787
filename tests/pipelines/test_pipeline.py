"""The pipeline from telemetry to verdict, in processes of its own, as a user runs it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

from benchmarks.bench_agreement import measure
from dwcp_ml.contract.models import MODELS

DWCP = [sys.executable, "-m", "dwcp_ml.cli"]

REQUIRED = {
    "model_name", "version", "training_date", "target_metrics", "achieved_metrics",
    "test_set_size", "training_time_seconds", "model_size_mb", "success", "hyperparameters",
    "deployment_ready",
}  # fmt: skip


def dwcp(*words, cwd):
    return subprocess.run([*DWCP, *words], cwd=cwd, capture_output=True, text=True, check=False)


def errors(done):
    """Return the lines of standard error that are neither about progress nor a warning."""
    other = re.compile(r"\d\d:\d\d:\d\dZ  |warning: ")
    return [line for line in done.stderr.splitlines() if not other.match(line)]


@pytest.fixture(scope="module")
def default_run(tmp_path_factory):
    """What `make run` leaves on a fresh clone."""
    place = tmp_path_factory.mktemp("default")
    return place, dwcp("pipeline", "run", cwd=place)


@pytest.mark.pipeline
@pytest.mark.timeout(900)
def test_the_default_run_approves_four_models(default_run):
    """Four approved models, their bundles and their manifests; their interfaces checked."""
    from dwcp_ml.export.verify import verify_bundle

    tmp_path, done = default_run
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("APPROVED") >= 5
    latest = tmp_path / "runs" / "latest"
    report = json.loads((latest / "report.json").read_text())
    assert report["overall_success"] is True
    assert report["models_passed"] == report["models_trained"] == 4
    ready = report["production_readiness"]
    assert ready["integration_tests_passed"] is True, ready
    assert ready["go_api_compatibility"] is True, ready
    assert ready["unchecked"] == {}
    for name, model in report["models"].items():
        assert model.keys() >= REQUIRED
        compared = model["evaluation"]["comparisons"]
        with_oracle = [each for each in compared if each["kind"] == "oracle"]
        assert with_oracle
        assert all(each["upper"] < 0.002 for each in with_oracle)
        bundle = latest / "models" / name / model["version"]
        assert verify_bundle(bundle).name == name
        service, rollout = (
            yaml.safe_load((latest / "manifests" / name / f"{kind}.yaml").read_text())
            for kind in ("inferenceservice", "modelrollout")
        )
        assert service["metadata"]["name"] == name.replace("_", "-")
        assert rollout["spec"]["candidate"]["version"] == model["version"]
    for suffix in ("md", "html"):
        assert (latest / f"report.{suffix}").stat().st_size > 1000
    _gate_again(tmp_path, report)


def _gate_again(tmp_path, report):
    assert dwcp("gate", "--strict", cwd=tmp_path).returncode == 0
    checks = tmp_path / "runs" / "latest" / "work" / "api_checks.json"
    hidden = checks.rename(checks.with_name("hidden.json"))
    assert dwcp("gate", "--strict", cwd=tmp_path).returncode == 3, "the bundles were not checked"
    broken = json.loads(hidden.read_text()) | {"go_api_compatibility": False}
    checks.write_text(json.dumps(broken))
    assert dwcp("gate", cwd=tmp_path).returncode == 3
    hidden.rename(checks)
    live = "s3://m/bandwidth_predictor/20200101-000000"
    canary = dwcp("gate", "--stable-uri", f"bandwidth={live}", cwd=tmp_path)
    assert canary.returncode == 0, canary.stderr
    path = tmp_path / "runs/latest/manifests/bandwidth_predictor/inferenceservice.yaml"
    (entry,) = yaml.safe_load(path.read_text())["spec"]["canary"]
    assert entry["trafficPercent"] == 1
    again = json.loads((tmp_path / "runs/latest/report.json").read_text())
    assert again["models"] == report["models"]


@pytest.mark.pipeline
@pytest.mark.timeout(900)
def test_go_http_and_python_give_the_same_answers(default_run):
    """10,000 rows: the graph in this process, Go over HTTP and gRPC, Go with its own runtime."""
    place, done = default_run
    assert done.returncode == 0, done.stderr
    agreement = measure(place / "runs/latest/models", rows=10_000)
    assert {line.way for line in agreement} == {"http", "grpc", "in process"}
    assert {line.model for line in agreement} == set(MODELS)
    for line in agreement:
        assert line.rows == 10_000
        assert line.flipped == 0, line
        assert line.worst <= 1e-5, line


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """A run of all four models on a quarter of a day, one epoch each: rejected, but whole."""
    place = tmp_path_factory.mktemp("small")
    for setting in ("days=0.5",):
        made = dwcp("data", "simulate", "--set", setting, "--set", "nodes=4", cwd=place)
        assert made.returncode == 0, made.stderr
    words = ("--data-path", "data/telemetry.csv", "--incidents-path", "data/incidents.json")
    done = dwcp("train", *words, "--epochs", "1", "--no-check-api", cwd=place)
    return place, done


@pytest.mark.pipeline
def test_a_run_that_misses_its_targets_is_rejected_with_reasons(small_run):
    place, done = small_run
    assert done.returncode == 3, done.stderr
    assert len(errors(done)) == 1
    assert "Traceback" not in done.stdout + done.stderr
    report = json.loads((place / "runs/latest/report.json").read_text())
    rejected = [m for m in report["models"].values() if m["verdict"] == "REJECTED"]
    assert rejected
    assert all(m["reasons"] for m in rejected)
    approved = {n for n, m in report["models"].items() if m["verdict"] == "APPROVED"}
    manifests = place / "runs/latest/manifests"
    assert {p.name for p in manifests.iterdir()} == approved


@pytest.mark.pipeline
def test_kubeflows_runner_gives_the_same_models_as_the_orchestrator(small_run):
    place, _ = small_run
    words = ("--data-path", "data/telemetry.csv", "--incidents-path", "data/incidents.json")
    done = dwcp(
        "pipeline",
        "run",
        *words,
        "--epochs",
        "1",
        "--output-dir",
        "kfp",
        "--no-check-api",
        cwd=place,
    )
    assert done.returncode == 3, done.stderr
    for name in json.loads((place / "kfp/latest/report.json").read_text())["models"]:
        one, two = (
            next((place / root / "latest/models" / name).glob("*/model.onnx")).read_bytes()
            for root in ("runs", "kfp")
        )
        assert one == two, f"{name} depends on who ran it"


@pytest.mark.pipeline
def test_models_are_evaluated_exported_and_judged_again(small_run):
    place, _ = small_run
    evaluated = dwcp("evaluate", "--models", "reliability", "--json", cwd=place)
    assert "recall" in json.loads(evaluated.stdout)["reliability_detector"]["metrics"]
    exported = dwcp("export", "--models", "reliability", "--output-dir", "out", cwd=place)
    assert exported.returncode == 0, exported.stderr
    assert list((place / "out/reliability_detector").glob("*/manifest.json"))
    again = dwcp("export", "--models", "reliability", "--output-dir", "out", cwd=place)
    assert again.returncode == 1
    assert len(errors(again)) == 1
    gated = dwcp("gate", cwd=place)
    assert gated.returncode == 3


@pytest.mark.pipeline
def test_one_model_alone_and_nothing_else(small_run):
    place, _ = small_run
    words = ("--data-path", "data/telemetry.csv", "--incidents-path", "data/incidents.json")
    done = dwcp(
        "train", "reliability", *words, "--output-dir", "one", "--json", "--no-check-api", cwd=place
    )
    report = json.loads(done.stdout)
    assert list(report["models"]) == ["reliability_detector"]
    assert done.returncode in (0, 3)


@pytest.mark.pipeline
def test_a_bundle_that_was_changed_after_it_was_finalized_is_rejected(small_run):
    place, _ = small_run
    copy = place / "tampered" / "run"
    shutil.copytree((place / "runs/latest").resolve(), copy)
    session = (place / "runs/latest").resolve().name
    copy = copy.rename(place / "tampered" / session)
    model = copy / "models/reliability_detector" / session / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"!")
    done = dwcp("gate", "--run", str(copy), cwd=place)
    assert (done.returncode, len(errors(done))) == (3, 1)
    report = json.loads((copy / "report.json").read_text())["models"]["reliability_detector"]
    assert report["verdict"] == "REJECTED"
    assert any("model.onnx" in reason for reason in report["reasons"])
    assert not (copy / "manifests/reliability_detector").exists()


@pytest.mark.pipeline
def test_cross_validation_stands_in_the_report(small_run):
    place, _ = small_run
    words = ("--data-path", "data/telemetry.csv", "--incidents-path", "data/incidents.json")
    done = dwcp(
        "train", "reliability", *words, "--cross-validation", "2", "--output-dir", "cv", "--json",
        "--no-check-api", cwd=place,
    )  # fmt: skip
    found = json.loads(done.stdout)["models"]["reliability_detector"]["evaluation"]
    recall = found["cross_validation"]["rolling_origin"]["metrics"]["recall"]
    assert len(recall["values"]) == 2


@pytest.mark.pipeline
def test_interrupted_training_goes_on_and_ends_the_same(small_run):
    place, _ = small_run
    words = [
        "train", "compression", "--data-path", "data/telemetry.csv", "--epochs", "4",
        "--output-dir", "stopped", "--no-check-api",
    ]  # fmt: skip
    whole = dwcp(*words, "--output-dir", "whole", cwd=place)
    assert whole.returncode in (0, 3), whole.stderr
    running = subprocess.Popen(
        [*DWCP, *words], cwd=place, stderr=subprocess.PIPE, text=True, start_new_session=True,
        # A shell starts what runs in the background with Ctrl-C ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip
    _wait_for_checkpoint(place / "stopped", running)
    os.killpg(running.pid, signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "to resume: dwcp-ml train --resume stopped/" in err
    assert "Traceback" not in err
    (session,) = (path for path in (place / "stopped").iterdir() if path.name != "latest")
    assert not list(session.glob("models/*/*/manifest.json"))
    resumed = dwcp("train", "--resume", str(session), cwd=place)
    assert resumed.returncode == whole.returncode, resumed.stderr
    one, two = (
        next((place / root / "latest/models").glob("*/*/model.onnx")).read_bytes()
        for root in ("whole", "stopped")
    )
    assert one == two


def _wait_for_checkpoint(root, running):
    deadline = time.monotonic() + 120
    while not list(root.glob("*/work/checkpoints/*/*")):
        assert running.poll() is None, running.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.pipeline
def test_pipeline_compiles_for_chosen_models(tmp_path):
    done = dwcp("pipeline", "compile", "--output", "p.yaml", "--models", "latency", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    spec = next(yaml.safe_load_all((tmp_path / "p.yaml").read_text()))
    tasks = spec["root"]["dag"]["tasks"]
    assert set(tasks) == {
        "validate-data", "train-consensus-latency", "find-champions", "evaluate", "export",
        "check-api", "gate", "condition-branches-1",
    }  # fmt: skip
    commands = json.dumps(spec["deploymentSpec"])
    assert "pip install" not in commands, "nothing is installed at a pod's start"
