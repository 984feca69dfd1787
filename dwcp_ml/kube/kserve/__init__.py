"""How a rollout moves the traffic of a KServe InferenceService; nothing is decided here.

records      what is asked for, what is live, and the ``Router`` protocol
standard     ``spec.canary`` and HTTPRoutes
knative      ``canaryTrafficPercent`` and Knative Services
canary       the spec of the Standard mode: what is there, what is to be, pure
capacity     replicas while there are two predictors, pure
predictors   what a predictor serves, and what is written there, pure
routes       HTTPRoutes -> shares, pure
revisions    a Knative Service -> revisions and shares, pure
refusals     which services can't split their traffic, pure
workloads    pods and Deployments -> ready, addresses, restarts, pure
names        names that KServe makes, and our annotations, pure
writing      one conditional write
"""

from __future__ import annotations

from dwcp_ml.contract.errors import UsageError, did_you_mean
from dwcp_ml.kube.api import Api
from dwcp_ml.kube.kserve.knative import KnativeRouter
from dwcp_ml.kube.kserve.names import deployment_name, predictor_name
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
