"""The diagnostics in the reports: complete, bounded, and no part of the verdict."""

from __future__ import annotations

import pytest

from dwcp_ml.contract.diagnostics import (
    Diagnostics,
    FeatureDrift,
    FeatureImportance,
    IntervalCoverage,
    PermutationImportance,
    ScoreBin,
    ScoreCalibration,
    SeriesMetrics,
)
from dwcp_ml.evaluation import gate_model, model_html, model_markdown
from dwcp_ml.evaluation.report.diagnostics import MAX_SERIES, diagnostics
from tests.evaluation.cases import comparison


def link(number: int, **bounds: float) -> SeriesMetrics:
    return SeriesMetrics(
        series=f"a->{number}",
        examples=10,
        metrics={"mape_percent": 4.0, "mae_mbps": None, "interval_coverage": 0.9},
        reference={"mape_percent": 5.0, "mae_mbps": 2.0},
        comparison=comparison(reference="ridge", kind="strong", requirement="not_worse", **bounds),
    )


def shown(**changes) -> Diagnostics:
    score = ScoreCalibration(
        output="anomaly_score",
        is_probability=False,
        bins=(
            ScoreBin(lower=0.1, upper=0.4, examples=90, positives=0, mean_score=0.3,
                     share_lower=0.0, share_upper=0.04),
            ScoreBin(lower=0.5, upper=0.9, examples=10, positives=9, mean_score=0.7,
                     share_lower=0.6, share_upper=0.98),
        ),
    )  # fmt: skip
    whole = Diagnostics(
        series=(
            link(0, improvement=-1.0, lower=-2.0, upper=-0.5),
            *(link(number) for number in range(1, MAX_SERIES + 4)),
            link(99, improvement=0.1, lower=-0.5, upper=0.5),
        ),
        intervals=IntervalCoverage(
            nominal=0.9, coverage=0.88, lower=0.86, upper=0.91, calibration_examples=500,
            median_width=0.2,
        ),
        calibration=score,
        importance=PermutationImportance(
            metric="mape_percent", value=4.6, examples=100, repetitions=3,
            features=(
                FeatureImportance(feature="rtt_ms", loss=3.0, deviation=0.1),
                FeatureImportance(feature="jitter_ms", loss=-0.01, deviation=0.02),
            ),
        ),
        drift=(FeatureDrift(feature="rtt_ms", psi=0.3, chance_psi=0.01, ks=0.2),),
    )  # fmt: skip
    return whole.replace(**changes)


def test_every_table_is_as_wide_as_its_header_and_the_links_are_bounded(records, worse):
    tables = dict(diagnostics(worse(records()[1], diagnostics=shown())))
    assert len(tables) == 5
    for table in tables.values():
        assert {len(row) for row in table.rows} == {len(table.header)}
    links = tables["By link or node"]
    assert len(links.rows) == MAX_SERIES
    assert links.rows[0][0] == "a->0"
    assert links.rows[0][-1] == "worse"
    assert links.rows[0][-2] == "-2.00 % to -0.50 %"
    # Of 25 links the model is ahead on all but the first, significantly on 23.
    words = links.caption
    assert f"{MAX_SERIES} of 25" in words
    assert "on 24 of 25: significantly on 23, significantly behind on 1" in words


def test_what_was_not_computed_has_no_table(records, worse):
    evaluation = worse(records()[1], diagnostics=shown(series=(), calibration=None, drift=()))
    assert [title for title, _ in diagnostics(evaluation)] == [
        "Prediction intervals", "Importance of the features"
    ]  # fmt: skip
    assert diagnostics(records()[1]) == ()


def test_they_are_in_the_report_and_change_no_verdict(records, worse):
    training, evaluation, export, data = records()
    plain = gate_model(training, evaluation, export, data)
    report = gate_model(training, worse(evaluation, diagnostics=shown()), export, data)
    assert (report.verdict, report.reasons) == (plain.verdict, plain.reasons)
    text = model_markdown(report)
    for title, _ in diagnostics(report.evaluation):
        assert f"## {title}" in text
        assert f"## {title}" not in model_markdown(plain)
    assert type(report).model_validate_json(report.to_json()) == report


@pytest.mark.slow
def test_the_page_draws_the_importance_and_the_calibration(records, worse):
    training, evaluation, export, data = records()
    report = gate_model(training, worse(evaluation, diagnostics=shown()), export, data)
    page = model_html(report)
    for name in ("importance", "calibration"):
        assert f'id="{name}-title"' in page
    assert "Drift from training to test" in page
    alone = shown(importance=None, calibration=None)
    page = model_html(gate_model(training, worse(evaluation, diagnostics=alone), export, data))
    assert 'id="importance-title"' not in page
