"""What ``decide`` decides of many rollouts in one reconciliation, as arrays.

Left out is what a scenario never has, and refused or documented where it could be meant: replicas
that crash, restart or vanish, metrics that can't be read, a router that answers late, pairs and
labels, a spec that is paused, aborted, skips a step, or has a test turned off.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from benchmarks.vectorized.evidence import (
    ERRORS,
    REJECTED,
    SLOW,
    TAIL,
    ArmCounts,
    RatesEvidence,
    Watches,
)
from benchmarks.vectorized.ratios import Alternatives
from benchmarks.vectorized.rows import Bools, Ints, Rows
from benchmarks.vectorized.traffic import Drawn
from dwcp_ml.contract.errors import UsageError
from dwcp_ml.rollout.analysis import REJECTIONS, WATCH, WATCH_LATENCY
from dwcp_ml.rollout.counters import MAX_WARM_UP_REQUESTS
from dwcp_ml.rollout.evidence.pods import MAX_PODS
from dwcp_ml.rollout.progress import MAX_TICK_SECONDS
from dwcp_ml.rollout.reason import Reason
from dwcp_ml.rollout.spec import RolloutSpec
from dwcp_ml.rollout.status import ENDED, Phase

PHASES: Final = tuple(Phase)
REASONS: Final = tuple(Reason)
WRITES: Final = (None, "set_weight", "promote")
TESTS: Final = ("error_rate", REJECTIONS, WATCH, "latency", WATCH_LATENCY)
"""In the order of their verdicts."""

_REQUIRED: Final = ("error_rate", "latency", REJECTIONS)
"""What a step waits for, in the order of ``decide``, where no other test is on."""

_PHASE: Final = {phase: place for place, phase in enumerate(PHASES)}
_REASON: Final = {reason: place for place, reason in enumerate(REASONS)}
_NONE: Final = -1
_ENDED: Final = [_PHASE[phase] for phase in ENDED]


class Decisions(Rows):
    """The statuses of many rollouts of one spec.

    Parameters
    ----------
    spec
        The rollout.
    rollouts
        How many.
    pods, stable
        Pods of both arms, and how many of them are the stable's.

    Raises
    ------
    UsageError
        If the spec has what is left out here.
    """

    def __init__(self, spec: RolloutSpec, rollouts: int, pods: int, stable: int) -> None:
        _check(spec, pods)
        alternatives = Alternatives.of(spec.analysis)
        self.spec, self._stable = spec, stable
        self.rates = RatesEvidence(alternatives, rollouts, pods, stable)
        self.watches = Watches(alternatives, rollouts, spec.watch_run_length)
        self._last: float | None = None
        counts = ("live", "passed", "step_requests", "exposed", "write", "test")
        self.live, self.passed, self.step_requests, self.exposed, self.write, self.test = (
            np.zeros(rollouts, dtype=np.int64) for _ in counts
        )
        """Weight and highest passed step, percent; requests; places in WRITES and TESTS."""
        self.phase = np.full(rollouts, _PHASE[Phase.PENDING])
        self.reason = np.full(rollouts, _REASON[Reason.NEW_CANDIDATE])
        self.step_elapsed, self.watch_elapsed, self.differing_seconds = np.zeros((3, rollouts))
        """Seconds; ``differing_seconds`` is how long pods that differ have held it now."""
        self._seen = np.zeros((rollouts, pods), dtype=np.bool_)
        self._warming = np.full((rollouts, pods), np.nan)
        """Seconds since a pod's first response, negative before it; NaN once it is warm."""

    @property
    def ended(self) -> Bools:
        """Which rollouts are over, shape (n_rollouts,)."""
        return np.isin(self.phase, _ENDED)

    def advance(self, drawn: Drawn, now: float) -> None:
        """Decide one reconciliation of all rollouts, none of which has ended.

        Parameters
        ----------
        drawn
            What the pods counted since the last one.
        now
            Epoch seconds.
        """
        first, last = self._last is None, now if self._last is None else self._last
        tick, self._last = min(max(now - last, 0.0), MAX_TICK_SECONDS), now
        promoting, rolling_back = (
            self.phase == _PHASE[phase] for phase in (Phase.PROMOTING, Phase.ROLLING_BACK)
        )
        counted = self._counted(drawn, tick, first)
        has_traffic = self._pass_time(drawn, counted, tick, first)
        counts = self._counts(drawn, counted)
        self.watches.update(counts, self.rates, self.live == 100)
        self.rates.update(counts)
        self.write[:] = 0
        going = ~(promoting | rolling_back)
        differing = self._judge(going)
        going &= ~self.ended & (self.phase != _PHASE[Phase.ROLLING_BACK])
        self._rise(going, differing, has_traffic)
        self._set(promoting, Phase.PROMOTED, Reason.PROMOTED)
        self.phase[rolling_back] = _PHASE[Phase.ROLLED_BACK]  # for the reason that it has
        held = self.reason == _REASON[Reason.PODS_DIFFER]
        self.differing_seconds = np.where(held, self.differing_seconds + (now - last), 0.0)

    def _counted(self, drawn: Drawn, tick: float, first: bool) -> Bools:
        """Return which pods' increases count, (n_rollouts, n_pods): known and warm ones.

        Pods that run at the first reconciliation are older than the rollout, so they are warm and
        count from then on; all others are new.
        """
        settings, new = self.spec.analysis, drawn.running & ~self._seen
        self._seen = drawn.running
        self.rates.seen = drawn.running
        if first:
            return np.zeros_like(new)
        if settings.warm_up_seconds <= 0.0 or not (new.any() or np.isfinite(self._warming).any()):
            return drawn.running
        begun = np.where(drawn.total > 0, 0.0, -1.0)
        elapsed = np.where(new | (self._warming < 0.0), begun, self._warming + tick)
        enough = elapsed >= settings.warm_up_seconds
        enough &= drawn.total >= settings.warm_up_requests
        enough |= drawn.total >= MAX_WARM_UP_REQUESTS
        self._warming = np.where(enough, np.nan, elapsed)
        counted: Bools = drawn.running & np.isnan(elapsed)
        return counted

    def _pass_time(self, drawn: Drawn, counted: Bools, tick: float, first: bool) -> Bools:
        """Add time and requests; return which candidates had any, shape (n_rollouts,)."""
        pods = slice(self._stable, None)
        requests = drawn.requests[:, pods] * (not first)
        exposed, settled = requests.sum(axis=1), self.live > 0
        self.exposed += exposed
        self.step_requests += np.where(settled, (requests * counted[:, pods]).sum(axis=1), 0)
        at_step = settled & (self.phase == _PHASE[Phase.PROGRESSING])
        self.step_elapsed[at_step] += tick
        watched = settled & (self.phase == _PHASE[Phase.WATCHING]) & (exposed > 0)
        self.watch_elapsed[watched] += tick
        has_traffic: Bools = exposed > 0
        return has_traffic

    def _counts(self, drawn: Drawn, counted: Bools) -> ArmCounts:
        """Return the block of the four rates."""
        latency = drawn.latency
        if not counted.all():
            latency = latency * counted[..., None]
        upto = np.cumsum(latency, axis=2)
        known = self.rates.places[:, None] >= 0
        places = np.maximum(self.rates.places, 0)[:, None]
        answered = upto[..., -1:] * known
        slow = (upto[..., -1:] - np.take_along_axis(upto, places, axis=2)) * known
        requests = drawn.requests * counted
        rejected = np.minimum(drawn.rejected * counted, requests)
        return ArmCounts(
            requests=np.concatenate([np.stack([requests, requests], axis=2), answered], axis=2),
            bad=np.concatenate(
                [np.stack([drawn.errors * counted, rejected], axis=2), slow], axis=2
            ),
            stable_latency=upto[:, : self._stable].sum(axis=1),
            stable=self._stable,
        )

    def _judge(self, going: Bools) -> Ints:
        """Roll back what a test blames; return the test that only a pod explains, or none.

        Returns
        -------
        numpy.ndarray
            Place in ``TESTS``, or -1, shape (n_rollouts,).
        """
        rates, (watch, watch_latency) = self.rates.failed(), self.watches.failed().T
        slow = rates[:, SLOW] | rates[:, TAIL]
        verdicts = rates[:, ERRORS], rates[:, REJECTED], watch, slow, watch_latency
        failed = np.stack(verdicts, axis=1) & going[:, None]
        odd = np.zeros_like(failed)
        for row, test in np.argwhere(failed):
            odd[row, test] = bool(self.rates.odd_pod(self.spec.analysis, row, TESTS[test]))
        blamed = failed & ~odd
        fault = blamed.any(axis=1)
        self._set(fault & (self.live > 0), Phase.ROLLING_BACK, Reason.TEST_FAILED)
        self._set(fault & (self.live == 0), Phase.ROLLED_BACK, Reason.TEST_FAILED)
        self.test[fault] = blamed[fault].argmax(axis=1)
        self.write[fault & (self.live > 0)] = WRITES.index("set_weight")
        self.live[fault] = 0
        return np.where((failed & odd).any(axis=1), (failed & odd).argmax(axis=1), _NONE)

    def _rise(self, rows: Bools, differing: Ints, has_traffic: Bools) -> None:
        """Bring these rollouts one step further, or say what they wait for."""
        hold, test = self._holds(rows, differing, has_traffic)
        live, at_first = self.live, rows & (self.live == 0)
        held = hold != _NONE
        unproved = rows & ~at_first & (self.passed < live)
        watching = rows & ~unproved & (live == 100)
        rising = rows & ~unproved & ~watching
        self._set(at_first & held, Phase.PENDING, hold, test)
        self._set((unproved | (rising & ~at_first)) & held, Phase.PROGRESSING, hold, test)
        passing = unproved & ~held
        self._set(passing, Phase.PROGRESSING, Reason.STEP_PASSED)
        self.passed[passing] = live[passing]
        self._watch(watching, differing, has_traffic)
        self._raise(np.flatnonzero(rising & ~held))

    def _holds(self, rows: Bools, differing: Ints, has_traffic: Bools) -> tuple[Ints, Ints]:
        """Return the reason for which a step waits and its test, -1 for none, (n_rollouts,)."""
        steps = self.spec.steps
        place = np.searchsorted(self.spec.shares, self.live)
        minimum = np.asarray([step.minimum_requests for step in steps])[place]
        dwell = np.asarray([step.dwell_seconds for step in steps])[place]
        candidate = slice(self._stable, None)
        warming = ~np.isnan(self._warming[:, candidate]) | ~self._seen[:, candidate]
        on, odd = self.live > 0, differing != _NONE
        holds = (
            (odd, Reason.PODS_DIFFER),
            (on & warming.all(axis=1), Reason.WARMING_UP),
            (on & (self.step_requests < minimum), Reason.INSUFFICIENT_REQUESTS),
            (on & (self.step_elapsed < dwell), Reason.DWELLING),
            (on & ~has_traffic, Reason.NO_TRAFFIC),
        )
        hold = np.select([each for each, _ in holds], [_REASON[why] for _, why in holds], _NONE)
        test = np.where(odd, differing, _NONE)
        ready = np.flatnonzero(rows & on & (hold == _NONE) & (self.live < 100))
        if ready.size:
            passes = self.rates.passes(ready)
            latency = passes[:, SLOW] & passes[:, TAIL]
            waits = ~np.stack([passes[:, ERRORS], latency, passes[:, REJECTED]], axis=1)
            waiting = waits.any(axis=1)
            names = np.asarray([TESTS.index(each) for each in _REQUIRED])
            hold[ready[waiting]] = _REASON[Reason.INSUFFICIENT_EVIDENCE]
            test[ready[waiting]] = names[waits[waiting].argmax(axis=1)]
        return hold, test

    def _watch(self, rows: Bools, differing: Ints, has_traffic: Bools) -> None:
        odd = rows & (differing != _NONE)
        idle = rows & ~odd & ~has_traffic
        rest = rows & ~odd & ~idle
        early = self.watch_elapsed < self.spec.watch_seconds
        early |= self.watches.suspicious().any(axis=1)
        self._set(odd, Phase.WATCHING, Reason.PODS_DIFFER, differing)
        self._set(idle, Phase.WATCHING, Reason.NO_TRAFFIC)
        self._set(rest & early, Phase.WATCHING, Reason.WATCHING)
        self._set(rest & ~early, Phase.PROMOTING, Reason.WATCH_PASSED)
        self.write[rest & ~early] = WRITES.index("promote")

    def _raise(self, rows: Ints) -> None:
        """Give these candidates the weight of the next step."""
        shares = np.asarray(self.spec.shares)
        target = shares[np.searchsorted(shares, self.live[rows], side="right")]
        self.live[rows] = target
        self.passed[rows] = np.minimum(self.passed[rows], np.maximum(target - 1, 0))
        self.step_elapsed[rows] = self.watch_elapsed[rows] = 0.0
        self.step_requests[rows] = 0
        self.phase[rows] = _PHASE[Phase.PROGRESSING]
        self.reason[rows], self.test[rows] = _REASON[Reason.STEP_STARTED], _NONE
        self.write[rows] = WRITES.index("set_weight")

    def _set(
        self, rows: Bools, phase: Phase, reason: Reason | Ints, test: Ints | None = None
    ) -> None:
        """Put these rollouts in a phase, with the reason of each."""
        self.phase[rows] = _PHASE[phase]
        self.reason[rows] = _REASON[reason] if isinstance(reason, Reason) else reason[rows]
        self.test[rows] = _NONE if test is None else test[rows]


def _check(spec: RolloutSpec, pods: int) -> None:
    """Refuse a spec that has what is left out here."""
    settings = spec.analysis
    if spec.stable is None or spec.paused or spec.abort or spec.skip is not None:
        raise UsageError("First deployments and specs that stop or skip don't run in lockstep.")
    # The simulated servers report no predictions and keep no requests: those tests have no data.
    without_data = {"prediction_distribution", "divergence"}
    if set(settings.enabled) - without_data != {"error_rate", "latency"}:
        raise UsageError("In lockstep the tests are error_rate and latency, both of them.")
    if pods > MAX_PODS:
        raise UsageError(f"In lockstep there are at most {MAX_PODS} pods.")
