"""What happened since the last reconciliation, added to the status: time, counters, evidence."""

from __future__ import annotations

from typing import Final

from dwcp_ml.contract.models import COMPARED_BY_FLAG
from dwcp_ml.rollout.analysis import Evidence, odd_pod, restarted, update_evidence, verdicts_of
from dwcp_ml.rollout.cause import Cause
from dwcp_ml.rollout.counters import WarmUp, since
from dwcp_ml.rollout.observation import ArmSample, Observation
from dwcp_ml.rollout.reason import Reason
from dwcp_ml.rollout.spec import Analysis, RolloutSpec
from dwcp_ml.rollout.status import Phase, RolloutStatus
from dwcp_ml.rollout.verdict import Outcome, Verdict, unavailable

MAX_TICK_SECONDS: Final = 30.0
"""What one reconciliation may add to a dwell: a clock that jumps an hour, or a controller that was
down, adds no more."""


def with_time(status: RolloutStatus, observation: Observation, now: float) -> RolloutStatus:
    """Return the status with the time since the last look added to what is being timed."""
    last = now if status.last_reconciled is None else status.last_reconciled
    tick = min(max(now - last, 0.0), MAX_TICK_SECONDS)
    candidate = observation.candidate
    unready = status.unready_elapsed
    if candidate is not None and candidate.ready:
        unready = 0.0
    elif observation.live_percent and candidate is not None:
        unready += tick
    settled = status.target_percent > 0 and observation.live_percent == status.target_percent
    at_step = tick if settled and status.phase is Phase.PROGRESSING else 0.0
    watching = tick if settled and status.phase is Phase.WATCHING else 0.0
    return status.replace(
        last_reconciled=now,
        last_tick=tick,
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
        The cause says why the metrics pass nothing; ``None`` if they may. What can be read of
        them fails a candidate in any case.
    """
    if observation.candidate is not None:
        # Known before the metrics are: a candidate that crashes at once never shows any. A replica
        # that is gone takes its restarts with it.
        restarts = observation.candidate.restarts
        if status.restarts_at_start is None or restarts < status.restarts_at_start:
            status = status.replace(restarts_at_start=restarts)
    broken = _unusable_metrics(spec, observation)
    if observation.candidate is None:
        broken = broken or Cause(
            reason=Reason.METRICS_UNAVAILABLE,
            arm="candidate",
            detail="nothing was observed of it yet.",
        )
        return status.replace(verdicts=_unmeasured(spec, broken)), broken
    limits = spec.analysis
    warm_up = WarmUp(limits.warm_up_seconds, limits.warm_up_requests, status.last_tick)
    stable, stable_counters = since(
        status.stable_counters, observation.stable or _NOTHING, status.started_at, warm_up
    )
    candidate, candidate_counters = since(
        status.candidate_counters, observation.candidate, status.started_at, warm_up
    )
    if stable.unequal_buckets or candidate.unequal_buckets:
        arm = "candidate" if candidate.unequal_buckets else "stable"
        broken = broken or Cause(reason=Reason.METRICS_INCOMPARABLE, arm=arm)
    status = status.replace(
        stable_counters=stable_counters,
        candidate_counters=candidate_counters,
        exposed_requests=status.exposed_requests + candidate.requests + candidate.warm_up_requests,
        warm_up_requests=status.warm_up_requests + candidate.warm_up_requests,
        pairs_cursor=observation.pairs_cursor or status.pairs_cursor,
        ground_truth_cursor=observation.ground_truth_cursor or status.ground_truth_cursor,
    )
    settled = observation.live_percent == status.target_percent
    if settled and status.target_percent > 0:
        status = status.replace(step_requests=status.step_requests + candidate.requests)
    evidence = update_evidence(
        spec.analysis,
        _without_a_pod_that_is_gone(spec.analysis, status, observation),
        stable,
        candidate,
        observation,
        only_harm=broken is not None,
        flag=spec.model in COMPARED_BY_FLAG,
    )
    verdicts = verdicts_of(spec.analysis, evidence, observation, spec.watch_run_length)
    if broken is not None:
        failed = tuple(each for each in verdicts if each.outcome is Outcome.FAIL)
        verdicts = failed or _unmeasured(spec, broken)
    return status.replace(evidence=evidence, verdicts=verdicts), broken


def _without_a_pod_that_is_gone(
    settings: Analysis, status: RolloutStatus, observation: Observation
) -> Evidence:
    """Start a test over that only a pod explained, once that pod was replaced."""
    evidence = status.evidence
    arms = [arm for arm in (observation.stable, observation.candidate) if arm is not None]
    if len(arms) < 2 or any(arm.error for arm in arms):
        return evidence
    seen = {replica.replica for arm in arms for replica in arm.replicas}
    for verdict in status.verdicts:
        failed = verdict.outcome is Outcome.FAIL
        pod = odd_pod(settings, evidence, verdict.test) if failed else ""
        if pod and pod not in seen:
            evidence = restarted(evidence, verdict.test)
    return evidence


_NOTHING: Final = ArmSample(version="")


def _unmeasured(spec: RolloutSpec, broken: Cause) -> tuple[Verdict, ...]:
    return tuple(unavailable(test, broken.sentence) for test in spec.analysis.enabled)


def _unusable_metrics(spec: RolloutSpec, observation: Observation) -> Cause | None:
    """Return why the metrics pass nothing; what there is of them may still fail the candidate."""
    for name, arm in (("stable", observation.stable), ("candidate", observation.candidate)):
        if arm is not None and arm.error:
            return Cause(reason=Reason.METRICS_UNAVAILABLE, arm=name, detail=arm.error)
    if observation.stable is None:
        detail = "nothing was observed of it yet."
        return Cause(reason=Reason.METRICS_UNAVAILABLE, arm="stable", detail=detail)
    candidate = observation.candidate
    if candidate is not None and candidate.digest not in ("", spec.candidate.digest):
        return Cause(reason=Reason.BUNDLE_MISMATCH, version=candidate.version)
    return None
