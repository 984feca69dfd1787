"""Commit latency of every node as leader of its own shards, with episodes and benign events."""

from dataclasses import dataclass

import numpy as np

from dwcp_ml.contract.arrays import Floats, Ints
from dwcp_ml.simulate import episodes as kinds
from dwcp_ml.simulate.episodes import EpisodeTrack
from dwcp_ml.simulate.events import EventTrack, poisson_starts
from dwcp_ml.simulate.reliability import Health
from dwcp_ml.simulate.settings import SimulatorSettings
from dwcp_ml.simulate.topology import Topology, link_type_between

# round-trip time between nodes in one site, one region, two regions, or at the edge
FOLLOWER_RTT_MS = ((0.4, 0.6), (3.0, 5.0), (35.0, 45.0), (15.0, 25.0))
FSYNC_MS = (2.0, 5.0)
LOAD_FACTOR = 0.05  # round trips are this much longer at the daily peak
FSYNC_STRETCH = 0.2  # and a write to the log, where the disks are shared
PATH_NOISE = 0.03

FAILOVERS = ("crash", "network_failure")
"""Incidents that move the leaders of a node's shards elsewhere."""


@dataclass(frozen=True)
class ConsensusState:
    """Hidden consensus state, arrays of shape (T, N).

    Attributes
    ----------
    quiet_ms : commit latency without episodes and benign events, before the noise of the reading;
        a changed route is part of it.
    extra_ms : what the episodes add.
    benign_ms : what single spikes and planned leader transfers add.
    episode : 0 outside labelled episodes, otherwise 1 + index into `EPISODES`.
    latency_ms : the reading, `consensus_latency_ms`.
    """

    quiet_ms: Floats
    extra_ms: Floats
    benign_ms: Floats
    episode: Ints
    latency_ms: Floats


def quorum_ms(topology: Topology, peak: Floats, rng: np.random.Generator) -> Floats:
    """Time until a majority has responded: the (majority - 1)-th smallest follower round trip.

    `peak` is the daily load of each node, 0 at the trough and 1 at the peak; both have shape (T,
    N).
    """
    nodes = topology.nodes
    majority = nodes // 2 + 1
    result = np.empty(peak.shape)
    ranges = np.array(FOLLOWER_RTT_MS)
    base = np.zeros((nodes, nodes))
    for i in range(nodes):
        for j in range(i):
            low, high = ranges[link_type_between(topology.node_region, topology.node_site, i, j)]
            base[i, j] = base[j, i] = rng.uniform(low, high)
    for i in range(nodes):
        others = [j for j in range(nodes) if j != i]
        noise = PATH_NOISE * rng.standard_normal((len(peak), nodes - 1))
        slowdown = 1 + LOAD_FACTOR * (peak[:, [i]] + peak[:, others]) / 2
        followers = base[i, others] * slowdown * np.exp(noise)
        result[:, i] = np.partition(followers, majority - 2, axis=1)[:, majority - 2]
    return result


def simulate_consensus(
    settings: SimulatorSettings,
    topology: Topology,
    health: Health,
    peak: Floats,
    rng: np.random.Generator,
) -> ConsensusState:
    """Commit latency = quorum + fsync + queueing; a crash or network failure is a failover."""
    published = settings.latency_episodes == "published"
    # the profile `steps` draws all from one stream, and nothing for its rates of 0
    episode_rng, route_rng, benign_rng, noise_rng = rng.spawn(4) if published else 4 * [rng]
    fsync = rng.uniform(*FSYNC_MS, topology.nodes)
    quorum = quorum_ms(topology, peak, rng) * _route_factor(settings, route_rng)
    quiet = quorum + fsync * (1 + FSYNC_STRETCH * peak)
    track = EpisodeTrack.empty(quiet)
    _failovers(health, track, episode_rng)
    _shared_slowdowns(settings, topology, track, episode_rng)
    own_episodes = _own_episodes if published else _own_steps
    own_episodes(settings, track, episode_rng)
    benign = _benign_ms(settings, benign_rng)
    noise = settings.latency_noise * noise_rng.standard_normal(quiet.shape)
    return ConsensusState(
        quiet_ms=quiet,
        extra_ms=track.extra_ms,
        benign_ms=benign,
        episode=track.number,
        latency_ms=(quiet + track.extra_ms + benign) * np.exp(noise),
    )


def _failovers(health: Health, track: EpisodeTrack, rng: np.random.Generator) -> None:
    """Move the leaders of a node's shards for as long as the node is down."""
    for incident in health.incidents:
        if incident.kind in FAILOVERS:
            length = incident.end - incident.start + 1
            profile = kinds.plateau_profile("failover", length, rng)
            track.add("failover", incident.node, incident.start, profile)


def _shared_slowdowns(
    settings: SimulatorSettings, topology: Topology, track: EpisodeTrack, rng: np.random.Generator
) -> None:
    """Raise all nodes of a region a little: storage or a network that they share is slow."""
    step = settings.minutes
    per_step = settings.shared_slowdowns_per_region_day * step / 1440
    for region in np.unique(topology.node_region):
        for first in poisson_starts(rng, settings.steps, per_step):
            length = kinds.length_of(rng.uniform(*kinds.SHARED_MINUTES), step)
            for node in np.flatnonzero(topology.node_region == region):
                start = int(first) + round(rng.uniform(*kinds.SHARED_DELAY_MINUTES) / step)
                if start < settings.steps:
                    profile = kinds.shared_profile(length, rng)
                    track.add("shared_slowdown", int(node), start, profile)


def _own_steps(settings: SimulatorSettings, track: EpisodeTrack, rng: np.random.Generator) -> None:
    """Profile `steps`: add the episodes that befall one node without an incident.

    An episode that overlaps another one draws no profile.
    """
    per_step = settings.latency_episodes_per_node_day * settings.minutes / 1440
    names, shares = list(kinds.STEPS_SHARE), list(kinds.STEPS_SHARE.values())
    for node in range(settings.nodes):
        for start in poisson_starts(rng, settings.steps, per_step):
            kind = str(rng.choice(names, p=shares))
            length = kinds.plateau_length(kind, settings.minutes, rng)
            length = min(length, settings.steps - int(start))
            if track.is_free(node, int(start), length):
                track.add(kind, node, int(start), kinds.plateau_profile(kind, length, rng))


def _own_episodes(
    settings: SimulatorSettings, track: EpisodeTrack, rng: np.random.Generator
) -> None:
    """Profile `published`: add the episodes that befall one node without an incident."""
    per_step = settings.latency_episodes_per_node_day * settings.minutes / 1440
    for node in range(settings.nodes):
        for start in poisson_starts(rng, settings.steps, per_step):
            kind = str(rng.choice(kinds.OWN_KINDS))
            track.add(kind, node, int(start), kinds.own_profile(kind, settings.minutes, rng))


def _route_factor(settings: SimulatorSettings, rng: np.random.Generator) -> Floats:
    """Return the factor of changed routes on the quorum's round trip, shape (T, N)."""
    ln_factor = EventTrack.empty(settings.steps, settings.nodes)
    per_step = settings.route_changes_per_node_day * settings.minutes / 1440
    for node in range(settings.nodes):
        for start in poisson_starts(rng, settings.steps, per_step):
            length = kinds.length_of(60 * rng.uniform(*kinds.ROUTE_HOURS), settings.minutes)
            ln_size = np.log(rng.uniform(*kinds.ROUTE_FACTOR))
            ln_factor.add(int(start), node, np.full(length, ln_size))
    return np.exp(ln_factor.now)


def _benign_ms(settings: SimulatorSettings, rng: np.random.Generator) -> Floats:
    """Return what single spikes and planned leader transfers add, ms, shape (T, N)."""
    added = EventTrack.empty(settings.steps, settings.nodes)
    step = settings.minutes
    spikes = settings.latency_spikes_per_node_day * step / 1440
    transfers = settings.leader_transfers_per_node_day * step / 1440
    transfer_steps = kinds.length_of(kinds.TRANSFER_MINUTES, step)
    low, high = np.log(kinds.SPIKE_MS)
    for node in range(settings.nodes):
        for start in poisson_starts(rng, settings.steps, spikes):
            added.add(int(start), node, np.exp(rng.uniform(low, high, 1)))
        for start in poisson_starts(rng, settings.steps, transfers):
            size = rng.uniform(*kinds.TRANSFER_MS)
            added.add(int(start), node, np.full(transfer_steps, size))
    return added.now
