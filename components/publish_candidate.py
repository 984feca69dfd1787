"""Publication: each model that the gate approved becomes the candidate of its ModelRollout."""

from kfp import dsl

from components._component import component


@component
def publish_candidate(
    manifests: dsl.Input[dsl.Artifact],
    verdict: str,
    version: str,
    rollout_namespace: str,
    storage_prefix: str,
):
    """Create the ModelRollout of each approved model, or change the candidate of an existing one.

    It calls the API server with the rights of its pod. Where one model can't be published the
    others are published all the same, and the task fails.

    Args:
        manifests: What the gate wrote.
        verdict: APPROVED or REJECTED: the gate's, of the whole run.
        version: The run's name.
        rollout_namespace: Where the ModelRollouts are.
        storage_prefix: Where the cluster finds the bundles.
    """
    from pathlib import Path

    from dwcp_ml.kube import publish_candidate as step
    from dwcp_ml.kube.client import connect

    step.check_destination(rollout_namespace, storage_prefix)
    step.publish_candidates(
        Path(manifests.path),
        rollout_namespace,
        connect(manager=step.MANAGER),
        version=version,
        storage_prefix=storage_prefix,
        verdict=verdict,
    )
