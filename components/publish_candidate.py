"""Publication: each model that the gate approved becomes the candidate of its ModelRollout."""

from typing import Optional

from kfp import dsl

from components._component import component


@component
def publish_candidate(
    manifests: dsl.Input[dsl.Artifact],
    published: dsl.Output[dsl.Artifact],
    verdict: str,
    version: str,
    rollout_namespace: str,
    storage_prefix: str,
    bandwidth_predictor: Optional[dsl.Input[dsl.Model]] = None,  # noqa: UP045 - kfp reads this form
    compression_selector: Optional[dsl.Input[dsl.Model]] = None,  # noqa: UP045
    reliability_detector: Optional[dsl.Input[dsl.Model]] = None,  # noqa: UP045
    consensus_latency: Optional[dsl.Input[dsl.Model]] = None,  # noqa: UP045
):
    """Copy each approved bundle to where the cluster reads it, verify it there, name it candidate.

    A missing ModelRollout is created; of an existing one the candidate is changed. It calls the API
    server with the rights of its pod. Where one model can't be published the others are published
    all the same, and the task fails.

    Args:
        manifests: What the gate wrote.
        published: The manifests of the published models; each InferenceService is a canary of the
            bundle that is live.
        verdict: APPROVED or REJECTED: the gate's, of the whole run.
        version: The run's name.
        rollout_namespace: Where the ModelRollouts are.
        storage_prefix: Where the cluster finds the bundles.
        bandwidth_predictor: Its bundle.
        compression_selector: Its bundle.
        reliability_detector: Its bundle.
        consensus_latency: Its bundle.
    """
    from pathlib import Path

    from dwcp_ml.bundle_store import push
    from dwcp_ml.contract.errors import UsageError
    from dwcp_ml.kube import publish_candidate as step
    from dwcp_ml.kube.client import connect

    bundles = {
        "bandwidth_predictor": bandwidth_predictor,
        "compression_selector": compression_selector,
        "reliability_detector": reliability_detector,
        "consensus_latency": consensus_latency,
    }

    def deliver(name: str, digest: str) -> None:
        bundle = bundles[name]
        if bundle is None:
            raise UsageError(f"This run was not compiled with {name}.")
        push(Path(bundle.path) / name / version, storage_prefix, digest=digest)

    step.check_destination(rollout_namespace, storage_prefix)
    Path(published.path).mkdir(parents=True, exist_ok=True)
    step.publish_candidates(
        Path(manifests.path),
        rollout_namespace,
        connect(manager=step.MANAGER),
        version=version,
        storage_prefix=storage_prefix,
        verdict=verdict,
        deliver=deliver,
        output=Path(published.path),
    )
