"""The Keras exports, on small graphs of the shapes that our models have."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import onnx
import pytest

from dwcp_ml.contract.bundle import KERAS_NAME, ONNX_NAME, SAVED_MODEL_NAME
from dwcp_ml.contract.errors import UsageError
from dwcp_ml.contract.models import BANDWIDTH, COMPRESSION, LATENCY, MODELS
from dwcp_ml.export import exporter, predictions
from dwcp_ml.export.exporter import export_model
from dwcp_ml.export.keras import keras_onnx, suppressed_logs
from dwcp_ml.export.onnx_graph import canonical
from dwcp_ml.models.keras_model import first_largest

pytestmark = pytest.mark.train

CASES = [(spec, form.name) for spec in (BANDWIDTH, COMPRESSION, LATENCY) for form in spec.forms]


def graph_of(spec, form, seed=1):
    """Return an untrained prediction graph in the shape of the design, narrower."""
    import keras
    from keras import layers, ops

    keras.utils.set_random_seed(seed)
    features = keras.Input(spec.input.shape, name="features")
    raw = ops.log(ops.relu(features) + 1.0)
    wide = layers.Reshape((*spec.input.shape, 1))(raw) if spec is LATENCY else raw
    if spec is LATENCY:
        return keras.Model(features, _reconstruction(wide, keras, layers, ops))
    hidden = wide
    if spec is BANDWIDTH:
        hidden = layers.LSTM(8, return_sequences=True)(hidden)
        hidden = layers.LSTM(6)(layers.Dropout(0.2)(hidden))
    hidden = layers.Dense(8, activation="relu")(hidden)
    outputs = spec.form(form).outputs
    if len(outputs) == 1:
        value = ops.squeeze(ops.exp(layers.Dense(1)(hidden)), axis=-1)
        return keras.Model(features, {outputs[0].name: value})
    probabilities = layers.Dense(outputs[1].shape[0], activation="softmax")(hidden)
    chosen = first_largest(probabilities)
    return keras.Model(features, {outputs[0].name: chosen, "probabilities": probabilities})


def _reconstruction(wide, keras, layers, ops):
    network = keras.Sequential(
        [
            keras.Input(wide.shape[1:]),
            layers.LSTM(8, return_sequences=True),
            layers.Dropout(0.2),
            layers.LSTM(6),
            layers.RepeatVector(wide.shape[1]),
            layers.LSTM(6, return_sequences=True),
            layers.LSTM(8, return_sequences=True),
            layers.TimeDistributed(layers.Dense(1)),
        ]
    )
    error = ops.mean(ops.abs(network(wide) - wide), axis=(1, 2))
    return {"reconstruction_error": error, "is_high_latency": error >= THRESHOLD}


THRESHOLD = 3.4


class Small:
    """A trained model as an export knows it."""

    def __init__(self, spec, form, seed=1):
        self.spec, self.form = spec, form
        self.fitted = {"threshold": THRESHOLD} if spec is LATENCY else {}
        self._graph = graph_of(spec, form, seed)

    def prediction_graph(self):
        return self._graph

    def predict(self, inputs):
        names = [tensor.name for tensor in self.spec.form(self.form).outputs]
        found = self._graph.predict(inputs, batch_size=4096, verbose=0)
        return {name: found[name] for name in names}


def some_rows(spec, n=200, seed=0):
    rng = np.random.default_rng(seed)
    return rng.gamma(2.0, 20.0, size=(n, *spec.input.shape)).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def keras_started():
    with suppressed_logs():
        import keras  # noqa: F401


@pytest.fixture(autouse=True)
def fewer_probes(monkeypatch):
    monkeypatch.setattr(exporter, "PROBES", 500)


@pytest.mark.parametrize(("spec", "form"), CASES, ids=lambda value: getattr(value, "name", value))
def test_every_form_is_exported_equal_in_every_format(tmp_path, spec, form):
    rows = some_rows(spec)
    record = export_model(Small(spec, form), rows, tmp_path, version="7")
    assert record.reason is None
    assert record.success
    assert record.formats == ("onnx", "savedmodel", "keras")
    for parity in record.parity.values():
        assert parity.rows == 700
        assert parity.flipped_decisions == 0
        assert parity.largest_relative_difference < 1e-5
    assert record.model_size_mb == max(record.sizes_mb.values())
    assert record.sizes_mb["onnx"] == (tmp_path / ONNX_NAME).stat().st_size / 1e6
    assert 0 < record.latency_p50_ms <= record.latency_p99_ms < 10
    graph = onnx.load(tmp_path / ONNX_NAME, load_external_data=False).graph
    outputs = spec.form(form).outputs
    assert [value.name for value in graph.output] == [tensor.name for tensor in outputs]


@pytest.mark.parametrize(("spec", "layers"), [(BANDWIDTH, 2), (LATENCY, 4), (COMPRESSION, 0)])
def test_a_recurrent_layer_is_one_operator(spec, layers):
    graph = onnx.load_model_from_string(
        keras_onnx(graph_of(spec, spec.form().name), spec, spec.form().name)
    ).graph
    operators = [node.op_type for node in graph.node]
    assert operators.count("LSTM") == layers
    assert not {"Loop", "Scan", "If"} & set(operators)
    # Neither zeros made for every layer, nor one product for every step.
    assert "Expand" not in operators
    assert operators.count("MatMul") <= 4


def test_the_batch_is_free_and_one_row_answers_as_in_a_crowd(tmp_path):
    rows = some_rows(LATENCY, 33)
    export_model(Small(LATENCY, "high_latency"), rows, tmp_path, version="7", formats=["onnx"])
    together = predictions.onnx_predictions(tmp_path / ONNX_NAME, rows)
    alone = [predictions.onnx_predictions(tmp_path / ONNX_NAME, rows[i : i + 1]) for i in range(3)]
    for name, values in together.items():
        np.testing.assert_allclose(
            np.concatenate([one[name] for one in alone]), values[:3], rtol=1e-5
        )


def test_only_what_was_asked_for_is_written_and_onnx_always(tmp_path):
    model, rows = Small(COMPRESSION, "compression_level"), some_rows(COMPRESSION)
    for formats, files in {
        ("keras",): {ONNX_NAME, KERAS_NAME},
        ("savedmodel",): {ONNX_NAME, SAVED_MODEL_NAME},
        ("onnx",): {ONNX_NAME},
        (): {ONNX_NAME},
    }.items():
        directory = tmp_path / ("-".join(formats) or "none")
        directory.mkdir()
        record = export_model(model, rows, directory, version="7", formats=formats)
        assert {path.name for path in directory.iterdir()} == files
        assert record.success
    with pytest.raises(UsageError, match=r"'kears'.*did you mean 'keras'"):
        export_model(model, rows, tmp_path, version="7", formats=["kears"])


def test_the_saved_model_is_a_base_path_with_named_tensors(tmp_path):
    import tensorflow as tf

    spec = COMPRESSION
    export_model(Small(spec, spec.form().name), some_rows(spec), tmp_path, version="7")
    base = tmp_path / SAVED_MODEL_NAME
    assert [path.name for path in base.iterdir()] == ["1"]
    signature = tf.saved_model.load(str(base / "1")).signatures["serving_default"]
    (_, inputs), outputs = signature.structured_input_signature, signature.structured_outputs
    assert {name: (spec.shape.as_list(), spec.dtype) for name, spec in inputs.items()} == {
        "features": ([None, 6], tf.float32)
    }
    assert {name: (spec.shape.as_list(), spec.dtype) for name, spec in outputs.items()} == {
        "compression_level": ([None], tf.int64),
        "probabilities": ([None, 10], tf.float32),
    }


FINGERPRINT = """
import sys, hashlib, json
sys.path.insert(0, {tests!r})
import test_keras
from dwcp_ml.export.keras import suppressed_logs, keras_onnx
with suppressed_logs():
    import keras
    for _ in range({before}):
        keras.Sequential([keras.Input((3, 2)), keras.layers.LSTM(4), keras.layers.Dense(1)])
    digests = {{
        spec.name: hashlib.sha256(
            keras_onnx(test_keras.graph_of(spec, spec.form().name), spec, spec.form().name)
        ).hexdigest()
        for spec in (test_keras.BANDWIDTH, test_keras.LATENCY)
    }}
print(json.dumps(digests))
"""


def test_the_same_weights_give_the_same_bytes_in_any_process(request):
    found = []
    for hash_seed, before in (("1", 0), ("2", 3)):
        source = FINGERPRINT.format(tests=str(request.path.parent), before=before)
        done = subprocess.run(
            [sys.executable, "-c", source],
            env={"PATH": "/usr/bin:/bin", "PYTHONHASHSEED": hash_seed, "TF_CPP_MIN_LOG_LEVEL": "2",
                 "PYTHONPATH": str(request.config.rootpath)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        found.append(json.loads(done.stdout))
    assert found[0] == found[1]
    here = keras_onnx(graph_of(LATENCY, "high_latency"), LATENCY, "high_latency")
    assert hashlib.sha256(here).hexdigest() == found[0][LATENCY.name]
    other = keras_onnx(graph_of(LATENCY, "high_latency", seed=2), LATENCY, "high_latency")
    assert hashlib.sha256(other).hexdigest() != found[0][LATENCY.name]


def spoiled(monkeypatch, change):
    """Make the ONNX conversion give something a little different."""
    convert = exporter.keras_onnx

    def wrong(graph, spec, form):
        model = onnx.load_model_from_string(convert(graph, spec, form))
        change(model.graph)
        return canonical(model, spec, form).SerializeToString()

    monkeypatch.setattr(exporter, "keras_onnx", wrong)


def scale_weights(factor):
    def change(graph):
        for tensor in graph.initializer:
            array = onnx.numpy_helper.to_array(tensor)
            if array.dtype == np.float32 and array.size > 20:
                tensor.CopyFrom(
                    onnx.numpy_helper.from_array(array * np.float32(factor), tensor.name)
                )

    return change


@pytest.mark.parametrize(("factor", "equal"), [(1.0, True), (1.01, False)])
def test_an_export_with_other_weights_fails(tmp_path, monkeypatch, factor, equal):
    spoiled(monkeypatch, scale_weights(factor))
    model = Small(BANDWIDTH, "next_throughput_mbps")
    record = export_model(model, some_rows(BANDWIDTH), tmp_path, version="7", formats=["keras"])
    assert record.success is equal
    assert record.parity["keras"].equal
    assert record.parity["onnx"].equal is equal
    if not equal:
        number = f"{record.parity['onnx'].largest_relative_difference:.3g}"
        assert record.reason.startswith(
            f"onnx differs from the trained model by {number} where 0.0001"
        )
        assert record.latency_p99_ms is not None  # measurements are recorded even so


def test_an_export_with_another_threshold_fails(tmp_path, monkeypatch):
    rows = some_rows(LATENCY)
    model = Small(LATENCY, "high_latency")
    errors = model.predict(rows)["reconstruction_error"]
    assert errors.min() < THRESHOLD - 0.01 < THRESHOLD < errors.max(), "the test needs both kinds"

    def change(graph):
        for tensor in graph.initializer:
            array = onnx.numpy_helper.to_array(tensor)
            if (
                array.dtype == np.float32
                and array.size == 1
                and array.item() == np.float32(THRESHOLD)
            ):
                lower = np.float32(np.median(errors) * 0.9).reshape(array.shape)
                tensor.CopyFrom(onnx.numpy_helper.from_array(lower, tensor.name))

    spoiled(monkeypatch, change)
    record = export_model(model, rows, tmp_path, version="7", formats=["onnx"])
    assert not record.success
    assert record.parity["onnx"].largest_relative_difference < 1e-5
    assert "onnx flips" in record.reason


def test_a_conversion_that_fails_is_a_reason_not_an_exception(tmp_path, monkeypatch):
    model = Small(COMPRESSION, "compression_type")
    model.form = "compression_level"  # the graph has another form than the contract
    record = export_model(model, some_rows(COMPRESSION), tmp_path, version="7")
    assert not record.success
    assert "the outputs of the graph are" in record.reason
    assert record.model_size_mb is None


def test_tensorflow_says_nothing_below_an_error(tmp_path, capfd):
    record = export_model(Small(LATENCY, "high_latency"), some_rows(LATENCY), tmp_path, version="7")
    assert record.success
    printed = capfd.readouterr()
    assert printed.out == ""
    # What TensorFlow calls an error may come from another test's training, late.
    assert [line for line in printed.err.splitlines() if not line.startswith("E")] == []


def test_all_three_are_covered():
    assert {spec.name for spec, _ in CASES} == set(MODELS) - {"reliability_detector"}
