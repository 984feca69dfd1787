"""What a rise of the weight waits for; unknown is never a pass."""

from __future__ import annotations

from dwcp_ml.rollout import analysis
from dwcp_ml.rollout.cause import Cause, Reason
from dwcp_ml.rollout.observation import Observation
from dwcp_ml.rollout.spec import RolloutSpec, Step
from dwcp_ml.rollout.status import RolloutStatus
from dwcp_ml.rollout.verdict import Outcome

NO_TRAFFIC = Cause(reason=Reason.NO_TRAFFIC)


def is_skipped(spec: RolloutSpec, percent: int) -> bool:
    """Return whether the user lets the step of this weight pass without proof."""
    return spec.skip is not None and spec.skip.traffic_percent == percent


def why_not_rise(observation: Observation, broken: Cause | None) -> Cause | None:
    """Return why the weight may not rise now, whatever was proved; ``None`` if it may."""
    if broken is not None:
        return broken
    if observation.candidate is None or not observation.candidate.ready:
        live = observation.live_percent
        reason = Reason.CANDIDATE_LOST_READINESS if live else Reason.CANDIDATE_NOT_READY
        return Cause(reason=reason)
    return None


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
        return None
    if (cause := why_not_rise(observation, broken)) is not None:
        return cause
    warm_up = spec.analysis.warm_up_seconds
    if status.ready_elapsed < warm_up:
        requests = status.warm_up_requests
        return Cause(reason=Reason.WARMING_UP, value=requests, limit=warm_up)
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
    required = [test for test in enabled if analysis.is_required(spec.analysis, test)] or enabled
    verdicts = {verdict.test: verdict for verdict in status.verdicts}
    for test in required:
        verdict = verdicts.get(test)
        if verdict is None:
            return Cause(reason=Reason.INSUFFICIENT_EVIDENCE, test=test)
        if verdict.outcome is Outcome.ERROR:
            return Cause(reason=Reason.TEST_UNAVAILABLE, test=test, detail=verdict.sentence)
        if verdict.outcome is not Outcome.PASS:
            return Cause(reason=Reason.INSUFFICIENT_EVIDENCE, test=test, detail=verdict.sentence)
    return None
