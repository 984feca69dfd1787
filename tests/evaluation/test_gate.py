from __future__ import annotations

import json

import pytest

from dwcp_ml.contract.errors import DwcpError, ErrorCode
from dwcp_ml.contract.models import MODELS
from dwcp_ml.contract.records import Evaluation, ModelReport
from dwcp_ml.evaluation.gate import gate_model
from dwcp_ml.evaluation.reasons import Severity, rejection_reasons
from tests.errors import about
from tests.evaluation.cases import comparison, defect, parity

REQUIRED_OF_A_MODEL = {
    "model_name",
    "version",
    "training_date",
    "target_metrics",
    "achieved_metrics",
    "test_set_size",
    "training_time_seconds",
    "model_size_mb",
    "success",
    "hyperparameters",
    "deployment_ready",
}


@pytest.mark.parametrize("name", MODELS)
def test_a_good_model_is_approved(records, name):
    report = gate_model(*records(name))
    assert report.verdict == "APPROVED"
    assert report.deployment_ready
    assert report.success
    assert report.reasons == ()


def test_the_json_of_a_model_holds_the_required_fields_and_reads_back(records):
    report = gate_model(*records())
    stored = json.loads(report.to_json())
    assert set(stored) >= REQUIRED_OF_A_MODEL
    assert ModelReport.model_validate_json(report.to_json()) == report


@pytest.mark.parametrize(
    "target",
    [
        {"metric": "mape_percent", "direction": "==", "value": 5.0},
        {"metric": "mape_percent", "direction": "=>", "value": 5.0},
        {"metric": "mape_percent", "direction": "<", "value": "about 5"},
        {"metric": "mape_percent", "direction": "<"},
        "< 5.0",
    ],
)
def test_a_stored_evaluation_with_an_invalid_target_is_rejected(records, tmp_path, target):
    stored = json.loads(records()[1].to_json())
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(stored), encoding="utf-8")
    assert Evaluation.read(path) == records()[1]
    path.write_text(json.dumps({**stored, "targets": [target]}), encoding="utf-8")
    with pytest.raises(DwcpError, check=about(ErrorCode.MALFORMED, path)):
        Evaluation.read(path)


FAULTS = {
    "not trained": (
        "training",
        {"success": False, "reason": "No 11 rows."},
        Severity.NOT_TRAINED,
        "No 11 rows.",
    ),
    "target missed": (
        "evaluation",
        {
            "metrics": {
                "correlation": 0.995,
                "correlation_within_link_median": 0.99,
                "mape_percent": 23.4,
            }
        },
        Severity.TARGET,
        "MAPE 23.40 % misses the target < 5 %; the best baseline, last_value, has 5.50 %.",
    ),
    "target at its limit": (
        "evaluation",
        {
            "metrics": {
                "correlation": 0.98,
                "correlation_within_link_median": 0.98,
                "mape_percent": 5.0,
            }
        },
        Severity.TARGET,
        "MAPE 5.00 % misses the target < 5 %",
    ),
    "metric undefined": (
        "evaluation",
        {
            "metrics": {
                "correlation": None,
                "correlation_within_link_median": 0.99,
                "mape_percent": 4.0,
            }
        },
        Severity.TARGET,
        "Correlation is not defined on this test split, so ≥ 0.98 is missed.",
    ),
    "metric not reported": (
        "evaluation",
        {"metrics": {"mape_percent": 4.0, "correlation": 0.99}},
        Severity.TARGET,
        "Correlation within a link (median)",
    ),
    "no target": ("evaluation", {"targets": ()}, Severity.TARGET, ""),
    "listed as missed": (
        "evaluation",
        {"missed_targets": ("mape_percent",)},
        Severity.TARGET,
        "MAPE",
    ),
    "not evaluated": (
        "evaluation",
        {"success": False, "reason": "The test split is empty."},
        Severity.TARGET,
        "The test split is empty.",
    ),
    "not better": (
        "evaluation",
        {"comparison": comparison(lower=0.0)},
        Severity.BASELINE,
        "MAPE 4.60 % does not beat the best baseline, last_value with 5.50 %",
    ),
    "not compared": ("evaluation", {"comparison": None}, Severity.BASELINE, "MAPE"),
    "ground truth that was not measured": (
        "evaluation",
        {"label_source": "cost_model"},
        Severity.TARGET,
        "cost model",
    ),
    "leak": (
        "evaluation",
        {"above_ceiling": ("mape_percent",)},
        Severity.CEILING,
        "MAPE 4.60 % exceeds the ceiling 4.20 %",
    ),
    "other model evaluated": ("evaluation", {"version": "older"}, Severity.PARITY, "older"),
    "other form evaluated": (
        "evaluation",
        {"form": "bandwidth_class"},
        Severity.PARITY,
        "bandwidth_class",
    ),
    "other model exported": ("export", {"version": "older"}, Severity.PARITY, "older"),
    "not exported": (
        "export",
        {"success": False, "reason": "The disk is full."},
        Severity.PARITY,
        "The disk is full.",
    ),
    "nothing compared": ("export", {"formats": (), "parity": {}}, Severity.PARITY, "any export"),
    "one format only": ("export", {"parity": {}}, Severity.PARITY, "onnx"),
    "a format not compared": (
        "export",
        {"formats": ("onnx", "savedmodel")},
        Severity.PARITY,
        "savedmodel",
    ),
    "compared on nothing": (
        "export",
        {"parity": {"onnx": parity(rows=0)}},
        Severity.PARITY,
        "onnx",
    ),
    "different": (
        "export",
        {"parity": {"onnx": parity(largest_relative_difference=2e-4)}},
        Severity.PARITY,
        "relative difference is 0.0002 (limit 0.0001)",
    ),
    "flipped": (
        "export",
        {"parity": {"onnx": parity(flipped_decisions=1)}},
        Severity.PARITY,
        "1 of 10 decisions differ",
    ),
    "too large": (
        "export",
        {"model_size_mb": 10.0},
        Severity.LIMIT,
        "The model size of 10.00 MB is not under 10 MB.",
    ),
    "size unknown": ("export", {"model_size_mb": None}, Severity.LIMIT, "model size"),
    "too slow": (
        "export",
        {"latency_p99_ms": 10.0},
        Severity.LIMIT,
        "10.000 ms is not under 10 ms",
    ),
    "latency unknown": ("export", {"latency_p99_ms": None}, Severity.LIMIT, "p99 latency"),
    "latency not a number": (
        "export",
        {"latency_p99_ms": float("nan")},
        Severity.LIMIT,
        "p99 latency",
    ),
    "too long": (
        "training",
        {"training_time_seconds": 7200.0},
        Severity.LIMIT,
        "training time of 7200 s is not under 7200 s",
    ),
    "invalid data": ("data", {"defects": (defect("error"),)}, Severity.DATA, "out_of_range"),
}
PLACES = ("training", "evaluation", "export", "data")


@pytest.mark.parametrize("fault", FAULTS)
def test_each_single_fault_rejects_for_one_reason(records, worse, fault):
    place, fields, severity, fragment = FAULTS[fault]
    four = list(records())
    four[PLACES.index(place)] = worse(four[PLACES.index(place)], **fields)
    report = gate_model(*four)
    assert report.verdict == "REJECTED"
    assert not report.deployment_ready
    assert rejection_reasons(*four) == [(severity, report.reasons[0])]
    assert len(report.reasons) == 1
    assert fragment in report.reasons[0]
    assert report.reasons[0][0].isupper()
    assert report.reasons[0].endswith(".")


@pytest.mark.parametrize(
    ("record", "field", "value"),
    [("export", "model_size_mb", 9.999), ("export", "latency_p99_ms", 9.999)],
)
def test_just_inside_a_limit_passes(records, worse, record, field, value):
    four = list(records())
    four[PLACES.index(record)] = worse(four[PLACES.index(record)], **{field: value})
    assert gate_model(*four).verdict == "APPROVED"


def test_training_just_under_two_hours_passes(records, worse):
    training, *rest = records()
    assert gate_model(worse(training, training_time_seconds=7199.9), *rest).verdict == "APPROVED"


def test_quarantined_rows_alone_reject_nothing(records, worse):
    *three, data = records()
    data = worse(data, defects=(defect("quarantine"), defect("warning")), rows_quarantined=3)
    assert gate_model(*three, data).verdict == "APPROVED"


def test_success_needs_training_evaluation_and_every_target(records, worse):
    training, evaluation, export, data = records()
    assert not gate_model(worse(training, success=False), evaluation, export, data).success
    assert not gate_model(training, worse(evaluation, success=False), export, data).success
    slow = gate_model(training, evaluation, worse(export, latency_p99_ms=50.0), data)
    assert slow.success
    assert not slow.deployment_ready
