"""What Kubeflow says of a run: its JSON -> where the run stands. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

ENDED: Final = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
"""The states that a run stays in."""


@dataclass(frozen=True)
class TaskState:
    """One task; times as RFC 3339, empty while they are not known."""

    name: str
    state: str
    started_at: str = ""
    finished_at: str = ""
    message: str = ""


@dataclass(frozen=True)
class RunState:
    """Where a run stands.

    Parameters
    ----------
    state
        In Kubeflow's words: PENDING, RUNNING, SUCCEEDED, FAILED, CANCELED, …
    error
        Why it failed.
    artifacts
        Name of an output of the gate -> id of its artifact.
    """

    run_id: str
    state: str
    error: str = ""
    created_at: str = ""
    finished_at: str = ""
    tasks: tuple[TaskState, ...] = ()
    artifacts: Mapping[str, str] | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing changes any more."""
        return self.state in ENDED


def state_of(run: Mapping[str, Any]) -> RunState:
    """Return where a run stands, from what Kubeflow says of it."""
    details = (run.get("run_details") or {}).get("task_details") or []
    artifacts: dict[str, str] = {}
    for task in details:
        if task.get("display_name") == "gate":
            for name, found in (task.get("outputs") or {}).items():
                ids = found.get("artifact_ids") or []
                if ids:
                    artifacts[name] = str(ids[0])
    return RunState(
        run_id=str(run.get("run_id", "")),
        state=str(run.get("state", "")),
        error=_message(run),
        created_at=str(run.get("created_at") or ""),
        finished_at=str(run.get("finished_at") or ""),
        tasks=tuple(
            TaskState(
                name=str(task.get("display_name") or ""),
                state=str(task.get("state") or ""),
                started_at=str(task.get("start_time") or ""),
                finished_at=str(task.get("end_time") or ""),
                message=_message(task),
            )
            for task in details
            if task.get("display_name")
        ),
        artifacts=artifacts,
    )


def _message(thing: Mapping[str, Any]) -> str:
    return " ".join(str((thing.get("error") or {}).get("message") or "").split())
