"""The time of one prediction, with a fake clock."""

import numpy as np
import pytest

from dwcp_ml.contract.errors import ErrorCode, ExportFailed
from dwcp_ml.export import latency
from dwcp_ml.export.latency import MIN_CALLS, measure, session
from tests.errors import about


class Recorder:
    """A session that records its inputs."""

    def __init__(self):
        self.asked = []

    def run(self, _names, feed):
        self.asked.append(feed["features"])


@pytest.fixture
def recorder(monkeypatch):
    made = Recorder()
    monkeypatch.setattr(latency, "session", lambda _bytes: made)
    return made


def test_it_asks_one_instance_at_a_time_in_turn_after_a_warm_up(recorder):
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    found = measure(b"", rows, calls=2000)
    assert found.calls == 2000
    assert len(recorder.asked) == 2000 + latency.WARM_UP
    assert {asked.shape for asked in recorder.asked} == {(1, 4)}
    asked = [int(row[0, 0]) for row in recorder.asked[latency.WARM_UP :]]
    assert asked[:4] == [0, 4, 8, 0]


def test_it_stops_when_the_time_is_up_but_not_before_a_percentile_means_something(recorder):
    rows = np.zeros((1, 4), dtype=np.float32)
    ticking = iter(range(0, 10**15, 10**9))  # every look at the clock takes a second
    found = measure(b"", rows, calls=5000, seconds=20, clock=lambda: next(ticking))
    assert found.calls == MIN_CALLS
    assert found.p50_ms == found.p99_ms == 1000.0


def test_the_percentiles_are_those_of_the_calls(recorder):
    times = np.arange(1, 1001) * 1_000_000  # 1 ms to 1000 ms
    now, pending = 0, []

    def clock():
        nonlocal now
        if clock.inside:
            now += pending.pop(0)
        clock.inside = False
        return now

    clock.inside = False
    pending.extend(times.tolist())
    run = recorder.run
    count = 0

    def slow(names, feed):
        nonlocal count
        count += 1
        clock.inside = count > latency.WARM_UP
        run(names, feed)

    recorder.run = slow
    found = measure(
        b"", np.zeros((1, 4), dtype=np.float32), calls=1000, seconds=1e9, rounds=1, clock=clock
    )
    assert found.p50_ms == pytest.approx(500.5)
    assert found.p99_ms == pytest.approx(990.01)


class Machine:
    """A clock, and a session whose n-th call after the warm-up takes ``durations[n]`` ms."""

    def __init__(self, durations):
        self.durations = [0.0] * latency.WARM_UP + [float(each) for each in durations]
        self.now = 0

    def run(self, _names, _feed):
        self.now += int(self.durations.pop(0) * 1e6)

    def clock(self):
        return self.now


def test_what_disturbs_a_stretch_does_not_count_and_a_slow_tail_does(monkeypatch):
    rows = np.zeros((1, 4), dtype=np.float32)
    disturbed, tail = np.full(1000, 1.0), np.full(1000, 1.0)
    disturbed[:400] = 50.0
    tail[::20] = 50.0
    p99 = []
    for durations in (disturbed, tail):
        machine = Machine(durations)
        monkeypatch.setattr(latency, "session", lambda _bytes, machine=machine: machine)
        found = measure(b"", rows, calls=1000, seconds=1e9, rounds=5, clock=machine.clock)
        p99.append(found.p99_ms)
    assert p99 == [1.0, 50.0]


def test_a_real_graph_has_percentiles(forest):
    found = measure(forest.onnx, forest.rows, calls=2000)
    assert 0 < found.p50_ms <= found.p99_ms


def test_nothing_to_ask_or_nobody_to_answer(forest):
    with pytest.raises(ExportFailed, check=about(ErrorCode.NO_DATA)):
        measure(forest.onnx, np.empty((0, 6), dtype=np.float32))
    with pytest.raises(ExportFailed, check=about(ErrorCode.MALFORMED, "graph")):
        session(b"not a graph")
