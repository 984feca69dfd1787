"""Reads a TrainingRun's status, and updates it with the state of its run on Kubeflow. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import ValidationError

from dwcp_ml.kubeflow.client import RunState, TaskState
from dwcp_ml.kubeflow.run_state import time_of
from dwcp_ml.operator.api.parts import shortened
from dwcp_ml.operator.api.training_status import (
    MAX_TASKS,
    TaskStatus,
    TrainingRunStatus,
)

_TASK_STATES: Final[
    Mapping[str, Literal["Pending", "Running", "Succeeded", "Skipped", "Failed", "Cancelled"]]
] = {
    "RUNNING": "Running", "SUCCEEDED": "Succeeded", "SKIPPED": "Skipped", "FAILED": "Failed",
    "CANCELED": "Cancelled", "CANCELING": "Running",
}  # fmt: skip


def read_status(status: Mapping[str, Any]) -> tuple[TrainingRunStatus, bool]:
    """Return the status of an object, and whether all of its fields are valid.

    Invalid fields are left out; without its phase or reason the run is read again from Kubeflow.
    """
    names = {str(field.alias) for field in TrainingRunStatus.model_fields.values()}
    valid = {name: status[name] for name in names & status.keys() if _is_valid(name, status)}
    return TrainingRunStatus.model_validate(valid), valid.keys() == names & status.keys()


def _is_valid(name: str, status: Mapping[str, Any]) -> bool:
    try:
        TrainingRunStatus.model_validate({name: status[name]})
    except ValidationError:
        return False
    return True


def with_run(before: TrainingRunStatus, run: RunState) -> TrainingRunStatus:
    """Return the status with id, times and tasks of the run."""
    return before.replace(
        run_id=run.run_id,
        started_at=time_of(run.created_at),
        finished_at=time_of(run.finished_at),
        tasks=tuple(_task(task) for task in run.tasks[-MAX_TASKS:]),
    )


def _task(task: TaskState) -> TaskStatus:
    return TaskStatus(
        name=task.name[:128],
        state=_TASK_STATES.get(task.state, "Pending"),
        started_at=time_of(task.started_at),
        finished_at=time_of(task.finished_at),
        message=shortened(task.message, 512),
    )
