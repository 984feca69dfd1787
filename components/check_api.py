"""The check of the interfaces: the exported models are served and asked, over HTTP, gRPC and Go."""

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
        checks: Every check and its outcome; what could not be checked, and why.
        metrics: How many checks passed and failed, for the Kubeflow page.
        version: The run's name.
        enabled: False leaves everything unchecked.
        stable_uri: The bundle that is live, or ``MODEL=URI,MODEL=URI``; empty for nothing live.
        requests_per_second: Traffic to expect of a rollout, over both arms.
        bandwidth_predictor: Its bundle.
        compression_selector: Its bundle.
        reliability_detector: Its bundle.
        consensus_latency: Its bundle.

    Returns:
        Whether nothing failed; what was not checked has not failed.
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
    found = check_run(bundles, options, report=reporter_of())
    write_text(Path(checks.path), found.to_json())
    metrics.log_metric("checks", len(found.checks))
    metrics.log_metric("failed", len(found.failed))
    return not found.failed
