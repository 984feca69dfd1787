"""The input of the rules: one data point a minute, as from a metrics server."""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import sub
from typing import Final

from dwcp_ml.rollout.cause import Cause
from dwcp_ml.rollout.decide import Decision, Write
from dwcp_ml.rollout.observation import ArmSample, Histogram, Observation
from dwcp_ml.rollout.reason import Reason
from dwcp_ml.rollout.status import Phase, RolloutStatus

MINUTE: Final = 60.0

NAN: Final = math.nan


@dataclass(frozen=True)
class Limits:
    """What is acceptable, in absolute numbers, as the users of such a tool write them down.

    Parameters
    ----------
    success
        Smallest share of requests without an error.
    p99_seconds
        Largest 99th percentile of the latency.
    loss
        Maximum mean loss against the ground truth; ``None`` if it is not a metric.
    """

    success: float
    p99_seconds: float
    loss: float | None = None

    def broken(self, point: Point) -> tuple[str, ...]:
        """Return the metrics of a point that are not within; a value that is no number is not."""
        checks = {
            "success rate": point.success >= self.success,
            "p99 latency": point.p99 <= self.p99_seconds,
            "loss": self.loss is None or point.loss <= self.loss,
        }
        return tuple(name for name, fine in checks.items() if not fine)


@dataclass(frozen=True)
class Point:
    """One minute of one arm.

    Parameters
    ----------
    requests, errors
        Counted in this minute.
    buckets
        How many requests each latency bucket took, not cumulative; the last is above all edges.
    edges
        Upper bounds of the buckets, seconds.
    losses
        Of the requests with known ground truth.
    """

    requests: int
    errors: int
    buckets: tuple[int, ...]
    edges: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def success(self) -> float:
        """Share of requests without an error; NaN without requests."""
        return 1.0 - self.errors / self.requests if self.requests else NAN

    @property
    def p99(self) -> float:
        """99th percentile of the latency, seconds; NaN without requests."""
        return quantile(self.edges, self.buckets, 0.99)

    @property
    def loss(self) -> float:
        """Mean loss; NaN while no ground truth is known."""
        return math.fsum(self.losses) / len(self.losses) if self.losses else NAN


def quantile(edges: tuple[float, ...], buckets: tuple[int, ...], share: float) -> float:
    """Return a quantile of a histogram, linear within its bucket; NaN if it is empty.

    What lies above the last edge counts as the last edge.
    """
    desired, below = share * sum(buckets), 0
    if not desired:
        return NAN
    for place, count in enumerate(buckets[:-1]):
        if count and below + count >= desired:
            start = edges[place - 1] if place else 0.0
            return start + (edges[place] - start) * (desired - below) / count
        below += count
    return edges[-1]


class Minutes:
    """Splits cumulative counters into points of a minute; observations may be more frequent."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._last: dict[str, tuple[int, int, tuple[int, ...]]] = {}
        self._losses: dict[str, list[float]] = {"stable": [], "candidate": []}

    def add(self, observation: Observation, now: float) -> dict[str, Point] | None:
        """Return the points of both arms if a minute is over, else None."""
        for truth in observation.losses:
            self._losses["stable"].append(truth.stable)
            self._losses["candidate"].append(truth.candidate)
        if self._since is not None and now - self._since < MINUTE - 1e-6:
            return None
        first, self._since = self._since is None, now
        points = {}
        for name, arm in (("stable", observation.stable), ("candidate", observation.candidate)):
            edges, total = _total(arm)
            before = self._last.get(name, (0, 0, (0,) * len(total[2])))
            self._last[name] = total
            points[name] = Point(
                requests=total[0] - before[0],
                errors=total[1] - before[1],
                buckets=tuple(map(sub, total[2], before[2])),
                edges=edges,
                losses=tuple(self._losses[name]),
            )
            self._losses[name] = []
        return None if first else points


def _total(arm: ArmSample | None) -> tuple[tuple[float, ...], tuple[int, int, tuple[int, ...]]]:
    """Return the edges, and requests, errors and single buckets over the replicas of an arm."""
    requests = errors = 0
    edges: tuple[float, ...] = ()
    buckets: tuple[int, ...] = ()
    for replica in arm.replicas if arm is not None else ():
        requests, errors = requests + replica.requests, errors + replica.errors
        single = _single(replica.latency)
        buckets = tuple(map(sum, zip(buckets, single, strict=True))) if buckets else single
        edges = replica.latency.edges if replica.latency else edges
    return edges, (requests, errors, buckets)


def _single(histogram: Histogram | None) -> tuple[int, ...]:
    counts = histogram.counts if histogram else ()
    return tuple(map(sub, counts, (0, *counts)))


def set_weight(status: RolloutStatus, percent: int, why: str, now: float) -> Decision:
    """Return the decision to give the candidate a share."""
    cause = Cause(
        reason=Reason.STEP_STARTED, value=status.target_percent, percent=percent, detail=why
    )
    status = status.transition(now, Phase.PROGRESSING, cause, target_percent=percent)
    return status, Write(kind="set_weight", percent=percent, cause=cause)


def hold(status: RolloutStatus) -> Decision:
    """Return the decision to wait."""
    return status, None


def promote(status: RolloutStatus, why: str, now: float) -> Decision:
    """Return the decision to give the candidate everything, which ends the rollout."""
    cause = Cause(reason=Reason.PROMOTED, detail=why)
    status = status.transition(now, Phase.PROMOTED, cause, target_percent=100)
    return status, Write(kind="set_weight", percent=100, cause=cause)


def roll_back(status: RolloutStatus, why: str, now: float) -> Decision:
    """Return the decision to take the candidate back, which ends the rollout."""
    cause = Cause(reason=Reason.TEST_FAILED, detail=why)
    status = status.transition(now, Phase.ROLLED_BACK, cause, target_percent=0)
    return status, Write(kind="set_weight", percent=0, cause=cause)


def next_share(shares: tuple[int, ...], percent: int) -> int:
    """Return the step above a share."""
    return next(share for share in shares if share > percent)
