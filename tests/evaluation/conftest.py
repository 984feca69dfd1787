"""Records of one good model of each kind, to be made worse by the tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dwcp_ml.contract.evaluation import Evaluation
from dwcp_ml.contract.examples import Examples, ModelData
from dwcp_ml.contract.models import MODELS
from dwcp_ml.contract.records import DataReport, Epoch, ExportRecord, Parity, TrainingRecord
from tests.evaluation.cases import comparison

GOOD = {
    "bandwidth_predictor": {
        "correlation": 0.995,
        "correlation_within_link_median": 0.99,
        "mape_percent": 4.6,
    },
    "compression_selector": {"accuracy": 0.99, "throughput_gain": 0.4},
    "reliability_detector": {"recall": 0.99, "pr_auc": 0.95, "false_alarms_per_link_day": 1.5},
    "consensus_latency": {"detection_accuracy": 0.99, "reconstruction_mae": 0.3},
}
POOR = {
    "bandwidth_predictor": ("last_value", {"mape_percent": 5.5, "correlation": 0.99}),
    "compression_selector": ("best_fixed_level", {"accuracy": 0.4, "throughput_gain": 0.2}),
    "reliability_detector": (
        "l2_norm",
        {"recall": 0.8, "pr_auc": 0.7, "false_alarms_per_link_day": 9.0},
    ),
    "consensus_latency": ("ewma", {"detection_accuracy": 0.95}),
}

Records = tuple[TrainingRecord, Evaluation, ExportRecord, DataReport]


def good_records(name: str = "bandwidth_predictor") -> Records:
    spec = MODELS[name]
    form = spec.form()
    baseline, theirs = POOR[name]
    training = TrainingRecord(
        model_name=name,
        version="20260101-000000",
        form=form.name,
        success=True,
        training_date="2026-01-01T00:00:00Z",
        training_time_seconds=61.5,
        hyperparameters={"training": {"batch_size": 32}},
        seed=42,
        threads=1,
        rows={"train": 700, "validation": 150, "test": 150},
        epochs=(
            Epoch(epoch=1, loss=1.0, validation_loss=0.9, dropout=0.2),
            Epoch(epoch=2, loss=0.5, validation_loss=0.4, dropout=0.0),
        ),
        libraries={"numpy": "2.0"},
    )
    evaluation = Evaluation(
        model_name=name,
        version="20260101-000000",
        form=form.name,
        success=True,
        test_set_size=150,
        targets=form.targets,
        metrics=dict(GOOD[name]),
        primary_metric=form.primary_metric,
        baselines={baseline: dict(theirs)},
        comparisons=tuple(
            comparison(
                reference=baseline,
                metric=metric,
                requirement="better" if metric == form.primary_metric else "not_worse",
                model_value=GOOD[name].get(metric),
                reference_value=theirs[metric],
            )
            for metric in (form.primary_metric, *form.guards)
            if metric in theirs
        )
        + tuple(
            comparison(
                reference=name,
                kind="strong",
                metric=form.primary_metric,
                requirement="not_worse",
                model_value=GOOD[spec.name].get(form.primary_metric),
                reference_value=theirs[form.primary_metric],
            )
            for name in form.strong
        ),
        ceiling={form.primary_metric: 4.2 if form.primary_lower_is_better else 0.999},
    )
    export = ExportRecord(
        model_name=name,
        version="20260101-000000",
        success=True,
        formats=("onnx",),
        parity={
            "onnx": Parity(
                rows=10_150, largest_relative_difference=1e-6, flipped_decisions=0, tolerance=1e-4
            )
        },
        model_size_mb=0.2,
        sizes_mb={"onnx": 0.2},
        latency_p50_ms=0.03,
        latency_p99_ms=0.05,
        bundle_digest="0" * 64,
    )
    data = DataReport(
        path="telemetry.csv",
        md5="d41d8cd98f00b204e9800998ecf8427e",
        size_bytes=1000,
        rows=1000,
        rows_quarantined=0,
        columns=("timestamp",),
        links=4,
    )
    return training, evaluation, export, data


@pytest.fixture
def records() -> Callable[[str], Records]:
    """Records of one good model, by its full name."""
    return good_records


@pytest.fixture
def worse() -> Callable[..., Any]:
    """A copy of a record with some fields changed."""

    def change(record: Any, **fields: Any) -> Any:
        return type(record)(**{**record.model_dump(), **fields})

    return change


def make_data(
    name: str,
    form: str | None = None,
    *,
    test: Examples,
    train: Examples | None = None,
    validation: Examples | None = None,
    series: int = 2,
    **fields: Any,
) -> ModelData:
    """Examples of one model; training and validation are the test's own where not given."""
    spec = MODELS[name]
    return ModelData(
        spec,
        spec.form(form).name,
        test if train is None else train,
        test if validation is None else validation,
        test,
        tuple(f"node-{i}" for i in range(series)),
        60.0,
        **fields,
    )


def make_examples(
    inputs: Any,
    truth: Any,
    *,
    timestamp: Any = None,
    series: Any = None,
    event: Any = None,
    gains: Any = None,
) -> Examples:
    truth = np.asarray(truth)
    n = len(truth)
    return Examples(
        np.asarray(inputs, np.float32),
        truth,
        np.arange(n) * 60 if timestamp is None else np.asarray(timestamp),
        np.zeros(n, np.int64) if series is None else np.asarray(series),
        np.full(n, -1) if event is None else np.asarray(event),
        None if gains is None else np.asarray(gains, np.float64),
    )


@pytest.fixture
def build() -> Callable[..., ModelData]:
    """Build the data of one model from examples."""
    return make_data


@pytest.fixture
def examples() -> Callable[..., Examples]:
    """Build examples from lists."""
    return make_examples


@pytest.fixture
def trained(worse: Callable[..., Any]) -> Callable[..., TrainingRecord]:
    """The training record of one model, with what was fitted."""

    def make(data: ModelData, **fitted: float) -> TrainingRecord:
        record = good_records(data.spec.name)[0]
        changed: TrainingRecord = worse(
            record, form=data.form, fitted=fitted, label_source=data.label_source
        )
        return changed

    return make


def bandwidth_case(n: int = 400, seed: int = 0) -> tuple[ModelData, np.ndarray]:
    """Two links of different size, windows of smooth throughput; and a good prediction."""
    rng = np.random.default_rng(seed)
    series = np.repeat([0, 1], n)
    level = np.exp(np.cumsum(rng.normal(0, 0.05, (2, n + 11)), axis=1)) * [[100.0], [5.0]]
    rows = np.arange(n)[:, None] + np.arange(10)
    windows = np.concatenate([each[rows] for each in level])
    truth = np.concatenate([each[10 : n + 10] for each in level])
    inputs = np.ones((2 * n, 10, 7))
    inputs[:, :, 2] = windows
    timestamp = np.tile(np.arange(n) * 60, 2)
    everything = replace(
        make_examples(inputs, truth, timestamp=timestamp, series=series),
        span=np.stack([timestamp - 540.0, timestamp + 60.0], axis=1),
    )
    parts = [everything.take((timestamp >= a * 60) & (timestamp < b * 60))
             for a, b in ((0, n // 2), (n // 2, 3 * n // 4), (3 * n // 4, n))]  # fmt: skip
    data = make_data("bandwidth_predictor", train=parts[0], validation=parts[1], test=parts[2])
    prediction = parts[2].truth * np.random.default_rng(seed + 1).normal(1, 0.01, len(parts[2]))
    return data, prediction


@pytest.fixture
def bandwidth() -> tuple[ModelData, np.ndarray]:
    """Data of the bandwidth predictor, and a prediction that beats every baseline."""
    return bandwidth_case()
