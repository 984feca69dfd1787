"""Telemetry whose times are not whole seconds: clocks that jitter or drift, fast sampling."""

import numpy as np
import pandas as pd
import pytest

from dwcp_ml.contract.examples import BandwidthData, LatencyData
from dwcp_ml.contract.models import BANDWIDTH, LATENCY
from dwcp_ml.data.examples import prepare
from dwcp_ml.data.reading import load
from dwcp_ml.data.windows import observation_times, one_row_a_node

STEPS = 400


def moved(telemetry, cadence, seconds):
    """Return telemetry of one row a minute at another cadence, each row moved by some seconds."""
    start = telemetry["timestamp"].iloc[0]
    step = (telemetry["timestamp"] - start) / pd.Timedelta(minutes=1)
    offset = pd.to_timedelta(step * cadence + seconds, unit="s").round("us")
    return telemetry.assign(timestamp=start + pd.Timedelta(seconds=1) + offset)


def jitter(rows, width=0.060, seed=7):
    return np.random.default_rng(seed).uniform(-width, width, rows)


def drift(rows):
    """A clock that loses a second in an hour."""
    return -np.arange(rows) / rows * 0.4


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("cadence", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("of_clock", [jitter, drift], ids=["jitter", "drift"])
def test_no_row_is_lost_to_a_clock(check, write, make, tmp_path, cadence, of_clock, suffix):
    telemetry = make(steps=STEPS)
    clock = of_clock(len(telemetry)) * min(cadence, 1.0)
    path = write(moved(telemetry, cadence, clock), f"telemetry.{suffix}")
    report = check(path, output=tmp_path / "out")
    assert [each for each in report.defects if each.code in ("duplicate", "gap")] == []
    assert (report.rows, report.rows_quarantined) == (3 * STEPS, 0)
    assert report.cadence_seconds == pytest.approx(cadence, rel=0.02)
    frame = load(tmp_path / "out" / "telemetry.parquet", BANDWIDTH.needed_columns)
    data = prepare(BANDWIDTH, frame, BandwidthData())
    assert data.cadence_seconds == pytest.approx(cadence, rel=0.02)
    windows = 3 * (STEPS - 10)
    assert sum(data.rows.values()) > 0.9 * windows, "only those across a cut are lost"


def test_rows_out_of_order_are_told_apart_by_their_milliseconds(check, write, make):
    telemetry = make(steps=STEPS)
    frame = moved(telemetry, 0.1, jitter(len(telemetry), 0.02)).sample(frac=1.0, random_state=3)
    report = check(write(frame))
    assert {each.code for each in report.defects} == {"out_of_order"}
    assert report.cadence_seconds == pytest.approx(0.1, rel=0.02)


def test_a_gap_and_a_repeated_millisecond_are_still_found(check, write, make, defect_of):
    telemetry = moved(make(links=1, steps=STEPS), 1.0, jitter(STEPS))
    without = telemetry.drop(index=range(100, 103))
    twice = pd.concat([without, without.iloc[[300]]], ignore_index=True)
    report = check(write(twice))
    assert defect_of(report, "gap").count == 1
    assert defect_of(report, "duplicate").count == 1


def test_the_rows_of_a_nodes_peers_are_one_observation(check, write, make, tmp_path):
    """Each peer's row is written some milliseconds after the other: the node has one latency."""
    telemetry = make(links=4, steps=STEPS)
    frame = moved(telemetry, 1.0, jitter(len(telemetry)))
    check(write(frame), output=tmp_path / "out")
    frame = load(
        tmp_path / "out" / "telemetry.parquet", [*LATENCY.needed_columns, "is_high_latency"]
    )
    rows, labelled = one_row_a_node(frame)
    assert labelled
    assert rows.groupby("node_id").size().tolist() == [STEPS, STEPS]
    data = prepare(LATENCY, frame, LatencyData())
    assert data.cadence_seconds == pytest.approx(1.0, rel=0.05)
    assert sum(data.rows.values()) > 0.8 * 2 * (STEPS - 20)


def test_rows_that_follow_each_other_closely_are_one_observation():
    times = np.array([10.0, 10.02, 10.04, 11.0, 11.01, 12.6, 10.0, 10.4])
    series = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    found = observation_times(times, series, 0.25)
    assert found.tolist() == [10.0, 10.0, 10.0, 11.0, 11.0, 12.6, 10.0, 10.4]
    exact = observation_times(times, series, 0.0)
    assert exact.tolist() == times.tolist()
    assert observation_times(times[:0], series[:0], 0.25).tolist() == []


@pytest.mark.parametrize("peers", [3, 5])
def test_peers_that_are_spread_over_the_cadence_are_left_apart(peers):
    """A part of a file then has the same observations as the whole of it."""
    times = np.sort(np.concatenate([np.arange(50) + peer / peers for peer in range(peers)]))
    series = np.zeros(len(times), np.int64)
    assert observation_times(times, series, 0.25).tolist() == times.tolist()
    assert observation_times(times[1:], series[1:], 0.25).tolist() == times[1:].tolist()
