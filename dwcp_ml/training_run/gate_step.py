"""The gate stage: all reports of a run in; the run's report and the manifests out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dwcp_ml.contract.bundle import MANIFEST_NAME, REPORT_NAMES
from dwcp_ml.contract.checks import ApiChecks
from dwcp_ml.contract.errors import BundleRefused
from dwcp_ml.contract.models import ModelSpec, model_spec
from dwcp_ml.contract.records import (
    DataReport,
    Evaluation,
    ExportRecord,
    ModelReport,
    SessionReport,
    TrainingRecord,
)
from dwcp_ml.files import whole_directory, write_text
from dwcp_ml.kube.manifests import manifests, storage_uri
from dwcp_ml.training_run import dataset as dataset_stage
from dwcp_ml.training_run.export_step import read_report
from dwcp_ml.training_run.options import RunOptions
from dwcp_ml.training_run.progress import ProgressTask, Reporter, ignore_event

MANIFESTS_NAME = "manifests"

NOBODY_ASKED = "the bundles were not served in this run"


def judge_session(  # noqa: PLR0913 - the results of all stages, by name
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
    """Judge a run; write ``report.{json,md,html}`` and ``manifests/`` to ``output``.

    Parameters
    ----------
    bundles
        Model name -> the directory that holds ``<model>/<version>/``.
    failures
        Model name -> why its worker ended without a report.
    artifact_uris
        Model name -> where a cluster finds that directory.
    checks
        What the check stage found; ``None`` if nobody asked the bundles.
    """
    from dwcp_ml.evaluation import gate_session, session_html, session_markdown

    data = DataReport.read(dataset / dataset_stage.REPORT_NAME)
    found = checks or ApiChecks.not_made(NOBODY_ASKED)
    with ProgressTask("gate", report) as task:
        reports = [
            _report_of(
                model_spec(name), root / name / session, session, data, options, failures or {}
            )
            for name, root in bundles.items()
        ]
        answer = gate_session(
            session,
            reports,
            data,
            integration_tests_passed=found.integration_tests_passed,
            go_api_compatibility=found.go_api_compatibility,
            unchecked=found.unchecked,
            ab_test=found.readiness,
            failed_checks=[f"{check.name}: {check.detail}" for check in found.failed],
            strict=options.strict,
        )
        texts = (answer.to_json(), session_markdown(answer), session_html(answer))
        for name, text in zip(REPORT_NAMES, texts, strict=True):
            write_text(output / name, text)
        stable = options.stable_uris()
        with whole_directory(output / MANIFESTS_NAME) as staging:
            for name, model in answer.models.items():
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
        task.finish(answer.production_readiness.deployment_recommendation)
    return answer


def _report_of(
    spec: ModelSpec,
    bundle: Path,
    session: str,
    data: DataReport,
    options: RunOptions,
    failures: Mapping[str, str],
) -> ModelReport:
    if (bundle / REPORT_NAMES[0]).exists():
        return _opened(read_report(bundle), bundle)
    from dwcp_ml.evaluation import gate_model, nothing_to_evaluate

    chosen = options.of(spec.name)
    form = spec.form(chosen.form).name
    targets = chosen.targets_of(spec, form)
    reason = failures.get(spec.name, "its worker left no report")
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
        model_name=spec.name, version=session, success=False, reason="there is no trained model."
    )
    return gate_model(training, evaluation, export, data)


def _opened(report: ModelReport, bundle: Path) -> ModelReport:
    """Open a sealed bundle as a stranger would: add its digest, or say why it is refused.

    The report inside the bundle can't hold the digest, because the manifest lists that report.
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
