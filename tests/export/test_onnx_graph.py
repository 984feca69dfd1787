"""The rules of every exported graph."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dwcp_ml.contract.errors import ErrorCode, ExportFailed
from dwcp_ml.contract.models import BANDWIDTH, RELIABILITY
from dwcp_ml.export.latency import session
from dwcp_ml.export.onnx_graph import IR_VERSION, OPSET, canonical, to_bytes
from dwcp_ml.export.onnx_recurrent import simplify
from tests.errors import about

FORM = RELIABILITY.form().name


def declared(name, element, shape):
    return helper.make_tensor_value_info(name, element, shape)


def converted(prefix="", reverse=False, **changes):
    """Return a graph as a converter might leave it: mean of the features, and whether above 2."""
    weights = {"third": np.array(1 / 6, np.float32), "two": np.array(2, np.float32)}
    weights["axes"], weights["unused"] = np.array([1]), np.zeros(3, np.float32)
    nodes = [
        helper.make_node("Mul", ["features", f"{prefix}third"], [f"{prefix}a"], doc_string="x"),
        helper.make_node(
            "ReduceSum", [f"{prefix}a", f"{prefix}axes"], ["anomaly_score"], keepdims=0, name="n"
        ),
        helper.make_node("Neg", [f"{prefix}a"], [f"{prefix}dead"]),
        helper.make_node("GreaterOrEqual", ["anomaly_score", f"{prefix}two"], ["is_anomaly"]),
    ]
    initializers = [numpy_helper.from_array(w, f"{prefix}{n}") for n, w in weights.items()]
    outputs = {
        "anomaly_score": changes.get("score", (TensorProto.FLOAT, ["n"])),
        "is_anomaly": changes.get("flag", (TensorProto.BOOL, ["n"])),
    }
    graph = helper.make_graph(
        nodes,
        f"{prefix}graph",
        [declared("features", *changes.get("features", (TensorProto.FLOAT, ["n", 6])))],
        [declared(name, *value) for name, value in outputs.items()],
        initializers[::-1] if reverse else initializers,
        doc_string="made on a Tuesday",
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.producer_version = prefix
    entry = model.metadata_props.add()
    entry.key, entry.value = "built", prefix
    return model


def test_names_order_and_metadata_of_the_converter_leave_no_trace():
    first = to_bytes(canonical(converted(), RELIABILITY, FORM))
    other = to_bytes(canonical(converted("model_7/", reverse=True), RELIABILITY, FORM))
    assert first == other
    assert b"Tuesday" not in first


def test_it_computes_what_it_did():
    graph = canonical(converted("x/"), RELIABILITY, FORM)
    assert [node.op_type for node in graph.graph.node] == ["Mul", "ReduceSum", "GreaterOrEqual"]
    assert len(graph.graph.initializer) == 3
    assert graph.ir_version == IR_VERSION
    rows = np.array([[1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 0, 6]], np.float32)
    score, flag = session(to_bytes(graph)).run(["anomaly_score", "is_anomaly"], {"features": rows})
    np.testing.assert_allclose(score, [3.5, 1.0], rtol=1e-6)
    assert flag.tolist() == [True, False]


def test_outputs_stand_in_the_order_of_the_contract_with_a_free_batch():
    model = converted()
    model.graph.output.reverse()
    graph = canonical(model, RELIABILITY, FORM).graph
    assert [value.name for value in graph.output] == ["anomaly_score", "is_anomaly"]
    for value in (*graph.input, *graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score": (TensorProto.DOUBLE, ["n"])}, "'anomaly_score' is double"),
        ({"flag": (TensorProto.INT64, ["n"])}, "'is_anomaly' is int64"),
        ({"score": (TensorProto.FLOAT, ["n", 1])}, "'anomaly_score' has shape"),
        ({"features": (TensorProto.FLOAT, ["n", 7])}, "'features' has shape"),
        ({"features": (TensorProto.FLOAT, [1, 6])}, "'features' has shape"),
    ],
)
def test_another_signature_than_the_contracts_is_refused(changes, message):
    with pytest.raises(ExportFailed, match=message):
        canonical(converted(**changes), RELIABILITY, FORM)


def test_other_names_are_refused():
    model = converted()
    model.graph.output[1].name = "label"
    with pytest.raises(ExportFailed, match=r"the outputs of the graph are.*'label'"):
        canonical(model, RELIABILITY, FORM)
    with pytest.raises(ExportFailed, check=about(ErrorCode.MISMATCH, BANDWIDTH.name)):
        canonical(converted(), BANDWIDTH, BANDWIDTH.form().name)


def test_a_graph_inside_the_graph_is_a_layer_that_was_not_recognised():
    model = converted()
    inner = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["z"], body=inner))
    with pytest.raises(ExportFailed, check=about(ErrorCode.UNSUPPORTED, "Loop")):
        canonical(model, RELIABILITY, FORM)


def test_an_operator_that_onnx_does_not_know_is_named():
    model = converted()
    model.graph.node[0].op_type = "Log1p"
    model.graph.node[0].input.pop()
    with pytest.raises(ExportFailed, match="Log1p"):
        to_bytes(canonical(model, RELIABILITY, FORM))


def lstm_model(initial):
    """Return an LSTM that starts from ``initial``, expanded to the batch as tf2onnx does it."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(1, 16, 3)).astype(np.float32),
        "r": rng.normal(size=(1, 16, 4)).astype(np.float32),
        "b": rng.normal(size=(1, 32)).astype(np.float32),
        "h": np.full((1, 1, 4), initial, np.float32),
        "size": np.array([1, 2, 4]),
    }
    nodes = [
        helper.make_node("Expand", ["h", "size"], ["h0"]),
        helper.make_node("LSTM", ["x", "w", "r", "b", "", "h0", "h0"], ["y"], hidden_size=4),
    ]
    graph = helper.make_graph(
        nodes,
        "lstm",
        [declared("x", TensorProto.FLOAT, [5, 2, 3])],
        [declared("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )


@pytest.mark.parametrize(("initial", "dropped"), [(0.0, True), (0.5, False)])
def test_only_an_initial_state_of_zeros_is_left_out(initial, dropped):
    model = lstm_model(initial)
    simple = simplify(model)
    lstm = simple.graph.node[1]
    assert list(lstm.input) == (
        ["x", "w", "r", "b"] if dropped else list(model.graph.node[1].input)
    )
    x = np.random.default_rng(1).normal(size=(5, 2, 3)).astype(np.float32)
    before, after = (session(m.SerializeToString()).run(None, {"x": x})[0] for m in (model, simple))
    np.testing.assert_array_equal(before, after)
    assert onnx.load_model_from_string(model.SerializeToString()) == model
