"""What raises the commit latency of a node: high-latency episodes of eight kinds, benign events.

The profile `steps` has the four kinds of `PLATEAUS` only, and no benign events. `docs/simulator.md`
names the published account behind each kind and says which ranges are assumed.
"""

from dataclasses import dataclass

import numpy as np

from dwcp_ml.contract.arrays import Floats, Ints, Mask

Range = tuple[float, float]

VISIBLE = 0.2
"""A reading is visibly raised if an episode adds this share of the quiet latency."""


@dataclass(frozen=True)
class Plateau:
    """An episode that is one step: up at once, down at once; `spread` is that of its readings."""

    extra_ms: Range
    minutes: Range
    spread: float


PLATEAUS: dict[str, Plateau] = {
    "leader_change": Plateau((150, 300), (5, 12), 0.15),
    "failover": Plateau((250, 600), (6, 12), 0.15),  # as long as the incident
    "gc_pause": Plateau((120, 400), (6, 18), 0.20),
    "overload": Plateau((100, 250), (20, 50), 0.10),
}
STEPS_SHARE = {"leader_change": 0.3, "gc_pause": 0.3, "overload": 0.4}
"""Profile `steps`: kinds that befall one node without an incident, with their shares."""
OWN_KINDS = (*STEPS_SHARE, "leader_flapping", "creep", "oscillation")
"""Profile `published`: kinds that befall one node without an incident, each equally likely."""
EPISODES = (*PLATEAUS, "leader_flapping", "creep", "oscillation", "shared_slowdown")
RELATIVE = ("creep", "oscillation", "shared_slowdown")
"""Kinds that add multiples of the quiet latency; the others add milliseconds."""

FLAPS = (3, 8)
FLAP_MS: Range = (150, 450)
FLAP_MINUTES: Range = (1, 3)
FLAP_GAP_MINUTES: Range = (2, 8)

CREEP_FACTOR: Range = (2, 4)
CREEP_MINUTES: Range = (20, 60)

OSCILLATION_FACTOR: Range = (2, 5)
OSCILLATION_SPREAD = 0.1
OSCILLATION_PERIOD_MINUTES: Range = (4, 10)
OSCILLATION_MINUTES: Range = (20, 45)

SHARED_FACTOR: Range = (1.25, 1.5)
SHARED_SPREAD = 0.05
SHARED_MINUTES: Range = (10, 20)  # no longer than the window of the model
SHARED_DELAY_MINUTES: Range = (0, 2)  # between the nodes of the region

# not labelled
SPIKE_MS: Range = (50, 500)  # evenly on a logarithmic scale
TRANSFER_MS: Range = (20, 150)
TRANSFER_MINUTES = 1.0
ROUTE_FACTOR: Range = (1.15, 1.6)
ROUTE_HOURS: Range = (2, 12)


def length_of(minutes: float, step: float) -> int:
    """Return the number of steps, of `step` minutes each, that last about `minutes`; 1 at least."""
    return max(1, round(minutes / step))


def around(size: Floats | float, spread: float, normal: Floats) -> Floats:
    """Return readings around a size; `normal` are standard normal draws."""
    return np.asarray(size * np.clip(1 + spread * normal, 0.5, 2))


def plateau_length(kind: str, step: float, rng: np.random.Generator) -> int:
    """Return the number of steps of a one-step episode."""
    return length_of(rng.uniform(*PLATEAUS[kind].minutes), step)


def plateau_profile(kind: str, length: int, rng: np.random.Generator) -> Floats:
    """Return what a one-step episode adds at each step, ms."""
    plateau = PLATEAUS[kind]
    return around(rng.uniform(*plateau.extra_ms), plateau.spread, rng.standard_normal(length))


def own_profile(kind: str, step: float, rng: np.random.Generator) -> Floats:
    """Return what an episode of one of `OWN_KINDS` adds: ms, or for `RELATIVE` kinds multiples."""
    if kind in PLATEAUS:
        return plateau_profile(kind, plateau_length(kind, step, rng), rng)
    profiles = {"leader_flapping": _flaps, "creep": _creep, "oscillation": _oscillation}
    return profiles[kind](step, rng)


def _flaps(step: float, rng: np.random.Generator) -> Floats:
    parts: list[Floats] = []
    for flap in range(int(rng.integers(FLAPS[0], FLAPS[1] + 1))):
        if flap:
            parts.append(np.zeros(length_of(rng.uniform(*FLAP_GAP_MINUTES), step)))
        length = length_of(rng.uniform(*FLAP_MINUTES), step)
        parts.append(rng.uniform(*FLAP_MS, length))
    return np.concatenate(parts)


def creep_levels(factor: float, minutes: float, step: float) -> Floats:
    """Return what a creep adds at each step, in multiples of the quiet latency: a ramp."""
    length = length_of(minutes, step)
    return np.asarray((factor - 1) * np.arange(1, length + 1) / length)


def _creep(step: float, rng: np.random.Generator) -> Floats:
    return creep_levels(rng.uniform(*CREEP_FACTOR), rng.uniform(*CREEP_MINUTES), step)


def _oscillation(step: float, rng: np.random.Generator) -> Floats:
    half = length_of(rng.uniform(*OSCILLATION_PERIOD_MINUTES) / 2, step)
    raised = oscillation_halves(half, rng.uniform(*OSCILLATION_MINUTES), step)
    level = rng.uniform(*OSCILLATION_FACTOR) - 1
    shape = np.repeat(np.arange(2 * raised - 1) % 2 == 0, half)
    return np.where(shape, around(level, OSCILLATION_SPREAD, rng.standard_normal(len(shape))), 0.0)


def oscillation_halves(half: int, minutes: float, step: float) -> int:
    """Return how often an oscillation is raised, for `half` steps each time: twice at least."""
    return max(2, round(minutes / (2 * half * step)))


def shared_profile(length: int, rng: np.random.Generator) -> Floats:
    """Return what one node feels of a shared slowdown, in multiples of its quiet latency."""
    level = rng.uniform(*SHARED_FACTOR) - 1
    return around(level, SHARED_SPREAD, rng.standard_normal(length))


@dataclass(frozen=True)
class EpisodeTrack:
    """The episodes of all nodes, arrays of shape (T, N), filled one episode at a time.

    Attributes
    ----------
    quiet_ms : the latency without episodes.
    extra_ms : what the episodes add to it.
    number : 0 outside labelled time, otherwise 1 + index into `EPISODES`.
    occupied : whether an episode is going on, visible or not.
    """

    quiet_ms: Floats
    extra_ms: Floats
    number: Ints
    occupied: Mask

    @classmethod
    def empty(cls, quiet_ms: Floats) -> "EpisodeTrack":
        """Return a track without episodes."""
        shape = quiet_ms.shape
        return cls(quiet_ms, np.zeros(shape), np.zeros(shape, np.int64), np.zeros(shape, np.bool_))

    def is_free(self, node: int, start: int, length: int) -> bool:
        """Return whether no episode of the node goes on in these steps."""
        return not self.occupied[start : start + length, node].any()

    def add(self, kind: str, node: int, start: int, profile: Floats) -> None:
        """Add an episode unless it overlaps another one of the node.

        It is labelled from its first to its last visibly raised reading.
        """
        profile = profile[: len(self.quiet_ms) - start]
        rows = slice(start, start + len(profile))
        if not self.is_free(node, start, len(profile)):
            return
        quiet = self.quiet_ms[rows, node]
        extra = profile * quiet if kind in RELATIVE else profile
        self.extra_ms[rows, node] = extra
        self.occupied[rows, node] = True
        visible = start + np.flatnonzero(extra >= VISIBLE * quiet)
        if len(visible):
            self.number[visible[0] : visible[-1] + 1, node] = EPISODES.index(kind) + 1
