"""What one reconciliation adds to a rollout's state: time, counts, evidence; and its faults."""

from __future__ import annotations

from typing import Final

from dwcp_ml.rollout import analysis
from dwcp_ml.rollout.cause import Cause, Reason
from dwcp_ml.rollout.counters import UnequalBuckets, since
from dwcp_ml.rollout.observation import Observation
from dwcp_ml.rollout.spec import RolloutSpec
from dwcp_ml.rollout.status import Phase, RolloutStatus
from dwcp_ml.rollout.verdict import Outcome

MAX_TICK_SECONDS: Final = 30.0
"""What one reconciliation may add to a dwell: a clock that jumps an hour, or a controller that was
down, adds no more."""


def with_time(status: RolloutStatus, observation: Observation, now: float) -> RolloutStatus:
    """Return the status with the time since the last look added to what is being timed."""
    last = now if status.last_reconciled is None else status.last_reconciled
    tick = min(max(now - last, 0.0), MAX_TICK_SECONDS)
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
        last_reconciled=now,
        ready_elapsed=ready,
        unready_elapsed=unready,
        step_elapsed=status.step_elapsed + at_step,
        watch_elapsed=status.watch_elapsed + watching,
    )


def with_evidence(
    spec: RolloutSpec, status: RolloutStatus, observation: Observation
) -> tuple[RolloutStatus, Cause | None]:
    """Return the status with what happened since the last reconciliation.

    Returns
    -------
    tuple of RolloutStatus and Cause or None
        The cause says why the metrics can't be used; ``None`` if they can.
    """
    if observation.candidate is not None:
        # Known before the metrics are: a candidate that crashes at once never shows any. A replica
        # that is gone takes its restarts with it.
        restarts = observation.candidate.restarts
        if status.restarts_at_start is None or restarts < status.restarts_at_start:
            status = status.replace(restarts_at_start=restarts)
    broken = _unusable_metrics(spec, observation)
    if broken is not None or observation.stable is None or observation.candidate is None:
        broken = broken or Cause(
            reason=Reason.METRICS_UNAVAILABLE,
            arm="candidate" if observation.candidate is None else "stable",
            detail="nothing was observed of it yet.",
        )
        verdicts = tuple(
            analysis.not_measured(name, broken.sentence) for name in spec.analysis.enabled
        )
        return status.replace(verdicts=verdicts), broken
    try:
        stable, stable_counters = since(
            status.stable_counters, observation.stable, status.started_at
        )
        candidate, candidate_counters = since(
            status.candidate_counters, observation.candidate, status.started_at
        )
    except UnequalBuckets as error:
        return status, Cause(reason=Reason.METRICS_INCOMPARABLE, detail=str(error))
    status = status.replace(
        stable_counters=stable_counters,
        candidate_counters=candidate_counters,
        exposed_requests=status.exposed_requests + candidate.requests,
        pairs_cursor=observation.pairs_cursor or status.pairs_cursor,
        ground_truth_cursor=observation.ground_truth_cursor or status.ground_truth_cursor,
    )
    if status.ready_elapsed < spec.analysis.warm_up_seconds:
        return status.replace(warm_up_requests=status.warm_up_requests + candidate.requests), None
    settled = observation.live_percent == status.target_percent
    if settled and status.target_percent > 0:
        status = status.replace(step_requests=status.step_requests + candidate.requests)
    evidence = analysis.update(
        spec.analysis,
        status.evidence,
        stable,
        candidate,
        observation.pairs,
        observation.losses,
        observation.labels_pending,
    )
    verdicts = analysis.verdicts(spec.analysis, evidence, observation)
    return status.replace(evidence=evidence, verdicts=verdicts), None


def _unusable_metrics(spec: RolloutSpec, observation: Observation) -> Cause | None:
    """Return why the metrics can't be used; ``None`` if they can."""
    for name, arm in (("stable", observation.stable), ("candidate", observation.candidate)):
        if arm is not None and arm.error:
            return Cause(reason=Reason.METRICS_UNAVAILABLE, arm=name, detail=arm.error)
    candidate = observation.candidate
    if candidate is not None and candidate.digest not in ("", spec.candidate.digest):
        return Cause(reason=Reason.BUNDLE_MISMATCH, version=candidate.version)
    return None


def fault_of(spec: RolloutSpec, status: RolloutStatus, observation: Observation) -> Cause | None:
    """Return why the candidate must be rolled back; ``None`` if it need not be."""
    candidate = observation.candidate
    limits = spec.analysis
    if candidate is not None and status.restarts_at_start is not None:
        restarts = candidate.restarts - status.restarts_at_start
        if restarts >= limits.max_restarts:
            reason = Reason.CANDIDATE_CRASHED
            return Cause(reason=reason, value=restarts, limit=limits.max_restarts)
    if status.unready_elapsed >= limits.unready_seconds:
        return Cause(reason=Reason.CANDIDATE_UNREADY, value=status.unready_elapsed)
    for verdict in status.verdicts:
        if verdict.outcome is Outcome.FAIL:
            return Cause(reason=Reason.TEST_FAILED, test=verdict.test, detail=verdict.sentence)
    return None
