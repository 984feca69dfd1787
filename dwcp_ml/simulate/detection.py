"""The best detector of incidents that the hidden state allows.

It is a likelihood ratio (Neyman and Pearson: no detector finds more at the same rate of false
alarms). It knows the current state of the network, and the distributions of everything else.
"""

from dataclasses import dataclass

import numpy as np

from dwcp_ml.contract.arrays import Floats, Ints
from dwcp_ml.simulate import network as net
from dwcp_ml.simulate import reliability as nodes
from dwcp_ml.simulate.generation import HiddenState
from dwcp_ml.simulate.settings import SimulatorSettings

_CHUNK = 2000  # rows at a time: bounds the memory to some tens of megabytes


def incident_log_odds(
    settings: SimulatorSettings, hidden: HiddenState, step: Ints, link: Ints, readings: Floats
) -> Floats:
    """Logarithm of p(reading | incident) / p(reading | healthy, benign bursts included), (n,).

    Knows the load of the network and with it the round-trip time that a healthy link would show.
    `readings` (n, 4) are `uptime_pct`, `failure_rate`, `error_budget_burn_rate`, `rtt_ms`.
    """
    topology = hidden.topology
    healthy_rtt = (topology.propagation_ms + net.queueing_ms(topology, hidden.network.load))[
        step, link
    ]
    value = np.stack(
        [
            np.log(np.maximum(100 - readings[:, 0], 1e-9) / nodes.QUIET_UPTIME_DEFICIT),
            np.log(readings[:, 1] / nodes.QUIET_FAILURES),
            np.log(readings[:, 2] / nodes.QUIET_BURN),
            np.log(readings[:, 3] / healthy_rtt),
        ],
        axis=1,
    )
    noise = np.array([*nodes.QUIET_SPREAD, net.RTT_NOISE * settings.gauge_noise])
    incident = _log_mixture(value, _incident_centres(settings), noise)
    return incident - _log_mixture(value, _healthy_centres(settings), noise)


@dataclass(frozen=True)
class _Mixture:
    """Normals at `centres` (k, 4) with `weights` (k,); `gap` (k,) is the width between centres."""

    centres: Floats
    weights: Floats
    gap: Floats


def _incident_centres(settings: SimulatorSettings, draws: int = 240) -> _Mixture:
    """Logarithms of the factors of many incidents."""
    rng = np.random.default_rng(0)
    centres = []
    for kind in nodes.INCIDENT_TYPES.values():
        level = rng.choice(len(nodes.SEVERITY_STRENGTH), size=draws, p=nodes.SEVERITY_SHARE)
        strength = np.array(nodes.SEVERITY_STRENGTH)[level] * settings.incident_severity
        ramp = np.ones(draws)
        if kind.onset_minutes > 0:  # about one row in eight lies in the visible part of the onset
            ramp[::8] = rng.uniform(nodes.VISIBLE, 1.0, len(ramp[::8]))
        flap = np.clip(1 + kind.flapping * rng.standard_normal(draws), 0.8, 1.2)
        factors = np.log([kind.uptime, kind.failures, kind.burn, kind.rtt])
        centres.append((strength * ramp * flap)[:, None] * factors)
    count = draws * len(nodes.INCIDENT_TYPES)
    return _Mixture(np.concatenate(centres), np.full(count, 1 / count), np.full(count, 0.03))


def _healthy_centres(settings: SimulatorSettings, draws: int = 32) -> _Mixture:
    """Logarithms of the factors when healthy: mostly none, sometimes a benign burst."""
    rng = np.random.default_rng(1)
    columns = {"uptime": 0, "failures": 1, "burn": 2, "rtt": 3}
    minutes = (nodes.MIN_BURST_MINUTES + nodes.MAX_BURST_MINUTES) / 2
    burst_share = max(settings.bursts_per_link_day * minutes / 1440, 1e-12)
    centres, weights, gap = [np.zeros((1, 4))], [np.array([1 - burst_share])], [np.zeros(1)]
    for bursts in (nodes.NODE_BURSTS, nodes.LINK_BURSTS):
        for name, (share, (low, high)) in bursts.items():
            if name not in columns:
                continue
            centre = np.zeros((draws, 4))
            centre[:, columns[name]] = np.log(rng.uniform(low, high, draws))
            centres.append(centre)
            weights.append(np.full(draws, burst_share * share / draws))
            gap.append(np.full(draws, 0.03))
    return _Mixture(np.concatenate(centres), np.concatenate(weights), np.concatenate(gap))


def _log_mixture(value: Floats, mixture: _Mixture, noise: Floats) -> Floats:
    """Log density of rows (n, 4), up to a constant that both hypotheses share."""
    width = np.hypot(noise, mixture.gap[:, None])
    weight = np.log(mixture.weights) - np.log(width).sum(axis=1)
    own = np.sum((mixture.centres / width) ** 2, axis=1)
    parts = []
    for start in range(0, len(value), _CHUNK):
        part = value[start : start + _CHUNK]
        # the squared distances, multiplied out: two matrix products instead of a cube
        distance = part**2 @ (1 / width**2).T - 2 * part @ (mixture.centres / width**2).T
        exponent = weight - 0.5 * (distance + own)
        largest = exponent.max(axis=1)
        parts.append(largest + np.log(np.exp(exponent - largest[:, None]).sum(axis=1)))
    return np.concatenate(parts)
