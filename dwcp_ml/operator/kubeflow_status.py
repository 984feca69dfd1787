"""What a TrainingRun's status says, and what Kubeflow says of a run in a status's words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import ValidationError

from dwcp_ml.kubeflow.client import RunState
from dwcp_ml.operator.api.parts import shortened
from dwcp_ml.operator.api.training_status import (
    MOST_TASKS,
    Task,
    TrainingRunStatus,
)

_TASK_STATES: Final[
    Mapping[str, Literal["Pending", "Running", "Succeeded", "Skipped", "Failed", "Cancelled"]]
] = {
    "RUNNING": "Running", "SUCCEEDED": "Succeeded", "SKIPPED": "Skipped", "FAILED": "Failed",
    "CANCELED": "Cancelled", "CANCELING": "Cancelled",
}  # fmt: skip


def told_before(status: Mapping[str, Any]) -> tuple[TrainingRunStatus, bool]:
    """Return a status as it stands in an object, and whether all of it can be read.

    What can't be is left out; where that is the phase, Kubeflow is asked again.
    """
    names = {str(field.alias) for field in TrainingRunStatus.model_fields.values()}
    read = {name: status[name] for name in names & status.keys() if _can_be_read(name, status)}
    found = TrainingRunStatus.model_validate(read)
    return found, read.keys() == names & status.keys()


def _can_be_read(name: str, status: Mapping[str, Any]) -> bool:
    try:
        TrainingRunStatus.model_validate({name: status[name]})
    except ValidationError:
        return False
    return True


def mirrored(before: TrainingRunStatus, run: RunState) -> TrainingRunStatus:
    """Return a status with what Kubeflow says of the run's times and tasks."""
    return before.replace(
        run_id=run.run_id,
        started_at=_time(run.created_at),
        finished_at=_time(run.finished_at),
        tasks=tuple(_task(one) for one in run.tasks[-MOST_TASKS:]),
    )


def _task(task: Any) -> Task:
    return Task(
        name=task.name[:128],
        state=_TASK_STATES.get(task.state, "Pending"),
        started_at=_time(task.started_at),
        finished_at=_time(task.finished_at),
        message=shortened(task.message, 512),
    )


def _time(text: str) -> datetime | None:
    """Return a time as Kubeflow writes it; ``None`` for none, or for its zero."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.year > 1970 else None
