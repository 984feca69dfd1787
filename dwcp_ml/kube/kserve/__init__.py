"""Traffic of a KServe InferenceService: read the live weights, write the next step.

router      what is desired, what is deployed, and the ``Router`` protocol
standard    the ``Router`` of Standard mode: ``spec.canary`` and HTTPRoutes
knative     the ``Router`` of Knative mode: ``canaryTrafficPercent`` and Knative Services
predictors  the spec with a stable, a candidate and their replicas; pure
objects     names, annotations, predictors and pods as they are read; the conditional write
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from dwcp_ml.kube.api import Api
from dwcp_ml.kube.kserve.knative import KnativeRouter
from dwcp_ml.kube.kserve.objects import (
    bare_digest,
    deployment_name,
    manager_of,
    predictor_name,
)
from dwcp_ml.kube.kserve.router import (
    ChangeRejected,
    DeployedRevision,
    DesiredRevision,
    ObservedTraffic,
    Router,
)
from dwcp_ml.kube.kserve.standard import StandardRouter

__all__ = [
    "ROUTERS",
    "ChangeRejected",
    "DeployedRevision",
    "DesiredRevision",
    "KnativeRouter",
    "ObservedTraffic",
    "Router",
    "Routers",
    "StandardRouter",
    "bare_digest",
    "deployment_name",
    "manager_of",
    "predictor_name",
]

Routers = Mapping[str, Callable[[Api, str, str], Router]]
"""Deployment mode -> what makes the router of an InferenceService, of its namespace and name."""

ROUTERS: Final[Routers] = {"Standard": StandardRouter, "Knative": KnativeRouter}
