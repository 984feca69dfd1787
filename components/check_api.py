"""The check of the interfaces: serves the exported models, and calls them by HTTP, gRPC and Go."""

from typing import Optional

from kfp import dsl

from components._component import component


@component
def check_api(
    checks: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    version: str,
    enabled: bool,
    stable_uri: str,
    requests_per_second: float,
    bandwidth_predictor: Optional[dsl.Input[dsl.Model]] = None,  # noqa: UP045 - kfp reads this form
    compression_selector: Optional[dsl.Input[dsl.Model]] = None,  # noqa: UP045
    reliability_detector: Optional[dsl.Input[dsl.Model]] = None,  # noqa: UP045
    consensus_latency: Optional[dsl.Input[dsl.Model]] = None,  # noqa: UP045
) -> bool:
    """Serve the bundles inside this task; check endpoint, Go client, readiness for a rollout.

    Args:
        checks: The outcome of every check; what could not be checked, and why.
        metrics: How many checks passed and failed, for the Kubeflow page.
        version: The run's name.
        enabled: False skips all checks.
        stable_uri: The bundle that serves now, or ``MODEL=URI,MODEL=URI``; empty for none.
        requests_per_second: Expected traffic of a rollout, candidate and stable together.
        bandwidth_predictor: Its bundle.
        compression_selector: Its bundle.
        reliability_detector: Its bundle.
        consensus_latency: Its bundle.

    Returns:
        Whether no check failed; skipped checks do not count.
    """
    from pathlib import Path

    from dwcp_ml.files import write_text
    from dwcp_ml.training_run.interface_check import check_run
    from dwcp_ml.training_run.options import run_options
    from dwcp_ml.training_run.progress import reporter_of

    given = {
        "bandwidth_predictor": bandwidth_predictor,
        "compression_selector": compression_selector,
        "reliability_detector": reliability_detector,
        "consensus_latency": consensus_latency,
    }
    bundles = {
        name: Path(bundle.path) / name / version
        for name, bundle in given.items()
        if bundle is not None
    }
    options = run_options(
        models=",".join(bundles),
        check_api=enabled,
        stable_uri=stable_uri,
        requests_per_second=requests_per_second,
    )
    result = check_run(bundles, options, report=reporter_of())
    write_text(Path(checks.path), result.to_json())
    metrics.log_metric("checks", len(result.checks))
    metrics.log_metric("failed", len(result.failed))
    return not result.failed
