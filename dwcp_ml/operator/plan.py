"""The plan of one reconciliation: from state and observation to new state and action. Pure.

``decide`` knows one InferenceService with one stable and one candidate. What is particular to a
cluster is here: another writer may replace the stable, another candidate may be deployed, the
candidate has to be deployed before it can get traffic, and removed when it was rolled back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from dwcp_ml.kube.kserve import DesiredRevision, ObservedTraffic
from dwcp_ml.operator.observation import Request, is_same, problem_of, to_revision
from dwcp_ml.operator.state_store import CachedState, RolloutState
from dwcp_ml.rollout.cause import Cause
from dwcp_ml.rollout.decide import decide
from dwcp_ml.rollout.observation import Observation
from dwcp_ml.rollout.reason import Reason, Stall
from dwcp_ml.rollout.retry import is_retry_due, with_known_retries, with_retry_started
from dwcp_ml.rollout.spec import RolloutSpec
from dwcp_ml.rollout.status import Phase, RolloutStatus, is_of_candidate

Action = Literal["none", "set", "promote", "drop", "remove"]
"""On the InferenceService: ``drop`` removes a canary, ``remove`` the whole service."""


@dataclass(frozen=True)
class Plan:
    """What one reconciliation is to do.

    Parameters
    ----------
    state
        To be stored, if it is worth a write, before anything is done.
    obstacle
        Why nothing can go on; ``None`` if it can.
    """

    state: RolloutState
    action: Action = "none"
    percent: int = 0
    obstacle: Cause | None = None


def in_its_mode(request: Request, state: RolloutState | None) -> Request:
    """Return the request in the mode in which its rollout began, until that has ended.

    Read in another mode, a split looks like something else; in its own a roll-back goes through.
    The CRD forbids to change the mode, unless the object was stored before that rule, or its spec
    was removed in between. The mode is stored before the first write, so it may be that of a
    rollout of which nothing was ever written; see ``AbsentServices``.
    """
    if state is None or state.mode in (None, request.mode):
        return request
    if state.rollout.ended:
        return request
    detail = f"its rollout began in the mode {state.mode}, set deploymentMode to it again."
    obstacle = Cause(reason=Reason.SPLIT_NOT_SUPPORTED, detail=detail)
    return replace(request, mode=state.mode, obstacle=obstacle)


def accepted_request(
    state: RolloutState | None, body: Mapping[str, Any], obstacle: Cause
) -> Request | None:
    """Return the newest valid request of an object that is not valid now; ``None`` for none.

    The rollout under way is judged on by it, does not rise, and can be aborted.

    Parameters
    ----------
    state
        As stored or cached.
    """
    if state is None or state.accepted is None:
        return None
    accepted = state.accepted
    spec = body.get("spec")
    fields: Mapping[str, Any] = spec if isinstance(spec, Mapping) else {}
    candidate = accepted.candidate
    return Request(
        accepted.replace(
            abort=fields.get("abort") is True, generation=body["metadata"].get("generation", 0)
        ),
        DesiredRevision(
            candidate.version,
            candidate.digest,
            candidate.uri,
            predictor={},
            model=accepted.model,
            runtime=candidate.runtime,
        ),
        state.mode or "Standard",
        restores=fields.get("deletionPolicy") == "Restore",
        obstacle=obstacle,
    )


def obstacle_of(
    request: Request, cached: CachedState, live: ObservedTraffic, *, ended: bool
) -> Cause | None:
    """Return why the weight may not rise, whatever the metrics say; ``None`` if it may."""
    if request.obstacle is not None:
        return request.obstacle
    if cached.invalid:
        return Cause(reason=Reason.INVALID_STATE, detail=cached.invalid)
    if ended:
        return None
    if live.unsupported:
        return Cause(reason=Reason.SPLIT_NOT_SUPPORTED, detail=live.unsupported)
    if live.forbidden:
        return Cause(reason=Reason.READ_FORBIDDEN, detail=live.forbidden)
    problem = problem_of(live)
    return problem if problem is not None and problem.reason in CORRECTABLE else None


CORRECTABLE: Final = frozenset({Reason.CLUSTER_PROBLEM, Reason.POD_CREATION_FAILED})
"""Obstacles that an edit of the template may remove: it is still written."""


def is_hidden(obstacle: Cause, rollout: RolloutStatus) -> bool:
    """Return whether a status would not say what is in the way; a roll-back is said first."""
    if obstacle.stall is not Stall.AT_ONCE:
        return False
    return rollout.phase is not Phase.ROLLING_BACK and rollout.cause.reason is not obstacle.reason


def is_rolled_back(phase: Phase) -> bool:
    """Return whether the candidate is being rolled back, or was."""
    return phase in (Phase.ROLLING_BACK, Phase.ROLLED_BACK)


def current_state(
    cached: CachedState, request: Request, live: ObservedTraffic, now: float
) -> RolloutState:
    """Return the state with what is live, and the newest valid request, taken into account.

    Parameters
    ----------
    now
        Epoch seconds.
    """
    candidate = request.spec.candidate
    if cached.state is None and cached.invalid:
        stable = to_revision(live.stable) if live.exists and live.stable is not None else None
        # What is live is kept: nothing is known that speaks for another weight.
        rollout = RolloutStatus(
            revision=candidate, started_at=now, last_reconciled=now, phase=Phase.PROGRESSING,
            target_percent=live.percent or 0,
        )  # fmt: skip
        state = RolloutState(rollout=rollout, stable=stable)
    else:
        state = _with_live(cached.state, request.spec, live, now)
    valid = request.obstacle is None or request.obstacle.reason is not Reason.INVALID_SPEC
    before = cached.state.accepted if cached.state is not None else None
    return state.replace(accepted=request.spec if valid else before, mode=request.mode)


def _with_live(  # noqa: PLR0911 - a list of conditions with early returns
    state: RolloutState | None, spec: RolloutSpec, live: ObservedTraffic, now: float
) -> RolloutState:
    """Return the state with what is live taken into account.

    The stable of a new candidate, and of one that is retried, is what the InferenceService says,
    never a guess. When another writer replaces the stable, the evidence against the former one is
    void.
    """
    candidate = spec.candidate
    before = state.rollout if state is not None else RolloutStatus()
    stable = to_revision(live.stable) if live.exists and live.stable is not None else None
    # A split of another deployment mode, read in this one, makes a candidate look like the stable.
    is_stable = live.exists and not live.unsupported and is_same(live.stable, candidate)
    is_known = is_of_candidate(spec, before)
    is_due = is_retry_due(spec, before)
    if state is None or not is_known or is_due:
        if is_stable:
            started = with_retry_started(spec, before, now) if is_due else before
            return RolloutState(rollout=_stable_already(spec, started, now))
        return RolloutState(rollout=before, stable=stable)
    if before.ended:
        return _reopened(state, live, now)
    if before.phase is Phase.PROMOTING or (is_stable and state.stable is None):
        return state
    if is_stable:
        if before.phase is Phase.ROLLING_BACK:
            return state
        return RolloutState(rollout=_stable_already(spec, before, now))
    if stable is None or (state.stable is not None and is_same(live.stable, state.stable)):
        return state
    if before.phase is Phase.ROLLING_BACK:
        return RolloutState(rollout=before, stable=stable)
    fresh = RolloutStatus(
        blocked=before.blocked, retries=before.retries, knows_retries=before.knows_retries
    )
    return RolloutState(rollout=fresh, stable=stable)


def _stable_already(spec: RolloutSpec, before: RolloutStatus, now: float) -> RolloutStatus:
    """Return the status of a candidate that another writer made the stable, or that long was."""
    candidate, before = spec.candidate, with_known_retries(spec, before, now)
    fresh = RolloutStatus(
        revision=candidate, started_at=now, last_reconciled=now, blocked=before.blocked,
        retries=before.retries, knows_retries=before.knows_retries,
        observed_generation=before.observed_generation,
    )  # fmt: skip
    cause = Cause(reason=Reason.ALREADY_STABLE, version=candidate.version)
    return fresh.transition(now, Phase.PROMOTING, cause, target_percent=100)


def _reopened(state: RolloutState, live: ObservedTraffic, now: float) -> RolloutState:
    """Reopen a rollout that ended on a stale read.

    Where the candidate is still a canary, it is neither promoted nor rolled back.
    """
    rollout = state.rollout
    if not live.exists or rollout.revision is None:
        return state
    if not is_same(live.candidate, rollout.revision):
        return state
    version = rollout.revision.version
    if rollout.phase is Phase.ROLLED_BACK:
        cause = Cause(reason=Reason.REMOVAL_PENDING, version=version)
        reopened = rollout.transition(now, Phase.ROLLING_BACK, cause, target_percent=0)
    else:
        cause = Cause(reason=Reason.PROMOTION_PENDING, version=version)
        reopened = rollout.transition(now, Phase.PROMOTING, cause)
    return state.replace(rollout=reopened)


def next_plan(  # noqa: PLR0911 - a list of conditions with early returns
    spec: RolloutSpec, state: RolloutState, live: ObservedTraffic, observed: Observation, now: float
) -> Plan:
    """Plan one reconciliation.

    Parameters
    ----------
    spec
        The spec, with the stable of ``state``.
    state
        As ``current_state`` returned it.
    live, observed
        The live traffic, and what is observed of both arms.
    now
        Epoch seconds; may jump.
    """
    reverted = _reverted_promotion(spec, state, live)
    if reverted is not None:
        return Plan(state, obstacle=reverted)
    obstacle = _lost_stable(spec, state, live)
    if obstacle is not None and (not live.exists or state.stable is None):
        aborts = spec.abort and live.candidate is not None
        return Plan(state, "drop" if aborts else "none", obstacle=obstacle)
    if obstacle is not None:
        observed = observed.replace(obstacle=observed.obstacle or obstacle)
    if observed.obstacle is None and _replaces_unfinished(spec, state, live):
        return Plan(state, "remove")
    is_stable = live.exists and is_same(live.stable, spec.candidate)
    if state.rollout.phase is Phase.PROMOTING and is_stable:
        return _at_the_end(spec, state, live, now)
    status, write = decide(spec, state.rollout.with_stable(observed), observed, now)
    plan = Plan(state.replace(rollout=status))
    newly_ended = status.phase is Phase.ROLLED_BACK and not state.rollout.ended
    if newly_ended or status.phase is Phase.ROLLING_BACK:
        return _roll_back(plan, state.rollout, spec, live)
    if write is None:
        return _deploy(plan, spec, live, observed, now)
    if write.kind == "promote":
        return replace(plan, action="promote")
    return replace(plan, action="set", percent=write.percent)


def _at_the_end(spec: RolloutSpec, state: RolloutState, live: ObservedTraffic, now: float) -> Plan:
    """End a rollout whose candidate is the stable, once nothing else has traffic."""
    status = state.rollout.replace(last_reconciled=now, observed_generation=spec.generation)
    if live.promoted:
        cause = Cause(reason=Reason.PROMOTED, version=spec.candidate.version)
        ended = status.transition(now, Phase.PROMOTED, cause, target_percent=100)
        return Plan(state.replace(rollout=ended))
    plan = Plan(state.replace(rollout=status))
    return replace(plan, action="drop") if live.candidate is not None else plan


def _lost_stable(spec: RolloutSpec, state: RolloutState, live: ObservedTraffic) -> Cause | None:
    """Return why the rollout can't go on with what is live; ``None`` if it can."""
    if live.exists:
        if live.stable is not None:
            return None
        detail = live.error.rstrip(".") or "its predictor names no bundle"
        return Cause(reason=Reason.STABLE_UNKNOWN, detail=detail)
    before = state.rollout
    if not is_of_candidate(spec, before) or before.phase is Phase.ROLLED_BACK:
        return None
    if state.stable is None and before.phase is not Phase.PROMOTED:
        return None
    return Cause(reason=Reason.INFERENCE_SERVICE_MISSING, version=spec.candidate.version)


def _reverted_promotion(
    spec: RolloutSpec, state: RolloutState, live: ObservedTraffic
) -> Cause | None:
    """Return that another writer replaced what was promoted; ``None`` if it is live."""
    promoted = state.rollout
    if promoted.phase is not Phase.PROMOTED or live.stable is None:
        return None
    if not is_of_candidate(spec, promoted):
        return None
    if any(is_same(each, spec.candidate) for each in (live.stable, live.candidate)):
        return None
    return Cause(
        reason=Reason.PROMOTION_REVERTED,
        version=spec.candidate.version,
        arm=live.stable.version,
        detail=live.last_writer or "another writer",
    )


def _replaces_unfinished(spec: RolloutSpec, state: RolloutState, live: ObservedTraffic) -> bool:
    """Return whether a first deployment that never became ready is to be replaced."""
    before = state.rollout
    return (
        before.phase is Phase.FIRST_DEPLOYMENT
        and before.revision is not None
        and not is_of_candidate(spec, before)
        and is_same(live.stable, before.revision)
        and not live.pods.get("stable")
    )


def _roll_back(plan: Plan, before: RolloutStatus, spec: RolloutSpec, live: ObservedTraffic) -> Plan:
    """Remove the candidate: its traffic, then its predictor; a first deployment as a whole.

    The rollout ends when nothing of it is left.
    """
    state, status = plan.state, plan.state.rollout
    unfinished = plan
    if status.phase is Phase.ROLLED_BACK:
        left = _still_rolling_back(status, before)
        unfinished = replace(plan, state=state.replace(rollout=left))
    if live.exists and is_same(live.stable, spec.candidate):
        if state.stable is None:
            return replace(unfinished, action="remove")
        cause = Cause(reason=Reason.CANDIDATE_IS_STABLE, version=spec.candidate.version)
        return replace(unfinished, obstacle=cause)
    if live.candidate is not None:
        # Takes its traffic first, whether or not the live weight is known.
        return replace(unfinished, action="drop")
    if status.phase is Phase.ROLLED_BACK or live.percent is None:
        return plan
    return replace(plan, action="set", percent=0)


def _still_rolling_back(status: RolloutStatus, before: RolloutStatus) -> RolloutStatus:
    """Return a status that has ended as one that is about to end."""
    *events, end = status.events
    if before.phase is not Phase.ROLLING_BACK:
        events.append(end.replace(phase=Phase.ROLLING_BACK))
    return status.replace(phase=Phase.ROLLING_BACK, events=tuple(events))


def _with_first_target(plan: Plan, spec: RolloutSpec, now: float) -> Plan:
    """Store the first target before the candidate is ready, which saves a write later."""
    status = plan.state.rollout
    if status.phase is not Phase.PENDING or status.target_percent or spec.paused:
        return plan
    share = spec.shares[0]
    cause = Cause(reason=Reason.CANDIDATE_NOT_READY, percent=share)
    status = status.transition(now, Phase.PROGRESSING, cause, target_percent=share)
    return replace(plan, state=plan.state.replace(rollout=status))


def _deploy(
    plan: Plan, spec: RolloutSpec, live: ObservedTraffic, observed: Observation, now: float
) -> Plan:
    """Deploy the candidate without traffic where it has none; create what does not exist."""
    status = plan.state.rollout
    obstacle = observed.obstacle
    is_barred = obstacle is not None and obstacle.reason not in CORRECTABLE
    if status.ended or observed.live_percent is None or is_barred:
        return plan
    if spec.stable is None:
        # Until it is ready its template may have to be corrected; no write if it is right.
        is_own = not live.exists or is_same(live.stable, spec.candidate)
        is_due = is_own and not (live.promoted or spec.paused or spec.abort)
        return replace(plan, action="set", percent=100) if is_due else plan
    if observed.live_percent == 0:
        plan = plan if obstacle is not None else _with_first_target(plan, spec, now)
        return replace(plan, action="set", percent=0)
    return plan
