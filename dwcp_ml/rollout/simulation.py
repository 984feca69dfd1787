"""Many made-up rollouts: how often the decision errs, how long it takes, what it costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, Protocol, runtime_checkable

import numpy as np

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.contract.records import Record
from dwcp_ml.rollout.decide import Decision, decide
from dwcp_ml.rollout.observation import Observation
from dwcp_ml.rollout.simulated_environment import Traffic, World
from dwcp_ml.rollout.spec import RolloutSpec
from dwcp_ml.rollout.status import Phase, RolloutStatus

_CHUNK: Final = 20
"""Rollouts that a process of a pool runs before it says what came of them."""

End = Literal["Promoted", "RolledBack", "Held"]

Rule = Callable[[RolloutSpec, RolloutStatus, Observation, float], Decision]
"""What decides; ``decide``, or another rule to compare it with."""


@runtime_checkable
class Remembering(Protocol):
    """A rule with a memory of its own beside the status; every rollout gets a fresh one."""

    def fresh(self) -> Rule:
        """Return the same rule without a memory."""


@dataclass(frozen=True)
class Outcome:
    """How one made-up rollout ended.

    Parameters
    ----------
    end
        ``Held`` if the time ran out first.
    seconds
        Virtual time until then.
    touched
        Requests that the candidate answered.
    percent
        The highest share of traffic that it had.
    reason
        What the decision said.
    """

    end: End
    seconds: float
    touched: int
    percent: int
    reason: str


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
    """What many made-up rollouts came to; times in seconds, ``None`` where nothing ended so."""

    promoted: Share
    rolled_back: Share
    held: Share
    median_seconds_to_promote: float | None
    median_seconds_to_catch: float | None
    p90_seconds_to_catch: float | None
    median_touched_when_caught: float | None
    mean_touched: float
    caught_at_percent: dict[int, int]
    """Highest share of traffic that it had -> how many were caught there."""


def run_once(
    spec: RolloutSpec,
    traffic: Traffic,
    seed: int,
    *,
    look_seconds: float = 10.0,
    limit_seconds: float = 24 * 3600.0,
    rule: Rule = decide,
) -> Outcome:
    """Run one rollout in virtual time.

    Parameters
    ----------
    seed
        The same seed draws the same traffic.
    look_seconds
        Time between two looks.
    limit_seconds
        When to give up; then it is ``Held``.
    rule
        What decides; a ``Remembering`` one begins without a memory.
    """
    if isinstance(rule, Remembering):
        rule = rule.fresh()
    world = World(spec, traffic, np.random.default_rng(seed))
    status, begun, highest = RolloutStatus(), world.now, 0
    while world.now - begun < limit_seconds:
        world.pass_time(look_seconds)
        status, write = rule(spec, status, world.observe(), world.now)
        world.make(write)
        highest = max(highest, world.live_percent)
        if status.ended:
            end: End = "Promoted" if status.phase is Phase.PROMOTED else "RolledBack"
            return Outcome(end, world.now - begun, world.touched, highest, status.reason)
    return Outcome("Held", limit_seconds, world.touched, highest, status.reason)


def simulate(
    spec: RolloutSpec,
    traffic: Traffic,
    rollouts: int,
    *,
    seed: int = 42,
    look_seconds: float = 10.0,
    limit_seconds: float = 24 * 3600.0,
    rule: Rule = decide,
    pool: Executor | None = None,
) -> Iterator[Outcome]:
    """Yield the outcomes of many rollouts, in the order of their seeds.

    Parameters
    ----------
    spec, traffic, look_seconds, limit_seconds, rule
        Those of ``run_once``.
    rollouts
        How many.
    seed
        The first rollout's; every further one has the next.
    pool
        Where to run them, with everything above picklable; here and one after another if None.
        The outcomes are the same.

    Raises
    ------
    UsageError
        If there is nothing to run, or a look would never come.
    """
    if rollouts < 1 or look_seconds <= 0 or limit_seconds < look_seconds:
        raise UsageError("a simulation needs at least one rollout, and a limit above one look.")
    run = partial(
        _run_some,
        spec,
        traffic,
        look_seconds=look_seconds,
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


def _run_some(
    spec: RolloutSpec,
    traffic: Traffic,
    seeds: Sequence[int],
    *,
    look_seconds: float,
    limit_seconds: float,
    rule: Rule,
) -> list[Outcome]:
    return [
        run_once(
            spec,
            traffic,
            seed,
            look_seconds=look_seconds,
            limit_seconds=limit_seconds,
            rule=rule,
        )
        for seed in seeds
    ]


def summarise(outcomes: list[Outcome]) -> Summary:
    """Return what the outcomes come to."""
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
        median_touched_when_caught=_quantile([float(o.touched) for o in caught], 0.5),
        mean_touched=float(np.mean([o.touched for o in outcomes])) if outcomes else 0.0,
        caught_at_percent=dict(sorted(places.items())),
    )


def _quantile(values: list[float], share: float) -> float | None:
    return float(np.quantile(values, share)) if values else None
