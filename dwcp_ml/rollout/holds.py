"""What a rise waits for; unknown is never a pass."""

from __future__ import annotations

from typing import Final

from dwcp_ml.rollout import analysis
from dwcp_ml.rollout.observation import Observation
from dwcp_ml.rollout.spec import RolloutSpec, Step
from dwcp_ml.rollout.status import RolloutStatus

QUIET: Final = "the candidate has answered nothing since the last look."


def skipped(spec: RolloutSpec, percent: int) -> bool:
    """Return whether a person lets the step of this share pass unproved."""
    return spec.skip is not None and spec.skip.traffic_percent == percent


def cannot_rise(observation: Observation, broken: str) -> str:
    """Return why nothing may rise now, whatever was proved; empty if it may."""
    if broken:
        return f"holding: {broken}"
    if observation.candidate is None or not observation.candidate.ready:
        return "holding: the candidate is not ready."
    return ""


def waiting_for(  # noqa: PLR0911 - a list of situations, each with its own answer
    spec: RolloutSpec,
    status: RolloutStatus,
    step: Step,
    observation: Observation,
    broken: str,
    quiet: bool,
) -> str:
    """Return what a step waits for, and what the rise above it waits for; empty for nothing."""
    if skipped(spec, step.traffic_percent):
        return ""
    if why := cannot_rise(observation, broken):
        return why
    if status.ready_elapsed < spec.analysis.warm_up_seconds:
        return f"warming up: {status.warm_up_requests} requests do not count."
    if status.step_requests < step.minimum_requests:
        return (
            f"waiting for traffic: {status.step_requests} of {step.minimum_requests} requests "
            f"at {step.traffic_percent} %."
        )
    if status.step_elapsed < step.dwell_seconds:
        return f"dwelling: {status.step_elapsed:.0f} of {step.dwell_seconds:.0f} s."
    if quiet:
        return f"holding: {QUIET}"
    # At 100 % the stable has no traffic to compare with: what was proved below stands, and the
    # watch takes over.
    return "" if step.traffic_percent == 100 else _unproved(spec, status)


def _unproved(spec: RolloutSpec, status: RolloutStatus) -> str:
    """Return which test a step still waits for; where none is required, every one is."""
    on = spec.analysis.enabled
    required = [test for test in on if analysis.is_required(spec.analysis, test)] or on
    said = {verdict.test: verdict for verdict in status.verdicts}
    for test in required:
        verdict = said.get(test)
        if verdict is None:
            return f"holding: nothing is known of {test} yet."
        if verdict.outcome != "pass":
            return f"holding ({verdict.outcome}): {verdict.sentence}"
    return ""
