from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dwcp_ml.evaluation.gate import gate_model
from dwcp_ml.evaluation.reasons import Severity, rejection_reasons
from tests.evaluation.cases import comparison, defect, oracle_comparison, parity


def test_reasons_are_in_the_order_of_their_severity(records, worse):
    training, evaluation, export, data = records()
    four = (
        worse(training, training_time_seconds=9000.0),
        worse(
            evaluation,
            metrics={"mape_percent": 9.0},
            comparisons=(
                comparison(lower=-1.0),
                *evaluation.comparisons[1:],
                oracle_comparison(),
            ),
        ),
        worse(export, parity={"onnx": parity(flipped_decisions=2)}, model_size_mb=12.0),
        worse(data, defects=(defect("error"), defect("quarantine")), rows_quarantined=3),
    )
    report = gate_model(*four)
    severities = [severity for severity, _ in rejection_reasons(*four)]
    assert severities == [
        Severity.DATA,
        Severity.LEAK,
        Severity.TARGET,
        Severity.TARGET,
        Severity.TARGET,
        Severity.BASELINE,
        Severity.PARITY,
        Severity.LIMIT,
        Severity.LIMIT,
        Severity.CONTEXT,
    ]
    assert report.reasons == tuple(text for _, text in rejection_reasons(*four))
    fragments = ["Correlation ", "Correlation within", "MAPE 9.00"]
    assert all(f in text for f, text in zip(fragments, report.reasons[2:5], strict=True))
    assert "3 of 1000" in report.reasons[-1]


def test_an_untrained_model_has_one_reason_of_its_own(records, worse):
    training, evaluation, export, data = records()
    report = gate_model(
        worse(training, success=False, reason="Longest run 3."),
        worse(evaluation, success=False, reason="nothing was trained.", metrics={}),
        worse(export, success=False, parity={}, model_size_mb=None, latency_p99_ms=None),
        worse(data, defects=(defect("quarantine"),), rows_quarantined=3),
    )
    assert report.reasons == (
        "Not trained: Longest run 3.",
        "Validation quarantined 3 of 1000 rows (out_of_range in throughput_mbps: 3).",
    )
    assert not report.success


def test_a_missed_target_above_the_ceiling_names_the_ceiling(records, worse):
    training, evaluation, export, data = records()
    missed = worse(
        evaluation,
        metrics={**evaluation.metrics, "mape_percent": 9.0},
        ceiling={"mape_percent": 8.0},
    )
    assert "the ceiling is 8.00 %" in gate_model(training, missed, export, data).reasons[0]


def test_without_a_comparison_the_best_baseline_is_still_named(records, worse):
    training, evaluation, export, data = records()
    baselines = {
        "unknown": {"mape_percent": None},
        "middle": {"mape_percent": 7.0},
        "best": {"mape_percent": 6.0},
        "worst": {"mape_percent": 8.0},
    }
    missed = worse(
        evaluation,
        comparisons=(),
        baselines=baselines,
        metrics={**evaluation.metrics, "mape_percent": 9.0},
    )
    assert (
        "the best baseline, best, has 6.00 %"
        in gate_model(training, missed, export, data).reasons[0]
    )
    training, evaluation, export, data = records("consensus_latency")
    baselines = {"a": {"detection_accuracy": 0.5}, "b": {"detection_accuracy": 0.6}}
    achieved = {"detection_accuracy": 0.9}
    missed = worse(evaluation, comparisons=(), baselines=baselines, metrics=achieved)
    assert (
        "the best baseline, b, has 0.6000" in gate_model(training, missed, export, data).reasons[0]
    )


# What can be made worse, and by how much: every change can only hurt.
WORSE = st.lists(
    st.one_of(
        st.tuples(st.just("mape_percent"), st.floats(0, 50)),
        st.tuples(st.just("correlation"), st.floats(-1, 0)),
        st.tuples(st.just("lower"), st.floats(-2, 0)),
        st.tuples(st.just("upper"), st.floats(-2, 0)),
        st.tuples(st.just("difference"), st.floats(0, 1)),
        st.tuples(st.just("flips"), st.integers(0, 5)),
        st.tuples(st.just("size"), st.floats(0, 20)),
        st.tuples(st.just("p99"), st.floats(0, 20)),
        st.tuples(st.just("time"), st.floats(0, 20_000)),
        st.tuples(st.just("above"), st.booleans()),
    ),
    max_size=6,
)


def _made_worse(four, worse, changes):
    training, evaluation, export, data = four
    for what, by in changes:
        if what in ("mape_percent", "correlation"):
            achieved = dict(evaluation.metrics)
            achieved[what] += by
            evaluation = worse(evaluation, metrics=achieved)
        elif what == "lower":
            changed = [
                each if each.reference == "oracle" else each.replace(lower=each.lower + by)
                for each in evaluation.comparisons
            ]  # beside the oracle a higher bound is worse
            evaluation = worse(evaluation, comparisons=changed)
        elif what == "upper":
            changed = [
                each
                if each.reference == "oracle"
                else each.replace(lower=min(each.lower, each.upper + by), upper=each.upper + by)
                for each in evaluation.comparisons
            ]
            evaluation = worse(evaluation, comparisons=changed)
        elif what == "above" and by:
            evaluation = worse(
                evaluation, comparisons=(*evaluation.comparisons, oracle_comparison())
            )
        elif what in ("difference", "flips"):
            old = export.parity["onnx"]
            field = "largest_relative_difference" if what == "difference" else "flipped_decisions"
            changed = old.replace(**{field: getattr(old, field) + by})
            export = worse(export, parity={"onnx": changed})
        elif what == "size":
            export = worse(export, model_size_mb=export.model_size_mb + by)
        elif what == "p99":
            export = worse(export, latency_p99_ms=export.latency_p99_ms + by)
        elif what == "time":
            training = worse(training, training_time_seconds=training.training_time_seconds + by)
    return training, evaluation, export, data


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(first=WORSE, second=WORSE)
def test_making_numbers_worse_never_turns_a_rejection_into_an_approval(
    records, worse, first, second
):
    before = _made_worse(records(), worse, first)
    after = _made_worse(before, worse, second)
    severities_before = {severity for severity, _ in rejection_reasons(*before)}
    severities_after = {severity for severity, _ in rejection_reasons(*after)}
    assert severities_before <= severities_after
    if gate_model(*before).verdict == "REJECTED":
        assert gate_model(*after).verdict == "REJECTED"


def test_severities_are_ordered_as_the_design_requires():
    assert (
        Severity.NOT_TRAINED
        < Severity.DATA
        < Severity.LEAK
        < Severity.TARGET
        < Severity.BASELINE
        < Severity.PARITY
        < Severity.LIMIT
    )
