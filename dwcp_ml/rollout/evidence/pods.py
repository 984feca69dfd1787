"""Do all pods of the candidate do worse, or do single pods differ? Counts by pod decide.

The tests compare the two arms as wholes. Pods that differ for good, because of a slow node, a cold
zone or a client that sticks to one of them, make the arms differ without any difference between the
bundles, and the longer it lasts the surer the tests are. So where an arm has several pods, a failed
test rolls back only if

- the difference of the arms is larger than that between the pods of one arm explains; how much
  pods may differ is an upper bound, which falls as their counts grow (``_exceeds_the_spread``); and
  each pod of the candidate is worse than every one of the stable, if pods surely differ, or
- every pod of the candidate is far beyond the median of the stable's.

Otherwise the rollout holds, and names the pod that differs most.

An arm with a single pod says nothing of how pods differ. Nodes make a difference of a fifth in
speed, so such an arm is judged on latency by ``odd_pod_by_speed``: its share of slow responses must
be far above what a slow node explains. On errors the test decides alone if both arms have one pod.
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

_SPREAD_QUANTILE: Final = 0.05
"""The spread of the pods is bounded at 95 %."""

_DIFFER_QUANTILE: Final = 0.99
"""Pods are taken for surely different at 1 %."""

_FAR: Final = 5.0
_LEAST_RATE: Final = 0.005
"""A multiple of the median of the stable's pods, and the least median that it is taken of."""

_SURE: Final = 2.326
"""Standard deviations that are exceeded with a probability of 1 %."""

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
        """Return the counts with those since the last update, by pod.

        An arm of which no pod was seen keeps its counts: its metrics are missing.
        """
        return type(self)(
            stable=_added(self.stable, stable) if stable else self.stable,
            candidate=_added(self.candidate, candidate) if candidate else self.candidate,
        )

    @property
    def odd_pod(self) -> str:
        """The pod that explains a difference of the arms; empty if the bundle has to."""
        stable, candidate = (
            {pod: counts for pod, counts in arm.items() if counts.requests}
            for arm in (self.stable, self.candidate)
        )
        if not stable or not candidate or max(len(stable), len(candidate)) == 1:
            return ""
        if _is_far(_known(candidate), _known(stable)) or _exceeds_the_spread(candidate, stable):
            return ""
        deviations = [
            (_deviation(counts, _total(arm).rate), pod)
            for arm in (candidate, stable)
            if len(arm) > 1
            for pod, counts in arm.items()
        ]
        return max(deviations)[1]

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
        return self.odd_pod


def _is_far(candidate: dict[str, Counts], stable: dict[str, Counts]) -> bool:
    """Return whether each of the candidate's pods is far beyond the median of the stable's.

    One broken pod of the stable makes its pods differ much, and is no excuse.
    """
    if not stable or not candidate:
        return False
    usual = statistics.median(counts.rate for counts in stable.values())
    return min(counts.rate for counts in candidate.values()) >= _FAR * max(usual, _LEAST_RATE)


def _exceeds_the_spread(candidate: dict[str, Counts], stable: dict[str, Counts]) -> bool:
    """Return whether the candidate is worse by more than pods of one bundle surely differ.

    The rates of the pods of an arm have a relative variance, beyond that of their counts, which is
    estimated by moments from Pearson's statistic (DerSimonian and Laird, 1986) at the upper bound
    that the statistic's chi squared distribution gives. With it, the log of the ratio of the arms'
    rates has a variance in which a single pod weighs as much as it should.
    """
    arms = candidate, stable
    freedom = len(candidate) + len(stable) - 2
    own, other = _total(candidate), _total(stable)
    statistic = information = shares = 0.0
    for arm, total in zip(arms, (own, other), strict=True):
        for counts in arm.values():
            share = counts.requests / total.requests
            statistic += _deviation(counts, total.rate)
            information += total.errors * share * (1.0 - share)
            shares += share**2
    if statistic > _chi_squared(freedom, _DIFFER_QUANTILE):
        highest = max(counts.rate for counts in stable.values())
        if min(counts.rate for counts in candidate.values()) <= highest:
            return False
    spread = 0.0
    if information > 0.0:
        excess = max(statistic / _chi_squared(freedom, _SPREAD_QUANTILE) - 1.0, 0.0)
        spread = excess * freedom / information
    bad = own.errors + 0.5, other.errors + 0.5
    ratio = math.log(bad[0] / own.requests) - math.log(bad[1] / other.requests)
    return ratio >= _SURE * math.sqrt(spread * shares + 1.0 / bad[0] + 1.0 / bad[1])


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


def _chi_squared(freedom: int, probability: float) -> float:
    """Return a quantile of chi squared; from three on, a low one is at most 7 % too low."""
    normal = statistics.NormalDist()
    if freedom == 1:
        return normal.inv_cdf(0.5 + 0.5 * probability) ** 2
    if freedom == 2:
        return -2.0 * math.log1p(-probability)
    # Wilson and Hilferty (1931).
    scale = 2.0 / (9.0 * freedom)
    return freedom * (1.0 - scale + normal.inv_cdf(probability) * math.sqrt(scale)) ** 3
