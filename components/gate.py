"""The gate: APPROVED or REJECTED for each model and for the run; writes the manifests."""

from typing import Optional

from kfp import dsl

from components._component import component


@component
def gate(
    dataset: dsl.Input[dsl.Dataset],
    checks: dsl.Input[dsl.Artifact],
    report: dsl.Output[dsl.Artifact],
    report_page: dsl.Output[dsl.HTML],
    report_text: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
    manifests: dsl.Output[dsl.Artifact],
    version: str,
    kserve_mode: str,
    stable_uri: str,
    storage_prefix: str,
    strict: bool,
    bandwidth_predictor: Optional[dsl.Input[dsl.Model]] = None,  # noqa: UP045 - kfp reads this form
    compression_selector: Optional[dsl.Input[dsl.Model]] = None,  # noqa: UP045
    reliability_detector: Optional[dsl.Input[dsl.Model]] = None,  # noqa: UP045
    consensus_latency: Optional[dsl.Input[dsl.Model]] = None,  # noqa: UP045
) -> str:
    """Decide on the run; write an InferenceService and a ModelRollout for each approved model.

    Args:
        dataset: The validated dataset.
        checks: The results of the check of the interfaces.
        report: The run's report as JSON.
        report_page: The same as one HTML page.
        report_text: The same as Markdown.
        metrics: Models trained and approved, for the Kubeflow page.
        manifests: ``<model>/inferenceservice.yaml`` and ``<model>/modelrollout.yaml``.
        version: The run's name.
        kserve_mode: ``standard`` or ``knative``: how KServe splits a canary's traffic.
        stable_uri: The bundle that serves now, or ``MODEL=URI,MODEL=URI``; empty for none.
        storage_prefix: Where the cluster finds the bundles; empty for the artifacts' own address.
        strict: Reject what could not be checked.
        bandwidth_predictor: Its bundle.
        compression_selector: Its bundle.
        reliability_detector: Its bundle.
        consensus_latency: Its bundle.

    Returns:
        APPROVED or REJECTED.
    """
    import shutil
    import tempfile
    from pathlib import Path

    from dwcp_ml.contract.checks import ApiChecks
    from dwcp_ml.training_run.gate_step import run_gate
    from dwcp_ml.training_run.options import run_options
    from dwcp_ml.training_run.progress import reporter_of

    given = {
        "bandwidth_predictor": bandwidth_predictor,
        "compression_selector": compression_selector,
        "reliability_detector": reliability_detector,
        "consensus_latency": consensus_latency,
    }
    options = run_options(
        models=",".join(name for name, bundle in given.items() if bundle is not None),
        kserve_mode=kserve_mode,
        stable_uri=stable_uri,
        storage_prefix=storage_prefix,
        strict=strict,
    )
    bundles = {name: bundle for name, bundle in given.items() if bundle is not None}
    with tempfile.TemporaryDirectory() as scratch:
        session_report = run_gate(
            Path(dataset.path),
            {name: Path(bundle.path) for name, bundle in bundles.items()},
            Path(scratch),
            options,
            session=version,
            checks=ApiChecks.read(Path(checks.path)),
            artifact_uris={name: bundle.uri for name, bundle in bundles.items()},
            report=reporter_of(),
        )
        shutil.copyfile(Path(scratch) / "report.json", report.path)
        shutil.copyfile(Path(scratch) / "report.html", report_page.path)
        shutil.copyfile(Path(scratch) / "report.md", report_text.path)
        shutil.copytree(Path(scratch) / "manifests", manifests.path, dirs_exist_ok=True)
    metrics.log_metric("models_trained", session_report.models_trained)
    metrics.log_metric("models_passed", len(session_report.approved))
    return session_report.production_readiness.deployment_recommendation
