"""The best predictions that the hidden state at t allows: next throughput, compression level.

`detection.py` and `episode_detection.py` have those of the two detectors. An oracle knows the
simulator's equations and the hidden state up to and including step t; of later steps it knows the
equations only. What a model can learn from telemetry up to t is a function of less information, so
no model is better in expectation.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from dwcp_ml.contract.arrays import Floats, Ints
from dwcp_ml.simulate import network as net
from dwcp_ml.simulate.compression import (
    COUNTER_LEVEL,
    LEVELS,
    RATIO_SPREAD,
    STRIPE_SPREAD,
    CompressionState,
    load_codec,
    pipeline_mbps,
)
from dwcp_ml.simulate.generation import HiddenState
from dwcp_ml.simulate.settings import SimulatorSettings

DRAWS = 256
_CHUNK = 2000  # rows at a time: bounds the memory to a few tens of megabytes


def _normal_draws(count: int, columns: int) -> Floats:
    """Return standard normal quantiles, evenly spread and shuffled by row: (columns, count)."""
    normal = NormalDist()
    even = np.array([normal.inv_cdf((i + 0.5) / count) for i in range(count)])
    rng = np.random.default_rng(0)
    return np.stack([rng.permutation(even) for _ in range(columns)])


@dataclass(frozen=True)
class Forecast:
    """The distribution of the next throughput, given the state at t, arrays of shape (n,).

    `mean_mbps` is best for correlation; `mape_optimal_mbps`, the median of the distribution
    weighted with 1 / throughput, for MAPE. `class_probability` (n, 3): of good, degraded and bad.
    """

    mean_mbps: Floats
    mape_optimal_mbps: Floats
    class_probability: Floats


def forecast_throughput(
    settings: SimulatorSettings,
    hidden: HiddenState,
    step: Ints,
    link: Ints,
    class_limits_mbps: Floats,
) -> Forecast:
    """Forecast the throughput at `step` + 1 from the hidden state at `step`, shape (n,).

    The cross traffic's innovation and the noise of the minute are random. Ongoing episodes,
    incidents and bursts continue deterministically; new ones within the minute (probability about
    0.5 %) are left out, because they hardly change a median. `class_limits_mbps` (n, 2) are the
    throughputs from which the class is good, and from which it is degraded.
    """
    draws = _normal_draws(DRAWS, 2)
    parts = [
        _forecast(settings, hidden, step[i : i + _CHUNK], link[i : i + _CHUNK], draws)
        for i in range(0, len(step), _CHUNK)
    ]
    means, medians, classes = [], [], []
    for number, part in enumerate(parts):
        throughput = np.sort(part, axis=1)
        weight = np.cumsum(1 / throughput, axis=1)
        half = np.argmax(weight >= weight[:, -1:] / 2, axis=1)
        means.append(throughput.mean(axis=1))
        medians.append(np.take_along_axis(throughput, half[:, None], axis=1)[:, 0])
        limits = class_limits_mbps[number * _CHUNK : number * _CHUNK + len(throughput)]
        good = (throughput >= limits[:, :1]).mean(axis=1)
        bad = (throughput < limits[:, 1:]).mean(axis=1)
        classes.append(np.stack([good, 1 - good - bad, bad], axis=1))
    return Forecast(np.concatenate(means), np.concatenate(medians), np.concatenate(classes))


def _forecast(
    settings: SimulatorSettings, hidden: HiddenState, step: Ints, link: Ints, draws: Floats
) -> Floats:
    """Draws of the next throughput, Mbit/s, shape (n, draws)."""
    state, health = hidden.network, hidden.health
    topology = hidden.topology.of_links(link)
    known = (
        state.diurnal[step + 1, link]
        + net.cross_decay(settings) * state.cross[step, link]
        + state.congestion.next_known[step, link]
    )
    # shape (draws, n): the topology's arrays are one entry a row
    load = known + net.cross_innovation(settings) * draws[0][:, None]
    rtt = topology.propagation_ms + net.queueing_ms(topology, load)
    rtt = rtt * np.exp(health.ln_rtt.next_known[step, link])
    path_loss = topology.medium_loss + health.path_loss.next_known[step, link]
    bound = net.mathis_mbps(topology, rtt, path_loss)
    share = np.minimum(net.fair_share(load), bound / topology.capacity_mbps)
    weight = net.lag_weight(settings)
    rate = topology.capacity_mbps * (weight * state.share[step, link] + (1 - weight) * share)
    noise = settings.throughput_noise * draws[1][:, None]
    return np.asarray((rate * np.exp(noise)).T)


def choose_level(
    settings: SimulatorSettings,
    hidden: HiddenState,
    step: Ints,
    link: Ints,
    counters: tuple[Floats, Floats],
) -> Ints:
    """Choose the level that is most probably the best, (n,), from the counters of a row.

    Knows the payload class, the link's constants and the noise of the counters (compression ratio
    and transfer rate, (n,)); does not know the compressibility of the hour nor the rate of the
    line, except through the counters.
    """
    draws = _normal_draws(64, 2)
    chosen = [
        _level_votes(
            settings,
            hidden,
            (step[i : i + _CHUNK], link[i : i + _CHUNK]),
            (counters[0][i : i + _CHUNK], counters[1][i : i + _CHUNK]),
            draws,
        ).argmax(axis=1)
        for i in range(0, len(step), _CHUNK)
    ]
    return np.concatenate(chosen).astype(np.int64)


def _level_votes(
    settings: SimulatorSettings,
    hidden: HiddenState,
    at: tuple[Ints, Ints],
    counters: tuple[Floats, Floats],
    draws: Floats,
) -> Ints:
    """How many draws of the posterior have each level as the best one, shape (n, 10)."""
    state: CompressionState = hidden.compression
    step, link = at
    payload = state.payload[at]
    excess = np.maximum(load_codec().ratio[payload, COUNTER_LEVEL] - 1, 1e-9)
    compressibility = _posterior(
        (np.ones(len(step)), RATIO_SPREAD),
        ((counters[0] - 1) / excess, settings.codec_noise * counters[0] / excess),
        draws[0],
    )
    streams = hidden.topology.streams[link]
    stripe = hidden.network.throughput_mbps[at] * streams / (streams + 1)
    line = np.exp(
        _posterior(
            (np.log(stripe), STRIPE_SPREAD), (np.log(counters[1]), settings.codec_noise), draws[1]
        )
    )
    shape = line.shape
    throughput = pipeline_mbps(
        np.broadcast_to(payload[:, None], shape),
        np.maximum(compressibility, 1e-3),
        line,
        np.broadcast_to(state.cpu_mbps[at][:, None], shape),
    )
    best = throughput.argmax(axis=-1)
    return np.stack([(best == level).sum(axis=1) for level in range(LEVELS)], axis=1)


def _posterior(
    prior: tuple[Floats, float], reading: tuple[Floats, Floats | float], draws: Floats
) -> Floats:
    """Draws of a normal quantity given a normal prior and a reading, shape (n, draws)."""
    (mean, spread), (value, noise) = prior, reading
    precision = 1 / spread**2 + 1 / np.asarray(noise) ** 2
    centre = (mean / spread**2 + value / np.asarray(noise) ** 2) / precision
    width = np.broadcast_to(1 / np.sqrt(precision), centre.shape)
    return np.asarray(centre[:, None] + width[:, None] * draws)
