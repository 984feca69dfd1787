from __future__ import annotations

import json

import pytest

from dwcp_ml.contract.errors import DwcpError, ErrorCode
from dwcp_ml.contract.evaluation import Evaluation, Leak, LeakKind
from dwcp_ml.contract.models import MODELS
from dwcp_ml.contract.records import LatencyAttempt, ModelReport
from dwcp_ml.evaluation.gate import gate_model
from dwcp_ml.evaluation.reasons import Severity, rejection_reasons
from dwcp_ml.evaluation.report.leaks import leaks
from dwcp_ml.evaluation.report.tables import approval
from tests.errors import about
from tests.evaluation.cases import comparison, defect, oracle_comparison, parity
from tests.evaluation.conftest import good_records

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


def test_an_evaluation_of_an_earlier_release_is_an_error_that_names_the_field(records, tmp_path):
    stored = json.loads(records()[1].to_json())
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps({**stored, "comparison": None}), encoding="utf-8")
    with pytest.raises(
        DwcpError, match=r"comparison: .*another release", check=about(ErrorCode.MALFORMED, path)
    ):
        Evaluation.read(path)


KEPT = comparison(
    metric="correlation", requirement="not_worse", model_value=0.995, reference_value=0.99
)
"""The comparison on correlation, which is not the fault."""


SLOW = LatencyAttempt(p50_ms=0.2, p99_ms=12.0, bare_p99_ms=11.0, calls=2000)


def ridge(**bounds):
    return comparison(
        reference="ridge",
        kind="strong",
        requirement="not_worse",
        reference_value=4.0,
        improvement=-0.6,
        **bounds,
    )


LEAK = Leak(kind=LeakKind.LABEL_COPY, column="rtt_ms", statistic=0.02, limit=0.12)

STRONG = good_records()[1].comparisons[2:]
"""The comparisons with the strong references, which are not the fault."""

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
        {"comparisons": (comparison(lower=0.0), KEPT, *STRONG)},
        Severity.BASELINE,
        "MAPE 4.60 % does not beat the naive reference last_value, 5.50 %: the improvement is "
        "0.90 %, with a 95 % interval of 0.00 % to 1.30 %",
    ),
    "only the best baseline is beaten": (
        "evaluation",
        {
            "baselines": {
                "last_value": {"mape_percent": 5.5, "correlation": 0.99},
                "ewma": {"mape_percent": 5.6},
            },
            "comparisons": (comparison(), KEPT, comparison(reference="ewma", lower=-0.1), *STRONG),
        },
        Severity.BASELINE,
        "does not beat the naive reference ewma",
    ),
    "worse on a guard": (
        "evaluation",
        {"comparisons": (comparison(), KEPT.replace(lower=-0.02, upper=-0.01), *STRONG)},
        Severity.BASELINE,
        "Correlation 0.9950 is worse than that of the naive reference last_value, 0.9900",
    ),
    "worse than a strong reference": (
        "evaluation",
        {
            "references": {"ridge": {"mape_percent": 4.0}},
            "comparisons": (comparison(), KEPT, ridge(lower=-0.9, upper=-0.3), *STRONG),
        },
        Severity.BASELINE,
        "MAPE 4.60 % is worse than that of the strong reference ridge, 4.00 %",
    ),
    "not compared with a reference that the contract names": (
        "evaluation",
        {"comparisons": (comparison(), KEPT, STRONG[0])},
        Severity.BASELINE,
        "It is unknown how the model compares with ridge_on_all_inputs on MAPE",
    ),
    "not compared": ("evaluation", {"comparisons": (KEPT, *STRONG)}, Severity.BASELINE, "MAPE"),
    "not compared on a guard": (
        "evaluation",
        {"comparisons": (comparison(), *STRONG)},
        Severity.BASELINE,
        "with last_value on correlation",
    ),
    "not compared with a strong reference": (
        "evaluation",
        {"references": {"ridge": {"mape_percent": 4.0}}},
        Severity.BASELINE,
        "with ridge on MAPE",
    ),
    "compared without an interval": (
        "evaluation",
        {"comparisons": (comparison(lower=None, upper=None), KEPT, *STRONG)},
        Severity.BASELINE,
        "with last_value on MAPE",
    ),
    "an interval that is not a number": (
        "evaluation",
        {"comparisons": (comparison(), KEPT.replace(lower=float("nan")), *STRONG)},
        Severity.BASELINE,
        "with last_value on correlation",
    ),
    "no baseline": (
        "evaluation",
        {"comparisons": STRONG, "baselines": {}},
        Severity.BASELINE,
        "with any baseline on MAPE",
    ),
    "ground truth that was not measured": (
        "evaluation",
        {"label_source": "cost_model"},
        Severity.TARGET,
        "cost model",
    ),
    "leak in the data": (
        "evaluation",
        {"leaks": (LEAK,)},
        Severity.LEAK,
        "Column rtt_ms holds the label and noise",
    ),
    "better than the oracle": (
        "evaluation",
        {"comparisons": (comparison(), KEPT, *STRONG, oracle_comparison())},
        Severity.LEAK,
        "MAPE 4.60 % is better than that of the oracle, 5.00 %: the improvement is 0.40 %, with a "
        "95 % interval of 0.10 % to 0.70 %; the lower end must not be above 0",
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
    "too slow in every measurement": (
        "export",
        {"latency_p99_ms": 12.0, "latency_attempts": [SLOW, SLOW.replace(p99_ms=14.0)]},
        Severity.LIMIT,
        "12.000 ms is not under 10 ms in 2 measurements (12.000, 14.000 ms); in the same moments a "
        "loop of the same median time that only reads the clock took 11.000, 11.000 ms.",
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


def test_an_accepted_leak_is_reported_and_rejects_nothing(records, worse):
    training, evaluation, *rest = records()
    evaluation = worse(evaluation, leaks=(LEAK.replace(accepted=True),))
    report = gate_model(training, evaluation, *rest)
    assert report.verdict == "APPROVED"
    assert report.evaluation.accepted_leaks == ("rtt_ms",)
    assert "rtt_ms" in approval(report)
    assert leaks({"bandwidth_predictor": report.evaluation.leaks}).rows[0][-1] == "accepted"


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
