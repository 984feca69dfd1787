"""Pairs from two logs: each request counts once, in every order of readings."""

import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dwcp_ml.contract.errors import DataRefused, ErrorCode, UsageError
from dwcp_ml.prediction_log import reader
from dwcp_ml.prediction_log.divergence import absolute, signed
from dwcp_ml.prediction_log.format import HEADER, decode, encode, segment_name
from dwcp_ml.prediction_log.log import PredictionLog
from dwcp_ml.prediction_log.pairs import Arms, read_pairs
from tests.errors import about

MODEL = "compression_selector"
BANDWIDTH = "bandwidth_predictor"
NOW = 1_700_000_000.0
WAIT = 10.0


class Log:
    """A segment of one arm, written as the server writes it."""

    def __init__(self, directory, version, writer="0" * 8, started=NOW):
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.version = directory, version
        self.path = directory / f"{segment_name(started, writer, 1)}.part"
        self.path.write_bytes(HEADER)

    def log(self, name, at, level=3, rows=1, model=MODEL, output="compression_level"):
        values = np.full(rows, level)
        common = {
            "model": model, "version": self.version, "digest": "", "request_id": name,
            "link": None, "observed_at": None, "received_at": NOW + at, "protocol": "v1",
        }  # fmt: skip
        with self.path.open("ab") as stream:
            stream.write(b"".join(encode(common, np.zeros((rows, 6)), {output: values})))

    def finish(self):
        final = self.path.with_name(self.path.name.removesuffix(".part"))
        self.path.rename(final)
        self.path = final


@pytest.fixture
def stable(tmp_path):
    return Log(tmp_path / "stable", "v1")


@pytest.fixture
def candidate(tmp_path):
    return Log(tmp_path / "candidate", "v2", "1" * 8)


@pytest.fixture
def arms(stable, candidate):
    return Arms(MODEL, stable.directory, candidate.directory, "v1", "v2", wait_seconds=WAIT)


def pairs_of(joined):
    return [(pair.request_id, pair.difference) for pair in joined.pairs]


def test_halves_are_joined_when_the_time_limit_has_passed(arms, stable, candidate):
    stable.log("a", 0.0, 3)
    stable.log("b", 1.0, 3)
    candidate.log("b", 1.5, 4)
    candidate.log("a", 2.0, 3)
    early = read_pairs(arms, "", NOW + 9.0)
    assert pairs_of(early) == []
    first = read_pairs(arms, early.cursor, NOW + 10.5)
    assert pairs_of(first) == [("a", 0.0)]
    second = read_pairs(arms, first.cursor, NOW + 60.0)
    assert pairs_of(second) == [("b", 1.0)]
    assert pairs_of(read_pairs(arms, second.cursor, NOW + 90.0)) == []


def test_a_half_that_comes_before_or_late_is_joined_within_the_limit(arms, stable, candidate):
    for name, ours in (("a", 20), ("b", 21), ("c", 22), ("d", 23)):
        stable.log(name, ours)
    for name, theirs in (("a", 11), ("c", 11), ("b", 30), ("d", 34)):
        candidate.log(name, theirs)
    joined = read_pairs(arms, "", NOW + 100)
    assert pairs_of(joined) == [("a", 0.0), ("b", 0.0)]
    assert joined.stable_only == 2


def test_what_was_written_between_two_readings_is_pairs_of(arms, stable, candidate):
    stable.log("a", 0.0)
    cursor = read_pairs(arms, "", NOW + 5.0).cursor
    candidate.log("a", 6.0)
    assert pairs_of(read_pairs(arms, cursor, NOW + 11.0)) == [("a", 0.0)]


def test_the_same_reading_twice_is_the_same(arms, stable, candidate):
    for number in range(300):
        stable.log(f"r{number}", number / 10)
        candidate.log(f"r{number}", number / 10 + 1, number % 10)
    cursor = read_pairs(arms, "", NOW + 20).cursor
    once, again = (read_pairs(arms, cursor, NOW + 30) for _ in range(2))
    assert once == again
    assert len(once.pairs) == 100


def test_a_cursor_outlives_finished_and_removed_segments(arms, stable, candidate, tmp_path):
    for number in range(200):
        stable.log(f"r{number}", number)
        candidate.log(f"r{number}", number)
    first = read_pairs(arms, "", NOW + 100)
    assert "offsets" in json.loads(first.cursor)
    stable.finish()
    second = read_pairs(arms, first.cursor, NOW + 150)
    assert len(first.pairs) + len(second.pairs) == 140
    stable.path.unlink()
    third = read_pairs(arms, second.cursor, NOW + 300)
    assert third.pairs == ()


def test_old_lines_are_not_read_again(arms, stable, candidate, monkeypatch):
    for number in range(1000):
        stable.log(f"r{number}", number)
    cursor = read_pairs(arms, "", NOW + 1000).cursor
    taken = []
    monkeypatch.setattr(reader, "decode", lambda line: taken.append(line) or decode(line))
    read_pairs(arms, cursor, NOW + 1001)
    assert 20 <= len(taken) < 100


def test_a_retry_counts_once(arms, stable, candidate):
    for at, level in ((0.0, 3), (4.0, 9)):
        stable.log("a", at, level)
        candidate.log("a", at + 1, level)
    first = read_pairs(arms, "", NOW + 12.0)
    assert pairs_of(first) == [("a", 0.0)]
    assert pairs_of(read_pairs(arms, first.cursor, NOW + 100.0)) == []


def test_both_arms_may_share_a_directory(tmp_path):
    stable = Log(tmp_path, "v1", "0" * 8)
    candidate = Log(tmp_path, "v2", "1" * 8)
    stable.log("a", 0)
    candidate.log("a", 1)
    arms = Arms(MODEL, tmp_path, tmp_path, "v1", "v2", wait_seconds=WAIT)
    assert pairs_of(read_pairs(arms, "", NOW + 50)) == [("a", 0.0)]


def test_the_same_version_in_two_directories_is_an_a_a_test(stable, tmp_path):
    other = Log(tmp_path / "candidate", "v1", "1" * 8)
    stable.log("a", 0)
    other.log("a", 1)
    arms = Arms(MODEL, stable.directory, other.directory, "v1", "v1", wait_seconds=WAIT)
    assert pairs_of(read_pairs(arms, "", NOW + 50)) == [("a", 0.0)]


def test_other_models_and_versions_are_ignored(arms, stable, candidate):
    stable.log("a", 0, model="consensus_latency", output="is_high_latency")
    stable.version = "v0"
    stable.log("b", 0)
    candidate.log("a", 0)
    candidate.log("b", 0)
    assert pairs_of(read_pairs(arms, "", NOW + 50)) == []


def test_a_request_of_several_instances_is_one_pair(arms, stable, candidate):
    stable.log("a", 0, 3, rows=4)
    candidate.log("a", 1, 3, rows=3)  # one answer is missing
    assert pairs_of(read_pairs(arms, "", NOW + 50)) == [("a", 0.25)]


def test_requests_before_the_rollout_do_not_count(arms, stable, candidate):
    for name, at in (("a", 0), ("b", 5)):
        stable.log(name, at)
        candidate.log(name, at)
    later = Arms(
        MODEL, arms.stable_log, arms.candidate_log, "v1", "v2", since=NOW + 2, wait_seconds=WAIT
    )
    assert pairs_of(read_pairs(later, "", NOW + 50)) == [("b", 0.0)]


def test_a_long_log_is_read_in_portions_with_the_same_result(stable, candidate):
    for number in range(500):
        stable.log(f"r{number}", number)
        candidate.log(f"r{number}", number + 1, number % 10)
    whole, parts = (
        Arms(MODEL, stable.directory, candidate.directory, "v1", "v2", wait_seconds=WAIT,
             max_records=lines)
        for lines in (10_000, 7)
    )  # fmt: skip
    wanted = read_pairs(whole, "", NOW + 600).pairs
    assert len(wanted) == 500
    taken, cursor, readings = [], "", 0
    while len(taken) < 500:
        joined = read_pairs(parts, cursor, NOW + 600)
        assert joined.cursor != cursor
        taken += joined.pairs
        cursor, readings = joined.cursor, readings + 1
    assert tuple(taken) == wanted
    assert readings > 50


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    halves=st.lists(
        st.tuples(st.integers(0, 60), st.one_of(st.none(), st.integers(-15, 15))), max_size=40
    ),
    readings=st.lists(st.integers(0, 90), max_size=8),
    max_records=st.sampled_from([1, 5, 1000]),
)
def test_no_schedule_of_readings_changes_the_pairs(tmp_path_factory, halves, readings, max_records):
    place = tmp_path_factory.mktemp("logs")
    events = []
    for number, (at, delay) in enumerate(halves):
        events.append((at, 0, f"r{number}"))
        if delay is not None:
            events.append((at + delay, 1, f"r{number}"))
    logs = Log(place / "s", "v1"), Log(place / "c", "v2", "1" * 8)
    arms = Arms(MODEL, place / "s", place / "c", "v1", "v2", wait_seconds=WAIT,
                max_records=max_records)  # fmt: skip
    pending, cursor, taken = sorted(events), "", []
    for now in [*sorted(readings), *[200] * (2 * len(events) + 2)]:
        while pending and pending[0][0] <= now:
            at, side, name = pending.pop(0)
            logs[side].log(name, at)
        joined = read_pairs(arms, cursor, NOW + now)
        taken += [pair.request_id for pair in joined.pairs]
        cursor = joined.cursor
    wanted = {
        f"r{number}"
        for number, (_, delay) in enumerate(halves)
        if delay is not None and abs(delay) <= WAIT
    }
    assert len(taken) == len(set(taken))
    assert set(taken) == wanted


def test_a_line_that_is_being_written_waits(arms, stable, candidate):
    stable.log("a", 0)
    candidate.log("a", 0)
    whole = candidate.path.read_bytes()
    candidate.path.write_bytes(whole[:-20])
    first = read_pairs(arms, "", NOW + 5)
    candidate.path.write_bytes(whole)
    assert pairs_of(read_pairs(arms, first.cursor, NOW + 50)) == [("a", 0.0)]


@pytest.mark.parametrize(
    "line",
    [
        b"not json\n",
        b"{}\n",
        b"[1]\n",
        b'{"received_at":"x","model":"m","version":"v","request_id":"r","row":0,"outputs":{}}\n',
        b'{"received_at":1,"model":5,"version":"v","request_id":"r","row":0,"outputs":{}}\n',
        b'{"received_at":1,"model":"m","version":"v","request_id":"r","row":0,"outputs":[]}\n',
    ],
)
def test_a_damaged_log_is_an_error(arms, stable, line):
    stable.log("a", 0)
    with stable.path.open("ab") as stream:
        stream.write(line)
    with pytest.raises(DataRefused, check=about(ErrorCode.MALFORMED, "line 3")):
        read_pairs(arms, "", NOW + 50)


def test_a_log_of_another_format_is_an_error(arms, stable):
    stable.path.write_bytes(b'{"format":"dwcp-prediction-log","schema_version":9}\n')
    with pytest.raises(DataRefused, check=about(ErrorCode.UNSUPPORTED, stable.path.name)):
        read_pairs(arms, "", NOW + 50)
    stable.path.write_bytes(b'{"hello":1}\n')
    with pytest.raises(DataRefused, check=about(ErrorCode.MALFORMED, stable.path.name)):
        read_pairs(arms, "", NOW + 50)


def test_a_finished_segment_that_is_cut_off_is_an_error(arms, stable):
    stable.log("a", 0)
    stable.finish()
    stable.path.write_bytes(stable.path.read_bytes()[:-3])
    with pytest.raises(DataRefused, check=about(ErrorCode.INCOMPLETE, "line 2")):
        read_pairs(arms, "", NOW + 50)


def test_a_log_that_is_not_there_is_an_error(stable, tmp_path):
    arms = Arms(MODEL, stable.directory, tmp_path / "none", "v1", "v2")
    with pytest.raises(DataRefused, check=about(ErrorCode.CANT_READ, "none")):
        read_pairs(arms, "", NOW)


def test_too_many_waiting_requests_are_an_error(arms, stable, monkeypatch):
    monkeypatch.setattr("dwcp_ml.prediction_log.pairs.MAX_WAITING_REQUESTS", 5)
    for number in range(10):
        stable.log(f"r{number}", 0)
    with pytest.raises(DataRefused, check=about(ErrorCode.TOO_LARGE, "waiting requests")):
        read_pairs(arms, "", NOW + 50)


@pytest.mark.parametrize("cursor", ["x", "[]", "{}", '{"settled":"nan"}', '{"settled":NaN}'])
def test_an_invalid_cursor_is_rejected(arms, cursor):
    with pytest.raises(UsageError, check=about(ErrorCode.MALFORMED, "cursor")):
        read_pairs(arms, cursor, NOW)


def test_arms_that_cannot_be_distinguished_are_rejected(tmp_path):
    with pytest.raises(UsageError, check=about(ErrorCode.AMBIGUOUS, "arms")):
        Arms(MODEL, tmp_path, tmp_path / ".", "v1", "v1")


@pytest.mark.parametrize("wrong", [{"wait_seconds": 0}, {"since": math.nan}, {"max_records": 0}])
def test_numbers_out_of_range_are_rejected(tmp_path, wrong):
    with pytest.raises(UsageError):
        Arms(MODEL, tmp_path, tmp_path, "v1", "v2", **wrong)


def test_the_log_of_a_server_is_read(tmp_path):
    for name, version, level in (("s", "v1", 2), ("c", "v2", 7)):
        log = PredictionLog(tmp_path / name, clock=lambda: NOW)
        for number in range(20):
            answers = {"compression_level": np.array([level if number < 5 else 1])}
            log.offer(MODEL, version, "", f"r{number}", None, None, np.zeros((1, 6)), answers)
        log.close(10.0)
    arms = Arms(MODEL, tmp_path / "s", tmp_path / "c", "v1", "v2")
    joined = read_pairs(arms, "", NOW + 50)
    assert [pair.difference for pair in joined.pairs] == [1.0] * 5 + [0.0] * 15


@pytest.mark.parametrize(
    ("model", "ours", "theirs", "wanted"),
    [
        (BANDWIDTH, {"next_throughput_mbps": 100.0}, {"next_throughput_mbps": 90.0}, 0.1),
        (BANDWIDTH, {"next_throughput_mbps": 0.5}, {"next_throughput_mbps": 0.25}, 0.25),
        (BANDWIDTH, {"next_throughput_mbps": 2.0}, {"next_throughput_mbps": 9.0}, 1.0),
        (BANDWIDTH, {"next_throughput_mbps": 2.0}, {"next_throughput_mbps": None}, 1.0),
        (BANDWIDTH, {"next_throughput_mbps": 2.0}, {}, 1.0),
        (BANDWIDTH, {}, {}, 1.0),
        (BANDWIDTH, {"bandwidth_class": 1}, {"bandwidth_class": 1}, 0.0),
        (BANDWIDTH, {"bandwidth_class": 1}, {"bandwidth_class": 2}, 1.0),
        (BANDWIDTH, {"bandwidth_class": 1}, {"next_throughput_mbps": 1.0}, 1.0),
        ("compression_selector", {"compression_level": 3}, {"compression_level": 3}, 0.0),
        ("compression_selector", {"compression_level": 3}, {"compression_level": 4}, 1.0),
        ("reliability_detector", {"is_anomaly": True}, {"is_anomaly": True}, 0.0),
        ("reliability_detector", {"is_anomaly": True}, {"is_anomaly": False}, 1.0),
        ("consensus_latency", {"is_high_latency": False}, {"is_high_latency": False}, 0.0),
        ("consensus_latency", {"is_high_latency": False}, {"is_high_latency": math.nan}, 1.0),
    ],
)  # fmt: skip
def test_difference_of_two_predictions(model, ours, theirs, wanted):
    assert absolute(signed(model, ours, theirs)) == pytest.approx(wanted)
