"""The gate: what was recorded about a model in, APPROVED or REJECTED with reasons out. Pure.

Nothing passes by default: what is missing, not a number or not known rejects, except for the
checks of a whole session that were not made; those stay ``null``, are listed, and reject only
when the caller is strict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dwcp_ml.contract.checks import Readiness
from dwcp_ml.contract.errors import UsageError
from dwcp_ml.contract.models import MODELS
from dwcp_ml.contract.records import (
    DataReport,
    Evaluation,
    ExportRecord,
    ModelReport,
    ProductionReadiness,
    Recommendation,
    SessionReport,
    TrainingRecord,
)
from dwcp_ml.evaluation import document_fields
from dwcp_ml.evaluation.reasons import Severity, missed_targets, rejection_reasons


def gate_model(
    training: TrainingRecord, evaluation: Evaluation, export: ExportRecord, data: DataReport
) -> ModelReport:
    """Judge one model by what was recorded about it.

    APPROVED only if it was trained, every target is met, it beats its best baseline, nothing
    passes the ceiling, every export equals what was trained, and size, training time and latency
    are within their limits.

    Returns
    -------
    ModelReport
        With the verdict, and the reasons in order of weight (see ``Severity``).
    """
    reasons = tuple(text for _, text in rejection_reasons(training, evaluation, export, data))
    verdict: Recommendation = "REJECTED" if reasons else "APPROVED"
    return ModelReport(
        model_name=training.model_name,
        version=training.version,
        training_date=training.training_date,
        target_metrics=document_fields.target_metrics(evaluation.targets),
        achieved_metrics=document_fields.achieved_metrics(evaluation.metrics),
        test_set_size=evaluation.test_set_size,
        training_time_seconds=training.training_time_seconds,
        model_size_mb=export.model_size_mb,
        success=training.success and evaluation.success and not any(missed_targets(evaluation)),
        hyperparameters=document_fields.hyperparameters(training),
        deployment_ready=not reasons,
        verdict=verdict,
        reasons=reasons,
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
    """Decide about all models of one run.

    Parameters
    ----------
    session
        The run's name.
    reports
        What ``judge`` said of each model that was asked for. Each is judged again, so that an
        approval can't be older than what it rests on; a rejection of somebody else's stands.
    data
        What came in.
    integration_tests_passed, go_api_compatibility
        What was checked for the whole run; ``False`` rejects every model, ``None`` says that it
        was not checked.
    unchecked
        Why something was not checked, by its name.
    failed_checks
        What was found wrong by a check that is ``False``, a sentence each.
    ab_test
        Whether a rollout of these models could be decided; it rejects nothing, because traffic
        and steps can still be chosen. ``None`` where nobody looked.
    strict
        Reject what was not checked.

    Raises
    ------
    UsageError
        If no model, or a model twice, is to be judged.
    """
    names = [report.model_name for report in reports]
    if not names or len(set(names)) < len(names):
        raise UsageError(
            f"the gate judges each model of a run once; it got {', '.join(names) or 'none'}."
        )
    checks = {
        "integration_tests_passed": integration_tests_passed,
        "go_api_compatibility": go_api_compatibility,
    }
    open_points = _unchecked(checks, unchecked or {})
    whole_run = [
        f"{name} is false: nothing of this run may be deployed."
        for name, passed in checks.items()
        if passed is False
    ]
    whole_run += failed_checks
    if strict:
        whole_run += [f"{name} was not checked: {why}" for name, why in open_points.items()]
    own = [_again(report, data) for report in sorted(reports, key=_place)]
    judged = [_reject(report, whole_run) for report in own]
    approved = all(report.verdict == "APPROVED" for report in judged)
    return SessionReport(
        training_session=session,
        overall_success=approved,
        models_trained=sum(report.training.success for report in judged),
        models_passed=sum(report.verdict == "APPROVED" for report in judged),
        total_training_time_seconds=sum(report.training_time_seconds for report in judged),
        models={report.model_name: report for report in judged},
        production_readiness=ProductionReadiness(
            all_targets_met=all(report.success for report in judged),
            integration_tests_passed=integration_tests_passed,
            go_api_compatibility=go_api_compatibility,
            ab_test_ready=None if ab_test is None else ab_test.ready,
            ab_test_detail="" if ab_test is None else ab_test.sentence,
            deployment_recommendation="APPROVED" if approved else "REJECTED",
            unchecked=open_points,
        ),
        reasons=(*_in_order(own), *whole_run),
        data=data,
    )


def _unchecked(checks: Mapping[str, bool | None], why: Mapping[str, str]) -> dict[str, str]:
    """Return what was not checked, and why; what was checked is not listed."""
    names = [name for name, passed in checks.items() if passed is None]
    names += [name for name in why if name not in checks]
    return {name: why.get(name, "nobody asked for this check") for name in names}


def _again(report: ModelReport, data: DataReport) -> ModelReport:
    """Judge a report afresh; keep a rejection that was made for reasons not known here."""
    fresh = gate_model(report.training, report.evaluation, report.export, report.data)
    if report.data.md5 != data.md5:
        fresh = _reject(
            fresh, [f"trained on other data: md5 {report.data.md5}, this run's is {data.md5}."]
        )
    if report.verdict == "APPROVED" and report.deployment_ready:
        return fresh
    own = report.reasons or ("rejected without a reason.",)
    return _reject(fresh, [text for text in own if text not in fresh.reasons])


def _reject(report: ModelReport, reasons: Sequence[str]) -> ModelReport:
    """Return the report with more reasons against it; the same report for none."""
    if not reasons:
        return report
    return report.replace(
        verdict="REJECTED", deployment_ready=False, reasons=(*report.reasons, *reasons)
    )


def _in_order(reports: Sequence[ModelReport]) -> list[str]:
    """Return the reasons of all models, weightiest first, each with its model's name."""
    weighed: dict[str, Severity] = {}
    for report in reports:
        known = {t: w for w, t in rejection_reasons(*_records(report))}
        for text in report.reasons:
            weight = known.get(text, Severity.SESSION)
            # The context is about the data, the same for all models: said once.
            name = "" if weight is Severity.CONTEXT else f"{report.model_name}: "
            weighed.setdefault(f"{name}{text}", weight)
    return sorted(weighed, key=lambda text: weighed[text])


def _records(
    report: ModelReport,
) -> tuple[TrainingRecord, Evaluation, ExportRecord, DataReport]:
    return report.training, report.evaluation, report.export, report.data


def _place(report: ModelReport) -> int:
    """Return where a model stands in the usual order; unknown ones come last."""
    names = list(MODELS)
    return names.index(report.model_name) if report.model_name in names else len(names)
