"""The decision: spec, state and observation in; new state and at most one write out.

The rules of every write:

I1  the candidate's weight is 0 or one of the steps, and rises one step at a time;
I2  it rises only on a stored passing verdict for that revision at the step below;
I3  a revision that was rolled back never rises again;
I4  weights sum to 100: one number says both;
I5  nothing is written once a rollout has ended.

A status is stored before its write is made. A write that was lost is therefore made again by the
next call, which finds that the live weight differs from the status.
"""

from __future__ import annotations

from typing import Literal

from dwcp_ml.contract.records import Record
from dwcp_ml.rollout.cause import Cause, Reason
from dwcp_ml.rollout.evidence_update import fault_of, with_evidence, with_time
from dwcp_ml.rollout.holds import NO_TRAFFIC, hold_of_step, is_skipped, why_not_rise
from dwcp_ml.rollout.observation import Observation
from dwcp_ml.rollout.spec import RolloutSpec, Step
from dwcp_ml.rollout.status import MAX_BLOCKED, Phase, RolloutStatus
from dwcp_ml.rollout.verdict import Outcome, Verdict


class Write(Record):
    """The one change to make to the router."""

    kind: Literal["set_weight", "promote"]
    percent: int
    cause: Cause


Decision = tuple[RolloutStatus, Write | None]


def decide(  # noqa: PLR0911 - a list of conditions with early returns
    spec: RolloutSpec, status: RolloutStatus, observation: Observation, now: float
) -> Decision:
    """Decide one reconciliation of a rollout.

    Parameters
    ----------
    spec
        What the user asks for.
    status
        What the last decision returned.
    observation
        What is observed of the router and of both arms.
    now
        The caller's clock, epoch seconds; it may jump.

    Returns
    -------
    tuple of RolloutStatus and Write or None
        The status is to be stored before the write is made.
    """
    status = _of_candidate(spec, status, now)
    if status.ended:
        return status.replace(observed_generation=spec.generation), None
    earlier = status
    status = with_time(status, observation, now).replace(observed_generation=spec.generation)
    if status.phase is Phase.PROMOTING and observation.promoted:
        # The stable is gone: there is nothing to roll back to any more.
        return _promote(status, observation, now)
    if observation.live_percent is None:
        detail = observation.router_error
        return status.replace(cause=Cause(reason=Reason.WEIGHT_UNKNOWN, detail=detail)), None
    if spec.candidate.digest in status.blocked or status.phase is Phase.ROLLING_BACK:
        return _roll_back(status, observation.live_percent, _first_cause(status), now)
    if spec.abort:
        return _roll_back(status, observation.live_percent, Cause(reason=Reason.ABORTED), now)
    status, broken = with_evidence(spec, status, observation)
    has_traffic = status.exposed_requests != earlier.exposed_requests
    if not has_traffic:
        # Time without a request proves nothing about the candidate.
        status = status.replace(watch_elapsed=earlier.watch_elapsed)
    if (fault := fault_of(spec, status, observation)) is not None:
        return _roll_back(status, observation.live_percent, fault, now)
    if spec.stable is None:
        return _first_deployment(spec, status, observation, now)
    if status.phase is Phase.PROMOTING and observation.live_percent == 100:
        return _promote(status, observation, now)
    return _advance(spec, status, observation, broken, has_traffic, now)


def _of_candidate(spec: RolloutSpec, status: RolloutStatus, now: float) -> RolloutStatus:
    """Start over, with fresh evidence, when the candidate is not the one of the status."""
    if status.revision is not None and status.revision.digest == spec.candidate.digest:
        return status
    fresh = RolloutStatus(
        revision=spec.candidate, started_at=now, last_reconciled=now, blocked=status.blocked
    )
    version = spec.candidate.version
    if spec.candidate.digest in status.blocked:
        cause = Cause(reason=Reason.PREVIOUSLY_ROLLED_BACK, version=version)
        return fresh.transition(now, Phase.ROLLING_BACK, cause)
    return fresh.transition(now, Phase.PENDING, Cause(reason=Reason.NEW_CANDIDATE, version=version))


def _roll_back(status: RolloutStatus, live: int, cause: Cause, now: float) -> Decision:
    """Set the candidate's weight to 0, and end when the router confirms it."""
    digest = status.revision.digest if status.revision else ""
    blocked = tuple(dict.fromkeys((*status.blocked, digest)))[-MAX_BLOCKED:]
    status = status.replace(blocked=blocked)
    if live == 0:
        return status.transition(now, Phase.ROLLED_BACK, cause, target_percent=0), None
    status = status.transition(now, Phase.ROLLING_BACK, cause, target_percent=0)
    return status, Write(kind="set_weight", percent=0, cause=cause)


def _first_cause(status: RolloutStatus) -> Cause:
    """Return why a candidate is rolled back; a router that is silent meanwhile is not the cause."""
    return status.events[-1].cause if status.events else status.cause


def _first_deployment(
    spec: RolloutSpec, status: RolloutStatus, observation: Observation, now: float
) -> Decision:
    version, phase = spec.candidate.version, Phase.FIRST_DEPLOYMENT
    if observation.candidate is None or not observation.candidate.ready:
        return status.transition(now, phase, Cause(reason=Reason.CANDIDATE_NOT_READY)), None
    if observation.live_percent == 100:
        cause = Cause(reason=Reason.PROMOTED, version=version)
        return status.transition(now, Phase.PROMOTED, cause, target_percent=100), None
    if spec.paused:
        return status.transition(now, phase, Cause(reason=Reason.PAUSED, percent=0)), None
    cause = Cause(reason=Reason.FIRST_DEPLOYMENT, version=version)
    status = status.transition(now, phase, cause, target_percent=100)
    return status, Write(kind="set_weight", percent=100, cause=cause)


def _promote(status: RolloutStatus, observation: Observation, now: float) -> Decision:
    if observation.promoted:
        version = status.revision.version if status.revision else ""
        cause = Cause(reason=Reason.PROMOTED, version=version)
        return status.transition(now, Phase.PROMOTED, cause), None
    return status, Write(kind="promote", percent=100, cause=status.cause)


def _advance(  # noqa: PLR0911 - likewise
    spec: RolloutSpec,
    status: RolloutStatus,
    observation: Observation,
    broken: Cause | None,
    has_traffic: bool,
    now: float,
) -> Decision:
    """Bring the router to the target, or the target one step further."""
    live = observation.live_percent or 0
    status = _with_allowed_target(spec, status, live, now)
    if live != status.target_percent:
        return _set_weight(spec, status, observation, broken)
    if live == 0:
        return _start_first_step(spec, status, observation, broken, now)
    step = next(step for step in spec.steps if step.traffic_percent == live)
    hold = hold_of_step(spec, status, step, observation, broken, has_traffic)
    if status.passed_percent < live:
        return _evaluate_step(spec, status, step, hold, now), None
    if spec.paused:
        return status.transition(now, Phase.PAUSED, Cause(reason=Reason.PAUSED, percent=live)), None
    if live == 100:
        return _watch(spec, status, broken, has_traffic, now)
    if hold is not None:
        return status.transition(now, Phase.PROGRESSING, hold), None
    above = next(share for share in spec.shares if share > live)
    return _raise_weight(status, live, above, now)


def _set_weight(
    spec: RolloutSpec, status: RolloutStatus, observation: Observation, broken: Cause | None
) -> Decision:
    """Bring the router to the target: down at once, up only while nothing holds it."""
    live, target = observation.live_percent or 0, status.target_percent
    hold = None
    if live < target:
        paused = Cause(reason=Reason.PAUSED, percent=live)
        hold = paused if spec.paused else why_not_rise(observation, broken)
    if hold is not None:
        return status.replace(cause=hold), None
    cause = Cause(reason=Reason.SETTING_WEIGHT, value=live, percent=target)
    return status.replace(cause=cause), Write(kind="set_weight", percent=target, cause=cause)


def _with_allowed_target(
    spec: RolloutSpec, status: RolloutStatus, live: int, now: float
) -> RolloutStatus:
    """Return the status with a target that the rules allow from the live weight.

    Steps that were edited, and weights that another writer changed, lead to the nearest lower
    step; never up.
    """
    target = status.target_percent
    below = max((share for share in spec.shares if share <= target), default=0)
    if target not in (0, *spec.shares):
        target = below
    if live < target:
        above_live = min(share for share in spec.shares if share > live)
        proved = live == 0 or (live in spec.shares and status.passed_percent >= live)
        if target != above_live or not proved:
            target = max((share for share in spec.shares if share <= live), default=0)
    if target == status.target_percent:
        return status
    cause = Cause(reason=Reason.WEIGHT_CHANGED, value=live, percent=target)
    phase = Phase.PROGRESSING if target else Phase.PENDING
    return _at_step(status, phase, cause, target, now)


def _at_step(
    status: RolloutStatus, phase: Phase, cause: Cause, target: int, now: float
) -> RolloutStatus:
    """Return the status at the start of a step."""
    passed = status.at_new_step(target).passed_percent
    moved = status.transition(now, phase, cause, target_percent=target, passed_percent=passed)
    return moved.at_new_step(target)


def _start_first_step(
    spec: RolloutSpec,
    status: RolloutStatus,
    observation: Observation,
    broken: Cause | None,
    now: float,
) -> Decision:
    """Give the candidate its first traffic, once it is ready and its metrics can be read."""
    hold = why_not_rise(observation, broken)
    if hold is None and spec.paused:
        hold = Cause(reason=Reason.PAUSED, percent=0)
    if hold is not None:
        phase = Phase.PAUSED if spec.paused and broken is None else Phase.PENDING
        return status.transition(now, phase, hold), None
    return _raise_weight(status, 0, spec.shares[0], now)


def _raise_weight(status: RolloutStatus, live: int, percent: int, now: float) -> Decision:
    cause = Cause(reason=Reason.STEP_STARTED, value=live, percent=percent)
    status = _at_step(status, Phase.PROGRESSING, cause, percent, now)
    return status, Write(kind="set_weight", percent=percent, cause=cause)


def _evaluate_step(
    spec: RolloutSpec, status: RolloutStatus, step: Step, hold: Cause | None, now: float
) -> RolloutStatus:
    """Store a passing verdict for this step, or what it waits for."""
    percent = step.traffic_percent
    if is_skipped(spec, percent):
        reason = spec.skip.reason if spec.skip else ""
        cause = Cause(reason=Reason.STEP_SKIPPED, percent=percent, detail=reason)
        return status.transition(now, Phase.PROGRESSING, cause, passed_percent=percent)
    phase = Phase.PAUSED if spec.paused else Phase.PROGRESSING
    if hold is not None:
        return status.transition(now, phase, hold)
    cause = Cause(reason=Reason.STEP_PASSED, percent=percent, detail=_passed(status.verdicts))
    return status.transition(now, phase, cause, passed_percent=percent)


def _watch(
    spec: RolloutSpec, status: RolloutStatus, broken: Cause | None, has_traffic: bool, now: float
) -> Decision:
    if broken is not None or not has_traffic:
        return status.transition(now, Phase.WATCHING, broken or NO_TRAFFIC), None
    elapsed, limit = status.watch_elapsed, spec.watch_seconds
    if elapsed < limit:
        cause = Cause(reason=Reason.WATCHING, value=elapsed, limit=limit)
        return status.transition(now, Phase.WATCHING, cause), None
    cause = Cause(reason=Reason.WATCH_PASSED)
    status = status.transition(now, Phase.PROMOTING, cause)
    return status, Write(kind="promote", percent=100, cause=cause)


def _passed(verdicts: tuple[Verdict, ...]) -> str:
    return " ".join(each.sentence for each in verdicts if each.outcome is Outcome.PASS)
