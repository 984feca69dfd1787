"""The state of a run, parsed from the JSON of Kubeflow's API. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

ENDED: Final = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
"""The final states of a run."""

CANCELING: Final = "CANCELING"
"""The state of a run that was told to terminate, until its tasks have ended."""

UNDER_WAY: Final = ("", "PENDING", "RUNNING", "PAUSED", CANCELING)
"""The other states of a run; empty until Kubeflow knows one."""

_UNSPECIFIED: Final = "RUNTIME_STATE_UNSPECIFIED"


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
        """Whether the run is over.

        That is a final state, or an end time beside no state or one that is not known here: later
        versions of Kubeflow may have others.
        """
        if self.state in ENDED:
            return True
        return not (self.state and self.is_known) and time_of(self.finished_at) is not None

    @property
    def is_known(self) -> bool:
        """Whether this version knows the state."""
        return self.state in (*ENDED, *UNDER_WAY)


def time_of(text: str) -> datetime | None:
    """Return a time of Kubeflow's API; ``None`` if it is empty, or zero."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.year > 1970 else None


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
        state=_state(run),
        error=_message(run),
        created_at=str(run.get("created_at") or ""),
        finished_at=str(run.get("finished_at") or ""),
        tasks=tuple(
            TaskState(
                name=str(task.get("display_name") or ""),
                state=_state(task),
                started_at=str(task.get("start_time") or ""),
                finished_at=str(task.get("end_time") or ""),
                message=_message(task),
            )
            for task in details
            if task.get("display_name")
        ),
        artifacts=artifacts,
    )


def _state(part: Mapping[str, Any]) -> str:
    state = str(part.get("state") or "")
    return "" if state == _UNSPECIFIED else state


def _message(part: Mapping[str, Any]) -> str:
    return " ".join(str((part.get("error") or {}).get("message") or "").split())
