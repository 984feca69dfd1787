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
    assert [each.calls for each in found.attempts] == [2000]
    assert len(recorder.asked) == 2000 + latency.WARM_UP
    assert {asked.shape for asked in recorder.asked} == {(1, 4)}
    asked = [int(row[0, 0]) for row in recorder.asked[latency.WARM_UP :]]
    assert asked[:4] == [0, 4, 8, 0]


def test_it_stops_when_the_time_is_up_but_not_before_a_percentile_means_something(recorder):
    rows = np.zeros((1, 4), dtype=np.float32)
    ticking = iter(range(0, 10**15, 10**9))  # every look at the clock takes a second
    found = measure(b"", rows, calls=5000, seconds=20, clock=lambda: next(ticking))
    # Half of all calls are over the limit: to measure again would change nothing.
    assert [each.calls for each in found.attempts] == [MIN_CALLS]
    assert found.p50_ms == found.p99_ms == 1000.0


def test_the_percentiles_are_those_of_the_calls(recorder):
    times = np.arange(1, 1001) * 1_000_000  # 1 ms to 1000 ms, under the limit that is set
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
        b"", np.zeros((1, 4), dtype=np.float32), limit_ms=1e4, calls=1000, seconds=1e9, clock=clock
    )
    assert found.p50_ms == pytest.approx(500.5)
    assert found.p99_ms == pytest.approx(990.01)


class Machine:
    """A clock, and a session whose n-th call takes ``durations[n]`` ms.

    Each look at the clock takes ``looking`` ms.
    """

    def __init__(self, durations, looking=0.0):
        self.durations = [1.0] * latency.WARM_UP + [float(each) for each in durations]
        self.looking = looking
        self.now = 0

    def run(self, _names, _feed):
        self.now += int(self.durations.pop(0) * 1e6)

    def clock(self):
        self.now += int(self.looking * 1e6)
        return self.now


def on(machine, monkeypatch):
    monkeypatch.setattr(latency, "session", lambda _bytes: machine)
    rows = np.zeros((1, 4), dtype=np.float32)
    return measure(b"", rows, calls=100, seconds=1e9, clock=machine.clock)


@pytest.mark.parametrize("slow", [0, 1, 4])
def test_it_is_measured_again_until_one_measurement_is_under_the_limit(slow, monkeypatch):
    disturbed, calm = np.full(100, 1.0), np.full(100, 1.0)
    disturbed[:40] = 50.0
    machine = Machine([*np.tile(disturbed, slow), *calm], looking=0.001)
    found = on(machine, monkeypatch)
    assert [each.p99_ms > 10 for each in found.attempts] == [True] * slow + [False]
    assert found.p99_ms == pytest.approx(1.0, abs=0.01)
    assert not machine.durations, "it went on after the first measurement under the limit"


def test_a_slow_tail_is_slow_in_every_measurement_and_the_fastest_counts(monkeypatch):
    tail = np.full(100, 1.0)
    tail[::20] = 50.0
    slowest_first = np.concatenate([tail * (6 - n) for n in range(latency.ATTEMPTS)])
    found = on(Machine(slowest_first, looking=0.001), monkeypatch)
    assert len(found.attempts) == latency.ATTEMPTS
    assert found.p99_ms == found.attempts[-1].p99_ms == pytest.approx(100.0, rel=0.01)
    assert found.p50_ms == found.attempts[-1].p50_ms


def test_the_noise_is_that_of_a_loop_as_long_as_the_median_inference(monkeypatch):
    """The loop reads the clock until 1 ms has passed, so it is late by at most one reading."""
    quiet = on(Machine(np.full(100, 1.0), looking=0.001), monkeypatch)
    assert quiet.attempts[0].bare_p99_ms == pytest.approx(1.0, abs=0.01)
    # A machine that takes 12 ms away at each reading of the clock.
    noisy = on(Machine(np.full(500, 1.0), looking=12.0), monkeypatch)
    assert all(each.bare_p99_ms >= 12.0 for each in noisy.attempts)
    assert noisy.p99_ms >= 12.0


def test_a_real_graph_has_percentiles(forest):
    found = measure(forest.onnx, forest.rows, calls=2000)
    assert 0 < found.p50_ms <= found.p99_ms


def test_nothing_to_ask_or_nobody_to_answer(forest):
    with pytest.raises(ExportFailed, check=about(ErrorCode.NO_DATA)):
        measure(forest.onnx, np.empty((0, 6), dtype=np.float32))
    with pytest.raises(ExportFailed, check=about(ErrorCode.MALFORMED, "graph")):
        session(b"not a graph")
