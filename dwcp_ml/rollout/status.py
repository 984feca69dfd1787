"""The only memory of a rollout: everything ``decide`` knows of the past is here.

A controller that is killed at any point reads its last status and goes on; nothing else is kept.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from pydantic import Field

from dwcp_ml.contract.records import Record
from dwcp_ml.rollout.analysis import Evidence
from dwcp_ml.rollout.counters import ArmCounters
from dwcp_ml.rollout.spec import Revision
from dwcp_ml.rollout.verdict import Verdict

MOST_EVENTS: Final = 40
MOST_BARRED: Final = 20


class Phase(StrEnum):
    """Where a rollout stands; one sentence says what is true in it."""

    PENDING = "Pending"
    """The candidate has no traffic yet: it is not ready, or what is live is still another."""

    FIRST_DEPLOYMENT = "FirstDeployment"
    """Nothing is live: the candidate gets everything, and there is nothing to compare it with."""

    PROGRESSING = "Progressing"
    """The candidate has a step's share of the traffic, and evidence is gathered."""

    PAUSED = "Paused"
    """As Progressing, but nothing rises."""

    WATCHING = "Watching"
    """The candidate has all traffic; the stable is kept, to go back at once."""

    PROMOTING = "Promoting"
    """The watch is over; the router is told to make the candidate the stable."""

    PROMOTED = "Promoted"
    """Done: the candidate is what is live. Nothing is written any more."""

    ROLLING_BACK = "RollingBack"
    """The candidate is to lose its traffic; the router has not confirmed it yet."""

    ROLLED_BACK = "RolledBack"
    """Done: the candidate has no traffic and never gets any again. Nothing is written any more."""


ENDED: Final = frozenset({Phase.PROMOTED, Phase.ROLLED_BACK})


class Event(Record):
    """A change worth telling: a line of the timeline."""

    at: float = Field(description="epoch seconds, as the caller's clock had it")
    phase: Phase
    percent: int
    text: str


class RolloutStatus(Record):
    """Everything a rollout remembers; small and bounded, whatever its length."""

    observed_generation: int = 0
    revision: Revision | None = Field(default=None, description="the candidate it is about")
    phase: Phase = Phase.PENDING
    target_percent: int = Field(default=0, description="the share the candidate is to have")
    passed_percent: int = Field(
        default=0, description="the highest step with a stored passing verdict for this revision"
    )
    skipped: str = Field(default="", description="why a person let the newest pass stand")
    started_at: float = 0.0
    last_look: float | None = None
    step_elapsed: float = Field(default=0.0, description="time at this step, seconds")
    step_requests: int = Field(default=0, description="candidate requests at this step")
    ready_elapsed: float = Field(default=0.0, description="time the candidate has been ready")
    unready_elapsed: float = 0.0
    watch_elapsed: float = 0.0
    warm_up_requests: int = Field(default=0, description="shown, and not counted")
    touched_requests: int = Field(default=0, description="candidate requests, all of them")
    restarts_at_start: int | None = None
    stable_counters: ArmCounters = ArmCounters()
    candidate_counters: ArmCounters = ArmCounters()
    pairs_cursor: str = ""
    truths_cursor: str = ""
    evidence: Evidence = Evidence()
    verdicts: tuple[Verdict, ...] = ()
    reason: str = ""
    barred: tuple[str, ...] = Field(
        default=(), description="digests that were rolled back here: they never rise again"
    )
    events: tuple[Event, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether the rollout is over, and nothing is written any more."""
        return self.phase in ENDED

    def told(self, at: float, phase: Phase, text: str, **changes: Any) -> RolloutStatus:
        """Return the status in a phase, with a reason; with an event if something changed."""
        new = self.replace(**changes)
        events = self.events
        passed = new.passed_percent != self.passed_percent
        if phase is not self.phase or new.target_percent != self.target_percent or passed:
            event = Event(at=at, phase=phase, percent=new.target_percent, text=text)
            events = (*events, event)[-MOST_EVENTS:]
        return new.replace(phase=phase, reason=text, events=events)
