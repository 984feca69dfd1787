"""Do all pods of the candidate do worse, or do single pods differ? Counts by pod decide.

The tests compare the two arms as wholes. Pods that differ for good, because of a slow node, a cold
zone or a client that sticks to one of them, make the arms differ without any difference between the
bundles, and the longer it lasts the surer the tests are. So before a failed test rolls back,

- the pods of each arm are compared among themselves (Pearson's test of equal rates);
- where those of an arm differ, the candidate is to blame only if its pods without the odd one are
  surely worse: than every pod of the stable, or far beyond their median. Otherwise the rollout
  holds, and names the pod that differs most.

An arm with a single pod says nothing of how pods differ. Nodes make a difference of a fifth in
speed, so such an arm is judged on latency by ``odd_pod_by_speed``: its share of slow responses must
be far above what a slow node explains. On errors the test decides alone.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Final, Self

from pydantic import Field

from dwcp_ml.contract.record import Record
from dwcp_ml.rollout.evidence.error_rate import Counts

MAX_PODS: Final = 64
"""Of an arm, those with the most requests: the state is bounded."""

MAX_REQUESTS: Final = 40_000
"""Of a pod. Beyond it its counts are halved: hours of good responses must not hide bad ones."""

MIN_REQUESTS: Final = 30
"""A pod with fewer says nothing of itself."""

_NORMAL_QUANTILE: Final = 2.326
"""Of a probability of 0.99: pods are taken for different at 1 %."""


_FAR: Final = 5.0
_LEAST_RATE: Final = 0.005
"""A multiple of the median of the stable's pods, and the least median that it is taken of."""

_SURE: Final = 3.0
"""Standard deviations."""

_NODE_ODDS: Final = 8.0
_LEAST_SLOW: Final = 0.01
_SURELY_SLOW: Final = 0.3
"""A node that is a third slower than another brings six times as many responses above the 99th
percentile, if their latencies are log-normal with σ = 0.35; half as slow again, twelve times. Odds
of 8 times the stable's tell them apart, and no node explains more than 30 %."""


class PodCounts(Record):
    """Requests and bad ones of each pod of both arms, since the rollout started."""

    stable: dict[str, Counts] = Field(default_factory=dict)
    candidate: dict[str, Counts] = Field(default_factory=dict)

    def update(self, stable: Mapping[str, Counts], candidate: Mapping[str, Counts]) -> Self:
        """Return the counts with those since the last update, by pod."""
        return type(self)(
            stable=_added(self.stable, stable), candidate=_added(self.candidate, candidate)
        )

    @property
    def odd_pod(self) -> str:
        """The pod that explains a difference of the arms; empty if the bundle has to."""
        stable, candidate = _known(self.stable), _known(self.candidate)
        return self._odd_pod(stable, candidate)

    @property
    def odd_pod_by_speed(self) -> str:
        """The same of slow responses, where a single pod in an arm may be on a slow node."""
        stable, candidate = _known(self.stable), _known(self.candidate)
        if stable and candidate and min(len(stable), len(candidate)) == 1:
            rates = [counts.rate for counts in stable.values()]
            usual = max(statistics.median(rates), _LEAST_SLOW)
            far = min(_NODE_ODDS * usual / (1.0 + (_NODE_ODDS - 1.0) * usual), _SURELY_SLOW)
            if min(counts.rate for counts in candidate.values()) >= far:
                return ""
            return next(iter(candidate if len(candidate) == 1 else stable))
        return self._odd_pod(stable, candidate)

    @staticmethod
    def _odd_pod(stable: dict[str, Counts], candidate: dict[str, Counts]) -> str:
        differing = candidate if _differ(candidate) else stable if _differ(stable) else None
        if differing is None or not candidate:
            return ""
        rate = _total(differing).rate
        odd = max(differing, key=lambda pod: _deviation(differing[pod], rate))
        rest = {pod: counts for pod, counts in candidate.items() if pod != odd} or candidate
        return "" if _is_worse(rest, stable) else odd


def _is_worse(candidate: dict[str, Counts], stable: dict[str, Counts]) -> bool:
    """Return whether these pods of the candidate are surely worse, each of them, than the stable's.

    One broken pod of the stable is no excuse: far beyond the median of its pods is worse, too.
    """
    if not stable or not candidate:
        return False
    rates = [counts.rate for counts in stable.values()]
    lowest = min(counts.rate for counts in candidate.values())
    if lowest >= _FAR * max(statistics.median(rates), _LEAST_RATE):
        return True
    own, other = _total(candidate), _total(stable)
    pooled = _total({"own": own, "other": other}).rate
    spread = math.sqrt(pooled * (1.0 - pooled) * (1.0 / own.requests + 1.0 / other.requests))
    return lowest > max(rates) and own.rate - other.rate >= _SURE * spread


def _added(total: dict[str, Counts], new: Mapping[str, Counts]) -> dict[str, Counts]:
    """Return the counts of the pods that are seen now; one that is not seen may have changed."""
    merged = {pod: _faded(total.get(pod, Counts()) + counts) for pod, counts in new.items()}
    if len(merged) <= MAX_PODS:
        return merged
    by_requests = sorted(merged, key=lambda pod: merged[pod].requests, reverse=True)
    return {pod: merged[pod] for pod in by_requests[:MAX_PODS]}


def _faded(counts: Counts) -> Counts:
    if counts.requests <= MAX_REQUESTS:
        return counts
    return Counts(requests=counts.requests // 2, errors=counts.errors // 2)


def _known(arm: dict[str, Counts]) -> dict[str, Counts]:
    return {pod: counts for pod, counts in arm.items() if counts.requests >= MIN_REQUESTS}


def _total(arm: Mapping[str, Counts]) -> Counts:
    return sum(arm.values(), Counts())


def _deviation(counts: Counts, rate: float) -> float:
    """Return (observed - expected)² / variance of a pod's bad requests, at the arm's rate."""
    variance = counts.requests * rate * (1.0 - rate)
    return (counts.errors - counts.requests * rate) ** 2 / variance if variance > 0.0 else 0.0


def _differ(arm: dict[str, Counts]) -> bool:
    """Return whether the pods of an arm have different rates."""
    freedom = len(arm) - 1
    if freedom < 1:
        return False
    # The quantile of chi squared after Wilson and Hilferty (1931); exact to 1 % from 1 on.
    scale = 2.0 / (9.0 * freedom)
    limit = freedom * (1.0 - scale + _NORMAL_QUANTILE * math.sqrt(scale)) ** 3
    rate = _total(arm).rate
    return sum(_deviation(counts, rate) for counts in arm.values()) > limit
