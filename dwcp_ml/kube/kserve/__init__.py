"""Traffic of a KServe InferenceService: read the live weights, write the next step.

router      what is desired, what is deployed, and the ``Router`` protocol
standard    the ``Router`` of Standard mode: ``spec.canary`` and HTTPRoutes
knative     the ``Router`` of Knative mode: ``canaryTrafficPercent`` and Knative Services
predictors  the spec with a stable, a candidate and their replicas; pure
objects     names, annotations, predictors and pods as they are read; the conditional write
"""

from __future__ import annotations

from dwcp_ml.contract.errors import UsageError, did_you_mean
from dwcp_ml.kube.api import Api
from dwcp_ml.kube.kserve.knative import KnativeRouter
from dwcp_ml.kube.kserve.objects import deployment_name, predictor_name
from dwcp_ml.kube.kserve.router import (
    ChangeRejected,
    DeployedRevision,
    DesiredRevision,
    ObservedTraffic,
    Router,
)
from dwcp_ml.kube.kserve.standard import StandardRouter

__all__ = [
    "ChangeRejected",
    "DeployedRevision",
    "DesiredRevision",
    "KnativeRouter",
    "ObservedTraffic",
    "Router",
    "StandardRouter",
    "deployment_name",
    "predictor_name",
    "router_of",
]


def router_of(api: Api, namespace: str, name: str, mode: str) -> Router:
    """Return what moves the traffic of an InferenceService.

    Parameters
    ----------
    mode
        ``Standard`` or ``Knative``, in either case.

    Raises
    ------
    UsageError
        If there is no such mode.
    """
    if mode.lower() == "standard":
        return StandardRouter(api, namespace, name)
    if mode.lower() == "knative":
        return KnativeRouter(api, namespace, name)
    known = did_you_mean(mode, ("Standard", "Knative"))
    raise UsageError(f"KServe has no mode '{mode}': {known}.")
