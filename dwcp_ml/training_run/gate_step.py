"""The gate step: reads all reports of a run, writes the run's report and the manifests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dwcp_ml.contract.bundle import MANIFEST_NAME, REPORT_NAMES
from dwcp_ml.contract.checks import ApiChecks
from dwcp_ml.contract.errors import BundleRefused
from dwcp_ml.contract.evaluation import Evaluation
from dwcp_ml.contract.models import ModelSpec, model_spec
from dwcp_ml.contract.records import (
    DataReport,
    ExportRecord,
    ModelReport,
    SessionReport,
    TrainingRecord,
)
from dwcp_ml.files import atomic_directory, write_text
from dwcp_ml.kube.manifests import manifests, storage_uri
from dwcp_ml.training_run import dataset as dataset_stage
from dwcp_ml.training_run.export_step import read_report
from dwcp_ml.training_run.options import RunOptions
from dwcp_ml.training_run.progress import ProgressTask, Reporter, ignore_event

MANIFESTS_NAME = "manifests"

NOT_SERVED = "The bundles were not served in this run"


def run_gate(  # noqa: PLR0913 - the results of all steps, by name
    dataset: Path,
    bundles: Mapping[str, Path],
    output: Path,
    options: RunOptions,
    *,
    session: str,
    failures: Mapping[str, str] | None = None,
    artifact_uris: Mapping[str, str] | None = None,
    checks: ApiChecks | None = None,
    report: Reporter = ignore_event,
) -> SessionReport:
    """Decide on a run; write ``report.{json,md,html}`` and ``manifests/`` to ``output``.

    Parameters
    ----------
    bundles
        Model name -> the directory that contains ``<model>/<version>/``.
    failures
        Model name -> why its worker ended without a report.
    artifact_uris
        Model name -> where a cluster finds that directory.
    checks
        The result of the check step; ``None`` if the bundles were not served.
    """
    from dwcp_ml.evaluation import gate_session, session_html, session_markdown

    data = DataReport.read(dataset / dataset_stage.REPORT_NAME)
    api_checks = checks or ApiChecks.not_run(NOT_SERVED)
    with ProgressTask("gate", report) as task:
        reports = [
            _report_of(
                model_spec(name), root / name / session, session, data, options, failures or {}
            )
            for name, root in bundles.items()
        ]
        session_report = gate_session(
            session,
            reports,
            data,
            integration_tests_passed=api_checks.integration_tests_passed,
            go_api_compatibility=api_checks.go_api_compatibility,
            unchecked=api_checks.unchecked,
            ab_test=api_checks.readiness,
            failed_checks=[f"{check.name}: {check.detail}" for check in api_checks.failed],
            strict=options.strict,
        )
        texts = (
            session_report.to_json(),
            session_markdown(session_report),
            session_html(session_report),
        )
        for name, text in zip(REPORT_NAMES, texts, strict=True):
            write_text(output / name, text)
        stable = options.stable_uris()
        with atomic_directory(output / MANIFESTS_NAME) as staging:
            for name, model in session_report.models.items():
                if model.verdict != "APPROVED":
                    continue
                spec = model_spec(name)
                uri = storage_uri(
                    options.storage_prefix, (artifact_uris or {}).get(name, ""), spec, session
                )
                digest = model.export.bundle_digest or ""
                files = manifests(
                    spec, session, uri, digest, stable.get(name, ""), options.kserve_mode
                )
                for file_name, text in files.items():
                    write_text(staging / name / file_name, text)
        task.finish(session_report.production_readiness.deployment_recommendation)
    return session_report


def _report_of(
    spec: ModelSpec,
    bundle: Path,
    session: str,
    data: DataReport,
    options: RunOptions,
    failures: Mapping[str, str],
) -> ModelReport:
    if (bundle / REPORT_NAMES[0]).exists():
        return _verified(read_report(bundle), bundle)
    from dwcp_ml.evaluation import gate_model, nothing_to_evaluate

    chosen = options.of(spec.name)
    form = spec.form(chosen.form).name
    targets = chosen.targets_of(spec, form)
    reason = failures.get(spec.name, "Its worker left no report")
    training = TrainingRecord(
        model_name=spec.name,
        version=session,
        form=form,
        success=False,
        reason=reason,
        training_date="",
        training_time_seconds=0.0,
        hyperparameters={},
        seed=options.seed,
        threads=1,
        targets={target.metric: target.value for target in targets},
    )
    evaluation: Evaluation = nothing_to_evaluate(spec, training, targets)
    export = ExportRecord(
        model_name=spec.name, version=session, success=False, reason="There is no trained model."
    )
    return gate_model(training, evaluation, export, data)


def _verified(report: ModelReport, bundle: Path) -> ModelReport:
    """Verify a finalized bundle: add its digest to the report, or why it was rejected.

    The report inside the bundle can't contain the digest, because the manifest lists that report.
    """
    from dwcp_ml.export.verify import bundle_digest, verify_bundle

    if not (bundle / MANIFEST_NAME).exists():
        return report
    try:
        verify_bundle(bundle)
        export = report.export.replace(bundle_digest=bundle_digest(bundle))
    except BundleRefused as error:
        export = report.export.replace(success=False, reason=str(error))
    return report.replace(export=export)
