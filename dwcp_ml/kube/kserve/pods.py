"""The pods of one arm: where they answer, how often they crashed, and what the cluster did to them.

A candidate is judged by what its own containers do. What the cluster does to its pods is read from
the fields of their status, never from texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dwcp_ml.kube.kserve.objects import condition

Pod = Mapping[str, Any]

CONTAINER: Final = "kserve-container"
PORT: Final = 8080
"""KServe's default if the container names none."""


def addresses(pods: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return ``host:port`` of the pods that can take traffic, in order."""
    return tuple(sorted(_address(pod) for pod in pods if _is_ready(pod)))


WAITING: Final = frozenset({
    "CreateContainerConfigError", "ErrImageNeverPull", "ErrImagePull", "ImageInspectError",
    "ImagePullBackOff", "InvalidImageName", "RegistryUnavailable", "SignatureValidationFailed",
})  # fmt: skip
"""Reasons of the kubelet for a container that could not be started, so that its code never ran."""

ENDED: Final = frozenset({
    "Evicted", "NodeAffinity", "NodeLost", "NodeShutdown", "OutOfcpu", "OutOfephemeral-storage",
    "OutOfmemory", "OutOfpods", "Preempted", "Preempting", "Shutdown", "Terminated",
    "UnexpectedAdmissionError",
})  # fmt: skip
"""Reasons of a pod that the cluster ended, or did not admit to a node."""


@dataclass(frozen=True)
class PodsReport:
    """What became of the pods of one arm.

    Parameters
    ----------
    restarts
        Restarts of their containers, and pods that failed by themselves.
    problem
        What the cluster keeps from running, and which pod; empty if there is nothing, or if another
        pod is not ready by itself.
    starting
        Whether none of those that are not ready has had the chance to become so.
    """

    count: int
    restarts: int
    problem: str
    starting: bool


def report_of(pods: Iterable[Pod]) -> PodsReport:
    """Return what became of the pods of one arm."""
    existing = sorted(pods, key=lambda pod: str(pod["metadata"].get("name") or ""))
    current = [pod for pod in existing if not _has_ended(pod)]
    unready = [pod for pod in current if condition(pod, "Ready") != "True"]
    problems = {id(pod): _problem(pod) for pod in existing}
    is_own = any(not problems[id(pod)] and not _is_starting(pod) for pod in unready)
    # Pods that the cluster ended stay in the list: they matter until others take their place.
    named = [problems[id(pod)] for pod in (unready if current else existing)]
    return PodsReport(
        count=len(current),
        restarts=sum(map(_restarts, existing)),
        problem="" if is_own else next(filter(None, named), ""),
        starting=not is_own,
    )


def _restarts(pod: Pod) -> int:
    """Return the number of container restarts, and 1 for a pod that failed by itself."""
    status = pod.get("status") or {}
    count = sum(int(each.get("restartCount") or 0) for each in _containers(pod))
    return count + (status.get("phase") == "Failed" and not _problem(pod))


def _containers(pod: Pod) -> list[Mapping[str, Any]]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _has_ended(pod: Pod) -> bool:
    phase = (pod.get("status") or {}).get("phase")
    return phase in ("Failed", "Succeeded") or "deletionTimestamp" in pod["metadata"]


def _problem(pod: Pod) -> str:
    """Return what the cluster did to a pod, or keeps from it; empty for nothing."""
    status, name = pod.get("status") or {}, pod["metadata"].get("name")
    ended = str(status.get("reason") or "")
    if ended in ENDED:
        return _named(ended, name, status)
    for each in status.get("conditions") or []:
        is_scheduled = (each.get("type"), each.get("status")) != ("PodScheduled", "False")
        is_disrupted = (each.get("type"), each.get("status")) == ("DisruptionTarget", "True")
        if is_disrupted or not is_scheduled:
            return _named(str(each.get("reason") or each.get("type")), name, each)
    for container in _containers(pod):
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in WAITING:
            return _named(str(waiting["reason"]), name, waiting)
    return ""


def _named(what: str, name: object, source: Mapping[str, Any]) -> str:
    message = str(source.get("message") or "").rstrip(".")
    return f"{what} of the pod {name}" + (f" ({message})" if message else "")


def _is_starting(pod: Pod) -> bool:
    """Return whether the containers of a pod have not run yet, and none has failed."""
    phase = (pod.get("status") or {}).get("phase")
    has_failed = _restarts(pod) > 0 or any(map(_failed, _containers(pod)))
    return phase in (None, "Pending") and not has_failed


def _failed(container: Mapping[str, Any]) -> bool:
    ended = (container.get("state") or {}).get("terminated") or {}
    return bool(ended.get("exitCode"))


def _is_ready(pod: Mapping[str, Any]) -> bool:
    has_address = bool((pod.get("status") or {}).get("podIP"))
    is_terminating = "deletionTimestamp" in pod["metadata"]
    return has_address and not is_terminating and condition(pod, "Ready") == "True"


def _address(pod: Mapping[str, Any]) -> str:
    host = str(pod["status"]["podIP"])
    containers = (pod.get("spec") or {}).get("containers") or []
    deployed = [each for each in containers if each.get("name") == CONTAINER] or containers[:1]
    ports = [
        port["containerPort"]
        for container in deployed[:1]
        for port in container.get("ports") or []
        if "containerPort" in port
    ]
    port = ports[0] if ports else PORT
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
