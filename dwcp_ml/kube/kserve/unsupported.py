"""Which InferenceServices can't split their traffic, and of which nothing can be told; all pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dwcp_ml.kube.kserve.names import CLUSTER_LOCAL, MODE, STOPPED, VISIBILITY
from dwcp_ml.kube.kserve.predictors import served_of, serves
from dwcp_ml.kube.kserve.router import DesiredRevision, TrafficUnknown
from dwcp_ml.kube.kserve.workloads import condition

MODES: Final[Mapping[str, tuple[str, ...]]] = {
    "Standard": ("Standard", "RawDeployment"),
    "Knative": ("Knative", "Serverless"),
}
"""Each mode -> what KServe calls it; the second is its older name."""


def refusal(found: Mapping[str, Any] | None, desired: DesiredRevision, mode: str) -> str:
    """Return why a service can't split its traffic; empty if nothing speaks against it.

    Parameters
    ----------
    found
        The InferenceService; ``None`` if it is still to be created.
    mode
        One of ``MODES``.
    """
    if found is None:
        return _invisible(desired.labels) if mode == "Standard" else ""
    said = (
        (found["metadata"].get("annotations") or {}).get(MODE),
        (found.get("status") or {}).get("deploymentMode"),
    )
    for other in said:
        if other and other not in MODES[mode]:
            return f"the InferenceService is in the mode {other}, and the rollout asks for {mode}."
    if mode != "Standard":
        return ""
    if found["spec"].get("transformer"):
        return "the InferenceService has a transformer, which a canary's traffic would bypass."
    return _invisible(found["metadata"].get("labels") or {}) or _same_address(found, desired)


def no_routes(found: Mapping[str, Any], routes: Mapping[str, Any]) -> str:
    """Return why KServe has made no HTTPRoute though it is done; empty if it has, or is not."""
    if any(routes.values()) or condition(found, "IngressReady") != "True":
        return ""
    return (
        "KServe has made no HTTPRoute, and without one it can't split the traffic: it needs "
        "enableGatewayApi, and an ingress domain that is not cluster-local."
    )


def check_service(found: Mapping[str, Any]) -> None:
    """Check that the InferenceService is to serve at all.

    Raises
    ------
    TrafficUnknown
        If it is being deleted, or stopped.
    """
    if found["metadata"].get("deletionTimestamp"):
        raise TrafficUnknown("the InferenceService is being deleted")
    if (found["metadata"].get("annotations") or {}).get(STOPPED) == "true":
        raise TrafficUnknown("the InferenceService is stopped")


def _invisible(labels: Mapping[str, str]) -> str:
    if labels.get(VISIBILITY) != CLUSTER_LOCAL:
        return ""
    return f"a service with {VISIBILITY}: {CLUSTER_LOCAL} has no HTTPRoute that could be split."


def _same_address(found: Mapping[str, Any], desired: DesiredRevision) -> str:
    """Return that a candidate has its stable's address: KServe would never let it take its place.

    Its pods, and each new pod of the stable, would get whatever stands there now.
    """
    stable = served_of(found["spec"]["predictor"])
    if stable is None or serves(found["spec"]["predictor"], desired):
        return ""
    if stable.uri != desired.storage_uri:
        return ""
    return f"the candidate has the address of the stable, {stable.uri}: give it one of its own."
