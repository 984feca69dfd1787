"""The gate: decides from the records of a run whether each model is APPROVED or REJECTED. Pure.

Nothing passes by default: a value that is missing, undefined or not a number rejects the model. The
only exception are the checks of the whole run that were not made: they stay ``null``, are listed as
unchecked, and reject only when the caller is strict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dwcp_ml.contract.checks import Readiness
from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.contract.evaluation import Evaluation
from dwcp_ml.contract.models import MODELS
from dwcp_ml.contract.records import (
    DataReport,
    ExportRecord,
    ModelReport,
    ProductionReadiness,
    Recommendation,
    SessionReport,
    TrainingRecord,
)
from dwcp_ml.evaluation.document_fields import hyperparameters, metric_name
from dwcp_ml.evaluation.reasons import Severity, missed_targets, rejection_reasons


def gate_model(
    training: TrainingRecord, evaluation: Evaluation, export: ExportRecord, data: DataReport
) -> ModelReport:
    """Return the report of one model: the verdict, and the reasons to reject by ``Severity``.

    A model is APPROVED only if it was trained on data without a leak that was not accepted, meets
    every target, beats every naive baseline, is not worse than a strong reference, is beside the
    champion what the run's rule requires, exceeds no ceiling, every export predicts as the trained
    model does, and size, training time and latency are within their limits. A strong reference that
    is as good as the model is a finding of the report, which rejects nothing.
    """
    reasons = tuple(text for _, text in rejection_reasons(training, evaluation, export, data))
    verdict: Recommendation = "REJECTED" if reasons else "APPROVED"
    return ModelReport(
        model_name=training.model_name,
        version=training.version,
        training_date=training.training_date,
        target_metrics={metric_name(each.metric): each.value for each in evaluation.targets},
        achieved_metrics={metric_name(name): value for name, value in evaluation.metrics.items()},
        test_set_size=evaluation.test_set_size,
        training_time_seconds=training.training_time_seconds,
        model_size_mb=export.model_size_mb,
        success=training.success and evaluation.success and not any(missed_targets(evaluation)),
        hyperparameters=hyperparameters(training),
        deployment_ready=not reasons,
        verdict=verdict,
        reasons=reasons,
        findings=evaluation.findings,
        training=training,
        evaluation=evaluation,
        export=export,
        data=data,
    )


def gate_session(  # noqa: PLR0913 - the results of all checks, by name
    session: str,
    reports: Sequence[ModelReport],
    data: DataReport,
    *,
    integration_tests_passed: bool | None = None,
    go_api_compatibility: bool | None = None,
    unchecked: Mapping[str, str] | None = None,
    failed_checks: Sequence[str] = (),
    ab_test: Readiness | None = None,
    strict: bool = False,
) -> SessionReport:
    """Return the report of the run ``session``, with the verdict on all of its models.

    Parameters
    ----------
    reports
        The report of each model of the run. Each verdict is computed again from the records, so a
        stored approval never counts; a stored rejection is kept.
    integration_tests_passed, go_api_compatibility
        Results of the checks of the whole run; ``False`` rejects every model, ``None`` means not
        checked.
    unchecked
        Check -> why it was not made.
    failed_checks
        The failures behind a check that is ``False``, one sentence each.
    ab_test
        Whether the expected traffic is enough to decide a rollout. It rejects no model, because
        the traffic and the steps of a rollout can still be changed. ``None``: not checked.
    strict
        Reject every model if a check was not made.

    Raises ``UsageError`` if there is no report, or two of one model.
    """
    names = [report.model_name for report in reports]
    if not names or len(set(names)) < len(names):
        raise UsageError(
            "The gate needs one report for each model of a run, but got "
            f"{', '.join(names) or 'none'}.",
            code=ErrorCode.AMBIGUOUS,
            subject=", ".join(names),
        )
    checks = {
        "integration_tests_passed": integration_tests_passed,
        "go_api_compatibility": go_api_compatibility,
    }
    open_checks = _unchecked(checks, {**(unchecked or {}), **_champions_unchecked(reports)})
    whole_run = [
        f"The check {name} failed: no model of this run may be deployed."
        for name, passed in checks.items()
        if passed is False
    ]
    whole_run += failed_checks
    if strict:
        whole_run += [f"The check {name} was not made: {why}" for name, why in open_checks.items()]
    gated = [_gate_again(report, data) for report in sorted(reports, key=_position)]
    final = [_reject(report, whole_run) for report in gated]
    approved = all(report.verdict == "APPROVED" for report in final)
    return SessionReport(
        training_session=session,
        overall_success=approved,
        models_trained=sum(report.training.success for report in final),
        models_passed=sum(report.verdict == "APPROVED" for report in final),
        total_training_time_seconds=sum(report.training_time_seconds for report in final),
        models={report.model_name: report for report in final},
        production_readiness=ProductionReadiness(
            all_targets_met=all(report.success for report in final),
            integration_tests_passed=integration_tests_passed,
            go_api_compatibility=go_api_compatibility,
            ab_test_ready=None if ab_test is None else ab_test.ready,
            ab_test_detail="" if ab_test is None else ab_test.sentence,
            deployment_recommendation="APPROVED" if approved else "REJECTED",
            unchecked=open_checks,
        ),
        reasons=(*_in_order(gated), *whole_run),
        data=data,
    )


def _unchecked(checks: Mapping[str, bool | None], why: Mapping[str, str]) -> dict[str, str]:
    """Return the checks that were not made, and why."""
    names = [name for name, passed in checks.items() if passed is None]
    names += [name for name in why if name not in checks]
    return {name: why.get(name, "it was not requested") for name in names}


def _champions_unchecked(reports: Sequence[ModelReport]) -> dict[str, str]:
    """Return the champions that no model could be compared with, and why."""
    return {
        f"champion_of_{report.model_name}": champion.detail
        for report in reports
        if (champion := report.evaluation.champion) is not None
        and champion.not_compared is not None
    }


def _gate_again(report: ModelReport, data: DataReport) -> ModelReport:
    """Compute the verdict again; keep the reasons of a stored rejection that are not among it."""
    fresh = gate_model(report.training, report.evaluation, report.export, report.data)
    if report.data.md5 != data.md5:
        fresh = _reject(
            fresh, [f"Trained on other data: md5 {report.data.md5}, the run has {data.md5}."]
        )
    if report.verdict == "APPROVED" and report.deployment_ready:
        return fresh
    stored = report.reasons or ("Rejected without a reason.",)
    return _reject(fresh, [text for text in stored if text not in fresh.reasons])


def _reject(report: ModelReport, reasons: Sequence[str]) -> ModelReport:
    """Return the report as rejected for more reasons; the same report if there are none."""
    if not reasons:
        return report
    return report.replace(
        verdict="REJECTED", deployment_ready=False, reasons=(*report.reasons, *reasons)
    )


def _in_order(reports: Sequence[ModelReport]) -> list[str]:
    """Return the reasons of all models, most important first, each with its model's name."""
    severities: dict[str, Severity] = {}
    for report in reports:
        why = rejection_reasons(report.training, report.evaluation, report.export, report.data)
        known = {text: severity for severity, text in why}
        for text in report.reasons:
            severity = known.get(text, Severity.SESSION)
            # The context is about the data, which all models share: list it once.
            name = "" if severity is Severity.CONTEXT else f"{report.model_name}: "
            severities.setdefault(f"{name}{text}", severity)
    return sorted(severities, key=lambda text: severities[text])


def _position(report: ModelReport) -> int:
    """Return the position of a model in the usual order; unknown models come last."""
    names = list(MODELS)
    return names.index(report.model_name) if report.model_name in names else len(names)
