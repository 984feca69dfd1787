from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.contract.models import MODELS
from dwcp_ml.contract.records import Comparison, Defect, ModelReport, Parity, SessionReport
from dwcp_ml.evaluation.gate import decide, judge
from dwcp_ml.evaluation.reasons import Weight, weigh

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
REQUIRED_OF_A_SESSION = {
    "training_session",
    "overall_success",
    "models_trained",
    "models_passed",
    "total_training_time_seconds",
    "models",
    "production_readiness",
}
REQUIRED_OF_READINESS = {
    "all_targets_met",
    "integration_tests_passed",
    "go_api_compatibility",
    "deployment_recommendation",
}


def defect(verdict: str, code: str = "out_of_range") -> Defect:
    return Defect(
        code=code,
        column="throughput_mbps",
        count=3,
        examples=(1, 2, 3),
        verdict=verdict,
        message="3 rows lie below 0.",
    )


def parity(**fields: float) -> Parity:
    usual = {
        "rows": 10,
        "largest_relative_difference": 1e-6,
        "flipped_decisions": 0,
        "tolerance": 1e-4,
    }
    return Parity(**{**usual, **fields})


def comparison(**fields: object) -> Comparison:
    usual = {
        "baseline": "last_value",
        "metric": "mape_percent",
        "improvement": 0.9,
        "lower": 0.5,
        "upper": 1.3,
        "resamples": 2000,
    }
    return Comparison(**{**usual, **fields})


@pytest.mark.parametrize("name", MODELS)
def test_a_good_model_is_approved(records, name):
    report = judge(*records(name))
    assert report.verdict == "APPROVED"
    assert report.deployment_ready
    assert report.success
    assert report.reasons == ()


def test_the_json_of_a_model_holds_the_required_fields_and_reads_back(records):
    report = judge(*records())
    stored = json.loads(report.to_json())
    assert set(stored) >= REQUIRED_OF_A_MODEL
    assert stored["target_metrics"]["mape_percent"] == "< 5.0"
    assert ModelReport.model_validate_json(report.to_json()) == report


FAULTS = {
    "not trained": ("training", {"success": False, "reason": "no 11 rows."}, "not trained: no 11"),
    "target missed": (
        "evaluation",
        {
            "achieved_metrics": {
                "correlation": 0.995,
                "correlation_within_link_median": 0.99,
                "mape_percent": 23.4,
            }
        },
        "MAPE 23.40 % misses the target < 5 %; best baseline last_value reaches 5.50 %.",
    ),
    "target at its limit": (
        "evaluation",
        {
            "achieved_metrics": {
                "correlation": 0.98,
                "correlation_within_link_median": 0.98,
                "mape_percent": 5.0,
            }
        },
        "MAPE 5.00 % misses the target < 5 %",
    ),
    "metric undefined": (
        "evaluation",
        {
            "achieved_metrics": {
                "correlation": None,
                "correlation_within_link_median": 0.99,
                "mape_percent": 4.0,
            }
        },
        "correlation is not defined on this test split, so ≥ 0.98 is missed.",
    ),
    "metric not reported": (
        "evaluation",
        {"achieved_metrics": {"mape_percent": 4.0, "correlation": 0.99}},
        "correlation within a link (median) is not defined",
    ),
    "no target": ("evaluation", {"target_metrics": {}}, "no target was set"),
    "unreadable target": (
        "evaluation",
        {"target_metrics": {"mape_percent": "about 5"}},
        "a target can't be read",
    ),
    "said to be missed": ("evaluation", {"missed_targets": ("mape_percent",)}, "MAPE"),
    "not evaluated": (
        "evaluation",
        {"success": False, "reason": "the test split is empty."},
        "not evaluated: the test split is empty.",
    ),
    "not better": (
        "evaluation",
        {"comparison": comparison(lower=0.0)},
        "MAPE 4.60 % does not beat the best baseline, last_value with 5.50 %",
    ),
    "not compared": ("evaluation", {"comparison": None}, "is not known"),
    "truth that was not measured": (
        "evaluation",
        {"label_source": "cost_model"},
        "its truth was not measured",
    ),
    "leak": (
        "evaluation",
        {"above_ceiling": ("mape_percent",)},
        "MAPE 4.60 % passes the ceiling 4.20 %",
    ),
    "other model evaluated": ("evaluation", {"version": "older"}, "the evaluation is of"),
    "other form evaluated": ("evaluation", {"form": "bandwidth_class"}, "of the form"),
    "other model exported": ("export", {"version": "older"}, "the export is of"),
    "not exported": ("export", {"success": False, "reason": "disk full."}, "not exported: disk"),
    "nothing compared": ("export", {"formats": (), "parity": {}}, "any export equals"),
    "one format only": ("export", {"parity": {}}, "that onnx equals what was trained was not"),
    "a format not compared": (
        "export",
        {"formats": ("onnx", "savedmodel")},
        "that savedmodel equals what was trained was not measured",
    ),
    "compared on nothing": ("export", {"parity": {"onnx": parity(rows=0)}}, "on no row"),
    "different": (
        "export",
        {"parity": {"onnx": parity(largest_relative_difference=2e-4)}},
        "largest relative difference 0.0002 (at most 0.0001)",
    ),
    "flipped": (
        "export",
        {"parity": {"onnx": parity(flipped_decisions=1)}},
        "1 flipped decisions in 10 rows",
    ),
    "too large": ("export", {"model_size_mb": 10.0}, "model size of 10.00 MB is not under 10 MB"),
    "size unknown": ("export", {"model_size_mb": None}, "model size was not measured"),
    "too slow": ("export", {"latency_p99_ms": 10.0}, "of 10.000 ms is not under 10 ms"),
    "speed unknown": ("export", {"latency_p99_ms": None}, "inference was not measured"),
    "speed not a number": ("export", {"latency_p99_ms": float("nan")}, "was not measured"),
    "too long": (
        "training",
        {"training_time_seconds": 7200.0},
        "training time of 7200 s is not under 7200 s",
    ),
    "data refused": ("data", {"defects": (defect("error"),)}, "the data were refused"),
}
PLACES = ("training", "evaluation", "export", "data")


@pytest.mark.parametrize("fault", FAULTS)
def test_each_single_fault_rejects_and_says_why(records, worse, fault):
    place, fields, sentence = FAULTS[fault]
    four = list(records())
    four[PLACES.index(place)] = worse(four[PLACES.index(place)], **fields)
    report = judge(*four)
    assert report.verdict == "REJECTED"
    assert not report.deployment_ready
    assert any(sentence in reason for reason in report.reasons), report.reasons
    assert len(report.reasons) == 1
    assert report.reasons[0].endswith(".")


@pytest.mark.parametrize(
    ("record", "field", "value"),
    [("export", "model_size_mb", 9.999), ("export", "latency_p99_ms", 9.999)],
)
def test_just_inside_a_limit_passes(records, worse, record, field, value):
    four = list(records())
    four[PLACES.index(record)] = worse(four[PLACES.index(record)], **{field: value})
    assert judge(*four).verdict == "APPROVED"


def test_training_just_under_two_hours_passes(records, worse):
    training, *rest = records()
    assert judge(worse(training, training_time_seconds=7199.9), *rest).verdict == "APPROVED"


def test_reasons_come_in_the_order_of_their_weight(records, worse):
    training, evaluation, export, data = records()
    report = judge(
        worse(training, training_time_seconds=9000.0),
        worse(
            evaluation,
            achieved_metrics={"mape_percent": 9.0},
            above_ceiling=("correlation",),
            comparison=comparison(lower=-1.0),
        ),
        worse(export, parity={"onnx": parity(flipped_decisions=2)}, model_size_mb=12.0),
        worse(data, defects=(defect("error"), defect("quarantine")), rows_quarantined=3),
    )
    marks = [
        "the data were refused",
        "correlation is not",
        "correlation within",
        "MAPE 9.00",
        "does not beat",
        "passes the ceiling",
        "flipped",
        "model size",
        "training time",
        "set aside 3 of 1000",
    ]
    assert [mark in reason for mark, reason in zip(marks, report.reasons, strict=True)] == [
        True
    ] * len(marks)


def test_an_untrained_model_has_one_reason_of_its_own(records, worse):
    training, evaluation, export, data = records()
    report = judge(
        worse(training, success=False, reason="longest run 3."),
        worse(evaluation, success=False, reason="nothing was trained.", achieved_metrics={}),
        worse(export, success=False, parity={}, model_size_mb=None, latency_p99_ms=None),
        worse(data, defects=(defect("quarantine"),), rows_quarantined=3),
    )
    assert report.reasons == (
        "not trained: longest run 3.",
        "validation had set aside 3 of 1000 rows (out_of_range in throughput_mbps: 3).",
    )
    assert not report.success


def test_quarantined_rows_alone_reject_nothing(records, worse):
    *three, data = records()
    data = worse(data, defects=(defect("quarantine"), defect("warning")), rows_quarantined=3)
    assert judge(*three, data).verdict == "APPROVED"


def test_a_missed_target_above_the_ceiling_says_that_nobody_reaches_it(records, worse):
    training, evaluation, export, data = records()
    missed = worse(
        evaluation,
        achieved_metrics={**evaluation.achieved_metrics, "mape_percent": 9.0},
        ceiling={"mape_percent": 8.0},
    )
    assert (
        "no model reaches it, the ceiling is 8.00 %"
        in judge(training, missed, export, data).reasons[0]
    )


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
        comparison=None,
        baselines=baselines,
        achieved_metrics={**evaluation.achieved_metrics, "mape_percent": 9.0},
    )
    assert "best baseline best reaches 6.00 %" in judge(training, missed, export, data).reasons[0]
    training, evaluation, export, data = records("consensus_latency")
    baselines = {"a": {"detection_accuracy": 0.5}, "b": {"detection_accuracy": 0.6}}
    achieved = {"detection_accuracy": 0.9}
    missed = worse(evaluation, comparison=None, baselines=baselines, achieved_metrics=achieved)
    assert "best baseline b reaches 0.6000" in judge(training, missed, export, data).reasons[0]


def test_success_needs_training_evaluation_and_every_target(records, worse):
    training, evaluation, export, data = records()
    assert not judge(worse(training, success=False), evaluation, export, data).success
    assert not judge(training, worse(evaluation, success=False), export, data).success
    slow = judge(training, evaluation, worse(export, latency_p99_ms=50.0), data)
    assert slow.success
    assert not slow.deployment_ready


# What can be made worse, and by how much: every change can only hurt.
WORSE = st.lists(
    st.one_of(
        st.tuples(st.just("mape_percent"), st.floats(0, 50)),
        st.tuples(st.just("correlation"), st.floats(-1, 0)),
        st.tuples(st.just("lower"), st.floats(-2, 0)),
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
            achieved = dict(evaluation.achieved_metrics)
            achieved[what] += by
            evaluation = worse(evaluation, achieved_metrics=achieved)
        elif what == "lower":
            changed = evaluation.comparison.model_copy(
                update={"lower": evaluation.comparison.lower + by}
            )
            evaluation = worse(evaluation, comparison=changed)
        elif what == "above" and by:
            evaluation = worse(evaluation, above_ceiling=("correlation",))
        elif what in ("difference", "flips"):
            old = export.parity["onnx"]
            field = "largest_relative_difference" if what == "difference" else "flipped_decisions"
            changed = old.model_copy(update={field: getattr(old, field) + by})
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
    weights_before = {weight for weight, _ in weigh(*before)}
    weights_after = {weight for weight, _ in weigh(*after)}
    assert weights_before <= weights_after
    if judge(*before).verdict == "REJECTED":
        assert judge(*after).verdict == "REJECTED"


def all_reports(records):
    return [judge(*records(name)) for name in MODELS]


def test_a_session_of_four_good_models_is_approved_and_lists_what_was_not_checked(records):
    reports = all_reports(records)
    session = decide(
        "20260101-000000",
        reports,
        reports[0].data,
        unchecked={"integration_tests_passed": "no server was started"},
    )
    stored = json.loads(session.to_json())
    assert set(stored) >= REQUIRED_OF_A_SESSION
    assert set(stored["production_readiness"]) >= REQUIRED_OF_READINESS
    assert session.overall_success
    assert (session.models_trained, session.models_passed) == (4, 4)
    assert list(session.models) == list(MODELS)
    assert session.total_training_time_seconds == pytest.approx(4 * 61.5)
    readiness = session.production_readiness
    assert readiness.deployment_recommendation == "APPROVED"
    assert readiness.all_targets_met
    assert readiness.integration_tests_passed is None
    assert readiness.go_api_compatibility is None
    assert readiness.unchecked == {
        "integration_tests_passed": "no server was started",
        "go_api_compatibility": "nobody asked for this check",
    }
    assert SessionReport.model_validate_json(session.to_json()) == session


def test_what_was_checked_is_not_listed_as_unchecked(records):
    reports = all_reports(records)
    session = decide(
        "s",
        reports,
        reports[0].data,
        integration_tests_passed=True,
        go_api_compatibility=True,
        unchecked={"go_api_compatibility": "no Go", "signature": "no key"},
        strict=False,
    )
    assert session.production_readiness.unchecked == {"signature": "no key"}
    assert session.overall_success


@pytest.mark.parametrize("check", ["integration_tests_passed", "go_api_compatibility"])
def test_a_failed_check_of_the_run_rejects_every_model(records, check):
    reports = all_reports(records)
    session = decide("s", reports, reports[0].data, **{check: False})
    assert session.production_readiness.deployment_recommendation == "REJECTED"
    assert not session.overall_success
    assert session.models_passed == 4
    assert session.reasons == (f"{check} is false: nothing of this run may be deployed.",)
    for report in session.models.values():
        assert report.verdict == "REJECTED"
        assert not report.deployment_ready
        assert report.reasons == session.reasons


def test_strict_rejects_what_was_not_checked_and_only_that(records):
    reports = all_reports(records)
    strict = decide("s", reports, reports[0].data, go_api_compatibility=True, strict=True)
    assert strict.reasons == (
        "integration_tests_passed was not checked: nobody asked for this check",
    )
    assert not strict.overall_success
    checked = decide(
        "s",
        reports,
        reports[0].data,
        integration_tests_passed=True,
        go_api_compatibility=True,
        strict=True,
    )
    assert checked.overall_success


def test_a_subset_of_the_models_is_judged_by_itself(records):
    reports = all_reports(records)[:2]
    session = decide("s", reports[::-1], reports[0].data)
    assert list(session.models) == ["bandwidth_predictor", "compression_selector"]
    assert session.overall_success


def test_one_bad_model_rejects_the_session_and_leaves_the_others_approved(records, worse):
    training, evaluation, export, data = records("compression_selector")
    slow = judge(training, evaluation, worse(export, latency_p99_ms=11.0), data)
    missing = judge(
        worse(records("consensus_latency")[0], success=False, reason="no window."),
        *records("consensus_latency")[1:],
    )
    session = decide("s", [judge(*records()), slow, missing], data)
    assert not session.overall_success
    assert session.production_readiness.deployment_recommendation == "REJECTED"
    assert session.models_trained == 2
    assert session.models_passed == 1
    assert not session.production_readiness.all_targets_met
    assert session.models["bandwidth_predictor"].deployment_ready
    assert session.reasons == (
        "consensus_latency: not trained: no window.",
        "compression_selector: the p99 latency of one inference of 11.000 ms is not under 10 ms.",
    )


def test_an_approval_is_judged_again_from_its_records(records, worse):
    forged = worse(
        judge(*records()), evaluation=worse(records()[1], above_ceiling=("correlation",))
    )
    assert forged.verdict == "APPROVED"
    session = decide("s", [forged], forged.data)
    assert not session.overall_success
    assert "passes the ceiling" in session.reasons[0]


def test_a_rejection_made_elsewhere_stands(records, worse):
    signed = worse(
        judge(*records()),
        verdict="REJECTED",
        deployment_ready=False,
        reasons=("the signature is not valid.",),
    )
    session = decide("s", [signed], signed.data)
    assert session.reasons == ("bandwidth_predictor: the signature is not valid.",)
    half = worse(judge(*records()), verdict="REJECTED")
    assert not decide("s", [half], half.data).overall_success
    silent = worse(signed, reasons=())
    assert not decide("s", [silent], silent.data).overall_success


def test_models_trained_on_other_data_are_rejected(records, worse):
    report = judge(*records())
    session = decide("s", [report], worse(report.data, md5="0" * 32))
    assert "trained on other data" in session.reasons[0]


def test_no_model_and_a_model_twice_are_refused(records):
    report = judge(*records())
    with pytest.raises(UsageError, match="it got none"):
        decide("s", [], report.data)
    with pytest.raises(UsageError, match="each model of a run once"):
        decide("s", [report, report], report.data)


def test_the_context_is_said_once_for_the_whole_session(records, worse):
    reports = []
    for name in ("bandwidth_predictor", "consensus_latency"):
        training, evaluation, export, data = records(name)
        data = worse(data, defects=(defect("quarantine"),), rows_quarantined=3)
        reports.append(judge(worse(training, success=False, reason="x."), evaluation, export, data))
    session = decide("s", reports, reports[0].data)
    assert sum("set aside" in reason for reason in session.reasons) == 1
    assert session.reasons[-1].startswith("validation had set aside")


def test_weights_are_ordered_as_the_design_asks():
    assert (
        Weight.NOT_TRAINED
        < Weight.DATA
        < Weight.TARGET
        < Weight.BASELINE
        < Weight.CEILING
        < Weight.PARITY
        < Weight.LIMIT
    )


def test_what_a_check_found_stands_among_the_reasons(records):
    reports = all_reports(records)
    found = decide(
        "s",
        reports,
        reports[0].data,
        integration_tests_passed=False,
        failed_checks=["the level 12 is too high"],
    )
    assert {report.verdict for report in found.models.values()} == {"REJECTED"}
    assert "the level 12 is too high" in found.reasons
