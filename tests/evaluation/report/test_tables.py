from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import dwcp_ml.evaluation
from dwcp_ml.contract.models import MODELS
from dwcp_ml.evaluation import gate_model, gate_session, summary_table
from dwcp_ml.evaluation.labels import WORDINGS, distinct, quantity
from dwcp_ml.evaluation.report import tables
from dwcp_ml.evaluation.report.comparisons import comparisons, references
from tests.evaluation.cases import comparison


def modules():
    found = pkgutil.walk_packages(dwcp_ml.evaluation.__path__, "dwcp_ml.evaluation.")
    return sorted(module.name for module in found)


def test_the_facts_of_the_data_say_what_is_outside_the_window(records, worse):
    data = records()[3]
    assert not [name for name, _ in tables.data_facts(data).rows if "window" in name]
    limited = worse(
        data, data_start="2026-01-01T00:00:00Z", rows_outside_window=1234, files_outside_window=5,
        incidents=1, incidents_outside_window=2,
    )  # fmt: skip
    facts = dict(tables.data_facts(limited).rows)
    assert facts["data window"] == "2026-01-01T00:00:00Z to the last row"
    assert facts["outside the data window"] == (
        "1,234 rows; 5 files of other dates were not read; 2 incidents"
    )


@pytest.mark.parametrize("name", modules())
def test_the_examples_in_the_docstrings_hold(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_the_summary_has_a_row_for_each_target(records):
    reports = [gate_model(*records(name)) for name in MODELS]
    table = summary_table(gate_session("s", reports, reports[0].data))
    header, rows = table.header, table.rows
    assert header == ("model", "target", "achieved", "best baseline", "ceiling", "verdict")
    assert all(len(row) == len(header) for row in rows)
    assert [row[0] for row in rows] == [
        "bandwidth_predictor", "", "", "compression_selector", "", "reliability_detector", "", "",
        "consensus_latency", "",
    ]  # fmt: skip
    assert rows[2] == ("", "MAPE < 5 %", "4.60 %", "5.50 % (last_value)", "4.20 %", "")
    assert rows[0][-1] == "APPROVED"


def test_the_summary_of_an_untrained_model_has_dashes(records, worse):
    training, evaluation, export, data = records()
    nothing = worse(
        evaluation, success=False, metrics={}, baselines={}, comparisons=(), ceiling=None
    )
    report = gate_model(worse(training, success=False, reason="x."), nothing, export, data)
    rows = summary_table(gate_session("s", [report], data)).rows
    assert rows[0] == ("bandwidth_predictor", "correlation ≥ 0.98", "–", "–", "–", "REJECTED")


def test_a_value_never_rounds_to_the_other_side_of_its_target(records, worse):
    training, evaluation, export, data = records("consensus_latency")
    close = worse(evaluation, metrics={"detection_accuracy": 0.979999})
    report = gate_model(training, close, export, data)
    assert report.verdict == "REJECTED"
    assert summary_table(gate_session("s", [report], data)).rows[0][2] == "0.979999"
    assert "0.979999 misses" in report.reasons[0]


def test_a_value_equal_to_its_limit_has_the_usual_decimals():
    assert distinct("mape_percent", 5.0, 5.0) == "5.00 %"
    assert distinct("mape_percent", 4.0, 5.0) == "4.00 %"
    assert distinct("mape_percent", 4.9999999999999, 5.0) == "4.9999999999999"


@pytest.mark.parametrize("value", [None, float("nan")])
def test_an_undefined_value_is_shown_as_not_available(value):
    assert quantity("recall", value) == "n/a"


def test_every_metric_with_a_target_has_a_label(records):
    from dwcp_ml.contract.models import BANDWIDTH, COMPRESSION, LATENCY, RELIABILITY

    for spec in (BANDWIDTH, COMPRESSION, RELIABILITY, LATENCY):
        for form in spec.forms:
            assert {target.metric for target in form.targets} <= set(WORDINGS)


def test_the_metrics_are_marked_as_met_or_missed(records, worse):
    evaluation = records()[1]
    missed = worse(evaluation, missed_targets=("mape_percent",))
    rows = {row[0]: row for row in tables.numbers(missed).rows}
    assert rows["MAPE"][-1] == "missed"
    assert rows["correlation"][-1] == "met"


def test_baselines_and_references_are_listed_with_the_model(records, worse):
    evaluation = worse(records()[1], references={"linear": {"mape_percent": 4.5}})
    found = references(evaluation)
    assert [row[:3] for row in found.rows] == [
        ("bandwidth_predictor", "model", "4.60 %"),
        ("last_value", "naive", "5.50 %"),
        ("linear", "strong", "4.50 %"),
    ]
    assert found.header[2] == "MAPE ↓"


def test_each_comparison_has_its_interval_and_its_verdict(records, worse):
    strong = {"reference": "linear", "kind": "strong", "requirement": "not_worse"}
    evaluation = worse(
        records()[1],
        comparisons=(
            comparison(),
            comparison(reference="ewma", lower=-0.1),
            comparison(**strong, lower=-0.1, upper=0.2),
            comparison(**strong, lower=-0.3, upper=-0.2),
            comparison(reference="x", improvement=None, lower=None, upper=None, resamples=0),
        ),
    )
    table = comparisons(evaluation)
    assert [len(row) for row in table.rows] == [len(table.header)] * 5
    assert table.rows[0] == (
        "last_value", "naive", "MAPE", "4.60 %", "5.50 %", "0.90 %", "0.50 % to 1.30 %", "better"
    )  # fmt: skip
    assert [row[-1] for row in table.rows[1:]] == [
        "as good: rejected", "as good: finding", "worse: rejected", "unknown: rejected"
    ]  # fmt: skip
    assert table.rows[-1][5:7] == ("–", "–")
    assert "2,000 draws" in table.caption


def test_defects_are_listed_worst_first(records, worse):
    data = records()[3]
    each = {"column": None, "count": 1, "examples": (), "message": "x."}
    defects = tuple({"code": v, "verdict": v, **each} for v in ("warning", "quarantine", "error"))
    rows = tables.defects(worse(data, defects=defects)).rows
    assert [row[0] for row in rows] == ["error", "quarantine", "warning"]
    assert tables.defects(data) is None


def test_cross_validation_shows_the_spread(records, worse):
    evaluation = records()[1]
    values = {"mean": 4.5, "standard_deviation": 0.2, "minimum": 4.2, "maximum": 4.8}
    found = tables.cross_validation(
        worse(
            evaluation,
            cross_validation={
                "rolling_origin": {
                    "folds": 5,
                    "failures": ["no window."],
                    "metrics": {"mape_percent": values},
                }
            },
        )
    )
    assert found.rows == (("rolling origin", "MAPE", "5", "4.50 %", "0.20 %", "4.20 %", "4.80 %"),)
    assert "rolling_origin: no window." in found.caption
    assert tables.cross_validation(evaluation) is None


def test_what_was_not_checked_is_listed_with_its_reason(records):
    report = gate_model(*records())
    session = gate_session(
        "s", [report], report.data, integration_tests_passed=True, unchecked={"signature": "no key"}
    )
    assert tables.readiness(session).rows == (
        ("all targets met", "yes", ""),
        ("integration tests passed", "yes", ""),
        ("go api compatibility", "not checked", "it was not requested"),
        ("signature", "not checked", "no key"),
    )
