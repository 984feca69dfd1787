"""The best detection of `published` high-latency episodes if nothing but the window is known.

    python -m benchmarks.bench_window --seeds 1 7 42 123 2025

The ceiling in `ceilings.json` knows the quiet latency of the node. A model sees 20 readings: it
has to infer the quiet latency from them, and can't tell a slow node from a slowdown that fills the
window. This sums the same model of all events over the quiet latencies that occur in the training
time and over changes of the route within the window. No trained model and no baseline is run. About
two minutes a seed.
"""

from __future__ import annotations

import argparse

import numpy as np

from dwcp_ml.contract.arrays import Floats
from dwcp_ml.simulate import SimulatorSettings, generate
from dwcp_ml.simulate import episodes as kinds
from dwcp_ml.simulate.episode_detection import Builder, LatencyModel, latency_model

WINDOW = 20
TRAINING, TEST = 0.7, 0.85  # shares of the time: end of the training split, start of the test split
CELL = 0.03  # of ln quiet
SIZES = 8  # of a route change


def with_route_changes(builder: Builder, settings: SimulatorSettings, noise: float) -> LatencyModel:
    """Return the model in which the quiet latency may also move up or down once."""
    per_step = settings.route_changes_per_node_day * settings.minutes / 1440 / SIZES
    low, high = kinds.ROUTE_HOURS
    stays = 1 - settings.minutes / (60 * (low + high) / 2)
    low, high = kinds.ROUTE_FACTOR
    factor = low + (high - low) * (np.arange(SIZES) + 0.5) / SIZES
    for moved in (*factor, *(1 / factor)):
        state = builder.state(builder.distribution(relative=float(moved) - 1), labelled=False)
        builder.edges += [(state, 0, per_step), (state, state, stays), (0, state, 1 - stays)]
    return builder.model(noise)


def log_odds(model: LatencyModel, levels: Floats, weights: Floats, reading: Floats) -> Floats:
    """Return the log odds of a labelled step, (n,), from ln latency (n, WINDOW)."""
    total = np.full((2, len(reading)), -np.inf)
    for level, weight in zip(levels, weights, strict=True):
        for start in range(0, len(reading), 64):
            part = slice(start, start + 64)
            joint = model.log_joint(np.full_like(reading[part], level), reading[part])
            total[:, part] = np.logaddexp(total[:, part], joint + np.log(weight))
    return np.asarray(total[1] - total[0])


def bound(seed: int, every: int) -> str:
    """Return a line: the accuracy on every N-th window of the test split, and the errors."""
    settings = SimulatorSettings(seed=seed, latency_episodes="published")
    state = generate(settings).hidden.consensus
    steps, nodes = state.latency_ms.shape
    quiet = np.log(state.quiet_ms)
    path_noise = np.median(np.std(np.diff(quiet, axis=0), axis=0)) / np.sqrt(2)
    cells, counts = np.unique(np.rint(quiet[: round(TRAINING * steps)] / CELL), return_counts=True)
    noise = float(np.hypot(settings.latency_noise, path_noise))
    model = with_route_changes(latency_model(settings), settings, noise)

    index = np.arange((round(TEST * steps) + WINDOW - 1) * nodes, steps * nodes, every)
    step = index[:, None] // nodes + np.arange(1 - WINDOW, 1)
    node = index[:, None] % nodes
    odds = log_odds(
        model, cells * CELL, counts / counts.sum(), np.log(state.latency_ms[step, node])
    )
    number = state.episode[step, node].max(axis=1)
    wrong = (odds > 0) != (number > 0)
    sure = 1 / (1 + np.exp(-np.minimum(np.abs(odds), 500)))
    by_kind = ", ".join(
        f"{name} {wrong[number == k].sum()}/{(number == k).sum()}"
        for k, name in enumerate(("none", *kinds.EPISODES))
    )
    return f"{seed}: accuracy {1 - wrong.mean():.4f}, expected {sure.mean():.4f}; wrong: {by_kind}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 7, 42, 123, 2025])
    parser.add_argument("--every", type=int, default=5, help="every N-th window is evaluated")
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        print(bound(seed, arguments.every), flush=True)


if __name__ == "__main__":
    main()
