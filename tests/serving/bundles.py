"""Small complete bundles of the four models: real ONNX graphs that keep the public signatures.

Each prediction depends on every feature and on its position, so that swapped rows or features are
noticed. The features are clipped first, as in the trained graphs, so that any finite input has a
prediction.
"""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from dwcp_ml.contract.bundle import ONNX_NAME, REPORT_NAMES
from dwcp_ml.contract.champion import ChampionCheck, ChampionRecord, ChampionSource
from dwcp_ml.contract.diagnostics import Diagnostics
from dwcp_ml.contract.distribution import FeatureDistribution
from dwcp_ml.contract.evaluation import Evaluation
from dwcp_ml.contract.models import MODELS, ModelSpec
from dwcp_ml.contract.records import DataReport, ExportRecord, ModelReport, TrainingRecord
from dwcp_ml.export.bundle import finalize_bundle, staging

DTYPES = {
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}
HALF_WIDTH = 0.1
VERSION = "20260101-000000"


def _constant(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.array(values, dtype=dtype), name)


def _weights(rows, columns):
    return np.random.default_rng(rows).normal(0.0, 0.02, (rows, columns))


def _flat_product(cells, columns):
    """Nodes that give ``product``: the clipped features of a row times a matrix."""
    nodes = [
        helper.make_node("Reshape", ["clipped", "flat"], ["cells"]),
        helper.make_node("MatMul", ["cells", "weights"], ["product"]),
    ]
    constants = [
        _constant("flat", [-1, cells], np.int64),
        _constant("weights", _weights(cells, columns)),
    ]
    return nodes, constants


def _bandwidth(spec):
    nodes, constants = _flat_product(70, 1)
    nodes += [
        helper.make_node("Squeeze", ["product", "last"], ["signed"]),
        helper.make_node("Abs", ["signed"], ["next_throughput_mbps"]),
    ]
    return nodes, [*constants, _constant("last", [1], np.int64)]


def _compression(spec):
    nodes, constants = _flat_product(6, 10)
    nodes += [
        helper.make_node("Softmax", ["product"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["compression_level"], axis=1, keepdims=0),
    ]
    return nodes, constants


def _reliability(spec):
    nodes, constants = _flat_product(6, 1)
    nodes += [
        helper.make_node("Squeeze", ["product", "last"], ["signed"]),
        helper.make_node("Sigmoid", ["signed"], ["anomaly_score"]),
        helper.make_node("Greater", ["anomaly_score", "limit"], ["is_anomaly"]),
    ]
    return nodes, [*constants, _constant("last", [1], np.int64), _constant("limit", 0.5)]


def _latency(spec):
    nodes = [
        helper.make_node("ReduceMean", ["clipped", "last"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["clipped", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "weights"], ["weighed"]),
        helper.make_node("Abs", ["weighed"], ["errors"]),
        helper.make_node("ReduceMean", ["errors", "last"], ["reconstruction_error"], keepdims=0),
        helper.make_node("Greater", ["reconstruction_error", "limit"], ["is_high_latency"]),
    ]
    constants = [
        _constant("last", [1], np.int64),
        _constant("limit", 13.0),
        _constant("weights", np.linspace(0.1, 1.0, 20)),
    ]
    return nodes, constants


_MAKERS = {
    "bandwidth_predictor": _bandwidth,
    "compression_selector": _compression,
    "reliability_detector": _reliability,
    "consensus_latency": _latency,
}


def graph(spec: ModelSpec):
    """Return an ONNX model of the default signature of ``spec``."""
    nodes, constants = _MAKERS[spec.name](spec)
    clip = helper.make_node("Clip", ["features", "low", "high"], ["clipped"])
    values = [
        helper.make_tensor_value_info(tensor.name, DTYPES[tensor.dtype], ["batch", *tensor.shape])
        for tensor in (spec.input, *spec.form().outputs)
    ]
    whole = helper.make_graph(
        [clip, *nodes],
        spec.name,
        values[:1],
        values[1:],
        [*constants, _constant("low", -1e4), _constant("high", 1e4)],
    )
    return helper.make_model(whole, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])


def _fitted(spec: ModelSpec) -> dict[str, float]:
    if spec.name != "bandwidth_predictor":
        return {"threshold": 0.5}
    return {
        "interval_half_width": HALF_WIDTH, "interval_nominal": 0.9, "interval_examples": 1000.0
    }  # fmt: skip


def training_distribution(spec: ModelSpec) -> tuple[FeatureDistribution, ...]:
    """Return a distribution of each feature: a quarter up to 1, a half up to 10."""
    return tuple(
        FeatureDistribution(feature=name, edges=(1.0, 10.0), shares=(0.25, 0.5, 0.25))
        for name in spec.features
    )


def report(spec: ModelSpec, version: str) -> ModelReport:
    """Return a report as the gate writes it."""
    form = spec.form().name
    data = DataReport(
        path="telemetry.csv", md5="0" * 32, size_bytes=1, rows=1, rows_quarantined=0,
        columns=(), links=1, source="simulated",
    )  # fmt: skip
    training = TrainingRecord(
        model_name=spec.name, version=version, form=form, success=True,
        training_date="2026-01-02T03:04:05+00:00", training_time_seconds=1.0,
        hyperparameters={"training": {}}, seed=42, threads=1, fitted=_fitted(spec),
        libraries={"onnx": "0.0"},
    )  # fmt: skip
    evaluation = Evaluation(
        model_name=spec.name, version=version, form=form, success=True, test_set_size=1,
        targets=(), metrics={}, primary_metric=spec.form().primary_metric,
        diagnostics=Diagnostics(training=training_distribution(spec)),
    )  # fmt: skip
    return ModelReport(
        model_name=spec.name, version=version, training_date=training.training_date,
        target_metrics={}, achieved_metrics={}, test_set_size=1, training_time_seconds=1.0,
        model_size_mb=0.1, success=True, hyperparameters=training.hyperparameters,
        deployment_ready=True, verdict="APPROVED", reasons=(), training=training,
        evaluation=evaluation, data=data,
        export=ExportRecord(model_name=spec.name, version=version, success=True),
    )  # fmt: skip


def make_bundle(
    models: Path, name: str, version: str = VERSION, model=None, *, reports: bool = False,
    champion: ChampionRecord | None = None,
) -> Path:  # fmt: skip
    """Write a bundle to ``models/<name>/<version>``, with its report if requested.

    ``champion`` is what the gate measured of it beside another.
    """
    spec = MODELS[name]
    destination = models / name / version
    with staging(destination) as directory:
        content = (model or graph(spec)).SerializeToString()
        (directory / ONNX_NAME).write_bytes(content)
        if reports:
            (directory / REPORT_NAMES[0]).write_text(report(spec, version).to_json())
        found = report(spec, version)
        if champion is not None:
            source = ChampionSource(uri="file:///champion", named=True)
            check = ChampionCheck(source=source, digest=champion.digest, record=champion)
            found = found.replace(evaluation=found.evaluation.replace(champion=check))
        return finalize_bundle(directory, destination, spec, found)


def rows_for(name: str, n: int, seed: int = 0) -> np.ndarray:
    """Return inputs of shape (n, *shape), different in every cell, exact in JSON."""
    shape = MODELS[name].input.shape
    cells = np.random.default_rng(seed).uniform(-40.0, 60.0, (n, *shape))
    return np.round(cells, 3).astype(np.float32)
