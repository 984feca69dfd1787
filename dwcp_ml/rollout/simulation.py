"""Many simulated rollouts: how often the decision errs, how long it takes, what it costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, Protocol, runtime_checkable

import numpy as np

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.contract.record import Record
from dwcp_ml.rollout.cause import Cause
from dwcp_ml.rollout.decide import Decision, decide
from dwcp_ml.rollout.observation import Observation
from dwcp_ml.rollout.simulated_environment import SimulatedEnvironment, Traffic
from dwcp_ml.rollout.spec import RolloutSpec
from dwcp_ml.rollout.status import Phase, RolloutStatus

_CHUNK: Final = 5
"""Rollouts that a process of a pool runs before it returns their results."""

End = Literal["Promoted", "RolledBack", "Held"]

Rule = Callable[[RolloutSpec, RolloutStatus, Observation, float], Decision]
"""What decides; ``decide``, or another rule to compare it with."""


@runtime_checkable
class StatefulRule(Protocol):
    """A rule with state of its own beside the status; every rollout gets a fresh one."""

    def fresh(self) -> Rule:
        """Return the same rule in its initial state."""


@dataclass(frozen=True)
class SimulatedRollout:
    """How one simulated rollout ended.

    Parameters
    ----------
    end
        ``Held`` if the time ran out first.
    percent
        The highest share of traffic that it had.
    cause
        Why, as ``decide`` stated it.
    harm_seconds, harmed_requests
        Virtual time, and requests of the candidate, since it first behaved as ``Traffic`` says; of
        a candidate like the stable since its first traffic.
    """

    end: End
    seconds: float
    exposed_requests: int
    percent: int
    cause: Cause
    harm_seconds: float = 0.0
    harmed_requests: int = 0


class Share(Record):
    """A share of rollouts with its 95 % interval (Wilson, 1927)."""

    count: int
    of: int
    low: float
    high: float

    @classmethod
    def of_counts(cls, count: int, total: int) -> Share:
        """Return the share of ``count`` in ``total``; the interval is (0, 1) for none."""
        if total == 0:
            return cls(count=0, of=0, low=0.0, high=1.0)
        z = 1.959963984540054
        share, scale = count / total, 1.0 + z * z / total
        middle = (share + z * z / (2 * total)) / scale
        half = z / scale * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
        return cls(count=count, of=total, low=max(0.0, middle - half), high=min(1.0, middle + half))


class Summary(Record):
    """Summary of many simulated rollouts; times in seconds, ``None`` where nothing ended so."""

    promoted: Share
    rolled_back: Share
    held: Share
    median_seconds_to_promote: float | None
    median_seconds_to_catch: float | None
    p90_seconds_to_catch: float | None
    median_exposed_requests_when_caught: float | None
    mean_exposed_requests: float
    caught_at_percent: dict[int, int]
    """Highest share of traffic that it had -> how many were caught there."""


def run_once(
    spec: RolloutSpec,
    traffic: Traffic,
    seed: int,
    *,
    reconcile_seconds: float = 10.0,
    limit_seconds: float = 24 * 3600.0,
    rule: Rule = decide,
) -> SimulatedRollout:
    """Run one rollout in virtual time.

    Parameters
    ----------
    seed
        The same seed draws the same traffic.
    limit_seconds
        When to give up; then it is ``Held``.
    rule
        What decides; a ``StatefulRule`` starts in its initial state.
    """
    if isinstance(rule, StatefulRule):
        rule = rule.fresh()
    environment = SimulatedEnvironment(spec, traffic, np.random.default_rng(seed))
    end: End = "Held"
    seconds = limit_seconds
    status, started, highest = RolloutStatus(), environment.now, 0
    while environment.now - started < limit_seconds:
        environment.pass_time(reconcile_seconds)
        status, write = rule(spec, status, environment.observe(), environment.now)
        environment.make(write)
        highest = max(highest, environment.live_percent)
        if status.ended:
            end = "Promoted" if status.phase is Phase.PROMOTED else "RolledBack"
            seconds = environment.now - started
            break
    exposed = environment.exposed_requests
    began, before = environment.harm_began or (environment.now, exposed)
    return SimulatedRollout(
        end=end,
        seconds=seconds,
        exposed_requests=exposed,
        percent=highest,
        cause=status.cause,
        harm_seconds=environment.now - began,
        harmed_requests=exposed - before,
    )


def simulate(
    spec: RolloutSpec,
    traffic: Traffic,
    rollouts: int,
    *,
    seed: int = 42,
    reconcile_seconds: float = 10.0,
    limit_seconds: float = 24 * 3600.0,
    rule: Rule = decide,
    pool: Executor | None = None,
) -> Iterator[SimulatedRollout]:
    """Yield the outcomes of many rollouts, in the order of their seeds.

    Parameters
    ----------
    spec, traffic, reconcile_seconds, limit_seconds, rule
        Those of ``run_once``.
    seed
        The first rollout's; every further one has the next.
    pool
        Where to run them, with everything above picklable; here and one after another if None.
        The outcomes are the same.

    Raises
    ------
    UsageError
        If there is nothing to run, or no reconciliation would ever come.
    """
    check_simulation(rollouts, reconcile_seconds, limit_seconds)
    run = partial(
        _run_some,
        spec,
        traffic,
        reconcile_seconds=reconcile_seconds,
        limit_seconds=limit_seconds,
        rule=rule,
    )
    seeds = range(seed, seed + rollouts)
    if pool is None:
        for one in seeds:
            yield from run([one])
        return
    chunks = [seeds[start : start + _CHUNK] for start in range(0, rollouts, _CHUNK)]
    for outcomes in pool.map(run, chunks):
        yield from outcomes


def check_simulation(rollouts: int, reconcile_seconds: float, limit_seconds: float) -> None:
    """Check that there is something to run, and that a reconciliation comes before the limit.

    Raises
    ------
    UsageError
        If not.
    """
    if rollouts < 1 or reconcile_seconds <= 0 or limit_seconds < reconcile_seconds:
        raise UsageError(
            "A simulation needs at least one rollout, and a limit above one reconciliation."
        )


def _run_some(
    spec: RolloutSpec,
    traffic: Traffic,
    seeds: Sequence[int],
    *,
    reconcile_seconds: float,
    limit_seconds: float,
    rule: Rule,
) -> list[SimulatedRollout]:
    return [
        run_once(
            spec,
            traffic,
            seed,
            reconcile_seconds=reconcile_seconds,
            limit_seconds=limit_seconds,
            rule=rule,
        )
        for seed in seeds
    ]


def summarise(outcomes: list[SimulatedRollout]) -> Summary:
    """Return the summary of the outcomes."""
    total = len(outcomes)
    by_end = {
        end: [o for o in outcomes if o.end == end] for end in ("Promoted", "RolledBack", "Held")
    }
    caught = by_end["RolledBack"]
    places: dict[int, int] = {}
    for one in caught:
        places[one.percent] = places.get(one.percent, 0) + 1
    return Summary(
        promoted=Share.of_counts(len(by_end["Promoted"]), total),
        rolled_back=Share.of_counts(len(caught), total),
        held=Share.of_counts(len(by_end["Held"]), total),
        median_seconds_to_promote=_quantile([o.seconds for o in by_end["Promoted"]], 0.5),
        median_seconds_to_catch=_quantile([o.seconds for o in caught], 0.5),
        p90_seconds_to_catch=_quantile([o.seconds for o in caught], 0.9),
        median_exposed_requests_when_caught=_quantile(
            [float(o.exposed_requests) for o in caught], 0.5
        ),
        mean_exposed_requests=float(np.mean([o.exposed_requests for o in outcomes]))
        if outcomes
        else 0.0,
        caught_at_percent=dict(sorted(places.items())),
    )


def _quantile(values: list[float], share: float) -> float | None:
    return float(np.quantile(values, share)) if values else None
