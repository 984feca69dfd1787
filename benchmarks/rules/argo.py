"""The canary rule of Argo Rollouts, from its documentation.

https://argo-rollouts.readthedocs.io/en/stable/features/analysis and .../features/specification

Each step sets a weight, pauses, and runs an analysis of the canary against absolute conditions; a
``Failed`` or ``Error`` analysis aborts the rollout, an ``Inconclusive`` one pauses it for the user.
Settings, all from the examples and defaults of those pages: pause 5 min, then 5 measurements a
minute apart, the first at once; failureLimit 0, so the first measurement out of range fails the
analysis; consecutiveErrorLimit 4. A condition like ``result >= 0.99`` is not met by NaN, which is
what a rate without requests gives. With a success condition alone nothing is ever inconclusive, so
inconclusiveLimit never matters here. An analysis that ends without any measurement is Successful.

``background=True`` is the other way that the pages show: the steps are pauses only, one analysis
runs beside them (after ``initial_delay``), and its end is the end of the steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, Literal

from benchmarks.rules.points import (
    MINUTE,
    Limits,
    Minutes,
    Point,
    hold,
    next_share,
    promote,
    roll_back,
    set_weight,
)
from dwcp_ml.rollout.decide import Decision
from dwcp_ml.rollout.observation import Observation
from dwcp_ml.rollout.spec import RolloutSpec
from dwcp_ml.rollout.status import RolloutStatus

PAUSE_SECONDS: Final = 300.0
COUNT: Final = 5
FAILURE_LIMIT: Final = 0
CONSECUTIVE_ERROR_LIMIT: Final = 4

Measurement = Literal["Successful", "Failed", "Error"]
RunPhase = Literal["Running", "Successful", "Failed", "Error"]


def assess(measurements: list[Measurement], count: int | None, ended: bool = False) -> RunPhase:
    """Return the phase of an analysis run.

    Parameters
    ----------
    measurements
        In their order.
    count
        Measurements to take; None goes on until it is ended.
    ended
        The run was terminated.
    """
    if measurements.count("Failed") > FAILURE_LIMIT:
        return "Failed"
    errors = 0
    for measurement in measurements:
        errors = errors + 1 if measurement == "Error" else 0
        if errors > CONSECUTIVE_ERROR_LIMIT:
            return "Error"
    good = sum(measurement != "Error" for measurement in measurements)
    return "Successful" if ended or (count is not None and good >= count) else "Running"


@dataclass
class Argo:
    """The rule, and the measurements of its analysis run.

    Parameters
    ----------
    limits
        The success conditions.
    background
        One analysis during all steps, instead of one at each.
    initial_delay
        Seconds before a background analysis takes its first measurement.
    """

    limits: Limits
    background: bool = False
    initial_delay: float = 0.0
    measured: list[Measurement] = field(default_factory=list)
    step_since: float = 0.0
    began: float = math.inf
    minutes: Minutes = field(default_factory=Minutes)

    def fresh(self) -> Argo:
        """Return the same rule without state."""
        return Argo(self.limits, self.background, self.initial_delay)

    def __call__(
        self, spec: RolloutSpec, status: RolloutStatus, observation: Observation, now: float
    ) -> Decision:
        """Decide for one observation."""
        points = self.minutes.add(observation, now)
        weight = observation.live_percent or 0
        if not weight:
            self.began = self.step_since = now
            return set_weight(status, spec.shares[0], "the first step.", now)
        if points is None:
            return hold(status)
        paused = now - self.step_since < PAUSE_SECONDS - 0.5 * MINUTE
        due = now - self.began >= self.initial_delay if self.background else not paused
        if due:
            broken = observation.candidate is None or bool(observation.candidate.error)
            self.measured.append("Error" if broken else self._measure(points["candidate"]))
        phase = assess(self.measured, None if self.background else COUNT)
        if phase in ("Failed", "Error"):
            return roll_back(status, f"analysis {phase} at {weight} %.", now)
        if paused or (phase == "Running" and not self.background):
            return hold(status)
        return self._next(spec, status, weight, now)

    def _measure(self, point: Point) -> Measurement:
        return "Failed" if self.limits.broken(point) else "Successful"

    def _next(self, spec: RolloutSpec, status: RolloutStatus, weight: int, now: float) -> Decision:
        above = next_share(spec.shares, weight)
        self.step_since = now
        if not self.background:
            self.measured = []
        if above < 100:
            return set_weight(status, above, f"the step of {weight} % is over.", now)
        phase = assess(self.measured, None, ended=True)
        return promote(status, f"all steps are over, the analysis is {phase}.", now)
