"""What one look adds to a rollout's memory: time, counts, evidence; and what is wrong with it."""

from __future__ import annotations

from typing import Final

from dwcp_ml.rollout import analysis
from dwcp_ml.rollout.counters import Unequal, since
from dwcp_ml.rollout.observation import Observation
from dwcp_ml.rollout.spec import RolloutSpec
from dwcp_ml.rollout.status import Phase, RolloutStatus

LONGEST_TICK: Final = 30.0
"""Seconds that one look may add to a dwell: a clock that jumps an hour, or a controller that was
away, adds no more."""


def with_time(status: RolloutStatus, observation: Observation, now: float) -> RolloutStatus:
    """Return the status with the time since the last look added to what is being timed."""
    last = now if status.last_look is None else status.last_look
    tick = min(max(now - last, 0.0), LONGEST_TICK)
    candidate = observation.candidate
    ready, unready = status.ready_elapsed, status.unready_elapsed
    if candidate is not None and candidate.ready:
        ready, unready = ready + tick, 0.0
    elif observation.live_percent and candidate is not None:
        unready += tick
    settled = status.target_percent > 0 and observation.live_percent == status.target_percent
    at_step = tick if settled and status.phase is Phase.PROGRESSING else 0.0
    watching = tick if settled and status.phase is Phase.WATCHING else 0.0
    return status.replace(
        last_look=now,
        ready_elapsed=ready,
        unready_elapsed=unready,
        step_elapsed=status.step_elapsed + at_step,
        watch_elapsed=status.watch_elapsed + watching,
    )


def with_evidence(
    spec: RolloutSpec, status: RolloutStatus, observation: Observation
) -> tuple[RolloutStatus, str]:
    """Return the status with what happened since the last look, and what can't be believed."""
    if observation.candidate is not None:
        # Known before the metrics are: a candidate that crashes at once never shows any. A replica
        # that is gone takes its restarts with it.
        restarts = observation.candidate.restarts
        if status.restarts_at_start is None or restarts < status.restarts_at_start:
            status = status.replace(restarts_at_start=restarts)
    broken = _broken(spec, observation)
    if broken or observation.stable is None or observation.candidate is None:
        verdicts = tuple(
            analysis.not_measured(name, broken or "nothing is seen of an arm yet.")
            for name in spec.analysis.enabled
        )
        return status.replace(verdicts=verdicts), broken or "nothing is seen yet."
    try:
        stable, stable_counters = since(
            status.stable_counters, observation.stable, status.started_at
        )
        candidate, candidate_counters = since(
            status.candidate_counters, observation.candidate, status.started_at
        )
    except Unequal as error:
        return status, str(error)
    status = status.replace(
        stable_counters=stable_counters,
        candidate_counters=candidate_counters,
        touched_requests=status.touched_requests + candidate.requests,
        pairs_cursor=observation.pairs_cursor or status.pairs_cursor,
        truths_cursor=observation.truths_cursor or status.truths_cursor,
    )
    if status.ready_elapsed < spec.analysis.warm_up_seconds:
        return status.replace(warm_up_requests=status.warm_up_requests + candidate.requests), ""
    settled = observation.live_percent == status.target_percent
    if settled and status.target_percent > 0:
        status = status.replace(step_requests=status.step_requests + candidate.requests)
    evidence = analysis.update(
        spec.analysis,
        status.evidence,
        stable,
        candidate,
        observation.pairs,
        observation.truths,
        observation.truths_pending,
    )
    verdicts = analysis.verdicts(spec.analysis, evidence, observation)
    return status.replace(evidence=evidence, verdicts=verdicts), ""


def _broken(spec: RolloutSpec, observation: Observation) -> str:
    """Return why the metrics can't be believed; empty if they can."""
    for name, arm in (("stable", observation.stable), ("candidate", observation.candidate)):
        if arm is None:
            continue
        if arm.error:
            return f"the metrics of the {name} can't be had: {arm.error}"
    candidate = observation.candidate
    if candidate is not None and candidate.digest not in ("", spec.candidate.digest):
        return f"the candidate's servers still run {candidate.version}."
    return ""


def fault(spec: RolloutSpec, status: RolloutStatus, observation: Observation) -> str:
    """Return why the candidate must be taken back; empty if it need not be."""
    candidate = observation.candidate
    if candidate is not None and status.restarts_at_start is not None:
        crashes = candidate.restarts - status.restarts_at_start
        if crashes >= spec.analysis.max_restarts:
            often = "once" if crashes == 1 else f"{crashes} times"
            return f"the candidate crashed {often}."
    if status.unready_elapsed >= spec.analysis.unready_seconds:
        return f"the candidate has traffic, and was not ready for {status.unready_elapsed:.0f} s."
    for verdict in status.verdicts:
        if verdict.outcome == "fail":
            return verdict.sentence
    return ""
