"""Run many simulated rollouts of one scenario in lockstep: thousands a minute.

The same rollouts as ``dwcp_ml.rollout.simulation.simulate``, without its random numbers: the
traffic has the distribution of ``SimulatedEnvironment``, and the same counters lead to the same
decisions as ``decide``. ``decisions`` says what is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from benchmarks.vectorized.decisions import PHASES, REASONS, TESTS, Decisions
from benchmarks.vectorized.rows import Bools, Ints, Rows
from benchmarks.vectorized.traffic import Drawn, LockstepTraffic
from dwcp_ml.rollout.cause import Cause
from dwcp_ml.rollout.simulated_environment import Traffic
from dwcp_ml.rollout.simulation import End, SimulatedRollout, check_simulation
from dwcp_ml.rollout.spec import RolloutSpec
from dwcp_ml.rollout.status import Phase

BATCH: Final = 1000
"""Rollouts that run together: enough for the arrays to be worth their calls."""


@dataclass(frozen=True)
class LockstepRollout(SimulatedRollout):
    """How one rollout ended.

    Parameters
    ----------
    differing_seconds
        How long it has been held, at its end, because pods differ.
    """

    differing_seconds: float = 0.0


class Lockstep(Rows):
    """Rollouts of one scenario that run together; those that end leave.

    Parameters
    ----------
    spec, traffic
        As in ``run_once``.
    rollouts
        How many.
    rng
        The only source of randomness.
    """

    def __init__(
        self, spec: RolloutSpec, traffic: Traffic, rollouts: int, rng: np.random.Generator
    ) -> None:
        stable = traffic.pods.stable
        self.traffic = LockstepTraffic(traffic, rollouts, rng)
        self.decisions = Decisions(spec, rollouts, stable + traffic.pods.candidate, stable)
        self.ids: Ints = np.arange(rollouts)
        self.highest: Ints = np.zeros(rollouts, dtype=np.int64)

    @property
    def seconds(self) -> float:
        """Virtual time since the start."""
        return self.traffic.now - self.traffic.start

    def tick(self, seconds: float) -> Drawn:
        """Pass time, and decide once; return what the pods counted in it."""
        drawn = self.traffic.pass_time(seconds)
        self.decisions.advance(drawn, self.traffic.now)
        self.traffic.live = self.decisions.live.copy()
        self.highest = np.maximum(self.highest, self.decisions.live)
        return drawn

    def outcomes(self, rows: Bools, seconds: float) -> dict[int, LockstepRollout]:
        """Return how these rollouts ended, by id; those that have not are held.

        Parameters
        ----------
        rows
            Shape (n_rollouts,).
        seconds
            Virtual time at the end.
        """
        exposed = self.traffic.exposed_requests
        return {
            int(self.ids[row]): self._outcome(int(row), int(exposed[row]), seconds)
            for row in np.flatnonzero(rows)
        }

    def _outcome(self, row: int, exposed: int, seconds: float) -> LockstepRollout:
        decisions, traffic = self.decisions, self.traffic
        ends: dict[Phase, End] = {Phase.PROMOTED: "Promoted", Phase.ROLLED_BACK: "RolledBack"}
        began, before = float(traffic.harm_at[row]), int(traffic.harm_before[row])
        harmed = not np.isnan(began)
        test = int(decisions.test[row])
        return LockstepRollout(
            end=ends.get(PHASES[decisions.phase[row]], "Held"),
            seconds=seconds,
            exposed_requests=exposed,
            percent=int(self.highest[row]),
            cause=Cause(
                reason=REASONS[decisions.reason[row]], test=TESTS[test] if test >= 0 else ""
            ),
            harm_seconds=traffic.now - began if harmed else 0.0,
            harmed_requests=exposed - before if harmed else 0,
            differing_seconds=float(decisions.differing_seconds[row]),
        )


def run_batch(
    spec: RolloutSpec,
    traffic: Traffic,
    batch: tuple[int, int, int],
    *,
    reconcile_seconds: float,
    limit_seconds: float,
) -> list[LockstepRollout]:
    """Run rollouts together, and return their outcomes.

    Parameters
    ----------
    batch
        Seed, place of the first rollout among all of that seed, and how many.
    spec, traffic, reconcile_seconds, limit_seconds
        As in ``simulate_in_lockstep``.
    """
    seed, first, count = batch
    run = Lockstep(spec, traffic, count, np.random.default_rng((seed, first)))
    found: dict[int, LockstepRollout] = {}
    while run.ids.size and run.seconds < limit_seconds:
        run.tick(reconcile_seconds)
        if (ended := run.decisions.ended).any():
            found |= run.outcomes(ended, run.seconds)
            run.keep(~ended)
    found |= run.outcomes(np.ones(run.ids.size, dtype=np.bool_), limit_seconds)
    return [found[place] for place in range(count)]


def simulate_in_lockstep(
    spec: RolloutSpec,
    traffic: Traffic,
    rollouts: int,
    *,
    seed: int = 42,
    reconcile_seconds: float = 10.0,
    limit_seconds: float = 24 * 3600.0,
    pool: Executor | None = None,
) -> Iterator[LockstepRollout]:
    """Yield the outcomes of many rollouts.

    Parameters
    ----------
    spec, traffic
        Of the scenario.
    rollouts
        How many.
    seed
        The same seed draws the same rollouts, whatever runs them.
    reconcile_seconds, limit_seconds, pool
        As in ``simulate``.

    Raises
    ------
    UsageError
        If there is nothing to run, or the scenario has what is left out in lockstep.
    """
    check_simulation(rollouts, reconcile_seconds, limit_seconds)
    batches = [(seed, first, min(BATCH, rollouts - first)) for first in range(0, rollouts, BATCH)]
    run = partial(
        run_batch, spec, traffic, reconcile_seconds=reconcile_seconds, limit_seconds=limit_seconds
    )
    for outcomes in map(run, batches) if pool is None else pool.map(run, batches):
        yield from outcomes
