"""What came true of the requests that both arms answered."""

import numpy as np
import pytest

from dwcp_ml.cli import main
from dwcp_ml.contract.models import BANDWIDTH, COMPRESSION
from dwcp_ml.data.reading import load
from dwcp_ml.local_rollout.ground_truth import GroundTruthSource
from dwcp_ml.local_rollout.replay import questions
from dwcp_ml.prediction_log.pairs import Both, Half


@pytest.fixture(scope="module")
def telemetry(tmp_path_factory):
    place = tmp_path_factory.mktemp("telemetry")
    words = ["data", "simulate", "--set", "days=0.2", "--set", "nodes=3"]
    assert main([*words, "--output-dir", str(place)]) == 0
    return place / "telemetry.csv"


def both(question, name, stable, candidate):
    halves = [
        Half(0.0, question.link, question.observed_at, {0: {name: value}})
        for value in (stable, candidate)
    ]
    return Both("r", *halves)


def next_throughput(telemetry, question):
    frame = load(telemetry, ["throughput_mbps"])
    node, peer = question.link.split("/")
    ours = frame[(frame["node_id"] == node) & (frame["peer_id"] == peer)]
    return float(ours[ours["timestamp"] > question.observed_at]["throughput_mbps"].iloc[0])


def test_a_bandwidth_answer_costs_its_relative_error_to_the_next_observation(telemetry):
    asked = questions(BANDWIDTH, telemetry)
    known = GroundTruthSource(BANDWIDTH, telemetry, None, asked)
    question = asked[0]
    truth = next_throughput(telemetry, question)
    requests = [
        both(question, "next_throughput_mbps", truth, truth * 1.25),
        both(question, "next_throughput_mbps", truth * 3.0, float("nan")),
    ]
    first, second = known.losses(requests)
    assert (first.stable, first.candidate) == pytest.approx((0.0, 0.25), abs=1e-6)
    assert (second.stable, second.candidate) == (1.0, 1.0), "at most 1; no number is the worst"


def test_a_level_is_right_or_wrong(telemetry):
    asked = questions(COMPRESSION, telemetry)
    known = GroundTruthSource(COMPRESSION, telemetry, None, asked)
    requests = [both(asked[0], "compression_level", level, 99) for level in range(10)]
    losses = known.losses(requests)
    assert sorted(loss.stable for loss in losses) == [0.0] + [1.0] * 9
    assert {loss.candidate for loss in losses} == {1.0}


def test_what_the_telemetry_does_not_know_is_left_out(telemetry):
    asked = questions(BANDWIDTH, telemetry)
    known = GroundTruthSource(BANDWIDTH, telemetry, None, asked)
    last = max(asked, key=lambda question: question.observed_at)
    assert known.losses([both(last, "next_throughput_mbps", 1.0, 1.0)]) == ()
    assert known.losses([]) == ()


def test_every_question_but_the_last_of_each_link_has_a_truth(telemetry):
    asked = questions(BANDWIDTH, telemetry)
    known = GroundTruthSource(BANDWIDTH, telemetry, None, asked)
    judged = known.losses([both(one, "next_throughput_mbps", 1.0, 1.0) for one in asked])
    links = {one.link for one in asked}
    assert len(judged) == len(asked) - len(links)
    assert np.isfinite([loss.stable for loss in judged]).all()
