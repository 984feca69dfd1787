"""model.pkl is read without unpickling, and predicts what scikit-learn predicts."""

import os
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest

from dwcp_ml.contract.errors import ErrorCode, ExportFailed
from dwcp_ml.contract.models import RELIABILITY
from dwcp_ml.export.parity import compare
from dwcp_ml.export.pickled import read_pickled_forest
from dwcp_ml.export.probes import probe_inputs
from tests.errors import about

OUTPUTS = RELIABILITY.form().outputs


@pytest.fixture(scope="module")
def content(forest):
    return pickle.dumps(forest.pipeline, protocol=5)


def answers_of(score):
    score = score.astype(np.float32)
    return {"anomaly_score": score, "is_anomaly": score >= 0.5}


def test_what_is_read_is_what_was_written(forest, content):
    read = read_pickled_forest(content, forest.arrays)
    for name, array in forest.arrays.as_dict().items():
        np.testing.assert_array_equal(getattr(read.arrays, name), array, err_msg=name)
    assert read.threshold == 0.5


@pytest.mark.slow
def test_it_predicts_as_scikit_learn_does_when_it_unpickles_the_file(forest, content, tmp_path):
    rows = probe_inputs(RELIABILITY, forest.rows, n=3000, seed=4)
    (tmp_path / "model.pkl").write_bytes(content)
    np.save(tmp_path / "rows.npy", rows)
    source = (
        "import pickle, numpy as np\n"
        "model = pickle.load(open('model.pkl', 'rb'))\n"
        "np.save('score.npy', -model.score_samples(np.load('rows.npy')))\n"
    )
    subprocess.run([sys.executable, "-c", source], cwd=tmp_path, check=True)
    unpickled = answers_of(np.load(tmp_path / "score.npy"))
    read = read_pickled_forest(content, forest.arrays).predict(rows)
    found = compare(unpickled, read, OUTPUTS, threshold=0.5)
    assert found.flipped_decisions == 0
    assert found.largest_relative_difference < 1e-6


def swapped(content, old, new, count=1):
    assert old in content
    return content.replace(old, new, count)


def test_a_changed_split_shows(forest, content):
    arrays = forest.arrays
    place = int(np.flatnonzero(arrays.feature == 0)[0])
    old = struct.pack("<qd", 0, arrays.threshold[place])
    spoiled = swapped(content, old, struct.pack("<qd", 0, arrays.threshold[place] + 0.5))
    read = read_pickled_forest(spoiled, arrays)
    found = compare(
        answers_of(forest.score(forest.rows)), read.predict(forest.rows), OUTPUTS, threshold=0.5
    )
    assert not found.equal


def test_a_changed_scale_shows(forest, content):
    scale = forest.pipeline[0].scale_
    wider = scale.copy()
    wider[5] *= 1.01
    read = read_pickled_forest(swapped(content, scale.tobytes(), wider.tobytes()), forest.arrays)
    found = compare(
        answers_of(forest.score(forest.rows)), read.predict(forest.rows), OUTPUTS, threshold=0.5
    )
    assert not found.equal


def test_a_changed_threshold_shows(forest, content):
    spoiled = swapped(content, struct.pack(">d", -0.5), struct.pack(">d", -0.45))
    read = read_pickled_forest(spoiled, forest.arrays)
    assert read.threshold == 0.45
    score = answers_of(forest.score(forest.rows))
    found = compare(score, read.predict(forest.rows), OUTPUTS, threshold=0.5)
    assert found.flipped_decisions > 0


def test_a_threshold_set_by_a_share_of_anomalies_is_read_too(forest):
    from sklearn.base import clone

    from dwcp_ml.models.forest import ForestArrays

    pipeline = clone(forest.pipeline).set_params(
        isolationforest__contamination=0.1, isolationforest__n_estimators=5
    )
    pipeline.fit(forest.rows.copy())
    read = read_pickled_forest(pickle.dumps(pipeline, protocol=5), ForestArrays.of(*pipeline))
    assert read.threshold == -pipeline[1].offset_


class Payload:
    def __reduce__(self):
        return os.system, ("echo executed > executed",)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_nothing_in_the_file_runs(forest, tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportFailed):
        read_pickled_forest(pickle.dumps(Payload(), protocol=protocol), forest.arrays)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("spoil", [b"", b"nonsense", None])
def test_what_is_no_pickle_of_this_forest_is_refused(forest, content, spoil):
    damaged = content[: len(content) // 2] if spoil is None else spoil
    with pytest.raises(ExportFailed, check=about(ErrorCode.MALFORMED)):
        read_pickled_forest(damaged, forest.arrays)


def test_another_forest_is_not_this_one(forest):
    from sklearn.base import clone

    other = clone(forest.pipeline).set_params(isolationforest__random_state=1).fit(forest.rows)
    with pytest.raises(ExportFailed, check=about(ErrorCode.MISSING, "nodes")):
        read_pickled_forest(pickle.dumps(other, protocol=5), forest.arrays)


@pytest.fixture(scope="module")
def detector(forest):
    """A trained detector of the default settings: with a transform and a threshold of incidents."""
    from dwcp_ml.contract.examples import Examples, ModelData
    from dwcp_ml.models import FitContext, create

    truth = np.arange(len(forest.rows)) % 15 == 0
    inputs = np.where(truth[:, None] & (np.arange(6) > 0), forest.rows * 9, forest.rows)
    event = np.where(truth, np.arange(len(truth)) // 75, -1)
    count = np.arange(len(truth))
    rows = Examples(inputs.astype(np.float32), truth, count * 60.0, 0 * count, event)
    data = ModelData(RELIABILITY, "anomaly", rows, rows.take(count[:0]), rows, ("a->b",), 60.0)
    model = create("reliability")
    model.fit(data, FitContext(seed=3))
    return model, rows


def test_the_exports_follow_the_threshold_of_the_incidents(detector, tmp_path):
    from dwcp_ml.export.exporter import export_model

    model, rows = detector
    threshold = model.fitted["threshold"]
    assert threshold != model.fitted["threshold_auto"]
    assert read_pickled_forest(model.pickled, model.forest()).threshold == threshold
    record = export_model(model, rows.inputs, tmp_path, version="1")
    assert record.success, record.reason
    assert {name: parity.equal for name, parity in record.parity.items()} == {
        "onnx": True,
        "pickle": True,
    }


def test_the_transform_is_read_from_the_file(detector):
    model, _ = detector
    read = read_pickled_forest(model.pickled, model.forest())
    assert len(read.arrays.centre) == len(read.arrays.sign) == 6
    for name, array in model.forest().as_dict().items():
        np.testing.assert_array_equal(getattr(read.arrays, name), array, err_msg=name)


def test_a_changed_transform_shows(detector):
    model, rows = detector
    centre = model.forest().centre
    moved = centre.copy()
    moved[5] += 1.0
    spoiled = swapped(model.pickled, centre.tobytes(), moved.tobytes())
    read = read_pickled_forest(spoiled, model.forest())
    threshold = model.fitted["threshold"]
    answers = model.predict(rows.inputs)
    assert not compare(answers, read.predict(rows.inputs), OUTPUTS, threshold=threshold).equal
