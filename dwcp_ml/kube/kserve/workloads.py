"""The pods of a predictor: which are ready, where they are, how often they crashed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from dwcp_ml.kube.kserve.predictors import is_made_of

SERVICE_LABEL: Final = "serving.kserve.io/inferenceservice"
"""Of every pod: the name of its InferenceService."""

CONTAINER: Final = "kserve-container"
PORT: Final = 8080
"""KServe's own default, where the container names none."""


def addresses(pods: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return ``host:port`` of the pods that can take traffic, in order."""
    return tuple(sorted(_address(pod) for pod in pods if _is_ready(pod)))


def restarts(pods: Iterable[Mapping[str, Any]]) -> int:
    """Return how often containers were started again, and pods failed altogether."""
    total = 0
    for pod in pods:
        status = pod.get("status") or {}
        containers = [
            *(status.get("containerStatuses") or []),
            *(status.get("initContainerStatuses") or []),
        ]
        total += sum(int(one.get("restartCount") or 0) for one in containers)
        total += status.get("phase") == "Failed"
    return total


def is_ready(deployment: Mapping[str, Any] | None, predictor: Mapping[str, Any]) -> bool:
    """Return whether at least half of a Deployment's replicas can take traffic.

    And nothing but what is asked for now: before KServe has changed a Deployment, and while its
    pods are changed one by one, it is available, and serves what was before.

    Parameters
    ----------
    predictor
        What it is to serve.
    """
    template = ((deployment or {}).get("spec") or {}).get("template") or {}
    if deployment is None or not is_made_of(template, predictor):
        return False
    status = deployment.get("status") or {}
    seen = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    changed = (status.get("updatedReplicas") or 0) >= (status.get("replicas") or 0)
    available = status.get("availableReplicas") or 0
    return seen and changed and available > 0 and available * 2 >= replicas_of(deployment)


def is_available(deployment: Mapping[str, Any] | None, predictor: Mapping[str, Any]) -> bool:
    """Return whether a Deployment is ready, and has as many replicas as Kubernetes asks of it."""
    return (
        deployment is not None
        and is_ready(deployment, predictor)
        and condition(deployment, "Available") == "True"
    )


def replicas_of(deployment: Mapping[str, Any] | None) -> int:
    """Return how many replicas a Deployment is to have; 0 if there is none."""
    if deployment is None:
        return 0
    return int((deployment.get("spec") or {}).get("replicas", 1))


def condition(found: Mapping[str, Any], kind: str) -> str:
    """Return the status of a condition: True, False, Unknown; empty if it is not there."""
    for one in (found.get("status") or {}).get("conditions") or []:
        if one.get("type") == kind:
            return str(one.get("status"))
    return ""


def _is_ready(pod: Mapping[str, Any]) -> bool:
    has_address = bool((pod.get("status") or {}).get("podIP"))
    leaves = "deletionTimestamp" in pod["metadata"]
    return has_address and not leaves and condition(pod, "Ready") == "True"


def _address(pod: Mapping[str, Any]) -> str:
    host = str(pod["status"]["podIP"])
    containers = (pod.get("spec") or {}).get("containers") or []
    deployed = [one for one in containers if one.get("name") == CONTAINER] or containers[:1]
    ports = [
        port["containerPort"]
        for one in deployed[:1]
        for port in one.get("ports") or []
        if "containerPort" in port
    ]
    port = ports[0] if ports else PORT
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
