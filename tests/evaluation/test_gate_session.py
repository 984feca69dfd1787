"""The verdict on a whole run."""

from __future__ import annotations

import json

import pytest

from dwcp_ml.cli.shared import print_summary
from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.contract.models import MODELS
from dwcp_ml.contract.records import SessionReport
from dwcp_ml.evaluation.gate import gate_model, gate_session
from dwcp_ml.evaluation.report.tables import headline
from tests.errors import about
from tests.evaluation.cases import defect, oracle_comparison

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


def decided(records, session="s", **options):
    """The verdict on a run of four good models."""
    reports = [gate_model(*records(name)) for name in MODELS]
    return gate_session(session, reports, reports[0].data, **options)


def test_a_session_of_four_good_models_is_approved_and_lists_what_was_not_checked(records):
    session = decided(
        records, "20260101-000000", unchecked={"integration_tests_passed": "no server was started"}
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
        "go_api_compatibility": "it was not requested",
    }
    assert SessionReport.model_validate_json(session.to_json()) == session


def test_a_check_that_was_made_is_not_listed_as_unchecked(records):
    session = decided(
        records,
        integration_tests_passed=True,
        go_api_compatibility=True,
        unchecked={"go_api_compatibility": "no Go", "signature": "no key"},
        strict=False,
    )
    assert session.production_readiness.unchecked == {"signature": "no key"}
    assert session.overall_success


@pytest.mark.parametrize("check", ["integration_tests_passed", "go_api_compatibility"])
def test_a_failed_check_of_the_run_rejects_every_model(records, check):
    session = decided(records, **{check: False})
    assert session.production_readiness.deployment_recommendation == "REJECTED"
    assert not session.overall_success
    assert session.models_passed == 0
    assert session.reasons == (f"The check {check} failed: no model of this run may be deployed.",)
    for report in session.models.values():
        assert report.verdict == "REJECTED"
        assert not report.deployment_ready
        assert report.reasons == session.reasons


def test_strict_rejects_what_was_not_checked_and_only_that(records):
    strict = decided(records, go_api_compatibility=True, strict=True)
    assert strict.reasons == (
        "The check integration_tests_passed was not made: it was not requested",
    )
    assert not strict.overall_success
    assert (strict.models_passed, strict.approved) == (0, ())
    assert headline(strict).startswith("0 of 4 models approved, 4 trained")
    checked = decided(
        records, integration_tests_passed=True, go_api_compatibility=True, strict=True
    )
    assert checked.overall_success
    assert (checked.models_passed, len(checked.approved)) == (4, 4)


def test_the_headline_on_the_terminal_counts_the_models_below_it(records, tmp_path, capsys):
    strict = decided(records, strict=True)
    # Even if an earlier version wrote another number into the report.
    print_summary(strict.replace(models_passed=4), tmp_path)
    assert capsys.readouterr().out.splitlines()[0].startswith("REJECTED: 0 of 4 models approved")


def test_a_run_of_two_models_is_gated_without_the_others(records):
    names = ["bandwidth_predictor", "compression_selector"]
    reports = [gate_model(*records(name)) for name in names]
    session = gate_session("s", reports[::-1], reports[0].data)
    assert list(session.models) == names
    assert session.overall_success


def test_one_bad_model_rejects_the_session_and_leaves_the_others_approved(records, worse):
    training, evaluation, export, data = records("compression_selector")
    slow = gate_model(training, evaluation, worse(export, latency_p99_ms=11.0), data)
    missing = gate_model(
        worse(records("consensus_latency")[0], success=False, reason="No window."),
        *records("consensus_latency")[1:],
    )
    session = gate_session("s", [gate_model(*records()), slow, missing], data)
    assert not session.overall_success
    assert session.production_readiness.deployment_recommendation == "REJECTED"
    assert session.models_trained == 2
    assert session.models_passed == 1
    assert not session.production_readiness.all_targets_met
    assert session.models["bandwidth_predictor"].deployment_ready
    assert session.reasons == (
        "consensus_latency: Not trained: No window.",
        "compression_selector: The p99 latency of one inference of 11.000 ms is not under 10 ms.",
    )


def test_a_stored_approval_is_computed_again_from_its_records(records, worse):
    forged = worse(
        gate_model(*records()),
        evaluation=worse(
            records()[1], comparisons=(*records()[1].comparisons, oracle_comparison())
        ),
    )
    assert forged.verdict == "APPROVED"
    session = gate_session("s", [forged], forged.data)
    assert not session.overall_success
    assert "is better than that of the oracle" in session.reasons[0]


def test_a_stored_rejection_is_kept(records, worse):
    signed = worse(
        gate_model(*records()),
        verdict="REJECTED",
        deployment_ready=False,
        reasons=("the signature is not valid.",),
    )
    session = gate_session("s", [signed], signed.data)
    assert session.reasons == ("bandwidth_predictor: the signature is not valid.",)
    half = worse(gate_model(*records()), verdict="REJECTED")
    assert not gate_session("s", [half], half.data).overall_success
    silent = worse(signed, reasons=())
    assert not gate_session("s", [silent], silent.data).overall_success


def test_models_trained_on_other_data_are_rejected(records, worse):
    report = gate_model(*records())
    session = gate_session("s", [report], worse(report.data, md5="0" * 32))
    assert "Trained on other data" in session.reasons[0]


def test_no_model_and_a_model_twice_are_invalid(records):
    report = gate_model(*records())
    with pytest.raises(UsageError, check=about(ErrorCode.AMBIGUOUS)):
        gate_session("s", [], report.data)
    with pytest.raises(
        UsageError, check=about(ErrorCode.AMBIGUOUS, "bandwidth_predictor, bandwidth_predictor")
    ):
        gate_session("s", [report, report], report.data)


def test_the_quarantined_rows_are_listed_once_for_the_run(records, worse):
    reports = []
    for name in ("bandwidth_predictor", "consensus_latency"):
        training, evaluation, export, data = records(name)
        data = worse(data, defects=(defect("quarantine"),), rows_quarantined=3)
        reports.append(
            gate_model(worse(training, success=False, reason="x."), evaluation, export, data)
        )
    session = gate_session("s", reports, reports[0].data)
    assert sum("quarantined" in reason for reason in session.reasons) == 1
    assert session.reasons[-1].startswith("Validation quarantined 3")


def test_the_failures_of_a_check_are_among_the_reasons(records):
    found = decided(
        records, integration_tests_passed=False, failed_checks=["the level 12 is too high"]
    )
    assert {report.verdict for report in found.models.values()} == {"REJECTED"}
    assert "the level 12 is too high" in found.reasons
