"""The canary rule of Flagger, from its documentation.

https://docs.flagger.app/usage/deployment-strategies, .../usage/metrics, .../usage/how-it-works

Every interval the canary's metrics of the last minute are compared with absolute thresholds; the
stable is not considered. If all are within, the weight rises a step; one interval is enough, even
with few requests. If one is out, the weight stays and the number of failed checks rises; it does
not fall again. At the threshold of failed checks the canary is rolled back, so a canary that is
always out lives ``interval * threshold``. A metric without a value fails its check. After the
largest weight the canary is promoted.

Settings: interval 1 min, threshold 5, success rate at least 99 %, a largest p99, maxWeight 50. The
steps below 100 are those of the rollout (``stepWeights``), so that all rules have the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from benchmarks.rules.points import (
    Limits,
    Minutes,
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

THRESHOLD: Final = 5


@dataclass
class Flagger:
    """The rule, and its count of failed checks.

    Parameters
    ----------
    limits
        What is acceptable.
    threshold
        Failed checks that roll back.
    """

    limits: Limits
    threshold: int = THRESHOLD
    failed: int = 0
    minutes: Minutes = field(default_factory=Minutes)

    def fresh(self) -> Flagger:
        """Return the same rule without state."""
        return Flagger(self.limits, self.threshold)

    def __call__(
        self, spec: RolloutSpec, status: RolloutStatus, observation: Observation, now: float
    ) -> Decision:
        """Decide for one observation."""
        points = self.minutes.add(observation, now)
        weight = observation.live_percent or 0
        if not weight:
            return set_weight(status, spec.shares[0], "the canary starts.", now)
        if points is None:
            return hold(status)
        out = self.limits.broken(points["candidate"])
        if out:
            self.failed += 1
            reason = f"{', '.join(out)} out of range, {self.failed} failed checks."
            if self.failed >= self.threshold:
                return roll_back(status, reason, now)
            return hold(status)
        above = next_share(spec.shares, weight)
        if above == 100:
            return promote(status, f"all checks passed at {weight} %.", now)
        return set_weight(status, above, f"all checks passed at {weight} %.", now)
