"""What the pods of many rollouts count: ``SimulatedEnvironment`` and its pods, as arrays.

The clock is the same for all rollouts; what is drawn, and the live weight, is each one's own. The
counts have the distribution of those of ``SimulatedEnvironment``, not the same random numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import special

from benchmarks.vectorized.rows import Bools, Floats, Ints, Rows
from dwcp_ml.contract.errors import UsageError
from dwcp_ml.rollout.simulated_environment import (
    _BURST_SECONDS,
    _DAY,
    _HOUR,
    _MEDIAN_SECONDS,
    _SPREAD,
    _STORM_START,
    EDGES,
    SimulatedEnvironment,
    Traffic,
)
from dwcp_ml.rollout.simulated_pods import _CLIENT_SPREAD, RETRY_FAILS

BUCKETS: Final = len(EDGES) + 1

_NEVER: Final = math.inf


@dataclass
class Drawn(Rows):
    """What each pod counted in one tick.

    Parameters
    ----------
    requests, errors, rejected
        Shape (n_rollouts, n_pods), the stable's pods first.
    latency
        By bucket, not cumulative, shape (n_rollouts, n_pods, n_buckets).
    total
        Requests since the pod's start, shape (n_rollouts, n_pods).
    running
        Which pods are there, shape (n_rollouts, n_pods).
    """

    requests: Ints
    errors: Ints
    rejected: Ints
    latency: Ints
    total: Ints
    running: Bools


class LockstepTraffic(Rows):
    """Counters of many rollouts that grow as virtual time passes.

    Parameters
    ----------
    traffic
        Load, behaviour and pods of both arms.
    rollouts
        How many.
    rng
        The only source of randomness.

    Raises
    ------
    UsageError
        If the traffic has pairs or labels, which only ``simulate`` draws.
    """

    def __init__(self, traffic: Traffic, rollouts: int, rng: np.random.Generator) -> None:
        if traffic.divergence is not None or traffic.labelled_share:
            raise UsageError("Pairs and labels are not drawn in lockstep: take simulate.")
        pods = traffic.pods
        self.traffic, self.rng = traffic, rng
        self.start = self.now = SimulatedEnvironment.now
        shape = rollouts, pods.stable + pods.candidate
        self.live = np.zeros(rollouts, dtype=np.int64)
        """The candidate's weight, percent; the decisions set it."""
        self.harm_at = np.full(rollouts, np.nan)
        self.harm_before = np.zeros(rollouts, dtype=np.int64)
        """When the candidate was first able to do harm, and its requests before."""
        self.total = np.zeros(shape, dtype=np.int64)
        self._error_factors = self._factors(pods.error_spread, shape)
        self._error_factors *= math.exp(-0.5 * pods.error_spread**2)
        speeds = self._factors(pods.speed_spread, shape)
        if pods.speed_range:
            low, high = 1.0 - pods.speed_range, 1.0 + pods.speed_range
            speeds *= self.rng.uniform(low, high, shape)
        self._warm = bucket_shares(speeds)
        within = (1.0 - traffic.stuck) * bucket_shares(speeds[:, pods.stable :] * traffic.slower)
        within[..., -1] += traffic.stuck
        self._harmed = within
        """Probability of each bucket, of all pods while there is no harm, and of the candidate's
        with it; shape (n_rollouts, n_pods, n_buckets)."""
        self._cold_shares = None if pods.cold_slower is None else speeds * pods.cold_slower
        self._cold = np.zeros(shape, dtype=np.int64)
        self._cold[:, pods.stable :] = pods.cold_answers
        at_start = pods.candidate if pods.candidate_at_start is None else pods.candidate_at_start
        self._running = np.ones(shape, dtype=np.bool_)
        self._running[:, pods.stable + at_start :] = False
        self._scale_up_at = np.full(rollouts, _NEVER)
        self._split_at = np.full(rollouts, -1, dtype=np.int64)
        self._weights = self._factors(_CLIENT_SPREAD, (rollouts, pods.clients))
        self._weights /= self._weights.sum(axis=1, keepdims=True)
        self._cells = np.zeros((rollouts, 2 * shape[1]))
        """Of pinned clients, the share of the requests of each pod that can succeed, then of those
        that can only fail."""
        self._outage_at = np.zeros(rollouts)
        self._outage_of = np.zeros(rollouts, dtype=np.int64)
        self._slot = -1
        self._minute = np.zeros(rollouts, dtype=np.int64)
        self._left = 0.0

    @property
    def exposed_requests(self) -> Ints:
        """Requests that the candidate has answered, shape (n_rollouts,)."""
        exposed: Ints = self.total[:, self.traffic.pods.stable :].sum(axis=1)
        return exposed

    def pass_time(self, seconds: float) -> Drawn:
        """Advance the clock; requests arrive, are split at the live weights, and are answered."""
        begin, total = self.now - self.start, self._arrivals(seconds)
        self._follow_the_weight(begin)
        harmful = self.live >= max(self.traffic.harm_from_percent, 1)
        harmful &= begin >= self.traffic.harm_after_seconds
        new = harmful & np.isnan(self.harm_at)
        self.harm_at[new], self.harm_before[new] = self.now, self.exposed_requests[new]
        requests, failing = self._split(total)
        if self.traffic.pods.outage_every:
            self._fail_in_outage(requests, failing, begin, seconds)
        drawn = self._answered(requests, failing, harmful, self._errors_at(begin + 0.5 * seconds))
        self.now += seconds
        return drawn

    def _factors(self, spread: float, shape: tuple[int, int]) -> Floats:
        return np.exp(spread * self.rng.standard_normal(shape)) if spread else np.ones(shape)

    def _arrivals(self, seconds: float) -> Ints:
        """Return how many requests come, shape (n_rollouts,)."""
        arrived, at = np.zeros_like(self._minute), self.now - self.start
        while seconds > 0.0:
            if self._left <= 0.0:
                mean = self.traffic.requests_per_second * self._load(at) * 60.0
                self._minute, self._left = self.rng.poisson(mean, self._minute.size), 60.0
            part = min(seconds, self._left)
            here = self._minute
            if part < self._left:
                here = self.rng.binomial(here, part / self._left)
            arrived += here
            self._minute, self._left = self._minute - here, self._left - part
            seconds, at = seconds - part, at + part
        return arrived

    def _load(self, elapsed: float) -> float:
        if self.traffic.shape == "diurnal":
            return 1.0 + 0.8 * math.sin(2 * math.pi * (elapsed + 30.0) / _DAY)
        return 1.0 + (9.0 * min(elapsed / _HOUR, 1.0) if self.traffic.shape == "ramp" else 0.0)

    def _errors_at(self, elapsed: float) -> float:
        """Return how many times as often both arms fail at a time since the start."""
        shape = self.traffic.shape
        if shape == "bursts" and elapsed % (20 * _BURST_SECONDS) < _BURST_SECONDS:
            return 10.0
        return 5.0 if shape == "storm" and 0.0 <= elapsed - _STORM_START < _HOUR else 1.0

    def _follow_the_weight(self, begin: float) -> None:
        """Pin the clients anew where the weight changed, and start pods whose time has come."""
        pods = self.traffic.pods
        moved = np.flatnonzero(self.live != self._split_at)
        if moved.size:
            self._split_at[moved] = self.live[moved]
            if pods.clients:
                self._pin_clients(moved)
            up = moved[self.live[moved] > 0]
            self._scale_up_at[up] = np.minimum(self._scale_up_at[up], begin + pods.scale_up_seconds)
        self._running |= (begin >= self._scale_up_at)[:, None]

    def _pin_clients(self, rows: Ints) -> None:
        """Assign the clients of these rollouts to arms, by the weight, and to pods of them."""
        pods, rng = self.traffic.pods, self.rng
        shape = rows.size, pods.clients
        shares = [round(pods.clients * live / 100.0) or min(live, 1) for live in self.live[rows]]
        places = rng.permuted(np.broadcast_to(np.arange(pods.clients), shape), axis=1)
        running = self._running[rows, pods.stable :].sum(axis=1)
        of_candidate = pods.stable + rng.integers(running[:, None], size=shape)
        of_stable = rng.integers(pods.stable, size=shape)
        cell = np.where(places < np.asarray(shares)[:, None], of_candidate, of_stable)
        cell[:, : pods.failing_clients] += self._running.shape[1]
        cells = np.zeros((rows.size, self._cells.shape[1]))
        np.add.at(cells, (np.arange(rows.size)[:, None], cell), self._weights[rows])
        self._cells[rows] = cells / cells.sum(axis=1, keepdims=True)

    def _split(self, total: Ints) -> tuple[Ints, Ints]:
        """Return each pod's requests, and how many can only fail; shape (n_rollouts, n_pods)."""
        pods, count = self.traffic.pods, self._running.shape[1]
        if pods.clients:
            # Clients of one pod together: a sum of cells of a multinomial is one of its cells.
            sent = self.rng.multinomial(total, self._cells)
            return sent[:, :count] + sent[:, count:], sent[:, count:]
        to_candidate = self.rng.binomial(total, self.live / 100.0)
        spread = [
            self._spread(total - to_candidate, self._running[:, : pods.stable]),
            self._spread(to_candidate, self._running[:, pods.stable :]),
        ]
        return np.concatenate(spread, axis=1), np.zeros(self.total.shape, dtype=np.int64)

    def _spread(self, requests: Ints, running: Bools) -> Ints:
        """Balance an arm's requests over its pods that run, shape (n_rollouts, n_pods)."""
        if running.shape[1] == 1:
            return requests[:, None]
        shares = running / running.sum(axis=1, keepdims=True)
        return self.rng.multinomial(requests, shares)

    def _fail_in_outage(self, requests: Ints, failing: Ints, begin: float, seconds: float) -> None:
        """Raise ``failing``, in place, by what arrives at the pods that have an outage now."""
        every, length = self.traffic.pods.outage_every, self.traffic.pods.outage_seconds
        count = self._outage_at.size
        if (slot := int(begin // every)) > self._slot:
            self._slot = slot
            self._outage_at = every * slot + self.rng.uniform(0.0, every - length, count)
            self._outage_of = self.rng.integers(requests.shape[1], size=count)
        ends = np.minimum(begin + seconds, self._outage_at + length)
        both = ends - np.maximum(begin, self._outage_at)
        at = np.flatnonzero(both > 0.0), self._outage_of[both > 0.0]
        share = np.minimum(both[both > 0.0] / seconds, 1.0)
        failing[at] = np.maximum(failing[at], self.rng.binomial(requests[at], share))

    def _answered(
        self, requests: Ints, failing: Ints, harmful: Bools, error_factor: float
    ) -> Drawn:
        """Return what the pods count of their requests, of which some can only fail."""
        rng, traffic, first = self.rng, self.traffic, self.traffic.pods.stable
        cold = np.minimum(self._cold, requests)
        self._cold -= cold
        if self._cold_shares is None:
            failing, cold = np.minimum(failing + cold, requests), np.zeros_like(cold)
        rates = np.full(requests.shape, traffic.stable_errors)
        rates[harmful, first:] = traffic.candidate_errors
        rates = np.minimum(rates * self._error_factors * error_factor, 1.0)
        failed = failing + rng.binomial(requests - failing, rates)
        errors, rejected = failed, np.zeros_like(failed)
        if traffic.rejected:
            answered = (requests - failed)[harmful, first:]
            rejected[harmful, first:] = rng.binomial(answered, traffic.rejected)
        for _ in range(1, traffic.pods.attempts):
            requests = requests + failed
            failed = rng.binomial(failed, RETRY_FAILS)
            errors = errors + failed
        self.total = self.total + requests
        latency = self._latencies(requests, cold, harmful)
        return Drawn(requests, errors, rejected, latency, self.total, self._running.copy())

    def _latencies(self, requests: Ints, cold: Ints, harmful: Bools) -> Ints:
        """Return how many answers fall in each bucket, (n_rollouts, n_pods, n_buckets)."""
        first = self.traffic.pods.stable
        shares = self._warm
        if harmful.any() and (self.traffic.slower != 1.0 or self.traffic.stuck):
            shares = shares.copy()
            shares[harmful, first:] = self._harmed[harmful]
        latency = self.rng.multinomial(requests - cold, shares)
        if self._cold_shares is not None and cold.any():
            at = np.nonzero(cold)
            latency[at] += self.rng.multinomial(cold[at], bucket_shares(self._cold_shares[at]))
        return latency


def bucket_shares(slower: Floats) -> Floats:
    """Return the probability of each bucket for log-normal latencies; the last is above all.

    Parameters
    ----------
    slower
        The median, as a multiple of the usual one, of any shape.

    Returns
    -------
    numpy.ndarray
        Shape (..., n_buckets).
    """
    centres = np.log(_MEDIAN_SECONDS * slower)[..., None]
    below = 0.5 * special.erfc((centres - np.log(EDGES)) / (_SPREAD * math.sqrt(2.0)))
    return np.diff(below, prepend=0.0, append=1.0, axis=-1)
