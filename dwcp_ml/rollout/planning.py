"""How long each step of a rollout would take, from simulated rollouts of a good candidate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from dwcp_ml.contract.checks import StepTime
from dwcp_ml.rollout.decide import Decision, decide
from dwcp_ml.rollout.observation import Observation
from dwcp_ml.rollout.simulated_environment import Traffic
from dwcp_ml.rollout.simulation import run_once
from dwcp_ml.rollout.spec import RolloutSpec
from dwcp_ml.rollout.status import RolloutStatus

ROLLOUTS: Final = 20

_RECONCILES_A_STEP: Final = 60
"""Reconciliations of the longest step; more cost time and change little."""


class _StepTimer:
    """``decide``, and the time at which it let each step pass."""

    def __init__(self) -> None:
        self.passed: dict[int, float] = {}
        """Share of traffic -> seconds from the step's first request to its passing verdict."""
        self._started: dict[int, float] = {}

    def __call__(
        self, spec: RolloutSpec, status: RolloutStatus, observation: Observation, now: float
    ) -> Decision:
        status, write = decide(spec, status, observation, now)
        for share in spec.shares:
            if status.target_percent == share:
                self._started.setdefault(share, now)
            if status.passed_percent >= share and share in self._started:
                self.passed.setdefault(share, now - self._started[share])
        return status, write


def step_times(
    spec: RolloutSpec,
    traffic: Traffic,
    step_seconds: float,
    *,
    rollouts: int = ROLLOUTS,
    seed: int = 42,
) -> tuple[StepTime, ...]:
    """Return how long each step takes, from simulated rollouts.

    Parameters
    ----------
    traffic
        Traffic of both arms; a candidate as good as the stable shows how long a good one takes.
    step_seconds
        A step that takes longer counts as not decided.
    """
    interval = min(max(step_seconds / _RECONCILES_A_STEP, 1.0), 60.0)
    limit = spec.analysis.warm_up_seconds + len(spec.steps) * (step_seconds + 2 * interval)
    timers = []
    for number in range(rollouts):
        timer = _StepTimer()
        run_once(
            spec,
            traffic,
            seed + number,
            reconcile_seconds=interval,
            limit_seconds=limit,
            rule=timer,
        )
        timers.append(timer)
    times = []
    for share in spec.shares:
        taken = [timer.passed.get(share, math.inf) for timer in timers]
        times.append(
            StepTime(
                traffic_percent=share,
                median_seconds=_within(taken, 0.5, step_seconds),
                p90_seconds=_within(taken, 0.9, step_seconds),
            )
        )
    return tuple(times)


def _within(taken: Sequence[float], share: float, limit: float) -> float | None:
    """Return the time within which this share was decided; ``None`` beyond the limit."""
    reached = sorted(taken)[math.ceil(share * len(taken)) - 1]
    return reached if reached <= limit else None
