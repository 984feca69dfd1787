"""The judge of Kayenta (Spinnaker), from its documentation.

https://spinnaker.io/docs/guides/user/canary/judge, .../best-practices, .../stage, and Kayenta's
docs/canary-config.md

A judgement compares the points of an interval, metric by metric: a Mann-Whitney test at 98 %
confidence. A metric is High when the lower bound of the shift between canary and baseline (from
the ranks of all pairwise differences) is above 0.25 of the estimated shift (Hodges and Lehmann),
the judge's tolerance; ``allowedIncrease`` is its default 1, so no further effect size is asked for.
Direction ``increase``. Minutes without a value are removed. A group's score is the share of its
metrics that pass; one without data scores 100. The total is the weighted mean of the groups, here
one metric a group and equal weights. Below the marginal threshold of 75 the canary fails; the last
judgement must reach 95 (the best practices' values).

Those pages ask for at least 50 points a judgement, an interval of an hour, no lookback, and a
baseline of the canary's size with the same traffic. So at every step there is one hour of 60 points
and one judgement of it, and the baseline is a random sample of the stable's requests, each minute
as many as the canary had. Three hours, which they propose for one analysis, would be twelve for
four steps, with twelve judgements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.rules.points import (
    NAN,
    Limits,
    Minutes,
    Point,
    hold,
    next_share,
    promote,
    quantile,
    roll_back,
    set_weight,
)
from dwcp_ml.rollout.decide import Decision
from dwcp_ml.rollout.observation import Observation
from dwcp_ml.rollout.spec import RolloutSpec
from dwcp_ml.rollout.status import RolloutStatus

POINTS: Final = 60
MARGINAL: Final = 75.0
PASS: Final = 95.0
TOLERANCE: Final = 0.25
Z: Final = 2.3263478740408408
"""98 % of a normal distribution lies within this number of standard deviations."""

Class = Literal["Pass", "High", "Nodata"]


def classify(canary: list[float], baseline: list[float]) -> Class:
    """Return whether a metric is higher at the canary; NaN values are removed first."""
    values, reference = _numbers(canary), _numbers(baseline)
    if not (len(values) and len(reference)):
        return "Nodata"
    lower, estimate = shift(values, reference)
    return "High" if lower > TOLERANCE * abs(estimate) else "Pass"


def _numbers(values: list[float]) -> NDArray[np.float64]:
    return np.array([value for value in values if not math.isnan(value)])


def shift(values: NDArray[np.float64], reference: NDArray[np.float64]) -> tuple[float, float]:
    """Return the lower 98 % bound and the estimate of how much higher ``values`` is.

    Parameters
    ----------
    values, reference
        Shapes (n,) and (m,).
    """
    differences = np.sort(np.subtract.outer(values, reference).ravel())
    pairs = len(differences)
    half = Z * math.sqrt(pairs * (len(values) + len(reference) + 1) / 12.0)
    place = max(math.floor(pairs / 2.0 - half), 0)
    return float(differences[place]), float(np.median(differences))


def score(classes: dict[str, Class]) -> float:
    """Return the score of one metric a group, 0 to 100; a group without data scores 100."""
    return 100.0 * sum(result != "High" for result in classes.values()) / len(classes)


@dataclass
class Kayenta:
    """The rule, and the points of the step.

    Parameters
    ----------
    limits
        Only whether the loss is a metric is read: nothing here is absolute.
    """

    limits: Limits
    canary: dict[str, list[float]] = field(default_factory=dict)
    baseline: dict[str, list[float]] = field(default_factory=dict)
    minutes: Minutes = field(default_factory=Minutes)
    seen: int = 0
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def fresh(self) -> Kayenta:
        """Return the same rule without state."""
        return Kayenta(self.limits)

    def __call__(
        self, spec: RolloutSpec, status: RolloutStatus, observation: Observation, now: float
    ) -> Decision:
        """Decide for one observation."""
        points = self.minutes.add(observation, now)
        weight = observation.live_percent or 0
        if not weight:
            return set_weight(status, spec.shares[0], "the first step.", now)
        if points is None:
            return hold(status)
        self._keep(points["candidate"], points["stable"])
        if self.seen < POINTS:
            return hold(status)
        classes = {name: classify(self.canary[name], self.baseline[name]) for name in self.canary}
        total, self.seen = score(classes), 0
        self.canary, self.baseline = {}, {}
        if total < PASS:
            high = ", ".join(name for name, result in classes.items() if result == "High")
            verdict = "marginal" if total >= MARGINAL else "fail"
            return roll_back(status, f"score {total:.0f} at {weight} % ({verdict}): {high}.", now)
        above = next_share(spec.shares, weight)
        if above == 100:
            return promote(status, f"score {total:.0f} at {weight} %.", now)
        return set_weight(status, above, f"score {total:.0f} at {weight} %.", now)

    def _keep(self, candidate: Point, stable: Point) -> None:
        self.seen += 1
        sampled = min(candidate.requests, stable.requests)
        errors, p99 = NAN, NAN
        if sampled:
            fine = stable.requests - stable.errors
            errors = self.rng.hypergeometric(stable.errors, fine, sampled) / sampled
            drawn = self.rng.multivariate_hypergeometric(
                stable.buckets, sampled, method="marginals"
            )
            p99 = quantile(stable.edges, tuple(drawn.tolist()), 0.99)
        pairs = {"errors": (1.0 - candidate.success, errors), "latency": (candidate.p99, p99)}
        if self.limits.loss is not None:
            pairs["loss"] = candidate.loss, stable.loss
        for name, (canary, baseline) in pairs.items():
            self.canary.setdefault(name, []).append(canary)
            self.baseline.setdefault(name, []).append(baseline)
