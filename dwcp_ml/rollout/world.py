"""A made-up world for the decision: traffic, two arms and a router, in virtual time.

Nothing here is measured. It draws what servers would count if the candidate were as good, or as
bad, as ``Traffic`` says, so that steps, margins and alpha can be chosen before a real rollout, and
the decision's errors counted over thousands of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.rollout.decide import Write
from dwcp_ml.rollout.observation import (
    ArmSample,
    Histogram,
    Observation,
    Pair,
    ReplicaSample,
    TruthLoss,
)
from dwcp_ml.rollout.spec import RolloutSpec

Shape = Literal["constant", "diurnal", "bursts"]

EDGES: Final = tuple(round(0.0005 * 1.25**step, 6) for step in range(30))
"""Buckets of the latency histogram, seconds: 0.5 ms to 0.3 s, a quarter apart."""

_DAY: Final = 86_400.0
_MEDIAN_SECONDS: Final = 0.002
_SPREAD: Final = 0.35
_BURST_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Traffic:
    """What the arms do.

    Parameters
    ----------
    requests_per_second
        Mean, over both arms.
    shape
        ``diurnal`` swings by 80 % over a day; in ``bursts`` both arms fail ten times as often
        for a minute in twenty.
    stable_errors, candidate_errors
        Share of requests answered with an error.
    slower
        The candidate's latency as a multiple of the stable's.
    divergence
        Mean difference of the two answers to one request, 0 to 1; ``None`` without pairs.
    stable_loss, candidate_loss
        Mean loss once the truth is known (relative error, or share of wrong decisions).
    truth_share, truth_delay_seconds
        Which share of the candidate's requests gets its truth, and after how long; 0 for none.
    """

    requests_per_second: float = 100.0
    shape: Shape = "constant"
    stable_errors: float = 0.001
    candidate_errors: float = 0.001
    slower: float = 1.0
    divergence: float | None = None
    stable_loss: float = 0.045
    candidate_loss: float = 0.045
    truth_share: float = 0.0
    truth_delay_seconds: float = 120.0

    def __post_init__(self) -> None:
        shares = (self.stable_errors, self.candidate_errors, self.stable_loss, self.candidate_loss)
        if not all(0.0 <= share <= 1.0 for share in shares):
            raise UsageError("shares of errors and losses lie between 0 and 1.")
        if self.requests_per_second < 0 or self.slower <= 0:
            raise UsageError("requests per second must not be negative, and slower above 0.")


@dataclass
class World:
    """Counters that grow as virtual time passes.

    Parameters
    ----------
    spec, traffic, rng
        Whose rollout it is, what the arms do, and the only source of chance.
    """

    spec: RolloutSpec
    traffic: Traffic
    rng: np.random.Generator
    now: float = 1_000_000.0
    live_percent: int = 0
    promoted: bool = False
    writes: int = 0
    _counts: dict[str, list[int]] = field(default_factory=dict)
    _latency: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    _late: list[tuple[float, int]] = field(default_factory=list)
    _pairs: tuple[Pair, ...] = ()
    _truths: tuple[TruthLoss, ...] = ()
    _next_id: int = 0

    def __post_init__(self) -> None:
        self._start = self.now
        for arm in ("stable", "candidate"):
            self._counts[arm] = [0, 0]
            self._latency[arm] = np.zeros(len(EDGES) + 1, np.int64)

    def pass_time(self, seconds: float) -> None:
        """Let traffic flow for a while at the live weight."""
        self.now += seconds
        load, trouble = self._load()
        total = int(self.rng.poisson(self.traffic.requests_per_second * load * seconds))
        candidate = int(self.rng.binomial(total, self.live_percent / 100.0))
        traffic = self.traffic
        self._serve("stable", total - candidate, traffic.stable_errors * trouble, 1.0)
        self._serve("candidate", candidate, traffic.candidate_errors * trouble, traffic.slower)
        if traffic.divergence is not None:
            paired = min(total - candidate, 50)
            self._pairs = self._ids_with(self._around(traffic.divergence, paired))
        self._late.append((self.now, int(self.rng.binomial(candidate, traffic.truth_share))))
        self._reveal()

    def observe(self) -> Observation:
        """Return what a controller sees now."""
        candidate = self.spec.candidate
        stable = self.spec.stable or candidate
        return Observation(
            live_percent=self.live_percent,
            promoted=self.promoted,
            stable=self._sample("stable", stable.version, stable.digest),
            candidate=self._sample("candidate", candidate.version, candidate.digest),
            pairs=self._pairs,
            truths=self._truths,
        )

    def make(self, write: Write | None) -> None:
        """Do what the decision asks for."""
        if write is None:
            return
        self.writes += 1
        if write.kind == "promote":
            self.promoted = True
        else:
            self.live_percent = write.percent

    @property
    def touched(self) -> int:
        """Requests that the candidate has answered."""
        return self._counts["candidate"][0]

    def _load(self) -> tuple[float, float]:
        elapsed = self.now - self._start
        if self.traffic.shape == "diurnal":
            return 1.0 + 0.8 * float(np.sin(2 * np.pi * elapsed / _DAY)), 1.0
        if self.traffic.shape == "bursts" and elapsed % (20 * _BURST_SECONDS) < _BURST_SECONDS:
            return 1.0, 10.0
        return 1.0, 1.0

    def _serve(self, arm: str, requests: int, errors: float, slower: float) -> None:
        counts = self._counts[arm]
        counts[0] += requests
        counts[1] += int(self.rng.binomial(requests, min(errors, 1.0)))
        seconds = self.rng.lognormal(np.log(_MEDIAN_SECONDS * slower), _SPREAD, requests)
        places = np.searchsorted(EDGES, seconds, side="left")
        self._latency[arm] += np.bincount(places, minlength=len(EDGES) + 1)

    def _sample(self, arm: str, version: str, digest: str) -> ArmSample:
        requests, errors = self._counts[arm]
        cumulative = tuple(int(count) for count in np.cumsum(self._latency[arm]))
        replica = ReplicaSample(
            replica=arm,
            started_at=self._start,
            requests=requests,
            errors=errors,
            latency=Histogram(edges=EDGES, counts=cumulative),
        )
        return ArmSample(version=version, digest=digest, replicas=(replica,))

    def _around(self, mean: float, count: int) -> NDArray[np.float64]:
        """Draw ``count`` values in [0, 1] with this mean, spread like the errors of a model."""
        if count == 0 or mean <= 0.0:
            return np.zeros(count)
        if mean >= 1.0:
            return np.ones(count)
        return self.rng.beta(2.0 * mean, 2.0 * (1.0 - mean), count)

    def _ids_with(self, values: NDArray[np.float64]) -> tuple[Pair, ...]:
        pairs = tuple(
            Pair(request_id=f"r{self._next_id + place}", difference=float(value))
            for place, value in enumerate(values)
        )
        self._next_id += len(pairs)
        return pairs

    def _reveal(self) -> None:
        due = [
            count for at, count in self._late if at + self.traffic.truth_delay_seconds <= self.now
        ]
        self._late = self._late[len(due) :]
        count = sum(due)
        stable = self._around(self.traffic.stable_loss, count)
        candidate = self._around(self.traffic.candidate_loss, count)
        self._truths = tuple(
            TruthLoss(request_id=f"t{self._next_id + i}", stable=float(s), candidate=float(c))
            for i, (s, c) in enumerate(zip(stable, candidate, strict=True))
        )
        self._next_id += count
