"""Node health: incidents, benign bursts, and their effects on the node's counters and links."""

from dataclasses import dataclass

import numpy as np

from dwcp_ml.contract.arrays import Floats, Ints
from dwcp_ml.simulate.events import EventTrack, poisson_starts
from dwcp_ml.simulate.settings import SimulatorSettings
from dwcp_ml.simulate.topology import Topology

SEVERITIES = ("low", "medium", "high", "critical")
SEVERITY_STRENGTH = (0.85, 1.0, 1.15, 1.3)
SEVERITY_SHARE = (0.3, 0.35, 0.25, 0.1)
VISIBLE = 0.6  # share of its full strength from which an incident counts as started
MIN_INCIDENT_STEPS = 2
INCIDENT_SPACING_MINUTES = 45.0  # from one start to the next, at least


@dataclass(frozen=True)
class IncidentType:
    """The symptoms of one type of incident at strength 1.

    `uptime`, `failures`, `burn`, `rtt` multiply the normal value; `probe_loss` and `path_loss`
    are added loss fractions, the second also slows the bulk streams.
    """

    uptime: float
    failures: float
    burn: float
    rtt: float
    probe_loss: float
    path_loss: float
    onset_minutes: float
    minutes: tuple[float, float]
    flapping: float


INCIDENT_TYPES: dict[str, IncidentType] = {
    "crash": IncidentType(60, 30, 14, 1.3, 0.010, 0.0, 0.0, (6, 12), 0.06),
    "memory_leak": IncidentType(25, 20, 12, 1.6, 0.006, 0.0, 4.0, (12, 25), 0.03),
    "disk_full": IncidentType(30, 22, 12, 1.35, 0.004, 0.0, 2.0, (10, 20), 0.03),
    "network_failure": IncidentType(40, 12, 12, 1.7, 0.010, 0.001, 0.0, (6, 12), 0.10),
}

MIN_BURST_MINUTES, MAX_BURST_MINUTES = 3.0, 10.0
# benign bursts: share of the bursts of a link or a node, and range of the factor on the normal
# value (`path_loss`: of the added loss)
LINK_BURSTS = {
    "rtt": (0.4, (1.8, 3.5)),  # a longer route
    "retransmits": (0.4, (5.0, 20.0)),  # reordered packets, taken for lost
    "path_loss": (0.2, (0.0005, 0.002)),  # a lossy medium
}
NODE_BURSTS = {
    "uptime": (1 / 3, (40.0, 160.0)),  # a planned drain
    "failures": (1 / 3, (15.0, 45.0)),  # a flapping health check
    "burn": (1 / 3, (10.0, 30.0)),  # a risky release
}

# readings of a healthy node
QUIET_UPTIME_DEFICIT = 0.04  # percent
QUIET_FAILURES = 0.25  # an hour
QUIET_BURN = 0.5
QUIET_SPREAD = (0.35, 0.30, 0.25)  # standard deviation of the logarithms of the three


@dataclass(frozen=True)
class SimulatedIncident:
    """One incident: symptoms show in steps `start` to `end`, both included."""

    node: int
    kind: str
    severity: str
    start: int
    end: int


@dataclass(frozen=True)
class Health:
    """Hidden health of the nodes and its effects.

    Attributes
    ----------
    incidents : list of SimulatedIncident
    active : int array of shape (T, N)
        0 when healthy, otherwise 1 + index into `INCIDENT_TYPES`.
    ln_uptime, ln_failures, ln_burn : float arrays of shape (T, N)
        Logarithm of the factor on the normal value: incidents and benign bursts together.
    ln_rtt, path_loss : EventTrack of shape (T, L)
    probe_loss, ln_retransmits : float arrays of shape (T, L)
    """

    incidents: list[SimulatedIncident]
    active: Ints
    ln_uptime: Floats
    ln_failures: Floats
    ln_burn: Floats
    ln_rtt: EventTrack
    path_loss: EventTrack
    probe_loss: Floats
    ln_retransmits: Floats


def _strength_profile(
    kind: IncidentType, strength: float, minutes: float, step: float, rng: np.random.Generator
) -> Floats:
    """Strength at each step of an incident: onset ramp, plateau with flapping, sudden end."""
    length = max(MIN_INCIDENT_STEPS, round(minutes / step))
    ramp = np.ones(length)
    if kind.onset_minutes > 0:
        ramp = np.minimum(1.0, (np.arange(length) + 1.0) * step / kind.onset_minutes)
    return strength * ramp * np.clip(1 + kind.flapping * rng.standard_normal(length), 0.8, 1.2)


def simulate_health(
    settings: SimulatorSettings, topology: Topology, rng: np.random.Generator
) -> Health:
    """Draw incidents for every node and benign bursts for every node and link."""
    steps, nodes, step = settings.steps, topology.nodes, settings.minutes
    names = list(INCIDENT_TYPES)
    uptime, failures, burn, probe, ln_rtt, path = (EventTrack.empty(steps, nodes) for _ in range(6))
    incidents: list[SimulatedIncident] = []
    active = np.zeros((steps, nodes), dtype=np.int64)
    per_step = settings.incidents_per_node_day * step / 1440
    for node in range(nodes):
        for start in poisson_starts(
            rng, steps, per_step, spacing=round(INCIDENT_SPACING_MINUTES / step)
        ):
            number = int(rng.integers(len(names)))
            kind = INCIDENT_TYPES[names[number]]
            level = int(rng.choice(len(SEVERITIES), p=SEVERITY_SHARE))
            strength = SEVERITY_STRENGTH[level] * settings.incident_severity
            profile = _strength_profile(kind, strength, rng.uniform(*kind.minutes), step, rng)
            uptime.add(start, node, profile * np.log(kind.uptime))
            failures.add(start, node, profile * np.log(kind.failures))
            burn.add(start, node, profile * np.log(kind.burn))
            ln_rtt.add(start, node, profile * np.log(kind.rtt))
            probe.add(start, node, profile * kind.probe_loss)
            path.add(start, node, profile * kind.path_loss)
            onset = int(np.argmax(profile >= VISIBLE * strength))
            first, last = int(start) + onset, min(int(start) + len(profile), steps) - 1
            if last < first:
                continue
            incidents.append(SimulatedIncident(node, names[number], SEVERITIES[level], first, last))
            active[first : last + 1, node] = number + 1
    incidents.sort(key=lambda incident: (incident.start, incident.node))
    links = topology.node
    link_rtt, link_path, ln_retransmits = _link_bursts(settings, topology, active, rng)
    _node_bursts(settings, active, rng, {"uptime": uptime, "failures": failures, "burn": burn})
    return Health(
        incidents=incidents,
        active=active,
        ln_uptime=uptime.now,
        ln_failures=failures.now,
        ln_burn=burn.now,
        ln_rtt=ln_rtt.spread(links).plus(link_rtt),
        path_loss=path.spread(links).plus(link_path),
        probe_loss=probe.now[:, links],
        ln_retransmits=ln_retransmits.now,
    )


def _burst(settings: SimulatorSettings, rng: np.random.Generator) -> Floats:
    """Return ones for the length of a benign burst."""
    minutes = rng.uniform(MIN_BURST_MINUTES, MAX_BURST_MINUTES)
    return np.ones(max(1, round(minutes / settings.minutes)))


def _busy(active: Ints, start: int, shape: Floats) -> bool:
    """Return whether an incident of the node overlaps the burst."""
    return bool(active[start : start + len(shape)].any())


def _link_bursts(
    settings: SimulatorSettings, topology: Topology, active: Ints, rng: np.random.Generator
) -> tuple[EventTrack, EventTrack, EventTrack]:
    """Benign disturbances of one link: a longer route, reordered packets, a lossy medium."""
    tracks = {kind: EventTrack.empty(settings.steps, topology.links) for kind in LINK_BURSTS}
    shares = [share for share, _ in LINK_BURSTS.values()]
    per_step = settings.bursts_per_link_day * settings.minutes / 1440
    spacing = round(MAX_BURST_MINUTES / settings.minutes)  # bursts never add up
    for link in range(topology.links):
        for start in poisson_starts(rng, settings.steps, per_step, spacing):
            shape = _burst(settings, rng)
            kind = str(rng.choice(list(LINK_BURSTS), p=shares))
            size = rng.uniform(*LINK_BURSTS[kind][1])
            if _busy(active[:, topology.node[link]], start, shape):
                continue
            tracks[kind].add(start, link, shape * (size if kind == "path_loss" else np.log(size)))
    return tracks["rtt"], tracks["path_loss"], tracks["retransmits"]


def _node_bursts(
    settings: SimulatorSettings,
    active: Ints,
    rng: np.random.Generator,
    tracks: dict[str, EventTrack],
) -> None:
    """Benign disturbances of a node: a planned drain, a flapping health check, a risky release."""
    per_step = settings.bursts_per_link_day * settings.minutes / 1440
    spacing = round(MAX_BURST_MINUTES / settings.minutes)
    for node in range(active.shape[1]):
        for start in poisson_starts(rng, settings.steps, per_step, spacing):
            shape = _burst(settings, rng)
            kind = str(rng.choice(list(NODE_BURSTS)))
            size = rng.uniform(*NODE_BURSTS[kind][1])
            if not _busy(active[:, node], start, shape):
                tracks[kind].add(start, node, shape * np.log(size))


def node_counters(health: Health, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Return `uptime_pct`, `failure_rate`, `error_budget_burn_rate`, each of shape (T, N)."""
    noise = rng.standard_normal((3, *health.ln_uptime.shape))
    deficit = QUIET_UPTIME_DEFICIT * np.exp(health.ln_uptime + QUIET_SPREAD[0] * noise[0])
    failures = QUIET_FAILURES * np.exp(health.ln_failures + QUIET_SPREAD[1] * noise[1])
    burn = QUIET_BURN * np.exp(health.ln_burn + QUIET_SPREAD[2] * noise[2])
    return 100 - np.minimum(deficit, 100), failures, burn
