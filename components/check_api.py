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
    bandwidth_predictor: Optional[dsl.Input[dsl.Model]] = None,  # noqa: UP045 - kfp reads this form
    compression_selector: Optional[dsl.Input[dsl.Model]] = None,  # noqa: UP045
    reliability_detector: Optional[dsl.Input[dsl.Model]] = None,  # noqa: UP045
    consensus_latency: Optional[dsl.Input[dsl.Model]] = None,  # noqa: UP045
) -> bool:
    """Serve the bundles inside this task, and check the endpoint and the Go client.

    Args:
        checks: Every check and its outcome; what could not be checked, and why.
        metrics: How many checks passed and failed, for the Kubeflow page.
        version: The run's name.
        enabled: False leaves everything unchecked.
        bandwidth_predictor: Its bundle.
        compression_selector: Its bundle.
        reliability_detector: Its bundle.
        consensus_latency: Its bundle.

    Returns:
        Whether nothing failed; what was not checked has not failed.
    """
    from pathlib import Path

    from dwcp_ml.contract.checks import ApiChecks
    from dwcp_ml.files import write_text
    from dwcp_ml.stages.checking import TURNED_OFF, check_bundles
    from dwcp_ml.stages.progress import reporter_of

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
    found = ApiChecks.not_made(TURNED_OFF)
    if enabled:
        found = check_bundles(bundles, report=reporter_of())
    write_text(Path(checks.path), found.to_json())
    metrics.log_metric("checks", len(found.checks))
    metrics.log_metric("failed", len(found.failed))
    return not found.failed
