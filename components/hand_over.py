"""The hand-over: what the gate approved becomes the candidate of its ModelRollout."""

from kfp import dsl

from components._component import component


@component
def hand_over(
    manifests: dsl.Input[dsl.Artifact],
    verdict: str,
    version: str,
    rollout_namespace: str,
    storage_prefix: str,
):
    """Make the ModelRollout of each approved model, or change the candidate of the one there is.

    It asks the API server with the rights of its pod, and fails where a model is not taken; the
    others are handed over all the same.

    Args:
        manifests: What the gate wrote.
        verdict: APPROVED or REJECTED: the gate's, of the whole run.
        version: The run's name.
        rollout_namespace: Where the ModelRollouts are.
        storage_prefix: Where the cluster finds the bundles.
    """
    from pathlib import Path

    from dwcp_ml.kube import publish_candidate as stage
    from dwcp_ml.kube.client import connect

    stage.check_destination(rollout_namespace, storage_prefix)
    stage.hand_over(
        Path(manifests.path),
        rollout_namespace,
        connect(manager=stage.MANAGER),
        version=version,
        storage_prefix=storage_prefix,
        verdict=verdict,
    )
