"""The status of a ``TrainingRun``."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field, field_serializer

from dwcp_ml.contract.models import MODELS
from dwcp_ml.contract.records import Recommendation
from dwcp_ml.operator.api.parts import (
    LONGEST_SENTENCE,
    Condition,
    StatusPart,
    map_by,
    timestamp,
)

MOST_TASKS: Final = 64


class TrainingPhase(StrEnum):
    """Where a run stands."""

    PENDING = "Pending"
    """It has not been handed to Kubeflow yet."""

    SUSPENDED = "Suspended"
    """Nobody starts it until ``suspend`` is false."""

    RUNNING = "Running"
    """Kubeflow has it."""

    SUCCEEDED = "Succeeded"
    """The gate has answered, and what it approved was handed over."""

    FAILED = "Failed"
    """A task failed, or it ended without an answer of the gate."""

    CANCELLED = "Cancelled"
    """A person ended it."""


class Task(StatusPart):
    """One task of the pipeline."""

    name: str = Field(max_length=128, description="name of the task, as Kubeflow shows it")
    state: Literal["Pending", "Running", "Succeeded", "Skipped", "Failed", "Cancelled"] = Field(
        description="where it stands"
    )
    started_at: datetime | None = Field(default=None, description="when it began")
    finished_at: datetime | None = Field(default=None, description="when it ended")
    message: str = Field(default="", max_length=512, description="what went wrong, if anything")

    @field_serializer("started_at", "finished_at")
    def _as_kubernetes_writes_it(self, value: datetime | None) -> str | None:
        return None if value is None else timestamp(value)


class TrainingRunStatus(StatusPart):
    """Where a run stands, and what the gate said."""

    observed_generation: int = Field(
        default=0, ge=0, description="the generation of the resource that this was said of"
    )
    phase: TrainingPhase = Field(default=TrainingPhase.PENDING, description="where the run stands")
    reason: str = Field(
        default="", max_length=LONGEST_SENTENCE, description="why it stands there, one sentence"
    )
    run_id: str = Field(default="", max_length=128, description="the run's id in Kubeflow")
    started_at: datetime | None = Field(default=None, description="when it was handed over")
    finished_at: datetime | None = Field(default=None, description="when it ended")
    tasks: tuple[Task, ...] = Field(
        default=(),
        max_length=MOST_TASKS,
        description="the tasks of the pipeline; of more than these, the newest",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    recommendation: Recommendation | None = Field(
        default=None, description="what the gate said of the whole run; absent until it did"
    )
    version: str = Field(default="", max_length=128, description="version of the run's bundles")
    rollouts: tuple[Annotated[str, Field(max_length=63)], ...] = Field(
        default=(),
        max_length=len(MODELS),
        description="the ModelRollouts that had a bundle of this run as their candidate when it "
        "ended",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=16,
        description="Complete: it has ended; Approved: the gate approved the whole run; "
        "Refused: it can't be handed over as it is",
        json_schema_extra=map_by("type"),
    )

    @field_serializer("started_at", "finished_at")
    def _as_kubernetes_writes_it(self, value: datetime | None) -> str | None:
        return None if value is None else timestamp(value)
