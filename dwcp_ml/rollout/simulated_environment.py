"""A simulated environment of a rollout: traffic, two arms and a router, in virtual time.

Nothing here is measured. It draws what servers would count if the candidate were as good, or as
bad, as ``Traffic`` says, so that steps, margins and alpha can be chosen before a real rollout, and
the decision's errors counted over thousands of them.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.rollout.decide import Write
from dwcp_ml.rollout.observation import (
    Arm,
    ArmSample,
    BucketCounts,
    GroundTruthLoss,
    Observation,
    Pair,
)
from dwcp_ml.rollout.simulated_pods import Behaviour, Pods, SimulatedPods
from dwcp_ml.rollout.spec import Revision, RolloutSpec

Shape = Literal["constant", "diurnal", "bursts", "storm", "ramp"]

EDGES: Final = tuple(round(0.0005 * 1.25**step, 6) for step in range(30))
"""Buckets of the latency histogram, seconds: 0.5 ms to 0.3 s, a quarter apart."""

LOSS_SHAPE: Final = 1.3
"""Shape of the gamma distribution of the losses: their standard deviation is 0.88 of their mean, as
of the relative errors of a bandwidth predictor on simulated telemetry (0.89; quartiles 0.38, 0.82
and 1.41 of the mean there, 0.36, 0.76 and 1.38 here)."""

LOSS_EDGES: Final = tuple(round(10.0 ** (step / 24), 6) for step in range(-96, 1))
"""Buckets of the reported losses, 24 a decade up to 1, as the servers have."""

_DAY: Final = 86_400.0
_HOUR: Final = 3600.0
_MEDIAN_SECONDS: Final = 0.002
_SPREAD: Final = 0.35
_BURST_SECONDS: Final = 60.0
_STORM_START: Final = 900.0


@dataclass(frozen=True)
class Traffic:
    """Traffic, and the behaviour of both arms.

    Parameters
    ----------
    requests_per_second
        Mean, over both arms.
    shape
        ``diurnal`` swings by 80 % over a day; in ``bursts`` both arms fail ten times as often
        for a minute in twenty, in a ``storm`` five times as often for an hour, a quarter of an
        hour after the start; in a ``ramp`` the load grows tenfold in the first hour.
    stable_errors, candidate_errors
        Share of requests answered with an error.
    slower
        The candidate's latency as a multiple of the stable's.
    stuck
        Share of the candidate's answers that take seconds: longer than every bucket.
    rejected
        Share of the candidate's answers that are 4xx.
    harm_after_seconds, harm_from_percent
        Until this time since the start, and below this weight, the candidate is like the stable.
    divergence
        Mean difference of the two predictions for one request, 0 to 1; ``None`` without pairs.
    stable_loss, candidate_loss
        Mean loss against the ground truth (relative error, or share of wrong decisions).
    labelled_share, label_delay_seconds
        Which share of the candidate's requests gets a label, and after how long; 0 for none.
    """

    requests_per_second: float = 100.0
    shape: Shape = "constant"
    stable_errors: float = 0.001
    candidate_errors: float = 0.001
    slower: float = 1.0
    stuck: float = 0.0
    rejected: float = 0.0
    harm_after_seconds: float = 0.0
    harm_from_percent: int = 0
    divergence: float | None = None
    stable_loss: float = 0.045
    candidate_loss: float = 0.045
    labelled_share: float = 0.0
    label_delay_seconds: float = 120.0
    pods: Pods = field(default_factory=Pods)

    def __post_init__(self) -> None:
        errors = self.stable_errors, self.candidate_errors, self.stuck, self.rejected
        if not all(
            0.0 <= share <= 1.0 for share in (*errors, self.stable_loss, self.candidate_loss)
        ):
            raise UsageError("shares of errors and losses lie between 0 and 1.")
        if self.requests_per_second < 0 or self.slower <= 0:
            raise UsageError("requests per second must not be negative, and slower above 0.")


@dataclass
class SimulatedEnvironment:
    """Counters that grow as virtual time passes.

    Parameters
    ----------
    spec, traffic, rng
        The rollout, the behaviour of the arms, and the only source of randomness.
    """

    spec: RolloutSpec
    traffic: Traffic
    rng: np.random.Generator
    now: float = 1_000_000.0
    live_percent: int = 0
    promoted: bool = False
    writes: int = 0
    harm_began: tuple[float, int] | None = None
    """When the candidate was first able to do harm, and its requests before; ``None`` if never."""
    _late: list[tuple[float, int, int]] = field(default_factory=list)
    """When predictions were made whose truth becomes known: the candidate's, and the stable's."""
    _reported: dict[str, Counter[str]] = field(default_factory=dict)
    """Version -> upper bound of a bucket -> losses that callers have reported."""
    _pairs: tuple[Pair, ...] = ()
    _losses: tuple[GroundTruthLoss, ...] = ()
    _next_id: int = 0
    _minute: tuple[int, float] = (0, 0.0)
    _scale_up_at: float = math.inf
    """When the candidate's other pods start, in seconds since the start."""
    _split_at: int = -1
    """The weight at which clients were assigned."""

    def __post_init__(self) -> None:
        self._start = self.now
        # A stream of its own: neither the interval nor the decisions change the load of a minute.
        self._arriving = self.rng.spawn(1)[0]
        self._pods = SimulatedPods(self.traffic.pods, EDGES, self.now, self.rng)
        self._behaviours: dict[tuple[Traffic, bool, float], list[Behaviour]] = {}

    def pass_time(self, seconds: float) -> None:
        """Advance the clock; requests arrive and are split at the live weight."""
        begin, total, pods = self.now - self._start, self._arrivals(seconds), self._pods
        if self.live_percent != self._split_at:
            self._split_at = self.live_percent
            pods.pin_clients(self.live_percent)
            if self.live_percent:
                self._scale_up_at = min(self._scale_up_at, begin + pods.pods.scale_up_seconds)
        if begin >= self._scale_up_at:
            pods.scale_up(self.now)
        harmful, before = self._is_harmful(begin), self.exposed_requests
        if harmful and self.harm_began is None:
            self.harm_began = self.now, before
        requests, failing = pods.split(total, self.live_percent)
        if self.traffic.pods.outage_every:
            pod, failed = pods.outage(requests, begin, seconds)
            failing[pod] = max(failing[pod], failed)
        behaviours = self._behaviours_of(harmful, self._error_factor(begin + 0.5 * seconds))
        for each, its, failed, behaviour in zip(
            pods.all, requests, failing, behaviours, strict=True
        ):
            each.answer(its, failed, behaviour, self.rng)
        self.now += seconds
        self._compare(total, self.exposed_requests - before)

    def observe(self) -> Observation:
        """Return the observation of a controller now."""
        candidate = self.spec.candidate
        stable = self.spec.stable or candidate
        return Observation(
            live_percent=self.live_percent,
            promoted=self.promoted,
            stable=self._sample("stable", stable.version, stable.digest),
            candidate=self._sample("candidate", candidate.version, candidate.digest),
            are_compared=self.traffic.divergence is not None,
            pairs=self._pairs,
            losses=self._losses,
            labels_pending=sum(waiting for _, waiting, _ in self._late),
        )

    def make(self, write: Write | None) -> None:
        """Carry out the write of a decision."""
        if write is None:
            return
        self.writes += 1
        if write.kind == "promote":
            self.promoted = True
        else:
            self.live_percent = write.percent

    @property
    def exposed_requests(self) -> int:
        """Requests that the candidate has answered."""
        return sum(pod.requests for pod in self._pods.of("candidate"))

    def _arrivals(self, seconds: float) -> int:
        """Return how many requests come; the same for every minute, however it is cut."""
        arrived, at = 0, self.now - self._start
        while seconds > 0.0:
            count, left = self._minute
            if left <= 0.0:
                count, left = self._next_minute(at), 60.0
            part = min(seconds, left)
            here = count if part == left else int(self.rng.binomial(count, part / left))
            arrived += here
            self._minute = count - here, left - part
            seconds, at = seconds - part, at + part
        return arrived

    def _next_minute(self, elapsed: float) -> int:
        load = 1.0
        if self.traffic.shape == "diurnal":
            load += 0.8 * math.sin(2 * math.pi * (elapsed + 30.0) / _DAY)
        elif self.traffic.shape == "ramp":
            load += 9.0 * min(elapsed / _HOUR, 1.0)
        return int(self._arriving.poisson(self.traffic.requests_per_second * load * 60.0))

    def _error_factor(self, elapsed: float) -> float:
        """Return how many times as often both arms fail at a time since the start."""
        shape = self.traffic.shape
        if shape == "bursts" and elapsed % (20 * _BURST_SECONDS) < _BURST_SECONDS:
            return 10.0
        return 5.0 if shape == "storm" and 0.0 <= elapsed - _STORM_START < _HOUR else 1.0

    def _is_harmful(self, elapsed: float) -> bool:
        """Return whether the candidate has traffic and behaves as ``Traffic`` says it will."""
        late = elapsed >= self.traffic.harm_after_seconds
        return late and self.live_percent >= max(self.traffic.harm_from_percent, 1)

    def _behaviours_of(self, harmful: bool, error_factor: float) -> list[Behaviour]:
        """Return how the pods answer; while not ``harmful``, the candidate is like the stable."""
        traffic, key = self.traffic, (self.traffic, harmful, error_factor)
        if key not in self._behaviours:
            cold = traffic.pods.cold_slower
            found = self._behaviours[key] = []
            for pod in self._pods.all:
                harm = harmful and pod.arm == "candidate"
                errors = traffic.candidate_errors if harm else traffic.stable_errors
                slower = pod.speed_factor * (traffic.slower if harm else 1.0)
                stuck = traffic.stuck if harm else 0.0
                *within, above = [(1.0 - stuck) * share for share in _bucket_shares(slower)]
                behaviour = Behaviour(
                    errors=min(errors * pod.error_factor * error_factor, 1.0),
                    rejected=traffic.rejected if harm else 0.0,
                    latency=(*within, above + stuck),
                    cold_latency=None if cold is None else _bucket_shares(pod.speed_factor * cold),
                )
                found.append(behaviour)
        return self._behaviours[key]

    def _compare(self, total: int, candidate: int) -> None:
        """Draw what is known of the predictions for the requests of this time."""
        traffic = self.traffic
        if traffic.divergence is not None:
            paired = min(total - candidate, 50)
            self._pairs = self._ids_with(self._around(traffic.divergence, paired))
        if traffic.labelled_share:
            of_both = self.rng.binomial((candidate, total - candidate), traffic.labelled_share)
            self._late.append((self.now, int(of_both[0]), int(of_both[1])))
            self._reveal()

    def _sample(self, arm: Arm, version: str, digest: str) -> ArmSample:
        replicas = [pod.sample() for pod in self._pods.of(arm)]
        if arm == "stable" and replicas:  # where a report goes has nothing to do with its version
            losses = {
                reported: BucketCounts(buckets="loss", counts=dict(counts))
                for reported, counts in self._reported.items()
            }
            replicas[0] = replicas[0].replace(losses=losses)
        return ArmSample(version=version, digest=digest, replicas=tuple(replicas))

    def _around(self, mean: float, count: int) -> NDArray[np.float64]:
        """Draw ``count`` values in [0, 1] with this mean: most of them near 0, a few near 1."""
        if count == 0 or mean <= 0.0:
            return np.zeros(count)
        if mean >= 1.0:
            return np.ones(count)
        return self.rng.beta(2.0 * mean, 2.0 * (1.0 - mean), count)

    def _off(self, mean: float, count: int) -> NDArray[np.float64]:
        """Draw ``count`` losses with this mean, at most 1, spread like those of a model."""
        drawn = self.rng.gamma(LOSS_SHAPE, mean / LOSS_SHAPE, count)
        return np.asarray(np.minimum(drawn, 1.0), np.float64)

    def _ids_with(self, values: NDArray[np.float64]) -> tuple[Pair, ...]:
        pairs = tuple(
            Pair(request_id=f"r{self._next_id + place}", difference=float(value))
            for place, value in enumerate(values)
        )
        self._next_id += len(pairs)
        return pairs

    def _reveal(self) -> None:
        due = [one for one in self._late if one[0] + self.traffic.label_delay_seconds <= self.now]
        self._late = self._late[len(due) :]
        count, others = sum(one[1] for one in due), sum(one[2] for one in due)
        stable = self._off(self.traffic.stable_loss, count)
        candidate = self._off(self.traffic.candidate_loss, count)
        self._report(self.spec.candidate, candidate)
        self._report(self.spec.stable, self._off(self.traffic.stable_loss, others))
        losses = zip(stable.tolist(), candidate.tolist(), strict=True)
        self._losses = tuple(
            GroundTruthLoss(request_id=f"t{number}", stable=its, candidate=other)
            for number, (its, other) in enumerate(losses, self._next_id)
        )
        self._next_id += count

    def _report(self, revision: Revision | None, losses: NDArray[np.float64]) -> None:
        """Count the losses that callers report of one version."""
        if revision is None:
            return
        counts = self._reported.setdefault(revision.version, Counter())
        places = np.bincount(np.searchsorted(LOSS_EDGES, losses), minlength=len(LOSS_EDGES))
        for bound, number in zip(LOSS_EDGES, places.tolist(), strict=True):
            if number:
                counts[f"{bound:g}"] += number


@lru_cache(maxsize=64)
def _bucket_shares(slower: float) -> tuple[float, ...]:
    """Return the probability of each bucket for log-normal latencies; the last is above all."""
    centre = math.log(_MEDIAN_SECONDS * slower)
    scale = _SPREAD * math.sqrt(2.0)
    below = [0.5 * math.erfc((centre - math.log(edge)) / scale) for edge in EDGES]
    return tuple(np.diff(below, prepend=0.0, append=1.0).tolist())
