"""Generate telemetry, incidents and hidden state from the settings."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd

from dwcp_ml.contract.arrays import Floats, Ints, Mask
from dwcp_ml.simulate.compression import (
    CompressionState,
    compression_readings,
    simulate_compression,
)
from dwcp_ml.simulate.consensus import ConsensusState, simulate_consensus
from dwcp_ml.simulate.events import poisson_starts
from dwcp_ml.simulate.network import NetworkState, link_readings, simulate_network
from dwcp_ml.simulate.reliability import Health, SimulatedIncident, node_counters, simulate_health
from dwcp_ml.simulate.settings import SimulatorSettings
from dwcp_ml.simulate.topology import LINK_TYPES, REGIONS, Topology, build_topology

MODES = ("standard", "optimized", "resilient")
TRANSPORTS = ("tcp", "quic")
# of the columns, in digits after the point; finer than any of the noises
DECIMALS = {
    "rtt_ms": 4,
    "jitter_ms": 4,
    "throughput_mbps": 4,
    "packet_loss": 8,
    "hde_compression_ratio": 5,
    "hde_delta_hit_rate": 5,
    "amst_transfer_rate": 4,
    "error_budget_burn_rate": 5,
    "uptime_pct": 5,
    "failure_rate": 5,
    "consensus_latency_ms": 4,
}


@dataclass(frozen=True)
class HiddenState:
    """State that no model sees, arrays of shape (T, L) or (T, N): steps, links, nodes."""

    topology: Topology
    network: NetworkState
    compression: CompressionState
    health: Health
    consensus: ConsensusState


@dataclass(frozen=True)
class SimulatedTelemetry:
    """Simulated telemetry.

    `frame` has the columns of the data contract, ordered by timestamp, node and peer; `step` and
    `link` are the indices of each of its rows in the arrays of `hidden`.
    """

    settings: SimulatorSettings
    frame: pd.DataFrame
    incidents: list[SimulatedIncident]
    hidden: HiddenState
    step: Ints
    link: Ints


def node_names(count: int) -> list[str]:
    """Names of the nodes, in the order of the node axis."""
    return [f"node-{index + 1:02d}" for index in range(count)]


def incident_records(telemetry: SimulatedTelemetry) -> list[dict[str, Any]]:
    """Return the incidents as the data contract lists them."""
    settings = telemetry.settings
    names = node_names(settings.nodes)
    last_step = settings.steps - 1

    def moment(step: int) -> str:
        seconds = int(step) * settings.cadence_seconds
        return (settings.start + timedelta(seconds=seconds)).isoformat(timespec="seconds")

    return [
        {
            "timestamp": moment(incident.start),
            "node_id": names[incident.node],
            "incident_type": incident.kind,
            "severity": incident.severity,
            "resolved": incident.end < last_step,
            "start": moment(incident.start),
            "end": moment(incident.end),
        }
        for incident in telemetry.incidents
    ]


def generate(settings: SimulatorSettings) -> SimulatedTelemetry:
    """Simulate telemetry in memory.

    Every subject has its own random stream, so a setting of one subject does not change the
    random numbers of the others.
    """
    place, health_rng, network_rng, gauges, payloads, consensus_rng, gaps = (
        np.random.default_rng(seed) for seed in np.random.SeedSequence(settings.seed).spawn(7)
    )
    topology = build_topology(settings, place)
    health = simulate_health(settings, topology, health_rng)
    network = simulate_network(settings, topology, health, network_rng)
    compression = simulate_compression(settings, topology, network.throughput_mbps, payloads)
    consensus = simulate_consensus(
        settings, topology, health, _node_peak(topology, network), consensus_rng
    )
    readings = link_readings(settings, topology, health, network, gauges)
    uptime, failures, burn = node_counters(health, health_rng)
    readings["uptime_pct"] = uptime[:, topology.node]
    readings["failure_rate"] = failures[:, topology.node]
    readings["error_budget_burn_rate"] = burn[:, topology.node]
    readings["consensus_latency_ms"] = consensus.latency_ms[:, topology.node]
    readings["is_high_latency"] = (consensus.episode[:, topology.node] > 0).astype(float)
    readings |= compression_readings(settings, compression, payloads)

    collected = _collected(settings, topology, gaps)[:, topology.node]
    step, link = np.divmod(np.flatnonzero(collected.ravel()), topology.links)
    return SimulatedTelemetry(
        settings=settings,
        frame=_frame(settings, topology, readings, step, link, place),
        incidents=health.incidents,
        hidden=HiddenState(topology, network, compression, health, consensus),
        step=step,
        link=link,
    )


def _node_peak(topology: Topology, network: NetworkState) -> Floats:
    """Daily load of each node between 0 and 1, shape (T, N): that of its first link."""
    first = np.array([int(np.argmax(topology.node == node)) for node in range(topology.nodes)])
    diurnal = network.diurnal[:-1, first]
    low, high = network.diurnal.min(), network.diurnal.max()
    return (diurnal - low) / (high - low) if high > low else np.zeros_like(diurnal)


def _collected(settings: SimulatorSettings, topology: Topology, rng: np.random.Generator) -> Mask:
    """Whether the collector of a node wrote its rows, shape (T, N)."""
    collected = np.ones((settings.steps, topology.nodes), dtype=np.bool_)
    for node in range(topology.nodes):
        rate = settings.gaps_per_node_day * settings.minutes / 1440
        for start in poisson_starts(rng, settings.steps, rate):
            collected[start : start + 1 + int(rng.integers(1, 6)), node] = False
    return collected


def _frame(
    settings: SimulatorSettings,
    topology: Topology,
    readings: dict[str, Floats],
    step: Ints,
    link: Ints,
    rng: np.random.Generator,
) -> pd.DataFrame:
    names = np.array(node_names(topology.nodes))
    node = topology.node
    region = np.array(REGIONS)[topology.node_region[node]]
    site = topology.node_site[node]
    tier = np.where(topology.link_type == 0, 1, np.where(topology.link_type == 3, 3, 2))
    modes = np.array(MODES)[np.where(topology.link_type == 3, 2, rng.integers(0, 2, len(node)))]
    transports = np.array(TRANSPORTS)[rng.integers(0, len(TRANSPORTS), len(node))]
    start = np.datetime64(settings.start.replace(tzinfo=None), "s")
    columns: dict[str, object] = {
        "timestamp": start + step * np.timedelta64(settings.cadence_seconds, "s"),
        "region": region[link],
        "az": np.char.add("az", (site % 3 + 1).astype(str))[link],
        "datacenter_id": np.char.add("dc-", (site + 1).astype(str))[link],
        "link_type": np.array(LINK_TYPES)[topology.link_type][link],
        "node_id": names[node][link],
        "peer_id": names[topology.peer][link],
        "network_tier": np.char.add("tier", tier.astype(str))[link],
        "dwcp_mode": modes[link],
        "transport_type": transports[link],
        "amst_streams": topology.streams[link],
    }
    integers = {"bytes_tx", "bytes_rx", "retransmits", "congestion_window", "queue_depth"}
    for name, values in readings.items():
        column = values[step, link]
        if name in integers or name == "is_high_latency":
            columns[name] = column.astype(np.int64)
        else:
            columns[name] = np.round(column, DECIMALS.get(name, 6))
    return pd.DataFrame(columns)
