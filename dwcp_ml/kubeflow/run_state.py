"""The state of a run, parsed from the JSON of Kubeflow's API. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

ENDED: Final = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
"""The final states of a run."""


@dataclass(frozen=True)
class TaskState:
    """One task; times as RFC 3339, empty while unknown."""

    name: str
    state: str
    started_at: str = ""
    finished_at: str = ""
    message: str = ""


@dataclass(frozen=True)
class RunState:
    """The state of a run.

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
        """Whether the state is final."""
        return self.state in ENDED


def state_of(run: Mapping[str, Any]) -> RunState:
    """Return the state of a run from a response of Kubeflow's API."""
    details = (run.get("run_details") or {}).get("task_details") or []
    artifacts: dict[str, str] = {}
    for task in details:
        if task.get("display_name") == "gate":
            for name, output in (task.get("outputs") or {}).items():
                ids = output.get("artifact_ids") or []
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


def _message(part: Mapping[str, Any]) -> str:
    return " ".join(str((part.get("error") or {}).get("message") or "").split())
