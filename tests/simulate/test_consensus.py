"""Consensus latency: the kinds of episodes, their labels, and what is not an episode.

All of the profile `published`, except for the last tests.
"""

import hashlib
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest

from dwcp_ml.simulate import SimulatorSettings, episodes, generate
from dwcp_ml.simulate.episodes import EPISODES, OWN_KINDS, PLATEAUS, VISIBLE, EpisodeTrack
from dwcp_ml.simulate.output import _csv

SEEDS = [1, 7, 42, 123, 2025]
MULTIPLES = {  # what the kinds add, in multiples of the quiet latency
    "creep": (VISIBLE, 3.0),
    "oscillation": (0.5, 8.0),
    "shared_slowdown": (VISIBLE, 0.7),
}
MILLISECONDS = {"leader_flapping": (150.0, 450.0)} | {
    name: (0.5 * plateau.extra_ms[0], 2 * plateau.extra_ms[1]) for name, plateau in PLATEAUS.items()
}
MINUTES = {  # at a reading a minute: labelled, and not cut off by the end of the telemetry
    "leader_flapping": (3 + 2 * 2, 8 * 3 + 7 * 8),
    "creep": (15, 60),
    "oscillation": (15, 45),  # without the last half of a period
    "shared_slowdown": (10, 20),
} | {name: plateau.minutes for name, plateau in PLATEAUS.items()}


def settings(**changes):
    return SimulatorSettings(latency_episodes="published", **changes)


@dataclass(frozen=True)
class Labelled:
    """One labelled episode: steps `start` to `end`, `end` not included."""

    kind: str
    node: int
    start: int
    end: int
    extra_ms: np.ndarray
    multiple: np.ndarray


def labelled(state):
    """Return the labelled episodes of all nodes."""
    found = []
    for node, number in enumerate(state.episode.T):
        change = np.flatnonzero(np.diff(number, prepend=0, append=0))
        for start, end in pairwise(change):
            if number[start]:
                extra = state.extra_ms[start:end, node]
                multiple = extra / state.quiet_ms[start:end, node]
                kind = EPISODES[number[start] - 1]
                found.append(Labelled(kind, node, int(start), int(end), extra, multiple))
    return found


@pytest.fixture(scope="module")
def state(published):
    return published.hidden.consensus


@pytest.fixture(scope="module")
def found(state):
    return labelled(state)


@pytest.fixture(scope="module")
def long_run():
    """The consensus state of thirty days of a reading a minute."""
    return generate(settings(seed=3, days=30, peers_per_node=1)).hidden.consensus


@pytest.mark.parametrize("seed", SEEDS)
def test_episodes_cover_five_to_fifteen_percent(seed):
    state = generate(settings(seed=seed)).hidden.consensus
    assert 0.05 <= (state.episode > 0).mean() <= 0.15


def test_every_kind_occurs(found):
    assert {episode.kind for episode in found} == set(EPISODES)


@pytest.mark.slow
def test_the_kinds_of_one_node_are_equally_common(long_run):
    kinds = [episode.kind for episode in labelled(long_run) if episode.kind in OWN_KINDS]
    shares = [kinds.count(kind) / len(kinds) for kind in OWN_KINDS]
    assert len(kinds) > 500
    # long episodes overlap others more often, and are dropped then
    np.testing.assert_allclose(shares, 1 / len(OWN_KINDS), atol=0.05)


def test_each_kind_adds_what_is_documented(found, state):
    last = len(state.episode)
    for episode in found:
        if episode.kind in MULTIPLES:
            low, high = MULTIPLES[episode.kind]
            raised = episode.multiple[episode.multiple >= VISIBLE]
        else:
            low, high = MILLISECONDS[episode.kind]
            raised = episode.extra_ms[episode.extra_ms > 0]
        assert low <= raised.min(), episode
        assert raised.max() <= high, episode
        shortest, longest = MINUTES[episode.kind]
        assert len(episode.extra_ms) <= longest, episode
        if episode.end < last:
            assert len(episode.extra_ms) >= shortest, episode


def test_a_label_runs_from_the_first_to_the_last_visible_reading(found, state):
    for episode in found:
        assert episode.multiple[0] >= VISIBLE, episode
        assert episode.multiple[-1] >= VISIBLE, episode
    multiple = state.extra_ms / state.quiet_ms
    assert (multiple[state.episode == 0] < VISIBLE).all()


def test_the_label_of_a_creep_begins_when_it_can_be_seen(found, state):
    creeps = [episode for episode in found if episode.kind == "creep"]
    assert creeps
    for creep in creeps:
        before = state.extra_ms[creep.start - 1, creep.node]
        assert 0 < before < VISIBLE * state.quiet_ms[creep.start - 1, creep.node]
        assert (np.diff(creep.multiple) > 0).all()


def test_flaps_are_short_and_irregular_with_normal_latency_between(found):
    flapping = [episode for episode in found if episode.kind == "leader_flapping"]
    gaps = set()
    for episode in flapping:
        change = np.flatnonzero(np.diff(episode.extra_ms > 0, prepend=False, append=False))
        lengths = np.diff(change)
        assert lengths[::2].max() <= 3
        gaps |= set(lengths[1::2].tolist())
    assert gaps
    assert gaps <= set(range(2, 9))
    assert len(gaps) > 3


def test_an_oscillation_keeps_its_period(found):
    oscillating = [episode for episode in found if episode.kind == "oscillation"]
    assert oscillating
    for episode in oscillating:
        change = np.flatnonzero(np.diff(episode.extra_ms > 0, prepend=False, append=False))
        lengths = np.diff(change)
        assert len(set(lengths[:-1].tolist())) == 1, episode
        assert 4 <= 2 * lengths[0] <= 10


def test_a_shared_slowdown_befalls_a_region_at_once(published, found):
    region = published.hidden.topology.node_region
    slow = [episode for episode in found if episode.kind == "shared_slowdown"]
    assert slow
    for episode in slow:
        near = [other for other in slow if abs(other.start - episode.start) <= 4]
        assert region[episode.node] in [region[other.node] for other in near]
    together = [sum(abs(other.start - episode.start) <= 4 for other in slow) for episode in slow]
    assert np.mean(np.array(together) >= 3) > 0.7


def test_spikes_and_transfers_are_not_labelled(state):
    benign = state.benign_ms > 0
    days = state.benign_ms.size / 1440
    assert 5 < benign.sum() / days < 9  # six spikes and a transfer a node and day
    alone = benign & (state.extra_ms == 0)
    assert alone[state.episode == 0].sum() > 100
    # their steps are as large as those of episodes
    step = (state.benign_ms / state.quiet_ms)[alone & (state.episode == 0)]
    episode = (state.extra_ms / state.quiet_ms)[state.episode > 0]
    assert np.quantile(step, 0.9) > np.median(episode[episode > 0])


def test_a_spike_is_a_single_reading(state):
    change = np.diff(state.benign_ms > 0, axis=0)
    starts = change.sum() / 2
    assert starts > 0.95 * (state.benign_ms > 0).sum()


def test_a_route_change_is_a_new_normal():
    still, moved = (
        generate(settings(days=2, nodes=4, route_changes_per_node_day=rate)).hidden.consensus
        for rate in (0, 2)
    )
    factor = moved.quiet_ms / still.quiet_ms
    changed = factor > 1
    assert 0.05 < changed.mean() < 0.8
    assert factor.max() < 1.6**2  # two at once at most, and the fsync stays
    edges = np.flatnonzero(np.diff(changed, axis=0, prepend=False).T.ravel())
    assert np.median(np.diff(edges)) > 60  # minutes
    np.testing.assert_array_equal(moved.episode > 0, still.episode > 0)


@pytest.mark.parametrize(
    ("setting", "kinds"),
    [
        ("latency_episodes_per_node_day", set(OWN_KINDS)),
        ("shared_slowdowns_per_region_day", {"shared_slowdown"}),
        ("incidents_per_node_day", {"failover"}),
    ],
)
def test_a_rate_of_zero_removes_its_kinds(setting, kinds):
    state = generate(settings(**{setting: 0})).hidden.consensus
    assert {episode.kind for episode in labelled(state)} == set(EPISODES) - kinds


def test_without_benign_events_nothing_else_changes(state):
    none = {"latency_spikes_per_node_day": 0, "leader_transfers_per_node_day": 0}
    without = generate(settings(**none)).hidden.consensus
    assert not without.benign_ms.any()
    np.testing.assert_array_equal(without.episode, state.episode)
    np.testing.assert_array_equal(without.extra_ms, state.extra_ms)
    calm = state.benign_ms == 0
    np.testing.assert_array_equal(without.latency_ms[calm], state.latency_ms[calm])


def test_overlapping_episodes_are_dropped():
    track = EpisodeTrack.empty(np.full((10, 1), 10.0))
    track.add("creep", 0, 2, np.array([0.1, 0.3]))
    track.add("gc_pause", 0, 1, np.full(2, 100.0))
    assert track.number[:, 0].tolist() == [0, 0, 0, EPISODES.index("creep") + 1, *6 * [0]]
    np.testing.assert_allclose(track.extra_ms[:, 0], [0, 0, 1, 3, *6 * [0]])


@pytest.mark.parametrize("cadence", [10, 60, 300, 600])
def test_profiles_at_any_cadence(cadence):
    rng, step = np.random.default_rng(0), cadence / 60
    for kind in OWN_KINDS:
        for _ in range(20):
            profile = episodes.own_profile(kind, step, rng)
            assert 1 <= len(profile) <= 80 / step + 16, kind
            assert profile[-1] > 0


@pytest.mark.parametrize("cadence", [10, 60, 300, 600])
def test_episodes_of_steps_at_any_cadence(cadence):
    days = 8 * cadence / 600 + 2
    steps = SimulatorSettings(nodes=4, days=days, cadence_seconds=cadence)
    state = generate(steps).hidden.consensus
    found = labelled(state)
    assert {episode.kind for episode in found} == set(PLATEAUS)
    np.testing.assert_array_equal(state.episode > 0, state.extra_ms > 0)
    for episode in found:
        low, high = MILLISECONDS[episode.kind]
        assert low <= episode.extra_ms.min(), episode
        assert episode.extra_ms.max() <= high, episode


TELEMETRY = {  # sha256 of telemetry.csv; neither profile is ever changed
    ("steps", 7): "c2c017495925a650fbec296367420a1e25aaf5c1b26288a72a4bbbe8dcdaa118",
    ("steps", 42): "85ca86e9b645cb70972d066f65602187c4ce6567ad74a08ab9138fcfa929ef28",
    ("published", 7): "190615060b915681c9dee38d0e0f2277464b99c81b3594fcbd89c17009212624",
    ("published", 42): "18550d843795e8bd5b6e8c91e90913c59497914efc837efdf18f4980b510d9a3",
}


@pytest.mark.parametrize(("profile", "seed"), TELEMETRY)
def test_the_bytes_of_a_profile_stay(profile, seed):
    telemetry = generate(SimulatorSettings(seed=seed, latency_episodes=profile))
    digest = hashlib.sha256(_csv(telemetry.frame).encode())
    assert digest.hexdigest() == TELEMETRY[profile, seed]


def test_the_profiles_differ_in_the_consensus_latency_alone(telemetry, published):
    changed = [
        name for name in telemetry.frame if not telemetry.frame[name].equals(published.frame[name])
    ]
    assert changed == ["consensus_latency_ms", "is_high_latency"]
    assert telemetry.incidents == published.incidents
