"""The evidence of many rollouts: what ``Evidence`` holds, and how a block of counts changes it.

The four rates are those of errors, of rejections, of slow answers and of very slow ones (the tail).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Final, cast

import numpy as np

from benchmarks.vectorized.newton import bound
from benchmarks.vectorized.ratios import Alternatives, Ratios
from benchmarks.vectorized.rows import Bools, Floats, Ints, Rows
from dwcp_ml.rollout.analysis import (
    _BOUND_ALPHA,
    UNKNOWN_BOUND,
    WATCH_SHARE_OF_MARGIN,
    Evidence,
    odd_pod,
)
from dwcp_ml.rollout.evidence.error_rate import (
    _ODDS_RATIOS,
    DELTAS,
    LOG_MAX_FACTOR,
    MEMORY_REQUESTS,
    PRIOR_ERRORS,
    PRIOR_REQUESTS,
    WINDOW_REQUESTS,
    Counts,
    reserve,
)
from dwcp_ml.rollout.evidence.pods import MAX_REQUESTS, PodCounts
from dwcp_ml.rollout.evidence.promotion import (
    CANDIDATE_SHARE_OF_ALPHA,
    MARGIN_SHARES,
    PRIOR_SLOW_REQUESTS,
    QUANTILE,
    TAIL_FACTOR,
)
from dwcp_ml.rollout.evidence.watch import (
    _MAX_BOUND,
    _SUSPICIOUS,
    _SUSPICIOUS_BLOCK,
    WatchEvidence,
)
from dwcp_ml.rollout.evidence.watch import LOG_MAX_FACTOR as LOG_MAX_WATCH_FACTOR
from dwcp_ml.rollout.simulated_environment import EDGES
from dwcp_ml.rollout.spec import Analysis
from dwcp_ml.rollout.verdict import MAX_EVIDENCE

ERRORS, REJECTED, SLOW, TAIL = range(4)
"""Places of the rates on the axis n_rates."""

_NO_PODS: Final = PodCounts()
_MIN_BOUND: Final = WatchEvidence.start(0.0).bound

_LAST_EDGE: Final = len(EDGES) - 1
_TAIL_OF: Final = np.asarray(
    [
        next((far for far, edge in enumerate(EDGES) if edge >= TAIL_FACTOR * tau), _LAST_EDGE)
        for tau in EDGES
    ]
)
"""Place of the edge of τ -> place of the edge of the tail."""


@dataclass
class ArmCounts(Rows):
    """Requests, and bad ones, of each rate and pod in one block; warm-up left out.

    Parameters
    ----------
    requests, bad
        Shape (n_rollouts, n_pods, n_rates), the stable's pods first.
    stable_latency
        Cumulative counts of the stable, shape (n_rollouts, n_buckets).
    stable
        How many pods are the stable's.
    """

    requests: Ints
    bad: Ints
    stable_latency: Ints
    stable: int

    def arm(self, candidate: bool) -> tuple[Ints, Ints]:
        """Return requests and bad ones of an arm, each of shape (n_rollouts, n_rates)."""
        pods = slice(self.stable, None) if candidate else slice(None, self.stable)
        return self.requests[:, pods].sum(axis=1), self.bad[:, pods].sum(axis=1)


class Reserve:
    """R of ``error_rate.reserve``, as tables over the number of blocks."""

    def __init__(self) -> None:
        self._shares = np.ones(1)

    def log_left(self, blocks: Ints) -> Floats:
        """Return log R_j, of any shape."""
        return np.log(self._upto(blocks)[blocks])

    def log_invested(self, blocks: Ints) -> Floats:
        """Return log (R_j - R_(j+1)), of any shape."""
        shares = self._upto(blocks + 1)
        return np.log(shares[blocks] - shares[blocks + 1])

    def _upto(self, blocks: Ints) -> Floats:
        last = int(blocks.max(initial=0))
        if last >= self._shares.size:
            self._shares = np.asarray([reserve(each) for each in range(2 * last + 2)])
        return self._shares


class RatesEvidence(Rows):
    """Harm and promotion of all rates, shapes (n_rollouts, n_rates, ...), and by pod."""

    def __init__(self, alternatives: Alternatives, rollouts: int, pods: int, stable: int) -> None:
        self.alternatives, self.stable_pods = alternatives, stable
        self._ratios, self._reserve = Ratios(alternatives), Reserve()
        shape = rollouts, len(alternatives.margins)
        self.blocks = np.zeros(shape, dtype=np.int64)
        self.harm = np.zeros((*shape, len(DELTAS)))
        self.promotion = np.zeros((*shape, len(MARGIN_SHARES)))
        self.log_harm = np.zeros(shape)
        """log E of harm."""
        self.candidate = np.zeros((*shape, 2), dtype=np.int64)
        self.stable = np.zeros((*shape, 2), dtype=np.int64)
        """Requests and bad ones so far."""
        self.past = np.zeros((rollouts, 2, 2))
        """Fading requests and bad ones of the stable, of errors and rejections."""
        self.past_latency = np.zeros((rollouts, len(EDGES) + 1))
        self.places = np.full((rollouts, 2), -1, dtype=np.int64)
        """Of the edges of τ and of the tail; -1 before they are known."""
        self.worst_open = np.zeros((rollouts, 2), dtype=np.int64)
        self.worst_rate = np.zeros(rollouts)
        self.by_pod = np.zeros((rollouts, pods, shape[1], 2), dtype=np.int64)
        """Requests and bad ones of each pod so far."""
        self.seen = np.zeros((rollouts, pods), dtype=np.bool_)

    def update(self, counts: ArmCounts) -> None:
        """Add one block."""
        (n_c, e_c), (n_s, e_s) = counts.arm(candidate=True), counts.arm(candidate=False)
        active = (n_c > 0) & (n_s > 0)
        active[:, SLOW:] &= self.places >= 0
        rows = np.flatnonzero(active.any(axis=1))
        if rows.size:
            self._invest(rows, active[rows], *(each[rows] for each in (n_c, e_c, n_s, e_s)))
        self.candidate += np.stack([n_c, e_c], axis=-1)
        self.stable += np.stack([n_s, e_s], axis=-1)
        self.by_pod += np.stack([counts.requests, counts.bad], axis=-1)
        old = self.by_pod[..., :1] > MAX_REQUESTS
        np.floor_divide(self.by_pod, 2, out=self.by_pod, where=old)
        self._remember(np.stack([n_s, e_s], axis=-1)[:, :SLOW], counts.stable_latency)

    def stable_rates(self, rows: Ints) -> Floats:
        """Return θs of these rollouts, before the block, shape (n_rows, n_rates)."""
        past = self.past[rows]
        rates = (past[..., 1] + PRIOR_ERRORS) / (past[..., 0] + PRIOR_REQUESTS)
        latency, places = self.past_latency[rows], np.maximum(self.places[rows], 0)
        total, below = latency[:, -1:], np.take_along_axis(latency, places, axis=1)
        prior = PRIOR_SLOW_REQUESTS * (1.0 - QUANTILE)
        return np.concatenate(
            [rates, (total - below + prior) / (total + PRIOR_SLOW_REQUESTS)], axis=1
        )

    def passes(self, rows: Ints) -> Bools:
        """Return which promotion tests pass in these rollouts, shape (n_rows, n_rates)."""
        alpha, margins = self.alternatives.promotion_alpha, self.alternatives.margins
        candidate, stable = self.candidate[rows], self.stable[rows]
        upper = bound(
            candidate[..., 1], candidate[..., 0], CANDIDATE_SHARE_OF_ALPHA * alpha, upper=True
        )
        lower = bound(
            stable[..., 1], stable[..., 0], (1.0 - CANDIDATE_SHARE_OF_ALPHA) * alpha, upper=False
        )
        bounded = (upper < lower + np.asarray(margins)) & (stable[..., 0] > 0)
        passes: Bools = bounded & (self.log_promotion(rows) >= math.log(1.0 / alpha))
        return passes

    def log_promotion(self, rows: Ints) -> Floats:
        """Return log E of promotion in these rollouts, shape (n_rows, n_rates)."""
        return self._log_total(self.promotion[rows], self.blocks[rows])

    def failed(self) -> Bools:
        """Return which harm tests fail, shape (n_rollouts, n_rates)."""
        failed: Bools = self.log_harm >= np.asarray(self.alternatives.log_needed)
        return failed

    def odd_pod(self, settings: Analysis, row: int, test: str) -> str:
        """Return the pod that explains why a test of one rollout failed, as ``analysis`` does."""
        return odd_pod(settings, cast(Evidence, _OfOne(self, row)), test)

    def pods_of(self, row: int, rate: int) -> PodCounts:
        """Return the counts by pod of one rollout."""
        counts, seen, first = self.by_pod[row, :, rate].tolist(), self.seen[row], self.stable_pods
        arms = (range(first), "stable"), (range(first, len(counts)), "candidate")
        stable, candidate = (
            {f"{arm}-{pod}": _counts(*counts[pod]) for pod in pods if seen[pod]}
            for pods, arm in arms
        )
        return _NO_PODS.replace(stable=stable, candidate=candidate)

    def _invest(
        self, rows: Ints, active: Bools, n_c: Ints, e_c: Ints, n_s: Ints, e_s: Ints
    ) -> None:
        """Bet the capitals of these rollouts, shapes (n_rows, n_rates), on one block."""
        counts = [np.where(active, each, one) for each, one in ((n_c, 1.0), (e_c, 0.0))]
        counts += [np.where(active, each, one) for each, one in ((n_s, 1.0), (e_s, 0.0))]
        harm, promotion = self._ratios.of(counts, self.stable_rates(rows))
        blocks = self.blocks[rows]
        new, first = self._reserve.log_invested(blocks)[..., None], (blocks == 0)[..., None]
        bets = np.minimum(harm, LOG_MAX_FACTOR), promotion
        where = active[..., None]
        for name, steps in zip(("harm", "promotion"), bets, strict=True):
            capitals = getattr(self, name)
            before = capitals[rows]
            bet = np.where(first, new, np.logaddexp(before, new)) + steps
            capitals[rows] = np.where(where, bet, before)
        self.blocks[rows] = blocks + active
        self.log_harm[rows] = self._log_total(self.harm[rows], self.blocks[rows])

    def _log_total(self, capitals: Floats, blocks: Ints) -> Floats:
        """Return log E, shape (n_rows, n_rates)."""
        total = np.logaddexp(log_mean(capitals), self._reserve.log_left(blocks))
        return np.where(blocks > 0, total, 0.0)

    def _remember(self, stable: Ints, latency: Ints) -> None:
        """Add a block to what the stable is known for: rates, latencies, worst window."""
        total = self.past + stable
        fade = np.minimum(1.0, MEMORY_REQUESTS / np.maximum(total[..., :1], 1.0))
        self.past = total * fade
        some = np.flatnonzero(latency[:, -1] > 0)
        past, block = self.past_latency[some] + latency[some], latency[some]
        self.past_latency[some] = past * np.minimum(1.0, MEMORY_REQUESTS / past[:, -1:])
        enough = block[:, :-1] >= QUANTILE * block[:, -1:]
        tau = np.where(enough.any(axis=1), enough.argmax(axis=1), _LAST_EDGE)
        self.places[some] = np.stack([tau, _TAIL_OF[tau]], axis=1)
        self.worst_open = self.worst_open + stable[:, ERRORS]
        full = self.worst_open[:, 0] >= WINDOW_REQUESTS
        rate = self.worst_open[full, 1] / self.worst_open[full, 0]
        self.worst_rate[full] = np.maximum(self.worst_rate[full], rate)
        self.worst_open[full] = 0


class Watches(Rows):
    """The e-detectors of errors and of slow answers, shapes (n_rollouts, 2, ...)."""

    def __init__(self, alternatives: Alternatives, rollouts: int, needed: float) -> None:
        self._margins, self._needed = alternatives.margins, needed
        shape = rollouts, 2
        self.known = np.zeros(shape, dtype=np.bool_)
        self.bounds = np.zeros(shape)
        self.detectors = np.zeros((*shape, len(DELTAS)))
        self.blocks = np.zeros(shape, dtype=np.int64)
        self.newest = np.zeros(shape)

    def update(self, counts: ArmCounts, rates: RatesEvidence, all_traffic: Bools) -> None:
        """Add one block, before it is added to ``rates``.

        With all traffic the stable must have none, as in a simulation.
        """
        (n_c, e_c), (n_s, _) = counts.arm(candidate=True), counts.arm(candidate=False)
        stopped = (n_s[:, ERRORS] > 0) & ~all_traffic
        self.known &= ~stopped[:, None]
        known_of = rates.stable[:, ERRORS, 0] > 0, rates.past_latency[:, -1] > 0
        for place, (rate, known) in enumerate(zip((ERRORS, SLOW), known_of, strict=True)):
            going = ~stopped & (n_c[:, rate] > 0) & (known | (all_traffic & (rate == ERRORS)))
            new = np.flatnonzero(going & ~self.known[:, place])
            if new.size:
                allowed = self._slow_allowed if rate == SLOW else self._errors_allowed
                self._start(new, place, allowed(rates, new))
            rows = np.flatnonzero(going)
            if rows.size:
                self._bet(rows, place, n_c[rows, rate], e_c[rows, rate])

    @property
    def log_e(self) -> Floats:
        """Log of D, of no meaning before the first block, shape (n_rollouts, 2)."""
        return log_mean(self.detectors)

    def failed(self) -> Bools:
        """Return which watches fail, shape (n_rollouts, 2)."""
        return self.known & (self._value >= self._needed)

    def suspicious(self) -> Bools:
        """Return which watches do not pass, shape (n_rollouts, 2)."""
        far = self._value >= np.minimum(_SUSPICIOUS * np.maximum(self.blocks, 1), self._needed)
        return self.known & (far | (self.newest >= _SUSPICIOUS_BLOCK))

    @property
    def _value(self) -> Floats:
        value = np.exp(np.minimum(self.log_e, math.log(MAX_EVIDENCE)))
        return np.where(self.blocks > 0, value, 0.0)

    def _start(self, rows: Ints, place: int, allowed: Floats) -> None:
        self.known[rows, place] = True
        self.bounds[rows, place] = np.clip(allowed, _MIN_BOUND, _MAX_BOUND)
        self.blocks[rows, place], self.newest[rows, place] = 0, 0.0

    def _errors_allowed(self, rates: RatesEvidence, rows: Ints) -> Floats:
        """Return what the stable surely kept, and a share of the margin, shape (n_rows,)."""
        requests, errors = rates.stable[rows, ERRORS].T
        worst = np.maximum(
            bound(errors, requests, _BOUND_ALPHA, upper=True), rates.worst_rate[rows]
        )
        allowed = np.where(requests > 0, worst, UNKNOWN_BOUND)
        return allowed + WATCH_SHARE_OF_MARGIN * self._margins[ERRORS]

    def _slow_allowed(self, rates: RatesEvidence, rows: Ints) -> Floats:
        """Return a bound of the stable's share above τ, and the margin, shape (n_rows,)."""
        past, tau = rates.past_latency[rows], rates.places[rows, :1]
        requests = past[:, -1].astype(np.int64)
        above = np.ceil(past[:, -1] - np.take_along_axis(past, tau, axis=1)[:, 0])
        slow = np.minimum(above.astype(np.int64), requests)
        return bound(slow, requests, _BOUND_ALPHA, upper=True) + self._margins[SLOW]

    def _bet(self, rows: Ints, place: int, requests: Ints, bad: Ints) -> None:
        limit = self.bounds[rows, place, None]
        alternative = limit / (1.0 - limit) * np.asarray(_ODDS_RATIOS)
        rate = alternative / (1.0 + alternative)
        ratios = bad[:, None] * np.log(rate / limit)
        ratios += (requests - bad)[:, None] * np.log1p((limit - rate) / (1.0 - limit))
        factors = np.minimum(ratios, LOG_MAX_WATCH_FACTOR)
        before = np.logaddexp(self.detectors[rows, place], 0.0)
        first = (self.blocks[rows, place] == 0)[:, None]
        self.detectors[rows, place] = np.where(first, 0.0, before) + factors
        self.blocks[rows, place] += 1
        self.newest[rows, place] = np.exp(log_mean(factors))


def log_mean(logs: Floats) -> Floats:
    """Return log of the mean of exp(logs) over the last axis."""
    top = logs.max(axis=-1, keepdims=True)
    mean: Floats = top[..., 0] + np.log(np.exp(logs - top).mean(axis=-1))
    return mean


@dataclass(frozen=True)
class _OfOne:
    """What ``analysis.odd_pod`` reads of the ``Evidence`` of one rollout, made when it is read."""

    rates: RatesEvidence
    row: int

    @property
    def failed_by_pod(self) -> PodCounts:
        return self.rates.pods_of(self.row, ERRORS)

    @property
    def slow_by_pod(self) -> PodCounts:
        return self.rates.pods_of(self.row, SLOW)

    @property
    def tail_by_pod(self) -> PodCounts:
        return self.rates.pods_of(self.row, TAIL)

    @property
    def latency(self) -> SimpleNamespace:
        slow, tail = (
            SimpleNamespace(harm=SimpleNamespace(log_e=float(self.rates.log_harm[self.row, rate])))
            for rate in (SLOW, TAIL)
        )
        return SimpleNamespace(slow=slow, tail=tail)


class _Counts(Counts):
    """``Counts`` that are not checked again when they are added: ``odd_pod`` adds many."""

    def __add__(self, other: Counts) -> Counts:
        return _counts(self.requests + other.requests, self.errors + other.errors)

    __radd__ = __add__


def _counts(requests: int, errors: int) -> Counts:
    new = _Counts.__new__(_Counts)
    object.__setattr__(new, "__dict__", {"requests": requests, "errors": errors})
    return new
