"""The status of a ``TrainingRun``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field

from dwcp_ml.contract.models import MODELS
from dwcp_ml.contract.records import Recommendation
from dwcp_ml.operator.api.parts import (
    MAX_SENTENCE,
    NOT_OBSERVED,
    Condition,
    StatusPart,
    Time,
    map_by,
)

MAX_TASKS: Final = 64


class TrainingPhase(StrEnum):
    """The phase of a run."""

    PENDING = "Pending"
    """It has not been submitted to Kubeflow yet."""

    SUSPENDED = "Suspended"
    """It is not submitted until ``suspend`` is false."""

    RUNNING = "Running"
    """It runs on Kubeflow."""

    SUCCEEDED = "Succeeded"
    """The gate has decided, and approved models were published."""

    FAILED = "Failed"
    """A task failed, or the run ended without a verdict of the gate."""

    CANCELLED = "Cancelled"
    """The user cancelled it."""


class TrainingReason(StrEnum):
    """Why a run is in its phase; the reason of its conditions."""

    PENDING = "Pending"
    """The run has not been submitted yet."""

    SUSPENDED = "Suspended"
    """``suspend`` is true."""

    RUNNING = "Running"
    """The run is on Kubeflow."""

    KUBEFLOW_UNAVAILABLE = "KubeflowUnavailable"
    """Kubeflow gave no response, or an error that a retry can solve."""

    GATE_APPROVED = "GateApproved"
    """The gate approved the run."""

    GATE_REJECTED = "GateRejected"
    """The gate rejected the run."""

    RUN_FAILED = "RunFailed"
    """A task failed before the gate decided."""

    PUBLICATION_FAILED = "PublicationFailed"
    """Not every approved model became the candidate of its ModelRollout."""

    RUN_SKIPPED = "RunSkipped"
    """Kubeflow skipped the run."""

    RUN_STATE_UNKNOWN = "RunStateUnknown"
    """Kubeflow reports a state that the operator does not know, or an end without a state."""

    VERDICT_UNKNOWN = "VerdictUnknown"
    """The run ended, but does not show the gate's verdict."""

    RUN_NOT_FOUND = "RunNotFound"
    """Kubeflow does not know the run any more."""

    RUN_CANCELLED = "RunCancelled"
    """The user cancelled the run."""

    INVALID_SPEC = "InvalidSpec"
    """The resource is invalid; the API server rejects such a resource since it has the rule."""

    KUBEFLOW_NOT_CONFIGURED = "KubeflowNotConfigured"
    """The operator has no address of a Kubeflow, or can't read its token."""

    PIPELINE_NOT_COMPILED = "PipelineNotCompiled"
    """The operator has no compiled pipeline for these models."""

    SUBMISSION_REJECTED = "SubmissionRejected"
    """Kubeflow rejected the submission."""

    REQUEST_REJECTED = "RequestRejected"
    """Kubeflow rejected a request about the submitted run."""


UNDER_WAY: Final = frozenset(
    {
        TrainingReason.PENDING,
        TrainingReason.SUSPENDED,
        TrainingReason.RUNNING,
        TrainingReason.KUBEFLOW_UNAVAILABLE,
    }
)
"""Reasons of the condition ``Reconciling``: the run has not ended, and nothing is to be fixed."""


class TaskStatus(StatusPart):
    """The status of one task of the pipeline."""

    name: str = Field(max_length=128, description="name of the task, as Kubeflow shows it")
    state: Literal["Pending", "Running", "Succeeded", "Skipped", "Failed", "Cancelled"] = Field(
        description="state of the task"
    )
    started_at: Time | None = Field(default=None, description="start time")
    finished_at: Time | None = Field(default=None, description="end time")
    message: str = Field(default="", max_length=512, description="the error of a failed task")


class Submission(StatusPart):
    """The last submission, until the run is found; it was written before the request was sent."""

    started_at: Time = Field(description="when it was sent")
    attempts: int = Field(ge=1, description="how often the run was submitted")
    appears_by: Time = Field(
        description="until when its run is looked for: it may appear without a response"
    )
    retry_at: Time = Field(description="when the run is submitted again, if none has appeared")
    message: str = Field(
        default="", max_length=MAX_SENTENCE, description="why it was lost or rejected"
    )


class TrainingRunStatus(StatusPart):
    """The state of a run, and the gate's verdict."""

    observed_generation: int = Field(
        default=NOT_OBSERVED,
        ge=-1,
        description="the generation of the resource that this status is about",
    )
    phase: TrainingPhase = Field(default=TrainingPhase.PENDING, description="phase of the run")
    reason: TrainingReason = Field(
        default=TrainingReason.PENDING, description="why the run is in this phase"
    )
    message: str = Field(
        default="", max_length=MAX_SENTENCE, description="the reason in a sentence"
    )
    run_id: str = Field(default="", max_length=128, description="the run's id in Kubeflow")
    submission: Submission | None = Field(
        default=None, description="the last submission; absent when the run's id is known"
    )
    started_at: Time | None = Field(default=None, description="time of the submission")
    finished_at: Time | None = Field(default=None, description="end time")
    tasks: tuple[TaskStatus, ...] = Field(
        default=(),
        max_length=MAX_TASKS,
        description=f"the tasks of the pipeline; at most the newest {MAX_TASKS}",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    verdict: Recommendation | None = Field(
        default=None, description="the gate's verdict on the whole run; absent until it is known"
    )
    version: str = Field(default="", max_length=128, description="version of the run's bundles")
    rollouts: tuple[Annotated[str, Field(max_length=63)], ...] = Field(
        default=(),
        max_length=len(MODELS),
        description="the ModelRollouts whose candidate was a bundle of this run when it ended",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=16,
        description="Ready: the gate approved the run, and approved models are published; "
        "Reconciling: the run has not ended; Stalled: the run failed or was rejected, or can't go "
        "on until something is changed",
        json_schema_extra=map_by("type"),
    )

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        over = (TrainingPhase.SUCCEEDED, TrainingPhase.FAILED, TrainingPhase.CANCELLED)
        return self.phase in over and self.reason not in UNDER_WAY

    @property
    def stalled(self) -> bool:
        """Whether the run failed or can't go on."""
        return self.reason not in (*UNDER_WAY, TrainingReason.GATE_APPROVED)
