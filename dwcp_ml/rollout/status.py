"""The state of a rollout: everything that ``decide`` knows of the past.

A controller that is killed at any point reads its last stored status and goes on from there.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from pydantic import Field

from dwcp_ml.contract.record import Record
from dwcp_ml.rollout.analysis import Evidence
from dwcp_ml.rollout.cause import Cause
from dwcp_ml.rollout.counters import ArmCounters
from dwcp_ml.rollout.observation import Observation
from dwcp_ml.rollout.reason import Reason
from dwcp_ml.rollout.spec import Revision, RolloutSpec
from dwcp_ml.rollout.verdict import Verdict

MAX_EVENTS: Final = 40
MAX_BLOCKED: Final = 20
MAX_RETRIES: Final = 20


class Phase(StrEnum):
    """The phase of a rollout; the docstring of each says what is true in it."""

    PENDING = "Pending"
    """The candidate has no traffic yet: it is not ready, or the weight is still being set."""

    FIRST_DEPLOYMENT = "FirstDeployment"
    """Nothing is live: the candidate gets all traffic, and there is nothing to compare it with."""

    PROGRESSING = "Progressing"
    """The candidate has the weight of a step, and evidence is gathered."""

    PAUSED = "Paused"
    """As Progressing, but the weight does not rise."""

    WATCHING = "Watching"
    """The candidate has all traffic; the stable is kept to roll back to."""

    PROMOTING = "Promoting"
    """The watch is over; the router makes the candidate the stable."""

    PROMOTED = "Promoted"
    """Ended: the candidate is the stable. Nothing is written any more."""

    ROLLING_BACK = "RollingBack"
    """The candidate is losing its traffic; the router has not confirmed it yet."""

    ROLLED_BACK = "RolledBack"
    """Ended: the candidate has no traffic, and its digest is blocked."""


ENDED: Final = frozenset({Phase.PROMOTED, Phase.ROLLED_BACK})


class RolloutEvent(Record):
    """A change of phase, weight or passed step: a line of the timeline."""

    at: float = Field(description="epoch seconds, by the caller's clock")
    phase: Phase
    percent: int
    cause: Cause


class Shadow(StrEnum):
    """What became of the shadow step."""

    PENDING = "Pending"
    PASSED = "Passed"
    SKIPPED = "Skipped"


class RetryRecord(Record):
    """A retry that was used: it has no effect a second time."""

    digest: str = Field(description="identity of the revision")
    reason: str
    manager: str = ""
    at: float = Field(description="epoch seconds, by the caller's clock")
    unblocked: bool = Field(description="false if the digest was not blocked when it was read")


class RolloutStatus(Record):
    """The state of a rollout; its size is bounded, however long the rollout takes."""

    observed_generation: int = 0
    revision: Revision | None = Field(default=None, description="the candidate")
    phase: Phase = Phase.PENDING
    target_percent: int = Field(default=0, description="the weight the candidate is to have")
    passed_percent: int = Field(
        default=0, description="the highest step with a stored passing verdict for this revision"
    )
    shadow: Shadow = Field(
        default=Shadow.PENDING, description="of this revision; without such a step it stays pending"
    )
    started_at: float = 0.0
    last_reconciled: float | None = None
    step_elapsed: float = Field(default=0.0, description="time at this step, seconds")
    step_requests: int = Field(default=0, description="candidate requests at this step")
    last_tick: float = Field(
        default=0.0,
        description="time that the last reconciliation added, seconds",
    )
    unready_elapsed: float = 0.0
    watch_elapsed: float = 0.0
    warm_up_requests: int = Field(default=0, description="shown, and not counted")
    exposed_requests: int = Field(default=0, description="candidate requests, all of them")
    restarts_at_start: int | None = None
    stable_restarts: int = Field(default=0, ge=0, description="restarts of the stable since then")
    stable_restarts_read: int | None = Field(
        default=None, description="as read last; fewer are those of other pods"
    )
    stable_counters: ArmCounters = ArmCounters()
    candidate_counters: ArmCounters = ArmCounters()
    pairs_cursor: str = ""
    ground_truth_cursor: str = ""
    evidence: Evidence = Evidence()
    verdicts: tuple[Verdict, ...] = ()
    cause: Cause = Cause(reason=Reason.CANDIDATE_NOT_READY)
    blocked: tuple[str, ...] = Field(
        default=(),
        description="identities of the revisions that were rolled back here: they never rise again",
    )
    retries: tuple[RetryRecord, ...] = Field(
        default=(), description="retries that were used, the newest last"
    )
    knows_retries: bool = Field(
        default=False,
        description="retries is complete; a release that knows no retries drops both fields",
    )
    events: tuple[RolloutEvent, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether the rollout is over, and nothing is written any more."""
        return self.phase in ENDED

    def transition(
        self,
        at: float,
        phase: Phase,
        cause: Cause,
        *,
        target_percent: int | None = None,
        passed_percent: int | None = None,
        shadow: Shadow | None = None,
    ) -> RolloutStatus:
        """Return the status in a phase, with its cause, and an event if something changed.

        Parameters
        ----------
        at
            Epoch seconds.
        target_percent, passed_percent, shadow
            New values; ``None`` leaves them.
        """
        target = self.target_percent if target_percent is None else target_percent
        passed = self.passed_percent if passed_percent is None else passed_percent
        shadow = shadow or self.shadow
        events = self.events
        before = self.phase, self.target_percent, self.passed_percent, self.shadow
        if (phase, target, passed, shadow) != before:
            event = RolloutEvent(at=at, phase=phase, percent=target, cause=cause)
            events = (*events, event)[-MAX_EVENTS:]
        return self.replace(
            phase=phase, cause=cause, target_percent=target, passed_percent=passed, shadow=shadow,
            events=events,
        )  # fmt: skip

    def with_stable(self, observation: Observation) -> RolloutStatus:
        """Return the status with what the stable did meanwhile, for ``is_crashing``.

        The time that a candidate is not ready counts while it may be its own fault only.
        """
        status = self if is_own_fault(observation) else self.replace(unready_elapsed=0.0)
        if observation.stable is None:
            return status
        restarts, before = observation.stable.restarts, self.stable_restarts_read
        new = 0 if before is None else max(restarts - before, 0)
        return status.replace(
            stable_restarts=self.stable_restarts + new, stable_restarts_read=restarts
        )

    def at_new_step(self, target_percent: int) -> RolloutStatus:
        """Return the status with the counters of the step started over, for another target.

        The target itself is left to ``transition``, which makes the event of it.
        """
        return self.replace(
            passed_percent=min(self.passed_percent, max(target_percent - 1, 0)),
            step_elapsed=0.0,
            step_requests=0,
            watch_elapsed=0.0,
        )


def is_of_candidate(spec: RolloutSpec, status: RolloutStatus) -> bool:
    """Return whether a status is about the candidate of the spec: same bundle, same runtime."""
    return status.revision is not None and status.revision.identity == spec.candidate.identity


def blocked_names(spec: RolloutSpec) -> set[str]:
    """Return the identities under which the candidate may be blocked.

    Naming the runtime that the template has anyway makes no other candidate.
    """
    candidate, own = spec.candidate, spec.template_runtime
    names = {candidate.identity}
    if own and candidate.runtime == own:
        names.add(candidate.digest)
    elif own and not candidate.runtime:
        names.add(candidate.replace(runtime=own).identity)
    return names


def is_blocked(spec: RolloutSpec, status: RolloutStatus) -> bool:
    """Return whether the candidate was rolled back here."""
    return not blocked_names(spec).isdisjoint(status.blocked)


def is_own_fault(observation: Observation) -> bool:
    """Return whether a candidate that is not ready may be the reason for it itself."""
    candidate, stable = observation.candidate, observation.stable
    is_held_up = candidate is not None and candidate.problem is not None
    return not is_held_up and (stable is None or stable.ready)


def is_crashing(status: RolloutStatus, observation: Observation, limit: int) -> bool:
    """Return whether the candidate restarts more often than the stable, by this many.

    What restarts both, such as a node or a service that both need, shows nothing about the
    candidate. Restarts are compared per pod: as many as the stable's are expected of the candidate
    in proportion to their pods.
    """
    candidate, stable = observation.candidate, observation.stable
    if candidate is None or status.restarts_at_start is None:
        return False
    restarts = candidate.restarts - status.restarts_at_start
    expected = float(status.stable_restarts)
    if stable is not None and stable.pods and candidate.pods:
        expected *= candidate.pods / stable.pods
    return restarts >= limit and restarts - expected >= limit
