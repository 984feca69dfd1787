"""The status of a ``ModelRollout``."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

from pydantic import ConfigDict, Field, field_serializer

from dwcp_ml.operator.api.parts import (
    LONGEST_SENTENCE,
    LONGEST_URI,
    Condition,
    StatusPart,
    map_by,
    timestamp,
)
from dwcp_ml.rollout.status import MOST_BARRED, Phase
from dwcp_ml.rollout.verdict import Outcome, Verdict

MOST_VERDICTS: Final = 16

LONGEST_MEMORY: Final = 524_288
"""Characters; etcd takes objects of 1.5 MB. About 800 replicas fit, both arms together."""


class ShownRevision(StatusPart):
    """One bundle."""

    version: str = Field(max_length=128, description="version of the bundle")
    digest: str = Field(max_length=71, description="SHA-256 of the bundle's manifest.json")
    storage_uri: str = Field(
        default="", max_length=LONGEST_URI, description="where KServe finds the bundle"
    )


class ShownVerdict(Verdict, StatusPart):
    """What one test says now, in numbers and in one sentence."""

    model_config = ConfigDict(extra="ignore")

    test: str = Field(max_length=64, description="name of the test")
    outcome: Outcome = Field(description="only pass is a pass; the last two hold the rollout")
    sentence: str = Field(max_length=LONGEST_SENTENCE, description="the same for people")


class ModelRolloutStatus(StatusPart):
    """Where a rollout stands. Only ``memory``, with its ``seal``, is ever read back."""

    observed_generation: int = Field(
        default=0, ge=0, description="the generation of the resource that this was said of"
    )
    phase: Phase = Field(default=Phase.PENDING, description="where the rollout stands")
    reason: str = Field(
        default="", max_length=LONGEST_SENTENCE, description="why it stands there, one sentence"
    )
    step: str = Field(
        default="",
        max_length=16,
        description="the step it is at, counted from 1, of how many; 0/5 before the first",
    )
    live_percent: int | None = Field(
        default=None,
        ge=0,
        le=100,
        description="the candidate's share as the router itself told it when this was written; "
        "absent if it did not",
    )
    target_percent: int = Field(
        default=0, ge=0, le=100, description="the share the candidate is to have"
    )
    passed_percent: int = Field(
        default=0, ge=0, le=100, description="the highest step that this candidate has passed"
    )
    candidate: ShownRevision | None = Field(default=None, description="the bundle this is about")
    stable: ShownRevision | None = Field(
        default=None, description="what the candidate is compared with; absent for the first"
    )
    started_at: datetime | None = Field(default=None, description="when this candidate came")
    since: datetime | None = Field(
        default=None, description="when it came to this phase, or to the share it is to have"
    )
    touched_requests: int = Field(
        default=0, ge=0, description="requests that the candidate has answered, all of them"
    )
    verdicts: tuple[ShownVerdict, ...] = Field(
        default=(),
        max_length=MOST_VERDICTS,
        description="what each test says now",
        json_schema_extra=map_by("test"),
    )
    barred: tuple[Annotated[str, Field(max_length=71)], ...] = Field(
        default=(),
        max_length=MOST_BARRED,
        description="digests that were rolled back here: they never rise again",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=16,
        description="Progressing: it is under way; Promoted: the candidate is what is live; "
        "Refused: it can't be carried out as it is; Held: something is in its way that passes, or "
        "that a person has to clear up",
        json_schema_extra=map_by("type"),
    )
    memory: str = Field(
        default="",
        max_length=LONGEST_MEMORY,
        description="everything the operator remembers of this rollout, as JSON; nothing else is "
        "kept anywhere",
    )
    seal: str = Field(
        default="",
        max_length=128,
        description="HMAC of memory by the operator's key: what was edited by hand is not believed",
    )

    @field_serializer("started_at", "since")
    def _as_kubernetes_writes_it(self, value: datetime | None) -> str | None:
        return None if value is None else timestamp(value)
