"""Commit latency of every node as leader of its own shards, with high-latency episodes."""

from dataclasses import dataclass

import numpy as np

from dwcp_ml.contract.arrays import Floats, Ints
from dwcp_ml.simulate.events import EventTrack, poisson_starts
from dwcp_ml.simulate.reliability import INCIDENT_TYPES, Health
from dwcp_ml.simulate.settings import SimulatorSettings
from dwcp_ml.simulate.topology import Topology, link_type_between

# round-trip time between nodes in one site, one region, two regions, or at the edge
FOLLOWER_RTT_MS = ((0.4, 0.6), (3.0, 5.0), (35.0, 45.0), (15.0, 25.0))
FSYNC_MS = (2.0, 5.0)
LOAD_FACTOR = 0.05  # round trips are this much longer at the daily peak
FSYNC_STRETCH = 0.2  # and a write to the log, where the disks are shared
PATH_NOISE = 0.03

# kind: extra latency in ms (range), duration in minutes (range), spread of the minutes within
EPISODES: dict[str, tuple[tuple[float, float], tuple[float, float], float]] = {
    "leader_change": ((150, 300), (5, 12), 0.15),
    "failover": ((250, 600), (6, 14), 0.15),
    "gc_pause": ((120, 400), (6, 18), 0.20),
    "overload": ((100, 250), (20, 50), 0.10),
}
OWN_SHARE = {"leader_change": 0.3, "gc_pause": 0.3, "overload": 0.4}


@dataclass(frozen=True)
class ConsensusState:
    """Hidden consensus state, arrays of shape (T, N).

    Attributes
    ----------
    quiet_ms : commit latency without episode and before the noise of the reading.
    extra_ms : what the episodes add.
    episode : 0 outside episodes, otherwise 1 + index into `EPISODES`.
    latency_ms : the reading, `consensus_latency_ms`.
    """

    quiet_ms: Floats
    extra_ms: Floats
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
    steps, nodes, step = settings.steps, topology.nodes, settings.minutes
    fsync = rng.uniform(*FSYNC_MS, nodes)
    quiet = quorum_ms(topology, peak, rng) + fsync * (1 + FSYNC_STRETCH * peak)
    extra = EventTrack.empty(steps, nodes)
    episode = np.zeros((steps, nodes), dtype=np.int64)
    names = list(EPISODES)

    def add(kind: str, node: int, start: int, minutes: float | None) -> None:
        (low, high), (shortest, longest), spread = EPISODES[kind]
        chosen = rng.uniform(shortest, longest) if minutes is None else minutes
        length = min(max(1, round(chosen / step)), steps - start)
        if episode[start : start + length, node].any():
            return
        profile = rng.uniform(low, high) * np.clip(1 + spread * rng.standard_normal(length), 0.5, 2)
        extra.add(start, node, profile)
        episode[start : start + length, node] = names.index(kind) + 1

    failovers = {"crash", "network_failure"} & set(INCIDENT_TYPES)
    for incident in health.incidents:
        if incident.kind in failovers:
            minutes = (incident.end - incident.start + 1) * step
            add("failover", incident.node, incident.start, minutes)
    per_step = settings.latency_episodes_per_node_day * step / 1440
    for node in range(nodes):
        for start in poisson_starts(rng, steps, per_step):
            kind = str(rng.choice(list(OWN_SHARE), p=list(OWN_SHARE.values())))
            add(kind, node, int(start), None)
    noise = settings.latency_noise * rng.standard_normal(quiet.shape)
    return ConsensusState(
        quiet_ms=quiet,
        extra_ms=extra.now,
        episode=episode,
        latency_ms=(quiet + extra.now) * np.exp(noise),
    )
