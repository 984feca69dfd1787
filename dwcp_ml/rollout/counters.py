"""From cumulative counters to the block since the last reconciliation.

Prometheus's ``rate()`` extrapolates and forgets; a decision needs the raw counts. A replica that
was restarted starts again at zero: what it counted since the last reconciliation is lost,
which makes a block smaller, never wrong.
"""

from __future__ import annotations

from operator import add, lt, sub
from typing import Final

from pydantic import Field

from dwcp_ml.contract.records import Record
from dwcp_ml.rollout.observation import ArmSample, Histogram, ReplicaSample

MAX_GONE: Final = 16
"""Replicas that are kept after they are gone: one that comes back is not counted twice."""


class ArmCounters(Record):
    """The last known counters of the replicas of one arm, by replica."""

    replicas: dict[str, ReplicaSample] = Field(default_factory=dict)


class ArmBlock(Record):
    """What one arm did since the last reconciliation."""

    requests: int = 0
    errors: int = 0
    latency: Histogram | None = None


class UnequalBuckets(Exception):
    """Two histograms have different buckets; the message says whose."""


def since(last: ArmCounters, sample: ArmSample, started_at: float) -> tuple[ArmBlock, ArmCounters]:
    """Return what happened since the last reconciliation, and the counters to keep.

    Parameters
    ----------
    last
        The counters of the last reconciliation; empty for the first.
    sample
        The counters now.
    started_at
        Start of the rollout, epoch seconds: a replica that is older and was not seen before
        counts from now on, a younger one from its start.

    Raises
    ------
    UnequalBuckets
        If a replica's latency buckets are not those of the others.
    """
    block = None
    for now in sample.replicas:
        increase = _increase(last.replicas.get(now.replica), now, started_at)
        block = increase if block is None else _plus(block, increase)
    seen = {now.replica: now for now in sample.replicas}
    gone = [each for each in last.replicas.values() if each.replica not in seen][-MAX_GONE:]
    return block or ArmBlock(), ArmCounters(replicas={each.replica: each for each in gone} | seen)


def _increase(before: ReplicaSample | None, now: ReplicaSample, started_at: float) -> ArmBlock:
    if before is None and now.started_at < started_at:
        return ArmBlock(latency=_zero(now.latency))
    if before is None or _was_restarted(before, now):
        return ArmBlock(requests=now.requests, errors=now.errors, latency=now.latency)
    return ArmBlock(
        requests=now.requests - before.requests,
        errors=now.errors - before.errors,
        latency=_minus(now.latency, before.latency),
    )


def _was_restarted(before: ReplicaSample, now: ReplicaSample) -> bool:
    """Return whether the counters are those of a new process."""
    if now.started_at != before.started_at:
        return True
    more = now.requests - before.requests, now.errors - before.errors
    if min(more) < 0 or more[1] > more[0]:
        return True
    if now.latency is None or before.latency is None:
        return False
    if now.latency.edges != before.latency.edges:
        return True
    return any(map(lt, now.latency.counts, before.latency.counts))


def _zero(histogram: Histogram | None) -> Histogram | None:
    return histogram and Histogram(edges=histogram.edges, counts=(0,) * len(histogram.counts))


def _minus(now: Histogram | None, before: Histogram | None) -> Histogram | None:
    if now is None or before is None:
        return now
    return Histogram(edges=now.edges, counts=tuple(map(sub, now.counts, before.counts)))


def _plus(one: ArmBlock, other: ArmBlock) -> ArmBlock:
    return ArmBlock(
        requests=one.requests + other.requests,
        errors=one.errors + other.errors,
        latency=_merged(one.latency, other.latency),
    )


def _merged(one: Histogram | None, other: Histogram | None) -> Histogram | None:
    if one is None or other is None:
        return one or other
    if one.edges != other.edges:
        raise UnequalBuckets("the latency histograms of the replicas have different buckets.")
    return Histogram(edges=one.edges, counts=tuple(map(add, one.counts, other.counts)))
