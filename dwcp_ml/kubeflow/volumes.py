"""Whether the tasks of a compiled pipeline mount the volumes that a run's arguments name; pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from dwcp_ml.storage.addresses import (
    CLAIMS_VARIABLE,
    DEFAULT_CLAIMS,
    claim_of,
    file_path,
    scheme_of,
)

TASKS: Final = {
    "data_path": "validate-data",
    "incidents_path": "validate-data",
    "storage_prefix": "publish-candidate",
}
"""Argument that is an address -> the task that reads or writes there."""


def missing_volume(body: Mapping[str, Any], argument: str, address: str) -> str:
    """Return why a task of the pipeline can't find a local address; empty if it can.

    A ``pvc://`` address needs its claim where the task looks for it, a path any volume above it.
    Other addresses need none.

    Parameters
    ----------
    body
        The compiled pipeline, as Kubeflow takes it in a request.
    argument
        One of ``TASKS``.

    Raises
    ------
    UsageError
        If the address is invalid.
    """
    scheme, task = scheme_of(address), TASKS[argument]
    if scheme not in ("", "file", "pvc"):
        return ""
    executor = _executor(body, task)
    mounts = _mounts(body, executor)
    if scheme == "pvc":
        claim, _ = claim_of(address)
        place = f"{_claims(body, executor)}/{claim}"
        found = (claim, place) in mounts
    else:
        place = str(file_path(address) if scheme else PurePosixPath(address))
        parts = PurePosixPath(place).parts
        found = ".." not in parts and any(
            PurePosixPath(place).is_relative_to(path) for _, path in mounts
        )
        claim = "…"
    if found:
        return ""
    where = place if scheme == "pvc" else "a directory above it"
    return (
        f"the task {task} of this pipeline has no volume for {address}: name "
        f"{{claim: {claim}, path: {where}}} among its volumes in pipelines/resources.yaml, and "
        f"compile the pipeline again"
    )


def _executor(body: Mapping[str, Any], task: str) -> str:
    """Return Kubeflow's name of what a task runs; the copies of a component have the same."""
    spec = body.get("pipeline_spec", body)
    component = spec.get("components", {}).get(f"comp-{task}", {})
    return str(component.get("executorLabel", ""))


def _mounts(body: Mapping[str, Any], executor: str) -> set[tuple[str, str]]:
    """Return claim and path of each volume of an executor."""
    platform = body.get("platform_spec") or {}
    kubernetes = platform.get("platforms", {}).get("kubernetes", {})
    settings = kubernetes.get("deploymentSpec", {}).get("executors", {}).get(executor, {})
    return {
        (str(mount.get("constant", "")), str(mount.get("mountPath", "")).rstrip("/"))
        for mount in settings.get("pvcMount", ())
    }


def _claims(body: Mapping[str, Any], executor: str) -> str:
    spec = body.get("pipeline_spec", body)
    executors = spec.get("deploymentSpec", {}).get("executors", {})
    variables = executors.get(executor, {}).get("container", {}).get("env", ())
    values = {each.get("name"): each.get("value") for each in variables}
    return str(values.get(CLAIMS_VARIABLE) or DEFAULT_CLAIMS).rstrip("/")
