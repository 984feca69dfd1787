"""Cumulative counters of replicas -> what each arm did since the last reconciliation."""

from __future__ import annotations

from dataclasses import dataclass
from operator import add, lt, sub
from typing import Final

from pydantic import Field

from dwcp_ml.contract.record import Record
from dwcp_ml.rollout.evidence.error_rate import Counts
from dwcp_ml.rollout.observation import ArmSample, BucketCounts, Histogram, ReplicaSample

MAX_WARM_UP_REQUESTS: Final = 200
"""A replica that has answered this many is warm: pods that are renewed all the time still count."""

MAX_GONE: Final = 16
"""Replicas that are kept after they are gone: one that comes back is not counted twice."""


class ArmCounters(Record):
    """The last known counters of the replicas of one arm, by replica."""

    replicas: dict[str, ReplicaSample] = Field(default_factory=dict)
    warming: dict[str, float] = Field(
        default_factory=dict,
        description="replicas that are warming up -> seconds since their first response; negative "
        "before it",
    )

    @property
    def is_warming(self) -> bool:
        """Whether there are replicas, and all that were seen last are warming up."""
        return bool(self.warming) and self.warming.keys() >= self.replicas.keys()


class ArmBlock(Record):
    """What one arm did since the last reconciliation."""

    requests: int = 0
    errors: int = 0
    rejected: int = 0
    latency: Histogram | None = None
    unequal_buckets: bool = False
    """The replicas' latency histograms can't be added: there is none of the arm."""
    predictions: BucketCounts | None = None
    """None if a replica does not report them."""
    losses: dict[str, BucketCounts] = Field(default_factory=dict)
    """By version; also of replicas that are warming up, which only count them."""
    warm_up_requests: int = 0
    """Of replicas that were warming up; nothing else of them is in the block."""
    pods: tuple[tuple[str, ArmBlock], ...] = ()
    """The same by replica."""

    @property
    def failed(self) -> Counts:
        """Requests, and those with a 5xx response."""
        return Counts(requests=self.requests, errors=self.errors)

    @property
    def refused(self) -> Counts:
        """Requests, and those with a 4xx response; 499: the client left before it had one."""
        return Counts(requests=self.requests, errors=min(self.rejected, self.requests))


@dataclass(frozen=True)
class WarmUp:
    """When the responses of a new replica begin to count.

    Parameters
    ----------
    seconds
        After its first response; 0 for no warm-up.
    requests
        Responses that it must have given.
    tick
        Seconds since the last reconciliation; bounded, whatever the clock does.
    """

    seconds: float
    requests: int
    tick: float


def since(
    last: ArmCounters, sample: ArmSample, started_at: float, warm_up: WarmUp
) -> tuple[ArmBlock, ArmCounters]:
    """Return what happened since the last reconciliation, and the counters to keep.

    A replica is cold at first: its caches, its connections, its allocator. That is no property of
    the bundle, and the arm with more new replicas would look worse for it. What a replica responds
    while it warms up does not count, in either arm.

    Parameters
    ----------
    last
        The counters of the last reconciliation; empty for the first.
    started_at
        Start of the rollout, epoch seconds: a replica that is older and was not seen before
        counts from now on, a younger one from its start.
    """
    block: ArmBlock | None = None
    pods: list[tuple[str, ArmBlock]] = []
    warming: dict[str, float] = {}
    for now in sample.replicas:
        before = last.replicas.get(now.replica)
        increase = _increase(before, now, started_at)
        elapsed = _warming(last, before, now, started_at, warm_up)
        if elapsed is not None:
            warmed = elapsed >= warm_up.seconds and now.requests >= warm_up.requests
            warmed = warmed or now.requests >= MAX_WARM_UP_REQUESTS
            if not warmed:
                warming[now.replica] = elapsed
            increase = _nothing_of(now).replace(
                warm_up_requests=increase.requests, losses=increase.losses
            )
        pods.append((now.replica, increase))
        block = increase if block is None else _plus(block, increase)
    seen = {now.replica: now for now in sample.replicas}
    gone = [each for each in last.replicas.values() if each.replica not in seen][-MAX_GONE:]
    replicas = {each.replica: each for each in gone} | seen
    for replica in replicas.keys() - seen.keys():
        if replica in last.warming:
            warming[replica] = last.warming[replica]
    block = (block or ArmBlock()).replace(pods=tuple(pods))
    return block, ArmCounters(replicas=replicas, warming=warming)


def _warming(
    last: ArmCounters,
    before: ReplicaSample | None,
    now: ReplicaSample,
    started_at: float,
    warm_up: WarmUp,
) -> float | None:
    """Return for how long a replica has been warming up; ``None`` if what it did since counts."""
    if warm_up.seconds <= 0.0:
        return None
    is_new = now.started_at >= started_at if before is None else _was_restarted(before, now)
    if is_new:
        return 0.0 if now.requests else -1.0
    if before is None or now.replica not in last.warming:
        return None
    elapsed = last.warming[now.replica]
    if elapsed < 0.0:
        return 0.0 if now.requests else -1.0
    return elapsed + warm_up.tick


def _increase(before: ReplicaSample | None, now: ReplicaSample, started_at: float) -> ArmBlock:
    if before is None and now.started_at < started_at:
        return _nothing_of(now)
    if before is None or _was_restarted(before, now):
        return ArmBlock(
            requests=now.requests,
            errors=now.errors,
            rejected=now.rejected,
            latency=now.latency,
            predictions=now.predictions,
            losses=now.losses,
        )
    return ArmBlock(
        requests=now.requests - before.requests,
        errors=now.errors - before.errors,
        rejected=now.rejected - before.rejected,
        latency=_minus(now.latency, before.latency),
        predictions=_predictions_since(before.predictions, now.predictions),
        losses={
            version: _since(before.losses.get(version, counts.replace(counts={})), counts)
            for version, counts in now.losses.items()
        },
    )


def _nothing_of(now: ReplicaSample) -> ArmBlock:
    """Return the block of a replica of which nothing counts yet."""
    return ArmBlock(
        latency=_zero(now.latency),
        predictions=now.predictions and now.predictions.replace(counts={}),
    )


def _was_restarted(before: ReplicaSample, now: ReplicaSample) -> bool:
    """Return whether the counters are those of a new process."""
    if now.started_at != before.started_at:
        return True
    requests = now.requests - before.requests
    bad = now.errors - before.errors, now.rejected - before.rejected
    if min(requests, *bad) < 0 or sum(bad) > requests:
        return True
    predictions = before.predictions, now.predictions
    if predictions[0] and predictions[1] and _has_fallen(predictions[0], predictions[1]):
        return True
    if now.latency is None or before.latency is None:
        return False
    if now.latency.edges != before.latency.edges:
        return True
    return any(map(lt, now.latency.counts, before.latency.counts))


def _has_fallen(before: BucketCounts, now: BucketCounts) -> bool:
    return any(now.counts.get(bound, 0) < count for bound, count in before.counts.items())


def _zero(histogram: Histogram | None) -> Histogram | None:
    return histogram and Histogram(edges=histogram.edges, counts=(0,) * len(histogram.counts))


def _minus(now: Histogram | None, before: Histogram | None) -> Histogram | None:
    if now is None or before is None:
        return now
    return Histogram(edges=now.edges, counts=tuple(map(sub, now.counts, before.counts)))


def _predictions_since(
    before: BucketCounts | None, now: BucketCounts | None
) -> BucketCounts | None:
    if now is None or before is None:
        return now and now.replace(counts={})
    return _since(before, now)


def _since(before: BucketCounts, now: BucketCounts) -> BucketCounts:
    """Return what was counted since before; what fell is counted by a server that forgot it."""
    new = {
        bound: count - before.counts.get(bound, 0)
        for bound, count in now.counts.items()
        if count > before.counts.get(bound, 0)
    }
    return now.replace(counts=new)


def _all_losses(
    one: dict[str, BucketCounts], other: dict[str, BucketCounts]
) -> dict[str, BucketCounts]:
    """Add the losses that two replicas counted; those in other buckets are left out."""
    both = {**one, **other}
    for version in one.keys() & other.keys():
        both[version] = _both(one[version], other[version]) or one[version]
    return both


def _both(one: BucketCounts | None, other: BucketCounts | None) -> BucketCounts | None:
    """Add the predictions of two replicas; None where they can't be added."""
    if one is None or other is None or one.buckets != other.buckets:
        return None
    counts = {
        bound: one.counts.get(bound, 0) + other.counts.get(bound, 0)
        for bound in {**one.counts, **other.counts}
    }
    return one.replace(counts=counts)


def _plus(one: ArmBlock, other: ArmBlock) -> ArmBlock:
    edges = {each.latency.edges for each in (one, other) if each.latency is not None}
    unequal = one.unequal_buckets or other.unequal_buckets or len(edges) > 1
    return ArmBlock(
        requests=one.requests + other.requests,
        errors=one.errors + other.errors,
        rejected=one.rejected + other.rejected,
        warm_up_requests=one.warm_up_requests + other.warm_up_requests,
        latency=None if unequal else _merged(one.latency, other.latency),
        unequal_buckets=unequal,
        predictions=_both(one.predictions, other.predictions),
        losses=_all_losses(one.losses, other.losses),
    )


def _merged(one: Histogram | None, other: Histogram | None) -> Histogram | None:
    if one is None or other is None:
        return one or other
    return Histogram(edges=one.edges, counts=tuple(map(add, one.counts, other.counts)))
