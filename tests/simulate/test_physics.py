"""The columns agree with one another, because they come from one state."""

import numpy as np
import pytest

from dwcp_ml.simulate import network as net
from dwcp_ml.simulate.compression import load_codec, pipeline_mbps
from dwcp_ml.simulate.episodes import EPISODES, PLATEAUS
from dwcp_ml.simulate.events import EventTrack
from dwcp_ml.simulate.reliability import INCIDENT_TYPES
from dwcp_ml.simulate.topology import LINK_TYPES


def rank_correlation(a, b):
    ranks = [np.argsort(np.argsort(x)).astype(float) for x in (a, b)]
    return np.corrcoef(*ranks)[0, 1]


@pytest.fixture(scope="module")
def links(telemetry):
    """The rows of each link outside incidents, by (node, peer)."""
    frame = telemetry.frame
    node = telemetry.hidden.topology.node[telemetry.link]
    healthy = telemetry.hidden.health.active[telemetry.step, node] == 0
    return [rows for _, rows in frame[healthy].groupby(["node_id", "peer_id"])]


def test_every_link_type_occurs(telemetry):
    assert set(telemetry.frame["link_type"]) == set(LINK_TYPES)


def test_a_link_has_one_type_and_tier(telemetry):
    grouped = telemetry.frame.groupby(["node_id", "peer_id"])
    assert (grouped[["link_type", "network_tier", "amst_streams"]].nunique() == 1).all().all()


def test_bytes_are_the_throughput_over_the_interval(telemetry):
    frame = telemetry.frame
    expected = frame["throughput_mbps"] * 1e6 / 8 * telemetry.settings.cadence_seconds
    np.testing.assert_allclose(frame["bytes_tx"], expected, rtol=1e-4)


def test_retransmits_are_the_lost_packets(telemetry):
    frame = telemetry.frame
    calm = telemetry.hidden.health.ln_retransmits[telemetry.step, telemetry.link] == 0
    lost = (frame["bytes_tx"] / net.PACKET_BYTES * frame["packet_loss"])[calm]
    np.testing.assert_allclose(frame["retransmits"][calm], lost, rtol=0.01, atol=1)


def test_a_loaded_link_is_slower_and_loses_more(links):
    for rows in links:
        load = rows["queue_depth"]
        assert rank_correlation(load, rows["throughput_mbps"]) < -0.9
        assert rank_correlation(load, rows["packet_loss"]) > 0.5
        assert rank_correlation(load, rows["rtt_ms"]) > 0.7
        assert rank_correlation(load, rows["jitter_ms"]) > 0.7


def test_throughput_stays_below_the_capacity(telemetry):
    network, topology = telemetry.hidden.network, telemetry.hidden.topology
    assert (network.rate_mbps <= topology.capacity_mbps).all()
    assert (network.rtt_ms > topology.propagation_ms * 0.999).all()


def test_the_tcp_bound_and_the_equilibrium_loss_are_inverse(telemetry):
    topology = telemetry.hidden.topology
    rtt, loss = np.full(topology.links, 20.0), np.full(topology.links, 1e-5)
    rate = net.mathis_mbps(topology, rtt, loss)
    np.testing.assert_allclose(net.equilibrium_loss(topology, rtt, rate), loss, rtol=1e-3)


def test_the_tcp_bound_is_the_published_formula(telemetry):
    topology = telemetry.hidden.topology
    # 1460 bytes, 100 ms, 1 % of loss: 1460 * 8 / 0.1 * sqrt(3/2) / 0.1 = 1.43 Mbit/s a stream
    rate = net.mathis_mbps(topology, np.array(100.0), np.array(0.01))
    np.testing.assert_allclose(rate / topology.streams, 1.43, rtol=0.01)


def test_the_lag_weight_is_that_of_an_exponential_approach(telemetry):
    settings = telemetry.settings.model_copy(
        update={"adaptation_seconds": 30.0, "cadence_seconds": 60}
    )
    seconds = np.linspace(0, 60, 100_001)
    assert net.lag_weight(settings) == pytest.approx(np.exp(-seconds / 30).mean(), rel=1e-4)
    instant = settings.model_copy(update={"adaptation_seconds": 0.0})
    assert net.lag_weight(instant) == 0.0


def test_an_event_is_known_from_its_first_step_on():
    track = EventTrack.empty(6, 2)
    track.add(2, 1, np.array([1.0, 2.0, 3.0]))
    assert track.now[:, 1].tolist() == [0, 0, 1, 2, 3, 0]
    assert track.next_known[:, 1].tolist() == [0, 0, 2, 3, 0, 0]
    assert not track.now[:, 0].any()
    track.add(5, 0, np.ones(9))
    assert track.now[:, 0].tolist() == [0, 0, 0, 0, 0, 1]


def test_the_slowest_stage_decides():
    codec = load_codec()
    slow_line = pipeline_mbps(np.array(0), np.array(1.0), np.array(1.0), np.array(1e6))
    np.testing.assert_allclose(slow_line, codec.ratio[0])
    slow_cpu = pipeline_mbps(np.array(0), np.array(1.0), np.array(1e9), np.array(100.0))
    assert slow_cpu[0] == 1e9
    np.testing.assert_allclose(slow_cpu[1:], 100 * codec.compress[0, 1:])


def test_gains_are_against_no_compression(telemetry):
    columns = [f"throughput_gain_{level}" for level in range(10)]
    gains = telemetry.frame[columns].to_numpy()
    assert (gains[:, 0] == 0).all()
    assert (gains > -1).all()
    assert len(np.unique(gains.argmax(axis=1))) >= 5
    assert (telemetry.frame["amst_transfer_rate"] < telemetry.frame["throughput_mbps"]).all()


def test_consensus_latency_is_the_nodes_own(telemetry):
    grouped = telemetry.frame.groupby(["timestamp", "node_id"])
    assert (grouped[["consensus_latency_ms", "is_high_latency"]].nunique() == 1).all().all()


def test_episodes_of_steps_cover_five_to_fifteen_percent_and_are_slow(telemetry):
    state = telemetry.hidden.consensus
    inside = state.episode > 0
    assert 0.05 <= inside.mean() <= 0.15
    assert set(np.unique(state.episode)) == set(range(len(PLATEAUS) + 1))
    assert state.latency_ms[inside].min() > 1.5 * np.median(state.latency_ms[~inside])
    assert (state.extra_ms[~inside] == 0).all()
    assert not state.benign_ms.any()


@pytest.mark.parametrize("profile", ["telemetry", "published"])
def test_a_crash_is_a_failover(profile, request):
    telemetry = request.getfixturevalue(profile)
    number = EPISODES.index("failover") + 1
    state = telemetry.hidden.consensus
    crashes = [incident for incident in telemetry.incidents if incident.kind == "crash"]
    assert crashes
    found = [state.episode[crash.start, crash.node] for crash in crashes]
    assert np.mean(np.array(found) == number) > 0.9


def test_the_four_incident_types_have_different_symptoms(telemetry):
    health, topology = telemetry.hidden.health, telemetry.hidden.topology
    kind = health.active[telemetry.step, topology.node[telemetry.link]]
    assert set(np.unique(kind)) == set(range(len(INCIDENT_TYPES) + 1))
    names = ["uptime_pct", "failure_rate", "error_budget_burn_rate"]
    medians = telemetry.frame.groupby(kind)[names].median()
    for number in range(1, len(INCIDENT_TYPES) + 1):
        assert medians.loc[number, "uptime_pct"] < medians.loc[0, "uptime_pct"]
        assert (medians.loc[number, names[1:]] > 3 * medians.loc[0, names[1:]]).all()
    assert not medians.round(1).duplicated().any()


def test_benign_bursts_are_not_incidents(telemetry):
    health = telemetry.hidden.health
    quiet = health.active == 0
    for factor in (health.ln_uptime, health.ln_failures, health.ln_burn):
        assert (factor[quiet] > 2).any()
    node_quiet = quiet[:, telemetry.hidden.topology.node]
    assert (health.ln_rtt.now[node_quiet] > 0.5).any()
    assert (health.ln_retransmits[node_quiet] > 1.5).any()
