"""Load, throughput, round-trip time, loss and windows of the links, all from one hidden state."""

from dataclasses import dataclass

import numpy as np

from dwcp_ml.contract.arrays import Floats
from dwcp_ml.simulate.events import EventTrack, poisson_starts
from dwcp_ml.simulate.reliability import Health
from dwcp_ml.simulate.settings import SimulatorSettings
from dwcp_ml.simulate.topology import Topology

SEGMENT_BYTES = 1460
PACKET_BYTES = 1500
MATHIS_CONSTANT = 1.22  # sqrt(3/2): Mathis et al. 1997, periodic loss
BUFFER_LOADS = 12.0  # queueing delay levels off where the buffer is full
LOSS_SATURATION = 0.02
MAX_LOSS = 0.3

# relative standard deviations of the readings, times `gauge_noise`
RTT_NOISE = 0.005
JITTER_NOISE = 0.15
LOSS_NOISE = 0.12
WINDOW_NOISE = 0.013


@dataclass(frozen=True)
class NetworkState:
    """Hidden state of the links, every array of shape (T, L) unless noted otherwise.

    Attributes
    ----------
    diurnal : float array of shape (T + 1, L)
        Daily pattern of ln(competing load), one step further than the data.
    cross : cross traffic, part of ln(competing load).
    congestion : EventTrack
        Congestion episodes, part of ln(competing load).
    load : ln(competing load) = diurnal + cross + congestion.
    share : our share of the capacity at each instant, 1 / (1 + load).
    rtt_ms, loss : round-trip time and loss before the noise of the readings.
    rate_mbps : throughput of the interval before the noise of the minute.
    throughput_mbps : delivered throughput, as it is read.
    """

    diurnal: Floats
    cross: Floats
    congestion: EventTrack
    load: Floats
    share: Floats
    rtt_ms: Floats
    loss: Floats
    rate_mbps: Floats
    throughput_mbps: Floats


def lag_weight(settings: SimulatorSettings) -> float:
    """Weight of the previous instant's share in an interval's throughput.

    Flows approach a changed share exponentially with time constant tau, so over an interval
    d the old share weighs (tau / d) (1 - exp(-d / tau)).
    """
    ratio = settings.adaptation_seconds / settings.cadence_seconds
    return float(ratio * -np.expm1(-1 / ratio)) if ratio > 0 else 0.0


def cross_decay(settings: SimulatorSettings) -> float:
    """Autoregressive coefficient of the cross traffic over one step."""
    return float(np.exp(-settings.minutes / settings.cross_traffic_minutes))


def cross_innovation(settings: SimulatorSettings) -> float:
    """Return the standard deviation of the cross traffic's innovation over one step."""
    return settings.cross_traffic_sd * float(np.sqrt(settings.minutes))


def fair_share(load: Floats) -> Floats:
    """Our share of a bottleneck with competing load exp(`load`) times our own: 1 / (1 + e^load)."""
    return 1.0 / (1.0 + np.exp(load))


def mathis_mbps(topology: Topology, rtt_ms: Floats, loss: Floats) -> Floats:
    """TCP's bound (Mathis et al. 1997): streams * segment / rtt * 1.22 / sqrt(loss), Mbit/s."""
    per_stream = SEGMENT_BYTES * 8e-3 / rtt_ms * MATHIS_CONSTANT / np.sqrt(loss)
    return np.asarray(topology.streams * per_stream)


def equilibrium_loss(topology: Topology, rtt_ms: Floats, rate_mbps: Floats) -> Floats:
    """Loss at which TCP settles at a rate: the bound of `mathis_mbps` solved for the loss.

    It saturates: with windows of a few segments timeouts hold the rate down, not losses
    (Padhye et al. 1998).
    """
    root = MATHIS_CONSTANT * SEGMENT_BYTES * 8e-3 * topology.streams / (rtt_ms * rate_mbps)
    return np.asarray(root**2 / (1 + root**2 / LOSS_SATURATION))


def queueing_ms(topology: Topology, load: Floats) -> Floats:
    """Queueing delay: M/M/1's u / (1 - u), which is the competing load, up to a full buffer."""
    ratio = np.exp(load)
    return np.asarray(topology.queue_unit_ms * ratio / (1 + ratio / BUFFER_LOADS))


def _diurnal(settings: SimulatorSettings, topology: Topology) -> Floats:
    seconds_of_day = settings.start.hour * 3600 + settings.start.minute * 60 + settings.start.second
    hour = (seconds_of_day + np.arange(settings.steps + 1) * settings.cadence_seconds) / 3600
    angle = 2 * np.pi * (hour[:, None] - topology.peak_hour) / 24
    return settings.diurnal_amplitude * (np.cos(angle) + 0.2 * np.cos(2 * angle))


def _cross_traffic(settings: SimulatorSettings, links: int, rng: np.random.Generator) -> Floats:
    decay, innovation = cross_decay(settings), cross_innovation(settings)
    noise = rng.standard_normal((settings.steps, links)) * innovation
    noise[0] /= np.sqrt(1 - decay**2)  # start in the stationary state
    for t in range(1, settings.steps):
        noise[t] += decay * noise[t - 1]
    return noise


def _congestion(settings: SimulatorSettings, links: int, rng: np.random.Generator) -> EventTrack:
    """Episodes: an exponential onset of minutes, a plateau, an exponential decay."""
    track = EventTrack.empty(settings.steps, links)
    step = settings.minutes
    for link in range(links):
        rate = settings.congestion_per_link_day * step / 1440
        for start in poisson_starts(rng, settings.steps, rate):
            height = rng.uniform(0.8, 1.8)
            onset, plateau = rng.uniform(4, 10), rng.uniform(10, 40)
            decay = rng.uniform(15, 40)
            minutes = np.arange(1, round((plateau + 5 * decay) / step) + 1) * step
            shape = -np.expm1(-minutes / onset) * np.exp(-np.maximum(0, minutes - plateau) / decay)
            track.add(start, link, height * shape)
    return track


def simulate_network(
    settings: SimulatorSettings, topology: Topology, health: Health, rng: np.random.Generator
) -> NetworkState:
    """Simulate all links; health adds to the round-trip time and to the path's loss."""
    diurnal = _diurnal(settings, topology)
    cross = _cross_traffic(settings, topology.links, rng)
    congestion = _congestion(settings, topology.links, rng)
    load = diurnal[:-1] + cross + congestion.now
    rtt = (topology.propagation_ms + queueing_ms(topology, load)) * np.exp(health.ln_rtt.now)
    bound = mathis_mbps(topology, rtt, topology.medium_loss + health.path_loss.now)
    share = np.minimum(fair_share(load), bound / topology.capacity_mbps)
    weight = lag_weight(settings)
    before = np.vstack([share[:1], share[:-1]])
    rate = topology.capacity_mbps * (weight * before + (1 - weight) * share)
    noise = settings.throughput_noise * rng.standard_normal(rate.shape)
    loss = equilibrium_loss(topology, rtt, topology.capacity_mbps * share)
    return NetworkState(
        diurnal=diurnal,
        cross=cross,
        congestion=congestion,
        load=load,
        share=share,
        rtt_ms=rtt,
        loss=np.minimum(MAX_LOSS, loss + health.probe_loss),
        rate_mbps=rate,
        throughput_mbps=rate * np.exp(noise),
    )


def link_readings(
    settings: SimulatorSettings,
    topology: Topology,
    health: Health,
    state: NetworkState,
    rng: np.random.Generator,
) -> dict[str, Floats]:
    """Return the readings of the links' gauges and counters, each of shape (T, L).

    Throughput and byte counters cover the interval before the timestamp; round-trip time,
    jitter, window and queue are read at the timestamp.
    """
    noise = settings.gauge_noise * rng.standard_normal((5, *state.share.shape))
    rtt = state.rtt_ms * np.exp(RTT_NOISE * noise[0])
    queue = queueing_ms(topology, state.load)
    jitter = (0.02 * topology.propagation_ms + 0.25 * queue) * np.exp(JITTER_NOISE * noise[1])
    loss = np.minimum(MAX_LOSS, state.loss * np.exp(LOSS_NOISE * noise[2]))
    rate = topology.capacity_mbps * state.share
    window = rate * 1e6 / 8 * state.rtt_ms * 1e-3 / topology.streams
    sent = state.throughput_mbps * 1e6 / 8 * settings.cadence_seconds
    packets = sent / PACKET_BYTES
    return {
        "rtt_ms": rtt,
        "jitter_ms": jitter,
        "throughput_mbps": state.throughput_mbps,
        "bytes_tx": np.rint(sent),
        "bytes_rx": np.rint(sent * 0.06 * np.exp(0.1 * noise[4])),
        "packet_loss": loss,
        "retransmits": np.rint(packets * loss * np.exp(health.ln_retransmits)),
        "congestion_window": np.rint(window * np.exp(WINDOW_NOISE * noise[3])),
        "queue_depth": np.rint(queue * 1e-3 * topology.capacity_mbps * 1e6 / 8 / PACKET_BYTES),
    }
