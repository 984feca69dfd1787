"""The ceiling of episode detection: it knows all kinds, is calibrated, and sees the window only."""

from dataclasses import fields, replace

import numpy as np
import pytest

from dwcp_ml.simulate import SimulatorSettings, generate
from dwcp_ml.simulate.episode_detection import episode_log_odds

pytestmark = pytest.mark.slow

WINDOW = 20
TARGET = 0.983  # that of a model is 0.98


def settings_of(**changes):
    """Return settings of a quick simulation of the profile `published`."""
    quick = {"days": 0.25, "nodes": 4, "latency_episodes": "published"}
    return SimulatorSettings(**quick | changes)


def windows(state, every, last=None):
    """Return step and node of windows of all nodes, a new one every N steps, (n, WINDOW)."""
    steps, nodes = state.latency_ms.shape
    ends = np.arange(WINDOW - 1, steps, every) if last is None else np.array([last])
    step = np.repeat(ends, nodes)[:, None] + np.arange(1 - WINDOW, 1)
    node = np.broadcast_to(np.tile(np.arange(nodes), len(ends))[:, None], step.shape)
    return step, node


def log_odds(settings, state, step, node):
    return episode_log_odds(settings, state, step, node, state.latency_ms[step, node])


def odds_of(telemetry, *factors):
    """Return the log odds of a window of node 0 that shows its quiet latency times the factors."""
    state = telemetry.hidden.consensus
    step = np.arange(1000, 1000 + WINDOW)[None]
    node = np.zeros_like(step)
    latency = state.quiet_ms[step, node] * np.array(factors)
    return episode_log_odds(telemetry.settings, state, step, node, latency)[0]


def test_quiet_is_no_episode(published):
    assert odds_of(published, *WINDOW * [1]) < -4


@pytest.mark.parametrize("position", range(1, WINDOW - 1))
def test_a_single_spike_inside_the_window_is_no_episode(published, position):
    factors = [1.0] * WINDOW
    factors[position] = 12.0
    assert odds_of(published, *factors) < 0


@pytest.mark.parametrize(
    "factors",
    [
        [*10 * [1], *10 * [12]],  # one step
        [*5 * [1], 12, 1, 1, 1, 1, 13, 11, 1, 1, 1, *5 * [1]],  # an unstable leader
        [*5 * [1], *np.linspace(1.05, 2, 15)],  # creep
        [*4 * [1], *2 * [3, 3, 3, 3, 1, 1, 1, 1]],  # oscillation
        [*12 * [1], *8 * [1.3]],  # a slowdown as small as they are
        WINDOW * [1.3],
        [*17 * [1], 12, 12, 12],
    ],
)
def test_each_kind_is_recognised(published, factors):
    factors = [*factors, *(WINDOW - len(factors)) * [1]]
    assert odds_of(published, *factors) > 0


def test_it_knows_changed_routes(published):
    state = published.hidden.consensus
    step, node = np.arange(1000, 1000 + WINDOW)[None], np.zeros((1, WINDOW), np.int64)
    route = np.where(np.arange(len(state.quiet_ms)) < 1010, 1, 1.4)[:, None]
    moved = replace(state, quiet_ms=state.quiet_ms * route)
    reading = moved.quiet_ms[step, node]
    assert episode_log_odds(published.settings, moved, step, node, reading)[0] < -4
    assert episode_log_odds(published.settings, state, step, node, reading)[0] > 0


def test_it_sees_nothing_but_the_window(published):
    state, at = published.hidden.consensus, 4000
    rng = np.random.default_rng(1)

    def poisoned(array):
        changed = array.copy()
        changed[at + 1 :] = rng.permutation(changed[at + 1 :]) * 2 + 1
        changed[: at + 1 - WINDOW] = rng.permutation(changed[: at + 1 - WINDOW]) * 2 + 1
        return changed

    other = replace(state, **{f.name: poisoned(getattr(state, f.name)) for f in fields(state)})
    settings = published.settings
    step, node = windows(state, 1, last=at)
    expected = log_odds(settings, state, step, node)
    np.testing.assert_array_equal(log_odds(settings, other, step, node), expected)
    later = log_odds(settings, other, step + 1, node)
    assert (later != log_odds(settings, state, step + 1, node)).all()


def test_its_probabilities_are_calibrated(published):
    state = published.hidden.consensus
    step, node = windows(state, 7)
    odds = log_odds(published.settings, state, step, node)
    truth = (state.episode[step, node] > 0).any(axis=1)
    assert np.isfinite(odds).all()
    probability = 1 / (1 + np.exp(-np.clip(odds, -500, 500)))
    assert probability.mean() == pytest.approx(truth.mean(), abs=0.01)
    assert np.mean((odds > 0) == truth) == pytest.approx(
        np.maximum(probability, 1 - probability).mean(), abs=0.003
    )
    unsure = (probability > 0.1) & (probability < 0.9)
    assert unsure.sum() > 30
    assert truth[unsure].mean() == pytest.approx(probability[unsure].mean(), abs=0.15)


@pytest.mark.parametrize(
    "changes",
    [
        {"cadence_seconds": 600, "days": 20},
        {"cadence_seconds": 10},
        {
            "latency_episodes_per_node_day": 0,
            "shared_slowdowns_per_region_day": 0,
            "latency_spikes_per_node_day": 0,
            "leader_transfers_per_node_day": 0,
        },
        {"latency_spikes_per_node_day": 0, "incidents_per_node_day": 0},
    ],
)
def test_it_is_as_good_under_other_settings(changes):
    settings = settings_of(**changes)
    state = generate(settings).hidden.consensus
    step, node = windows(state, 1 + len(state.episode) // 50)
    odds = log_odds(settings, state, step, node)
    truth = (state.episode[step, node] > 0).any(axis=1)
    assert np.isfinite(odds).all()
    probability = 1 / (1 + np.exp(-np.clip(odds, -500, 500)))
    expected = np.maximum(probability, 1 - probability).mean()
    assert np.mean((odds > 0) == truth) > expected - 0.05


def test_more_spikes_than_readings():
    settings = settings_of(cadence_seconds=600, latency_spikes_per_node_day=200.0)
    state = generate(settings).hidden.consensus
    assert np.isfinite(log_odds(settings, state, *windows(state, 1))).all()


@pytest.mark.parametrize(
    ("factors", "high"),
    [(WINDOW * [1], False), ([*19 * [1], 8], True), ([8, *19 * [1]], True), (WINDOW * [8], True)],
)
def test_of_steps_a_high_reading_anywhere_is_an_episode(telemetry, factors, high):
    assert (odds_of(telemetry, *factors) > 0) == high


def test_of_steps_no_window_is_mistaken(telemetry):
    state = telemetry.hidden.consensus
    step, node = windows(state, 7)
    odds = log_odds(telemetry.settings, state, step, node)
    truth = (state.episode[step, node] > 0).any(axis=1)
    assert np.isfinite(odds).all()
    np.testing.assert_array_equal(odds > 0, truth)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 7, 42, 123, 2025, 18, 31, 77, 500, 9001])
def test_its_accuracy_clears_the_target_with_a_margin(seed):
    settings = SimulatorSettings(seed=seed, latency_episodes="published")
    state = generate(settings).hidden.consensus
    step, node = windows(state, 5)
    truth = (state.episode[step, node] > 0).any(axis=1)
    assert np.mean((log_odds(settings, state, step, node) > 0) == truth) > TARGET
