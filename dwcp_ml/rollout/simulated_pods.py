"""The pods of a simulated rollout: how they differ, and what each of them has counted."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import accumulate
from operator import add
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.rollout.observation import Arm, Histogram, ReplicaSample

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

RETRY_FAILS: Final = 0.9
"""Probability that a retry of a failed request fails, too: what failed once mostly fails again."""

_CLIENT_SPREAD: Final = 1.0
"""Sigma of the log-normal number of requests of a client: a few clients send most of them."""


@dataclass(frozen=True)
class Pods:
    """The pods of both arms; by default one each, and both alike.

    Parameters
    ----------
    candidate_at_start
        How many of the candidate's run from the beginning; ``None`` for all.
    scale_up_seconds
        How long after its first traffic the others of the candidate's pods answer.
    error_spread
        Sigma of a log-normal factor on each pod's share of errors; its mean is 1.
    speed_spread
        Sigma of a log-normal factor on each pod's latency; its median is 1.
    speed_range
        Each pod's latency is that much higher or lower at most, uniformly distributed; beside the
        spread.
    cold_answers
        How many of the first answers of each of the candidate's pods are cold.
    cold_slower
        Latency of a cold answer, as a multiple; ``None`` if it fails instead.
    attempts
        How often the gateway tries a request that fails; each attempt is one that a pod counts.
    outage_every, outage_seconds
        Once in each interval, at a random time, one random pod fails all requests so long; 0 for
        never. Seconds.
    clients, failing_clients
        Clients that stick to one pod until the weight changes, 0 for requests that stick to none;
        and how many of them send only what fails.
    """

    stable: int = 1
    candidate: int = 1
    candidate_at_start: int | None = None
    scale_up_seconds: float = 60.0
    error_spread: float = 0.0
    speed_spread: float = 0.0
    speed_range: float = 0.0
    cold_answers: int = 0
    cold_slower: float | None = 20.0
    attempts: int = 1
    outage_every: float = 0.0
    outage_seconds: float = 5.0
    clients: int = 0
    failing_clients: int = 0

    def __post_init__(self) -> None:
        at_start = self.candidate if self.candidate_at_start is None else self.candidate_at_start
        if self.stable < 1 or not 1 <= at_start <= self.candidate:
            raise UsageError("Each arm has at least one pod, and no more at its start than later.")
        if self.attempts < 1 or not 0 <= self.failing_clients <= self.clients:
            raise UsageError("A request is tried at least once, and failing clients are clients.")


@dataclass(frozen=True)
class Behaviour:
    """How one pod answers.

    Parameters
    ----------
    errors, rejected
        Share of 5xx, and of 4xx among the others.
    latency, cold_latency
        Probability of each bucket, warm and cold, shape (n_edges + 1,).
    """

    errors: float
    rejected: float
    latency: tuple[float, ...]
    cold_latency: tuple[float, ...] | None


@dataclass
class SimulatedPod:
    """One pod: what it is like, and what it has counted since it started."""

    name: str
    arm: Arm
    started_at: float
    edges: tuple[float, ...]
    error_factor: float
    speed_factor: float
    cold: int
    attempts: int
    requests: int = 0
    errors: int = 0
    rejected: int = 0
    latency: list[int] = field(default_factory=list)
    _last: ReplicaSample | None = None

    def answer(
        self, requests: int, failing: int, behaviour: Behaviour, rng: np.random.Generator
    ) -> None:
        """Count the answers to requests, of which ``failing`` can only fail."""
        if not requests:
            return
        cold = min(self.cold, requests)
        self.cold -= cold
        if behaviour.cold_latency is None:
            failing, cold = min(failing + cold, requests), 0
        failed = failing + int(rng.binomial(requests - failing, behaviour.errors))
        self.errors += failed
        if behaviour.rejected:
            self.rejected += int(rng.binomial(requests - failed, behaviour.rejected))
        for _ in range(1, self.attempts):
            requests += failed
            failed = int(rng.binomial(failed, RETRY_FAILS))
            self.errors += failed
        self.requests += requests
        self._add(rng.multinomial(requests - cold, behaviour.latency))
        if cold and behaviour.cold_latency is not None:
            self._add(rng.multinomial(cold, behaviour.cold_latency))

    def sample(self) -> ReplicaSample:
        """Return what a controller reads of it; the same record until it answers again."""
        if self._last is None or self._last.requests != self.requests:
            counts = tuple(self.latency) or (0,) * (len(self.edges) + 1)
            self._last = ReplicaSample(
                replica=self.name,
                started_at=self.started_at,
                requests=self.requests,
                errors=self.errors,
                rejected=self.rejected,
                latency=Histogram(edges=self.edges, counts=counts),
            )
        return self._last

    def _add(self, drawn: Ints) -> None:
        more = accumulate(drawn.tolist())
        self.latency = list(map(add, self.latency, more)) if self.latency else list(more)


class SimulatedPods:
    """All pods of a rollout, and who of them gets which requests.

    Parameters
    ----------
    edges
        Buckets of their latency histograms, seconds.
    started_at
        Start of the pods that run from the beginning, epoch seconds.
    """

    def __init__(
        self, pods: Pods, edges: tuple[float, ...], started_at: float, rng: np.random.Generator
    ) -> None:
        self.pods, self._rng = pods, rng
        stable: list[Arm] = ["stable"] * pods.stable
        candidate: list[Arm] = ["candidate"] * pods.candidate
        arms = stable + candidate
        error_factors = _factors(rng, pods.error_spread, len(arms))
        error_factors *= math.exp(-0.5 * pods.error_spread**2)
        speed_factors = _factors(rng, pods.speed_spread, len(arms))
        if pods.speed_range:
            speed_factors *= rng.uniform(1.0 - pods.speed_range, 1.0 + pods.speed_range, len(arms))
        self.all = [
            SimulatedPod(
                name=f"{arm}-{place if arm == 'stable' else place - pods.stable}",
                arm=arm,
                started_at=started_at,
                edges=edges,
                error_factor=float(error_factors[place]),
                speed_factor=float(speed_factors[place]),
                cold=pods.cold_answers if arm == "candidate" else 0,
                attempts=pods.attempts,
            )
            for place, arm in enumerate(arms)
        ]
        at_start = pods.candidate if pods.candidate_at_start is None else pods.candidate_at_start
        self._running = {"stable": pods.stable, "candidate": at_start}
        self._weights = _factors(rng, _CLIENT_SPREAD, pods.clients)
        self._weights /= self._weights.sum() or 1.0
        self._failing = np.arange(pods.clients) < pods.failing_clients
        self._pod_of_client = np.zeros(pods.clients, dtype=np.int64)
        self._outage = 0.0, 0
        self._slot = -1

    def of(self, arm: Arm) -> list[SimulatedPod]:
        """Return an arm's pods that run."""
        first = self.pods.stable if arm == "candidate" else 0
        return self.all[first : first + self._running[arm]]

    def scale_up(self, now: float) -> None:
        """Start the candidate's other pods, if they do not run yet."""
        for pod in self.all[self.pods.stable + self._running["candidate"] :]:
            pod.started_at = now
        self._running["candidate"] = self.pods.candidate

    def pin_clients(self, percent: int) -> None:
        """Assign each client to an arm, by the candidate's weight, and to one of its pods."""
        pods, rng = self.pods, self._rng
        share = round(pods.clients * percent / 100.0) or (1 if percent else 0)
        to_candidate = rng.permutation(pods.clients) < share
        of_candidate = pods.stable + rng.integers(self._running["candidate"], size=pods.clients)
        of_stable = rng.integers(pods.stable, size=pods.clients)
        self._pod_of_client = np.where(to_candidate, of_candidate, of_stable)

    def split(self, total: int, percent: int) -> tuple[list[int], list[int]]:
        """Return the requests of each pod, and how many of them can only fail.

        Parameters
        ----------
        percent
            The candidate's weight; pinned clients stay where they are.
        """
        count = len(self.all)
        if self.pods.clients:
            sent, pods = self._rng.multinomial(total, self._weights), self._pod_of_client
            requests = np.bincount(pods, weights=sent, minlength=count)
            failing = np.bincount(pods, weights=sent * self._failing, minlength=count)
            return requests.astype(np.int64).tolist(), failing.astype(np.int64).tolist()
        candidate = int(self._rng.binomial(total, percent / 100.0))
        of_stable = self._spread(total - candidate, "stable")
        return of_stable + self._spread(candidate, "candidate"), [0] * count

    def outage(self, requests: list[int], begin: float, seconds: float) -> tuple[int, int]:
        """Return which pod has an outage, and how many of its requests fail in it.

        Parameters
        ----------
        begin, seconds
            The time, in seconds since the rollout's start.
        """
        every, length = self.pods.outage_every, self.pods.outage_seconds
        if (slot := int(begin // every)) > self._slot:
            # A pod of an arm without traffic can have it, too: the arms' rates stay equal.
            self._slot = slot
            start = every * slot + self._rng.uniform(0.0, every - length)
            self._outage = start, int(self._rng.integers(len(requests)))
        start, pod = self._outage
        both = min(begin + seconds, start + length) - max(begin, start)
        if both <= 0.0:
            return pod, 0
        return pod, int(self._rng.binomial(requests[pod], min(both / seconds, 1.0)))

    def _spread(self, requests: int, arm: Arm) -> list[int]:
        """Balance an arm's requests over its pods that run; the others get none."""
        count, running = getattr(self.pods, arm), self._running[arm]
        if running == 1:
            return [requests] + [0] * (count - 1)
        drawn = self._rng.multinomial(requests, [1.0 / running] * running).tolist()
        return [*drawn, *[0] * (count - running)]


def _factors(rng: np.random.Generator, spread: float, count: int) -> Floats:
    """Draw log-normal factors of median 1; nothing is drawn without a spread."""
    return np.exp(spread * rng.standard_normal(count)) if spread else np.ones(count)
