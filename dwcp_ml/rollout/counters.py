"""From cumulative counters to what happened since the last look.

Prometheus's ``rate()`` extrapolates and forgets; a decision needs the raw counts. A replica that
was restarted begins again at zero: what it counted between the last look and its end is lost,
which makes a block smaller, never wrong.
"""

from __future__ import annotations

from pydantic import Field

from dwcp_ml.contract.records import Record
from dwcp_ml.rollout.observation import ArmSample, Histogram, ReplicaSample


class ArmCounters(Record):
    """What the replicas of one arm had counted at the last look, by replica."""

    replicas: dict[str, ReplicaSample] = Field(default_factory=dict)


class ArmBlock(Record):
    """What one arm did since the last look."""

    requests: int = 0
    errors: int = 0
    latency: Histogram | None = None


class Unequal(Exception):
    """Two histograms have other buckets; the message says whose."""


def since(last: ArmCounters, sample: ArmSample, started_at: float) -> tuple[ArmBlock, ArmCounters]:
    """Return what happened since the last look, and the counters to remember.

    Parameters
    ----------
    last
        The counters of the last look; empty for the first.
    sample
        What the replicas say now.
    started_at
        When the rollout began, epoch seconds: a replica that is older and was not seen before
        counts from now on, a younger one from its start.

    Raises
    ------
    Unequal
        If a replica's latency buckets are not those of the others.
    """
    block = ArmBlock()
    for now in sample.replicas:
        before = last.replicas.get(now.replica)
        block = _plus(block, _one(before, now, started_at))
    return block, ArmCounters(replicas={now.replica: now for now in sample.replicas})


def _one(before: ReplicaSample | None, now: ReplicaSample, started_at: float) -> ArmBlock:
    if before is None and now.started_at < started_at:
        return ArmBlock(latency=_zero(now.latency))
    if before is None or _began_again(before, now):
        return ArmBlock(requests=now.requests, errors=now.errors, latency=now.latency)
    return ArmBlock(
        requests=now.requests - before.requests,
        errors=now.errors - before.errors,
        latency=_minus(now.latency, before.latency),
    )


def _began_again(before: ReplicaSample, now: ReplicaSample) -> bool:
    """Return whether the counters belong to another life of the process."""
    if now.started_at != before.started_at:
        return True
    if now.requests < before.requests or now.errors < before.errors:
        return True
    if now.latency is None or before.latency is None:
        return False
    if now.latency.edges != before.latency.edges:
        return True
    pairs = zip(now.latency.counts, before.latency.counts, strict=True)
    return any(new < old for new, old in pairs)


def _zero(histogram: Histogram | None) -> Histogram | None:
    return histogram and histogram.model_copy(update={"counts": (0,) * len(histogram.counts)})


def _minus(now: Histogram | None, before: Histogram | None) -> Histogram | None:
    if now is None or before is None:
        return now
    counts = tuple(new - old for new, old in zip(now.counts, before.counts, strict=True))
    return now.model_copy(update={"counts": counts})


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
        raise Unequal("the replicas count latency in other buckets.")
    counts = tuple(a + b for a, b in zip(one.counts, other.counts, strict=True))
    return one.model_copy(update={"counts": counts})
