"""What is observed of a rollout at one moment; adapters make it, ``decide`` reads it.

Counters are cumulative, as the servers count them, and stand apart for each replica: differences,
and what a restarted replica does to them, are the decision's business (``counters``), so that a
controller that was down for an hour finds one larger block and not a gap.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, FiniteFloat

from dwcp_ml.contract.champion import DifferenceRecord
from dwcp_ml.contract.record import Record
from dwcp_ml.rollout.cause import Cause

Arm = Literal["stable", "candidate"]


class Histogram(Record):
    """Cumulative counts of a latency histogram, or of a sketch.

    ``counts[i]`` is the number of values up to ``edges[i]``; the last count holds all of them.
    """

    edges: tuple[float, ...] = Field(description="upper bounds, ascending, without +Inf")
    counts: tuple[int, ...] = Field(description="one more than edges; the last is +Inf")


class BucketCounts(Record):
    """Counts of a histogram's buckets, of those that are not empty."""

    buckets: str = Field(default="", description="what tells one set of buckets from another")
    counts: dict[str, int] = Field(
        default_factory=dict,
        description="upper bound of a bucket, as in the metric -> values in it",
    )


class ReplicaSample(Record):
    """The counters of one replica since it started."""

    replica: str = Field(description="name or address")
    started_at: float = Field(description="start of the process, epoch seconds: names its life")
    requests: int = Field(ge=0, description="user requests, mirrored ones left out")
    errors: int = Field(ge=0, description="of them those answered with 5xx")
    rejected: int = Field(
        default=0, ge=0, description="of them those answered with 4xx, or 499: not before the "
        "client had left",
    )  # fmt: skip
    latency: Histogram | None = Field(default=None, description="seconds")
    predictions: BucketCounts | None = Field(
        default=None,
        description="for the first instances of requests; null for a server that does not report "
        "them",
    )
    losses: dict[str, BucketCounts] = Field(
        default_factory=dict,
        description="version -> losses that callers have reported to this replica, of whichever "
        "arm made the prediction",
    )


class ArmSample(Record):
    """One arm: its replicas, and why their metrics can't be used, if they can't."""

    version: str
    digest: str = ""
    contracts: tuple[str, ...] = Field(
        default=(),
        description="digests of the contracts that its replicas serve, each once; '' is that of a "
        "server that does not report it",
    )
    ready: bool = Field(default=True, description="it can take traffic now")
    restarts: int = Field(default=0, ge=0, description="times a process ended by itself, so far")
    pods: int = Field(default=0, ge=0, description="replicas that those are of; 0 if unknown")
    problem: Cause | None = Field(
        default=None,
        description="why it is not ready, where that is no fault of its own; null if it may be",
    )
    replicas: tuple[ReplicaSample, ...] = ()
    error: str = Field(default="", description="why the metrics can't be had; empty if they can")
    requests_port: int = Field(
        default=0, ge=0, le=65535, description="where its replicas hand out the requests that they "
        "keep; 0 if they keep none",
    )  # fmt: skip
    sketches: dict[str, Histogram] = Field(
        default_factory=dict, description="'feature:rtt_ms' or 'output:…' -> distribution"
    )


class Pair(Record):
    """The same request answered by both arms."""

    request_id: str
    difference: float = Field(ge=0.0, le=1.0)
    signed: FiniteFloat | None = Field(
        default=None,
        description="the candidate's difference from the stable, as "
        "``contract.champion.signed_difference`` defines it; null if the candidate had no "
        "prediction",
    )
    answer: int | None = Field(
        default=None, description="the stable's class or flag; null of an output that is a number"
    )
    score: FiniteFloat | None = Field(
        default=None,
        description="of a flag: as signed, of the score that it was made from; null if the stable "
        "keeps none",
    )
    rare: bool = Field(
        default=False,
        description="kept because its answer is rare: it does not show the share in the traffic",
    )


class GroundTruthLoss(Record):
    """A request whose ground truth is known: the loss of each arm's prediction."""

    request_id: str
    stable: float = Field(ge=0.0, le=1.0)
    candidate: float = Field(ge=0.0, le=1.0)


class Observation(Record):
    """Everything that was observed at one moment.

    ``pairs`` and ``losses`` are those since ``pairs_cursor`` and ``ground_truth_cursor`` of the
    status; the new cursors say how far they go.
    """

    live_percent: int | None = Field(
        description="the candidate's live weight as the router reports it; null if unknown"
    )
    router_error: str = ""
    obstacle: Cause | None = Field(
        default=None,
        description="why the weight may neither rise nor be made final, whatever the metrics say; "
        "a candidate is rolled back all the same",
    )
    stable: ArmSample | None = None
    candidate: ArmSample | None = None
    promoted: bool = Field(
        default=False, description="the router has made the candidate the stable"
    )
    are_compared: bool | None = Field(
        default=False,
        description="whether requests of the stable are sent to the candidate as well; null if "
        "that is unknown",
    )
    pairs: tuple[Pair, ...] = ()
    pairs_record: DifferenceRecord | None = Field(
        default=None,
        description="how the gate found the candidate to differ from this stable; null if it did "
        "not compare the two",
    )
    pairs_cursor: str = ""
    pairs_error: str = ""
    losses: tuple[GroundTruthLoss, ...] = ()
    ground_truth_cursor: str = ""
    labels_pending: int = Field(
        default=0, ge=0, description="requests of both arms whose ground truth is not known yet"
    )
    labels_error: str = ""
