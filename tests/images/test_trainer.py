"""The trainer's image: every step of the pipeline, cut off from any network, as on a cluster."""

import json
import shutil

import numpy as np
import pytest

from dwcp_ml.export.verify import open_bundle
from dwcp_ml.files import sha256_of
from tests.images.engine import shared
from tests.images.steps import MOUNT, ROOT, Steps, started_here

pytestmark = [pytest.mark.image, pytest.mark.timeout(1800)]

VERSION = "20260101-000000"
MODELS = ("compression_selector", "reliability_detector")
SECONDS = 900.0


@pytest.fixture(scope="module")
def data(tmp_path_factory, small_telemetry):
    """A directory with telemetry and incidents."""
    place = tmp_path_factory.mktemp("data")
    frame, incidents = small_telemetry
    frame.to_csv(place / "telemetry.csv", index=False)
    (place / "incidents.json").write_text(json.dumps(incidents))
    return place


@pytest.fixture(scope="module")
def inside(trainer, data, tmp_path_factory):
    """Steps in containers of the image; what they write is on a volume, as Kubeflow mounts it."""
    place = tmp_path_factory.mktemp("inside")
    options = (*shared(data, "/data"), *shared(place, MOUNT, writable=True))

    def start(command):
        entry, *words = command
        return trainer.run(*words, entrypoint=entry, options=options, seconds=SECONDS)

    return Steps(start, place, MOUNT, "minio://run")


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    place = tmp_path_factory.mktemp("outside")
    return Steps(started_here, place, str(place), str(place))


def validate(steps, data):
    given = {
        "data_path": f"{data}/telemetry.csv", "incidents_path": f"{data}/incidents.json",
        "data_start": "", "data_end": "", "models": ",".join(MODELS), "seed": 42,
        "packet_loss_unit": "fraction", "congestion_window_unit": "bytes", "version": VERSION,
    }  # fmt: skip
    return steps.run("validate", "validate-data", given)["data_digest"]


def train(steps, model, digest):
    given = {
        "version": VERSION, "data_digest": digest, "seed": 7,
        "model_options": {"compression_selector": {"epochs": 2}},
    }  # fmt: skip
    name = f"train-{model.replace('_', '-')}"
    result = steps.run(f"train-{model}", name, given, dataset="validate/dataset")
    assert result["Output"] is True, steps.log[-2000:]


def learned(steps, model):
    with np.load(steps.path(f"train-{model}/model/arrays.npz"), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.fixture(scope="module")
def trained(inside, data):
    """Both models, trained in the image; the digest of their data."""
    digest = validate(inside, "/data")
    for model in MODELS:
        train(inside, model, digest)
    return digest


def test_the_image_gives_the_data_and_the_weights_that_this_machine_gives(
    trained, inside, outside, data
):
    assert validate(outside, data) == trained
    for model in MODELS:
        train(outside, model, trained)
        expected, actual = learned(outside, model), learned(inside, model)
        assert expected.keys() == actual.keys()
        for name, array in expected.items():
            assert array.dtype == actual[name].dtype
            assert np.array_equal(array, actual[name]), f"{model}: {name}"


def test_the_image_goes_all_the_way_to_the_verdict(trained, inside, outside, trainer):
    common = {"data_digest": trained}
    for model in MODELS:
        given = {**common, "model_name": model}
        before = {"dataset": "validate/dataset", "model": f"train-{model}/model"}
        options = {"accept_leak": "", "champions": {}, "champion_rule": "not_worse"}
        inside.run(f"evaluate-{model}", "evaluate", {**given, **options}, **before)
        given |= {"export_formats": "keras,onnx,savedmodel", "trigger": "manual"}
        before["evaluation"] = f"evaluate-{model}/evaluation"
        inside.run(f"export-{model}", "export", given, **before)
        manifest = open_bundle(
            inside.path(f"export-{model}/bundle") / model / VERSION
        ).manifest.provenance
        assert manifest.lock_sha256 == sha256_of(ROOT / "requirements.lock")
        assert manifest.source_commit
    bundles = {model: f"export-{model}/bundle" for model in MODELS}
    given = {
        "version": VERSION, "enabled": True, "stable_uri": "", "requests_per_second": 100.0,
    }  # fmt: skip
    inside.run("check", "check-api", given, **bundles)
    checks = json.loads(inside.path("check/checks").read_text())
    assert [check for check in checks["checks"] if not check["passed"]] == []
    assert len(checks["checks"]) > 20
    # The image contains neither Go nor the client's source; the report says so, and never "true".
    assert checks["go_api_compatibility"] is None
    assert "DWCP_GO_SOURCE" in checks["unchecked"]["go_api_compatibility"]

    given = {
        "version": VERSION, "kserve_mode": "standard", "stable_uri": "", "storage_prefix": "",
        "strict": False,
    }  # fmt: skip
    before = {"dataset": "validate/dataset", "checks": "check/checks", **bundles}
    result = inside.run("gate", "gate", given, **before)
    assert result["Output"] in ("APPROVED", "REJECTED")
    report = json.loads(inside.path("gate/report").read_text())
    assert report["models_trained"] == len(MODELS)
    verdict = inside.run("verdict", result["Output"].lower(), {"version": VERSION})
    assert verdict["Output"] == result["Output"]


def test_refused_data_end_the_step_and_leave_nothing(inside, data, trainer, tmp_path):
    shutil.copy(data / "incidents.json", tmp_path)
    text = (data / "telemetry.csv").read_text()
    (tmp_path / "telemetry.csv").write_text(text.replace("rtt_ms", "rtt", 1))
    done = trainer.run(
        "data", "validate", "/data/telemetry.csv", "--incidents-path", "/data/incidents.json",
        options=shared(tmp_path, "/data"),
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert "rtt_ms" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
