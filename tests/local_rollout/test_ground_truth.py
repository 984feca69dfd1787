"""Ground truth for the requests to which both arms responded."""

import numpy as np
import pytest

from dwcp_ml.cli import main
from dwcp_ml.contract.models import BANDWIDTH, COMPRESSION
from dwcp_ml.data.reading import load
from dwcp_ml.local_rollout.ground_truth import GroundTruthSource
from dwcp_ml.local_rollout.replay import predict_requests
from dwcp_ml.prediction_log.pairs import Both, Half


@pytest.fixture(scope="module")
def telemetry(tmp_path_factory):
    place = tmp_path_factory.mktemp("telemetry")
    words = ["data", "simulate", "--set", "days=0.2", "--set", "nodes=3"]
    assert main([*words, "--output-dir", str(place)]) == 0
    return place / "telemetry.csv"


def both(request, name, stable, candidate):
    halves = [
        Half(0.0, request.link, request.observed_at, {0: {name: value}})
        for value in (stable, candidate)
    ]
    return Both("r", *halves)


def next_throughput(telemetry, request):
    frame = load(telemetry, ["throughput_mbps"])
    node, peer = request.link.split("/")
    ours = frame[(frame["node_id"] == node) & (frame["peer_id"] == peer)]
    return float(ours[ours["timestamp"] > request.observed_at]["throughput_mbps"].iloc[0])


def test_the_loss_of_a_bandwidth_is_its_relative_error_to_the_next_observation(telemetry):
    replayed = predict_requests(BANDWIDTH, telemetry)
    source = GroundTruthSource(BANDWIDTH, telemetry, None, replayed)
    request = replayed[0]
    truth = next_throughput(telemetry, request)
    requests = [
        both(request, "next_throughput_mbps", truth, truth * 1.25),
        both(request, "next_throughput_mbps", truth * 3.0, float("nan")),
    ]
    first, second = source.losses(requests)
    assert (first.stable, first.candidate) == pytest.approx((0.0, 0.25), abs=1e-6)
    assert (second.stable, second.candidate) == (1.0, 1.0), "at most 1, also for NaN"


def test_the_loss_of_a_level_is_0_or_1(telemetry):
    replayed = predict_requests(COMPRESSION, telemetry)
    source = GroundTruthSource(COMPRESSION, telemetry, None, replayed)
    requests = [both(replayed[0], "compression_level", level, 99) for level in range(10)]
    losses = source.losses(requests)
    assert sorted(loss.stable for loss in losses) == [0.0] + [1.0] * 9
    assert {loss.candidate for loss in losses} == {1.0}


def test_a_request_without_ground_truth_is_left_out(telemetry):
    replayed = predict_requests(BANDWIDTH, telemetry)
    source = GroundTruthSource(BANDWIDTH, telemetry, None, replayed)
    last = max(replayed, key=lambda request: request.observed_at)
    assert source.losses([both(last, "next_throughput_mbps", 1.0, 1.0)]) == ()
    assert source.losses([]) == ()


def test_every_request_but_the_last_of_each_link_has_a_ground_truth(telemetry):
    replayed = predict_requests(BANDWIDTH, telemetry)
    source = GroundTruthSource(BANDWIDTH, telemetry, None, replayed)
    losses = source.losses(
        [both(request, "next_throughput_mbps", 1.0, 1.0) for request in replayed]
    )
    links = {request.link for request in replayed}
    assert len(losses) == len(replayed) - len(links)
    assert np.isfinite([loss.stable for loss in losses]).all()
