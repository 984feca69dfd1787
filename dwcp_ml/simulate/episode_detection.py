"""The best detectors of high-latency episodes that a window and the hidden quiet latency allow.

Profile `steps`: each reading is far from quiet or not, so the readings are judged one by one.

Profile `published`: the latency of a node is a hidden Markov model: quiet, in a benign event, or at
a certain step of an episode of a certain kind, each state with its own distribution of the reading.
The forward algorithm (Rabiner, *A tutorial on hidden Markov models*, 1989) sums over all that may
have happened in the window, with and without a labelled step.
"""

from dataclasses import dataclass, field

import numpy as np

from dwcp_ml.contract.arrays import Floats, Ints, Mask
from dwcp_ml.simulate import episodes as kinds
from dwcp_ml.simulate.consensus import FAILOVERS, ConsensusState
from dwcp_ml.simulate.reliability import (
    INCIDENT_SPACING_MINUTES,
    INCIDENT_TYPES,
    MIN_INCIDENT_STEPS,
)
from dwcp_ml.simulate.settings import SimulatorSettings

_CHUNK = 64  # windows at a time: what is computed of them stays in the cache of a core
_DRAWS = 64  # of the size of an event
_CREEP_DRAWS = 4  # of the slope of a creep, and of its length
_GRID = 0.02  # of the logarithm of a creep's level
_TINY = 1e-300

Exits = list[tuple[int, float]]
"""States, and the probability of leaving the current stretch after each."""


def episode_log_odds(
    settings: SimulatorSettings, state: ConsensusState, step: Ints, node: Ints, latency_ms: Floats
) -> Floats:
    """Logarithm of the odds that some step of a window lies in a labelled episode, shape (n,).

    `step`, `node` and `latency_ms` are the windows, shape (n, window). Knows the quiet latency of
    each step, changed routes included, and the distributions of all events; of the telemetry it
    uses the window only.
    """
    noise = settings.latency_noise
    if settings.latency_episodes == "published":
        log_odds = latency_model(settings).model(noise).log_odds
    else:
        log_odds = StepModel(share=float(np.mean(state.episode > 0)), noise=noise).log_odds
    quiet = np.log(state.quiet_ms[step, node])
    reading = np.log(latency_ms)
    parts = [
        log_odds(quiet[i : i + _CHUNK], reading[i : i + _CHUNK])
        for i in range(0, len(reading), _CHUNK)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


@dataclass(frozen=True)
class StepModel:
    """Readings that are independent of one another: quiet, or in an episode that is one step.

    `share` is that of the readings in an episode, `noise` the standard deviation of the logarithm
    of a reading.
    """

    share: float
    noise: float

    def log_odds(self, quiet: Floats, reading: Floats) -> Floats:
        """Return the log odds that some reading of a window lies in an episode, shape (n,).

        `quiet` and `reading` are logarithms of latencies, shape (n, window).
        """
        rng = np.random.default_rng(0)
        extra = np.concatenate([_step_sizes(each, rng) for each in kinds.PLATEAUS.values()])
        centre = np.log(np.exp(quiet)[..., None] + extra)
        wide = np.hypot(self.noise, 0.03)
        exponent = -0.5 * ((reading[..., None] - centre) / wide) ** 2 + np.log(self.noise / wide)
        largest = exponent.max(axis=-1)
        high = largest + np.log(np.exp(exponent - largest[..., None]).mean(axis=-1))
        calm = -0.5 * ((reading - quiet) / self.noise) ** 2
        share = np.clip(self.share, 1e-6, 1 - 1e-6)
        odds = high - calm + np.log(share / (1 - share))
        surprise = np.logaddexp(0, odds).sum(axis=1)  # -ln of the probability of no episode
        return np.asarray(surprise + np.log(np.maximum(-np.expm1(-surprise), _TINY)))


def _step_sizes(plateau: kinds.Plateau, rng: np.random.Generator) -> Floats:
    sizes = rng.uniform(*plateau.extra_ms, _DRAWS)
    return kinds.around(sizes, plateau.spread, rng.standard_normal(_DRAWS))


@dataclass(frozen=True)
class LatencyModel:
    """A hidden Markov model with S states, of which state 0 is quiet.

    Attributes
    ----------
    emission : int array of shape (S,)
        Index of the distribution of the reading.
    labelled : bool array of shape (S,)
    source, target : int arrays of shape (edges,)
        Transitions, in the order of their targets.
    probability : float array of shape (edges,)
    share : float array of shape (S,)
        Share of the time in each state.
    added_ms, relative, owner : arrays of shape (components,)
        Components of the distributions, in the order of the distribution that owns them: what they
        add to the quiet latency.
    noise : float
        Standard deviation of the logarithm of a reading.
    """

    emission: Ints
    labelled: Mask
    source: Ints
    target: Ints
    probability: Floats
    share: Floats
    added_ms: Floats
    relative: Floats
    owner: Ints
    noise: float

    def log_odds(self, quiet: Floats, reading: Floats) -> Floats:
        """Return the log odds that some step of a window is labelled, shape (n,)."""
        clean, marked = self.log_joint(quiet, reading)
        return np.asarray(marked - clean)

    def log_joint(self, quiet: Floats, reading: Floats) -> Floats:
        """Return ln of the joint density of the readings and no labelled step, and of one, (2, n).

        `quiet` and `reading` are logarithms of latencies, shape (n, window).
        """
        first_edge = np.searchsorted(self.target, np.arange(len(self.emission)))
        weight = self.probability[:, None]

        def advance(alpha: Floats) -> Floats:
            moved: Floats = np.add.reduceat(alpha[self.source] * weight, first_edge, axis=0)
            return moved

        # joint probability of the readings so far and the state: without a labelled step, and with
        clean = np.repeat(self.share[:, None], len(reading), axis=1)
        marked = np.zeros_like(clean)
        total = np.zeros(len(reading))
        for position in range(reading.shape[1]):
            if position:
                clean, marked = advance(clean), advance(marked)
            marked[self.labelled] += clean[self.labelled]
            clean[self.labelled] = 0
            density, scale = self._density(quiet[:, position], reading[:, position])
            total += scale
            clean, marked = clean * density[self.emission], marked * density[self.emission]
            scale = clean.sum(axis=0) + marked.sum(axis=0)
            clean, marked = clean / scale, marked / scale
            total += np.log(scale)
        probability = np.stack([clean.sum(axis=0), marked.sum(axis=0)])
        return np.asarray(total + np.log(np.maximum(probability, _TINY)))

    def _density(self, quiet: Floats, reading: Floats) -> tuple[Floats, Floats]:
        """Return each reading's density in each distribution, (E, n), and its log scale, (n,)."""
        centre = np.log(np.exp(quiet) * (1 + self.relative[:, None]) + self.added_ms[:, None])
        exact = (self.added_ms == 0) & (self.relative == 0)
        width = np.where(exact, self.noise, np.hypot(self.noise, _GRID))[:, None]
        exponent = -0.5 * ((reading - centre) / width) ** 2 - np.log(width)
        first = np.searchsorted(self.owner, np.arange(self.owner[-1] + 1))
        count = np.bincount(self.owner)[:, None]
        largest = exponent.max(axis=0)
        each = np.exp(exponent - largest)
        return np.add.reduceat(each, first, axis=0) / count + _TINY, largest


@dataclass
class Builder:
    """Collects states, transitions and distributions; state 0 and distribution 0 are quiet."""

    emission: list[int] = field(default_factory=lambda: [0])
    labelled: list[bool] = field(default_factory=lambda: [False])
    edges: list[tuple[int, int, float]] = field(default_factory=list)  # target, source, probability
    components: list[tuple[Floats, Floats]] = field(
        default_factory=lambda: [(np.zeros(1), np.zeros(1))]
    )

    def distribution(self, added_ms: Floats | float = 0.0, relative: Floats | float = 0.0) -> int:
        """Add the distribution of a reading, by equally likely sizes; return its index."""
        added, factors = np.broadcast_arrays(np.atleast_1d(added_ms), np.atleast_1d(relative))
        self.components.append((added, factors))
        return len(self.components) - 1

    def state(self, emission: int, labelled: bool) -> int:
        """Add a state; return its index."""
        self.emission.append(emission)
        self.labelled.append(labelled)
        return len(self.emission) - 1

    def stretch(self, before: Exits, emission: int, labelled: bool, lengths: Floats) -> Exits:
        """Add states for a stretch of 1, 2, … steps with these probabilities; return its exits."""
        exits: Exits = []
        remaining = 1.0
        for share in lengths:
            state = self.state(emission, labelled)
            self.edges += [(state, source, p) for source, p in before]
            remaining -= share
            if remaining < 1e-9:
                return [*exits, (state, 1.0)]
            stop = share / (share + remaining)
            if stop > 0:
                exits.append((state, stop))
            before = [(state, 1 - stop)]
        raise ValueError("The probabilities of the lengths of a stretch must add up to 1.")

    def event(self, rate: float, emission: int, labelled: bool, lengths: Floats) -> None:
        """Add an event that begins in the quiet state, `rate` times a step."""
        self.finish(self.stretch([(0, rate)], emission, labelled, lengths))

    def finish(self, exits: Exits) -> None:
        """Return to quiet."""
        self.edges += [(0, source, p) for source, p in exits if p > 0]

    def model(self, noise: float) -> LatencyModel:
        """Return the model; the events that begin in the quiet state are Poisson processes."""
        rate = sum(p for _, source, p in self.edges if source == 0)
        leaves = -np.expm1(-rate) / rate if rate else 1.0  # at most one event begins in a step
        edges = [(to, source, p if source else p * leaves) for to, source, p in self.edges]
        edges = sorted([*edges, (0, 0, float(np.exp(-rate)))])
        share = np.zeros(len(self.emission))
        share[0] = 1.0
        for state, before, p in edges:
            if state:  # all states before it have their share
                share[state] += share[before] * p
        return LatencyModel(
            emission=np.array(self.emission),
            labelled=np.array(self.labelled),
            source=np.array([source for _, source, _ in edges]),
            target=np.array([target for target, _, _ in edges]),
            probability=np.array([p for _, _, p in edges]),
            share=share / share.sum(),
            added_ms=np.concatenate([added for added, _ in self.components]),
            relative=np.concatenate([relative for _, relative in self.components]),
            owner=np.repeat(
                np.arange(len(self.components)), [len(added) for added, _ in self.components]
            ),
            noise=noise,
        )


def _even(limits: kinds.Range, count: int = _DRAWS) -> Floats:
    """Return evenly spread values of a range."""
    low, high = limits
    return low + (high - low) * (np.arange(count) + 0.5) / count


def _spread(sizes: Floats, spread: float) -> Floats:
    """Return one reading around each size."""
    return kinds.around(sizes, spread, np.random.default_rng(0).standard_normal(len(sizes)))


def _lengths(minutes: kinds.Range, step: float, shortest: int = 1) -> Floats:
    """Return the probabilities of lengths of 1, 2, … steps."""
    steps = [max(shortest, kinds.length_of(value, step)) for value in _even(minutes, 400)]
    return np.bincount(steps)[1:] / len(steps)


def latency_model(settings: SimulatorSettings) -> Builder:
    """Build the model of a node's latency: all that may happen while its routes stay."""
    builder, step = Builder(), settings.minutes
    per_step = step / 1440
    own = settings.latency_episodes_per_node_day / len(kinds.OWN_KINDS) * per_step
    failover = _failovers_per_day(settings) * per_step
    for name, plateau in kinds.PLATEAUS.items():
        sizes = builder.distribution(_spread(_even(plateau.extra_ms), plateau.spread))
        rate, shortest = (failover, MIN_INCIDENT_STEPS) if name == "failover" else (own, 1)
        builder.event(rate, sizes, True, _lengths(plateau.minutes, step, shortest))
    _add_flapping(builder, own, step)
    _add_creep(builder, own, step)
    _add_oscillation(builder, own, step)
    level = _spread(_even(kinds.SHARED_FACTOR) - 1, kinds.SHARED_SPREAD)
    slow = builder.distribution(relative=level)
    rate = settings.shared_slowdowns_per_region_day * per_step
    builder.event(rate, slow, True, _lengths(kinds.SHARED_MINUTES, step))
    low, high = np.log(kinds.SPIKE_MS)
    spike = builder.distribution(np.exp(_even((low, high))))
    builder.event(settings.latency_spikes_per_node_day * per_step, spike, False, np.ones(1))
    transfer = builder.distribution(_even(kinds.TRANSFER_MS))
    minutes = (kinds.TRANSFER_MINUTES, kinds.TRANSFER_MINUTES)
    rate = settings.leader_transfers_per_node_day * per_step
    builder.event(rate, transfer, False, _lengths(minutes, step))
    return builder


def _failovers_per_day(settings: SimulatorSettings) -> float:
    """Return the rate of incidents that are failovers; incidents keep their distance."""
    rate = settings.incidents_per_node_day
    share = len(FAILOVERS) / len(INCIDENT_TYPES)
    return share * rate / (1 + rate * INCIDENT_SPACING_MINUTES / 1440)


def _add_flapping(builder: Builder, rate: float, step: float) -> None:
    flap = builder.distribution(_even(kinds.FLAP_MS))
    least, most = kinds.FLAPS
    exits = [(0, rate)]
    for number in range(1, most + 1):
        exits = builder.stretch(exits, flap, True, _lengths(kinds.FLAP_MINUTES, step))
        last = 0.0 if number < least else 1 / (most - number + 1)
        builder.finish([(state, p * last) for state, p in exits])
        if last < 1:
            onward = [(state, p * (1 - last)) for state, p in exits]
            exits = builder.stretch(onward, 0, True, _lengths(kinds.FLAP_GAP_MINUTES, step))


def _add_creep(builder: Builder, rate: float, step: float) -> None:
    emissions: dict[int, int] = {}
    share = rate / _CREEP_DRAWS**2
    for factor in _even(kinds.CREEP_FACTOR, _CREEP_DRAWS):
        for minutes in _even(kinds.CREEP_MINUTES, _CREEP_DRAWS):
            exits = [(0, share)]
            for level in kinds.creep_levels(factor, minutes, step):
                cell = round(np.log1p(level) / _GRID)
                if cell not in emissions:
                    emissions[cell] = builder.distribution(relative=float(np.expm1(cell * _GRID)))
                visible = bool(level >= kinds.VISIBLE)
                exits = builder.stretch(exits, emissions[cell], visible, np.ones(1))
            builder.finish(exits)


def _add_oscillation(builder: Builder, rate: float, step: float) -> None:
    level = _spread(_even(kinds.OSCILLATION_FACTOR) - 1, kinds.OSCILLATION_SPREAD)
    raised = builder.distribution(relative=level)
    low, high = kinds.OSCILLATION_PERIOD_MINUTES
    for half, share in enumerate(_lengths((low / 2, high / 2), step), start=1):
        if not share:
            continue
        counts = [
            kinds.oscillation_halves(half, minutes, step)
            for minutes in _even(kinds.OSCILLATION_MINUTES, 400)
        ]
        chance = np.bincount(counts) / len(counts)
        fixed = np.eye(half)[-1]  # exactly `half` steps
        exits = [(0, rate * share)]
        for number in range(1, len(chance)):
            exits = builder.stretch(exits, raised, True, fixed)
            last = min(1.0, chance[number] / max(chance[number:].sum(), _TINY))
            builder.finish([(state, p * last) for state, p in exits])
            if number + 1 < len(chance):
                onward = [(state, p * (1 - last)) for state, p in exits]
                exits = builder.stretch(onward, 0, True, fixed)
