"""The status of a ``ModelRollout``."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import ConfigDict, Field

from dwcp_ml.operator.api.parts import (
    MAX_SENTENCE,
    MAX_URI,
    NOT_OBSERVED,
    Condition,
    StatusPart,
    Time,
    map_by,
)
from dwcp_ml.rollout.reason import Reason
from dwcp_ml.rollout.status import MAX_BLOCKED, MAX_RETRIES, Phase
from dwcp_ml.rollout.verdict import Outcome, Verdict

MAX_VERDICTS: Final = 16

MAX_STATE: Final = 524_288
"""Characters; etcd takes objects of 1.5 MB. About 800 replicas fit, both arms together."""


MAX_IDENTITY: Final = 325
"""Characters of a digest, a slash and a runtime's name."""


class RevisionStatus(StatusPart):
    """One bundle, and what serves it."""

    version: str = Field(max_length=128, description="version of the bundle")
    digest: str = Field(max_length=71, description="SHA-256 of the bundle's manifest.json")
    storage_uri: str = Field(
        default="", max_length=MAX_URI, description="where KServe finds the bundle"
    )
    runtime: str | None = Field(
        default=None,
        max_length=253,
        description="the ServingRuntime that the candidate named; absent for the template's",
    )


class VerdictStatus(Verdict, StatusPart):
    """The verdict of one test, in numbers and in one sentence."""

    model_config = ConfigDict(extra="ignore")

    test: str = Field(max_length=64, description="name of the test")
    outcome: Outcome = Field(
        description="a step needs Pass; with InsufficientData or Error the rollout waits"
    )
    sentence: str = Field(max_length=MAX_SENTENCE, description="the verdict as a sentence")


class RetryStatus(StatusPart):
    """One retry of a digest that had been rolled back."""

    digest: str = Field(
        max_length=MAX_IDENTITY, description="what was unblocked, as in blockedDigests"
    )
    reason: str = Field(max_length=512, description="why, as the user wrote it")
    manager: str = Field(
        default="",
        max_length=128,
        description="the field manager that wrote spec.retry, such as kubectl-patch; the user's "
        "name is in the API server's audit log",
    )
    at: Time = Field(description="when it was unblocked")


class ModelRolloutStatus(StatusPart):
    """The status of a rollout. Only ``state`` is ever read back."""

    observed_generation: int = Field(
        default=NOT_OBSERVED,
        ge=-1,
        description="the generation of the spec that was reconciled",
    )
    phase: Phase = Field(default=Phase.PENDING, description="phase of the rollout")
    reason: Reason | None = Field(
        default=None, description="why it is in this phase, or what it waits for"
    )
    message: str = Field(
        default="", max_length=MAX_SENTENCE, description="the reason in words, with its figures"
    )
    step: str = Field(
        default="",
        max_length=16,
        description="the current step, from 1, and the number of steps; 0/5 before the first",
    )
    live_percent: int | None = Field(
        default=None,
        ge=0,
        le=100,
        description="the candidate's weight as the router reported it when this was written; "
        "absent if unknown",
    )
    target_percent: int = Field(
        default=0, ge=0, le=100, description="the target weight of the candidate"
    )
    passed_percent: int = Field(
        default=0, ge=0, le=100, description="the highest step that this candidate has passed"
    )
    candidate: RevisionStatus | None = Field(
        default=None, description="the bundle being rolled out"
    )
    stable: RevisionStatus | None = Field(
        default=None,
        description="the bundle that the candidate is compared with; absent for a first deployment",
    )
    started_at: Time | None = Field(
        default=None, description="when the rollout of this candidate started"
    )
    since: Time | None = Field(
        default=None, description="when the phase or the target weight last changed"
    )
    exposed_requests: int = Field(
        default=0, ge=0, description="requests sent to the candidate in this rollout"
    )
    evidence: str = Field(
        default="",
        max_length=MAX_SENTENCE,
        description="how far the evidence of each test has come, log(evidence) / log(needed), when "
        "this was written; the outcome of a test that is decided or has no data",
    )
    verdicts: tuple[VerdictStatus, ...] = Field(
        default=(),
        max_length=MAX_VERDICTS,
        description="the verdict of each test",
        json_schema_extra=map_by("test"),
    )
    blocked_digests: tuple[Annotated[str, Field(max_length=MAX_IDENTITY)], ...] = Field(
        default=(),
        max_length=MAX_BLOCKED,
        description="digests that were rolled back and get no traffic again, unless spec.retry "
        "unblocks one; followed by a slash and the runtime where the candidate named it: in "
        "another runtime the bundle is not blocked",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    retries: tuple[RetryStatus, ...] | None = Field(
        default=None,
        max_length=MAX_RETRIES,
        description=f"digests that spec.retry unblocked, if any; at most the newest {MAX_RETRIES}",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=16,
        description="Ready: the candidate has all traffic; Reconciling: the rollout is under way; "
        "Stalled: it can't go on, or was rolled back or aborted; Promoted: the candidate is live",
        json_schema_extra=map_by("type"),
    )
    state: str = Field(
        default="",
        max_length=MAX_STATE,
        description="the operator's state of this rollout, versioned JSON; opaque to others",
    )
