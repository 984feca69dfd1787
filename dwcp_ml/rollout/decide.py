"""The decision: spec, state and observation in; new state and at most one write out.

The rules of every write:

I1  the candidate's weight is 0 or one of the steps, and rises one step at a time;
I2  it rises only on a stored passing verdict for that revision at the step below, and from 0 only
    after the shadow step, where there is one;
I3  a revision that was rolled back never rises again, unless the user retries it: each retry,
    identified by its reason, unblocks it once;
I4  weights sum to 100: one number says both;
I5  nothing is written once a rollout has ended.

A status is stored before its write is made. A write that was lost is therefore made again by the
next call, which finds that the live weight differs from the status.
"""

from __future__ import annotations

from typing import Literal

from dwcp_ml.contract.record import Record
from dwcp_ml.rollout.analysis import (
    PREDICTION_DISTRIBUTION,
    REJECTIONS,
    WATCH,
    WATCH_LATENCY,
    is_required,
    odd_pod,
)
from dwcp_ml.rollout.cause import Cause
from dwcp_ml.rollout.evidence.divergence import TEST as DIVERGENCE
from dwcp_ml.rollout.observation import ArmSample, Observation
from dwcp_ml.rollout.progress import with_evidence, with_time
from dwcp_ml.rollout.reason import Reason
from dwcp_ml.rollout.retry import (
    is_retry_due,
    with_known_retries,
    with_retry_noted,
    with_retry_started,
)
from dwcp_ml.rollout.shadow import hold_of_shadow_step
from dwcp_ml.rollout.spec import PASSING_TESTS, RolloutSpec, Step
from dwcp_ml.rollout.status import (
    MAX_BLOCKED,
    Phase,
    RolloutStatus,
    Shadow,
    is_blocked,
    is_crashing,
    is_of_candidate,
    is_own_fault,
)
from dwcp_ml.rollout.verdict import Outcome, Verdict


class Write(Record):
    """The one change to make to the router."""

    kind: Literal["set_weight", "promote"]
    percent: int
    cause: Cause


Decision = tuple[RolloutStatus, Write | None]


def decide(  # noqa: C901, PLR0911 - a list of conditions with early returns
    spec: RolloutSpec, status: RolloutStatus, observation: Observation, now: float
) -> Decision:
    """Decide one reconciliation of a rollout.

    Parameters
    ----------
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
    live = observation.live_percent
    if status.phase is Phase.PROMOTING and observation.promoted:
        # The stable is gone: there is nothing to roll back to any more.
        return _promote(status, observation, now)
    if is_blocked(spec, status) or status.phase is Phase.ROLLING_BACK:
        return _roll_back(status, live, _first_cause(status), now)
    if spec.abort:
        return _roll_back(status, live, Cause(reason=Reason.ABORTED), now)
    status, broken = with_evidence(spec, status, observation)
    has_traffic = status.exposed_requests != earlier.exposed_requests
    if not has_traffic or broken is not None:
        # Time without a request, or without all of the metrics, proves nothing of the candidate.
        status = status.replace(watch_elapsed=earlier.watch_elapsed)
    fault = fault_of(spec, status, observation)
    if spec.stable is None:
        return _first_deployment(spec, status, observation, fault, now)
    if fault is not None:
        return _roll_back(status, live, fault, now)
    if live is None:
        unknown = Cause(reason=Reason.WEIGHT_UNKNOWN, detail=observation.router_error)
        return status.replace(cause=observation.obstacle or unknown), None
    if status.phase is Phase.PROMOTING and live == 100:
        if observation.obstacle is not None:
            return status.replace(cause=observation.obstacle), None
        return _promote(status, observation, now)
    broken = broken or differing_pods(spec, status)
    return _advance(spec, status, observation, broken, has_traffic, now)


def _of_candidate(spec: RolloutSpec, status: RolloutStatus, now: float) -> RolloutStatus:
    """Start over, with fresh evidence, for another candidate than the status's, and for a retry."""
    status = with_known_retries(spec, status, now)
    if is_retry_due(spec, status):
        return with_retry_started(spec, status, now)
    status = with_retry_noted(spec, status, now)
    if is_of_candidate(spec, status):
        return status
    fresh = RolloutStatus(
        revision=spec.candidate, started_at=now, last_reconciled=now, blocked=status.blocked,
        retries=status.retries, knows_retries=status.knows_retries,
    )  # fmt: skip
    version = spec.candidate.version
    if is_blocked(spec, status):
        cause = Cause(reason=Reason.PREVIOUSLY_ROLLED_BACK, version=version)
        return fresh.transition(now, Phase.ROLLING_BACK, cause)
    return fresh.transition(now, Phase.PENDING, Cause(reason=Reason.NEW_CANDIDATE, version=version))


def _roll_back(status: RolloutStatus, live: int | None, cause: Cause, now: float) -> Decision:
    """Set the candidate's weight to 0, known or not, and end when the router confirms it."""
    identity = status.revision.identity if status.revision else ""
    blocked = tuple(dict.fromkeys((*status.blocked, identity)))[-MAX_BLOCKED:]
    status = status.replace(blocked=blocked)
    if live == 0:
        return status.transition(now, Phase.ROLLED_BACK, cause, target_percent=0), None
    status = status.transition(now, Phase.ROLLING_BACK, cause, target_percent=0)
    return status, Write(kind="set_weight", percent=0, cause=cause)


def _first_cause(status: RolloutStatus) -> Cause:
    """Return why a candidate is rolled back; a router that is silent meanwhile is not the cause."""
    return status.events[-1].cause if status.events else status.cause


def _first_deployment(  # noqa: PLR0911 - a list of conditions with early returns
    spec: RolloutSpec,
    status: RolloutStatus,
    observation: Observation,
    fault: Cause | None,
    now: float,
) -> Decision:
    """Give all traffic to the candidate; it is never taken away, for nothing else could serve."""
    version, phase = spec.candidate.version, Phase.FIRST_DEPLOYMENT
    if observation.obstacle is not None:
        return status.transition(now, phase, observation.obstacle), None
    if observation.live_percent is None:
        cause = Cause(reason=Reason.WEIGHT_UNKNOWN, detail=observation.router_error)
        return status.transition(now, phase, cause), None
    if fault is not None:
        cause = Cause(reason=Reason.FIRST_DEPLOYMENT_UNHEALTHY, detail=fault.sentence)
        return status.transition(now, phase, cause), None
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
    if live == 0 and spec.has_shadow_step and status.shadow is Shadow.PENDING:
        status = _shadow(spec, status, observation, broken, now)
        if status.shadow is Shadow.PENDING:
            return status, None
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
        broken = observation.obstacle or broken or differing_contracts(observation)
        return _watch(spec, status, broken, has_traffic, now)
    if hold is not None:
        return status.transition(now, Phase.PROGRESSING, hold), None
    above = next(share for share in spec.shares if share > live)
    return _raise_weight(status, live, above, now)


def _shadow(
    spec: RolloutSpec,
    status: RolloutStatus,
    observation: Observation,
    broken: Cause | None,
    now: float,
) -> RolloutStatus:
    """Store how the shadow step ended, or what it waits for; the candidate has no traffic."""
    phase: Phase = Phase.PENDING if status.phase is Phase.PAUSED else status.phase
    if spec.paused and broken is None:
        phase = Phase.PAUSED
    if is_skipped(spec, 0):
        reason = spec.skip.reason if spec.skip else ""
        skipped = Cause(reason=Reason.STEP_SKIPPED, percent=0, detail=reason)
        return status.transition(now, phase, skipped, shadow=Shadow.SKIPPED)
    hold = why_not_rise(observation, broken)
    if hold is None and observation.are_compared is False:
        not_kept = Cause(reason=Reason.REQUESTS_NOT_KEPT)
        return status.transition(now, phase, not_kept, shadow=Shadow.SKIPPED)
    hold = hold or hold_of_shadow_step(spec, status, observation)
    if hold is not None:
        return status.transition(now, phase, hold)
    compared = Cause(reason=Reason.COMPARED, detail=_sentence_of(status.verdicts, DIVERGENCE))
    return status.transition(now, phase, compared, shadow=Shadow.PASSED)


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
    if is_skipped(spec, percent) and hold is None:
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
    if elapsed < limit or _is_suspicious(status):
        cause = Cause(reason=Reason.WATCHING, value=elapsed, limit=limit)
        return status.transition(now, Phase.WATCHING, cause), None
    cause = Cause(reason=Reason.WATCH_PASSED)
    status = status.transition(now, Phase.PROMOTING, cause)
    return status, Write(kind="promote", percent=100, cause=cause)


def _is_suspicious(status: RolloutStatus) -> bool:
    """Return whether a test of the watch is under way to a failure."""
    watches = (each for each in status.verdicts if each.test in (WATCH, WATCH_LATENCY))
    return any(each.outcome is not Outcome.PASS for each in watches)


def _sentence_of(verdicts: tuple[Verdict, ...], test: str) -> str:
    return next((each.sentence for each in verdicts if each.test == test), "")


def _passed(verdicts: tuple[Verdict, ...]) -> str:
    return " ".join(each.sentence for each in verdicts if each.outcome is Outcome.PASS)


def fault_of(spec: RolloutSpec, status: RolloutStatus, observation: Observation) -> Cause | None:
    """Return why the candidate must be rolled back; ``None`` if it need not be."""
    candidate = observation.candidate
    limits = spec.analysis
    if candidate is not None and is_crashing(status, observation, limits.max_restarts):
        restarts = candidate.restarts - (status.restarts_at_start or 0)
        reason = Reason.CANDIDATE_CRASHED
        return Cause(reason=reason, value=restarts, limit=limits.max_restarts)
    if status.unready_elapsed >= limits.unready_seconds and is_own_fault(observation):
        return Cause(reason=Reason.CANDIDATE_UNREADY, value=status.unready_elapsed)
    for verdict in status.verdicts:
        if verdict.outcome is Outcome.FAIL and not odd_pod(limits, status.evidence, verdict.test):
            return Cause(reason=Reason.TEST_FAILED, test=verdict.test, detail=verdict.sentence)
    return None


def differing_pods(spec: RolloutSpec, status: RolloutStatus) -> Cause | None:
    """Return the pod that explains why a test failed; ``None`` if there is none."""
    for verdict in status.verdicts:
        if verdict.outcome is not Outcome.FAIL:
            continue
        if pod := odd_pod(spec.analysis, status.evidence, verdict.test):
            return Cause(reason=Reason.PODS_DIFFER, test=verdict.test, detail=pod)
    return None


NO_TRAFFIC = Cause(reason=Reason.NO_TRAFFIC)


def is_skipped(spec: RolloutSpec, percent: int) -> bool:
    """Return whether the user lets the step of this weight pass without proof."""
    return spec.skip is not None and spec.skip.traffic_percent == percent


def why_not_rise(observation: Observation, broken: Cause | None) -> Cause | None:
    """Return why the weight may not rise now, whatever was proved; ``None`` if it may."""
    if observation.obstacle is not None or broken is not None:
        return observation.obstacle or broken
    if observation.candidate is None or not observation.candidate.ready:
        live = observation.live_percent
        reason = Reason.CANDIDATE_LOST_READINESS if live else Reason.CANDIDATE_NOT_READY
        return Cause(reason=reason)
    return differing_contracts(observation) or _unknown_contract(observation)


def differing_contracts(observation: Observation) -> Cause | None:
    """Return that two known contracts differ, of the arms or of replicas; ``None`` if none do.

    The same bundle has one contract, whatever the servers of two releases say of it.
    """
    if _is_one_bundle(observation):
        return None
    contracts = sorted(_contracts(observation.stable) | _contracts(observation.candidate))
    known = [contract[:12] for contract in contracts if contract]
    if len(known) < 2:
        return None
    return Cause(reason=Reason.CONTRACT_DIFFERS, detail=", ".join(known))


def _unknown_contract(observation: Observation) -> Cause | None:
    """Return which arm does not report its contract, if the other one does.

    Where neither does, both run servers of an older release: nothing can be compared, and nothing
    is claimed.
    """
    if _is_one_bundle(observation):
        return None
    arms = (("stable", observation.stable), ("candidate", observation.candidate))
    unknown = [name for name, arm in arms if "" in _contracts(arm)]
    if len(unknown) != 1:
        return None
    return Cause(reason=Reason.CONTRACT_UNKNOWN, arm=unknown[0])


def _is_one_bundle(observation: Observation) -> bool:
    """Return whether both arms serve the same bundle, in two runtimes."""
    stable, candidate = observation.stable, observation.candidate
    if stable is None or candidate is None:
        return False
    return bool(stable.digest) and stable.digest == candidate.digest


def _contracts(arm: ArmSample | None) -> set[str]:
    """Return the contracts that an arm serves; ``""`` stands for one that is not known."""
    return {""} if arm is None else set(arm.contracts) or {""}


def hold_of_step(  # noqa: PLR0911 - a list of conditions with early returns
    spec: RolloutSpec,
    status: RolloutStatus,
    step: Step,
    observation: Observation,
    broken: Cause | None,
    has_traffic: bool,
) -> Cause | None:
    """Return what a step waits for before the weight rises above it; ``None`` for nothing."""
    percent = step.traffic_percent
    if is_skipped(spec, percent):
        # A skip spares a proof that is missing; it does not overrule a test that failed.
        return (
            observation.obstacle or differing_pods(spec, status) or differing_contracts(observation)
        )
    if (cause := why_not_rise(observation, broken)) is not None:
        return cause
    if status.candidate_counters.is_warming:
        requests, limit = status.warm_up_requests, spec.analysis.warm_up_seconds
        return Cause(reason=Reason.WARMING_UP, value=requests, limit=limit)
    if status.step_requests < step.minimum_requests:
        return Cause(
            reason=Reason.INSUFFICIENT_REQUESTS,
            percent=percent,
            value=status.step_requests,
            limit=step.minimum_requests,
        )
    if status.step_elapsed < step.dwell_seconds:
        elapsed, limit = status.step_elapsed, step.dwell_seconds
        return Cause(reason=Reason.DWELLING, percent=percent, value=elapsed, limit=limit)
    if not has_traffic:
        return NO_TRAFFIC
    # At 100 % the stable has no traffic to compare with: what was proved below stands, and the
    # watch takes over.
    return None if percent == 100 else _undecided(spec, status)


def _undecided(spec: RolloutSpec, status: RolloutStatus) -> Cause | None:
    """Return which test a step still waits for; where none is required, every one is."""
    enabled = spec.analysis.enabled
    required = [test for test in enabled if is_required(spec.analysis, test)]
    required = required or [test for test in enabled if test in PASSING_TESTS]
    if "error_rate" in required:
        required = [*required, REJECTIONS]
    verdicts = {verdict.test: verdict for verdict in status.verdicts}
    predictions = verdicts.get(PREDICTION_DISTRIBUTION)
    if predictions is not None and predictions.outcome is Outcome.ERROR:
        # It passes nothing, but what the stable's servers report is waited for.
        required = [*required, PREDICTION_DISTRIBUTION]
    pairs = verdicts.get(DIVERGENCE)
    if pairs is not None and pairs.outcome is Outcome.ERROR and status.evidence.divergence:
        # Until now the candidate did predict what the stable has predicted.
        required = [*required, DIVERGENCE]
    for test in required:
        verdict = verdicts.get(test)
        if verdict is None:
            return Cause(reason=Reason.INSUFFICIENT_EVIDENCE, test=test)
        if verdict.outcome is Outcome.ERROR:
            return Cause(reason=Reason.TEST_UNAVAILABLE, test=test, detail=verdict.sentence)
        if verdict.outcome is not Outcome.PASS:
            return Cause(reason=Reason.INSUFFICIENT_EVIDENCE, test=test, detail=verdict.sentence)
    return None
