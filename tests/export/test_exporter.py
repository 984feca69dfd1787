"""The whole export, on a forest: the one model that needs no TensorFlow."""

import errno
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dwcp_ml.contract.bundle import ONNX_NAME, PICKLE_NAME
from dwcp_ml.contract.errors import DwcpError, ErrorCode, UsageError
from dwcp_ml.contract.models import RELIABILITY
from dwcp_ml.export import exporter
from dwcp_ml.export.exporter import export_model
from tests.errors import about

pytestmark = pytest.mark.slow


class Detector:
    """A trained forest as an export knows it."""

    spec, form = RELIABILITY, "anomaly"

    def __init__(self, forest):
        self.arrays = forest.arrays
        self.pickled = pickle.dumps(forest.pipeline, protocol=5)
        self.fitted = {"threshold": 0.5}

    def forest(self):
        return self.arrays

    def predict(self, inputs):
        score = self.arrays.scores(inputs).astype(np.float32)
        return {"anomaly_score": score, "is_anomaly": score >= np.float32(0.5)}


@pytest.fixture
def detector(forest):
    return Detector(forest)


def test_onnx_and_pickle_are_written_compared_and_timed(tmp_path, forest, detector):
    record = export_model(detector, forest.rows, tmp_path, version="7")
    assert record.success
    assert record.reason is None
    assert (record.model_name, record.version) == ("reliability_detector", "7")
    assert record.formats == ("onnx", "pickle")
    assert {path.name for path in tmp_path.iterdir()} == {ONNX_NAME, PICKLE_NAME}
    for parity in record.parity.values():
        assert parity.rows == len(forest.rows) + 10_000
        assert parity.largest_relative_difference < 1e-6
        assert parity.flipped_decisions == 0
    sizes = {
        name: (tmp_path / f).stat().st_size
        for name, f in (("onnx", ONNX_NAME), ("pickle", PICKLE_NAME))
    }
    assert record.sizes_mb == {name: size / 1e6 for name, size in sizes.items()}
    assert record.model_size_mb == max(sizes.values()) / 1e6
    assert 0 < record.latency_p50_ms <= record.latency_p99_ms
    assert (tmp_path / PICKLE_NAME).read_bytes() == detector.pickled
    assert record.bundle_digest is None


def test_an_empty_test_split_still_leaves_the_probes(tmp_path, forest, detector):
    record = export_model(detector, forest.rows[:0], tmp_path, version="7")
    assert record.success
    assert record.parity["onnx"].rows == 10_000


def test_a_model_that_learned_something_else_than_it_exports_fails(tmp_path, forest, detector):
    arrays = detector.arrays
    leaves = arrays.feature < 0
    detector.arrays = replace(arrays, path_length=np.where(leaves, arrays.path_length * 1.01, 0))
    known = Detector(forest)
    detector.predict = known.predict
    record = export_model(detector, forest.rows, tmp_path, version="7")
    assert not record.success
    number = f"{record.parity['onnx'].largest_relative_difference:.3g}"
    assert record.reason.startswith(f"onnx differs from the trained model by {number} where 0.0001")
    assert record.latency_p99_ms is not None


@pytest.mark.parametrize(("shift", "success"), [(5e-5, True), (2e-4, False)])
def test_the_tolerance_decides(tmp_path, forest, detector, monkeypatch, shift, success):
    real = exporter.predictions.onnx_predictions

    def shifted(path, rows):
        found = real(path, rows)
        return found | {"anomaly_score": found["anomaly_score"] + np.float32(shift)}

    monkeypatch.setattr(exporter.predictions, "onnx_predictions", shifted)
    record = export_model(detector, forest.rows, tmp_path, version="7")
    assert record.success is success
    assert record.parity["onnx"].largest_relative_difference == pytest.approx(shift, rel=0.01)


@pytest.mark.parametrize("row", [0, 1234, -1])
def test_one_flipped_decision_among_thousands_fails(tmp_path, forest, detector, monkeypatch, row):
    real = exporter.predictions.onnx_predictions

    def flipped(path, rows):
        found = real(path, rows)
        flags = found["is_anomaly"].copy()
        flags[row] = ~flags[row]
        return found | {"is_anomaly": flags}

    monkeypatch.setattr(exporter.predictions, "onnx_predictions", flipped)
    record = export_model(detector, forest.rows, tmp_path, version="7")
    assert not record.success
    assert record.reason == "onnx flips 1 decision on 13,000 inputs."


def test_a_damaged_pickle_fails_the_export(tmp_path, forest, detector):
    detector.pickled = detector.pickled[:1000]
    record = export_model(detector, forest.rows, tmp_path, version="7")
    assert not record.success
    assert "pickle" in record.reason
    detector.pickled = b""
    record = export_model(detector, forest.rows, tmp_path, version="7")
    assert record.reason == "reliability_detector: model.pkl is missing; train the model again."


def test_the_steps_are_reported_in_order(tmp_path, forest, detector):
    steps = []
    export_model(
        detector, forest.rows, tmp_path, version="7", progress=lambda *step: steps.append(step)
    )
    shares = [share for share, _ in steps]
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)
    assert [text for _, text in steps] == [
        "writing the exports",
        "predicting with the trained model",
        "comparing onnx",
        "comparing pickle",
        "measuring the latency",
    ]


def test_a_full_disk_is_one_sentence(tmp_path, forest, detector, monkeypatch):
    def full(_path, _content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DwcpError, match=r"Can't write the exports of .*: the disk is full; "):
        export_model(detector, forest.rows, tmp_path, version="7")


def test_an_unknown_format_is_a_usage_error(tmp_path, forest, detector):
    with pytest.raises(UsageError, check=about(ErrorCode.UNKNOWN_NAME, "tflite")):
        export_model(detector, forest.rows, tmp_path, version="7", formats=["tflite"])
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_model_has_no_export(tmp_path, forest, detector):
    class Strange:
        spec, form, fitted = RELIABILITY, "anomaly", {}
        predict = detector.predict

    record = export_model(Strange(), forest.rows, tmp_path, version="7")
    assert record.reason == "reliability_detector: a Strange has no export."


def test_neither_opening_a_bundle_nor_the_forest_imports_tensorflow():
    source = (
        "import sys, dwcp_ml.export, dwcp_ml.export.verify\n"
        "print([m for m in ('tensorflow', 'keras', 'tf2onnx', 'sklearn') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
