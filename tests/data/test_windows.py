import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwcp_ml.cli import shared
from dwcp_ml.contract.examples import GAP_FACTOR, BandwidthData, LatencyData
from dwcp_ml.data.windows import (
    MIN_STEPS,
    cadence,
    cadences,
    longest_run,
    usual_step,
    window_rows,
)
from tests.matrix import examples

rows = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2), st.integers(0, 2)), max_size=60)


def naive_windows(timestamp, series, split_id, length, step):
    """Every window by the definition: sort, and compare neighbours one by one."""
    windows = []
    for name in sorted(set(series.tolist())):
        own = sorted(np.flatnonzero(series == name).tolist(), key=lambda row: (timestamp[row], row))
        for begin in range(len(own) - length + 1):
            window = own[begin : begin + length]
            pairs = itertools.pairwise(window)
            if all(
                0 < timestamp[b] - timestamp[a] <= 2.5 * step and split_id[a] == split_id[b]
                for a, b in pairs
            ):
                windows.append(tuple(window))
    return sorted(windows, key=lambda w: (timestamp[w[-1]], series[w[-1]], w))


@settings(max_examples=examples(120))
@given(rows, st.integers(1, 5), st.sampled_from([1.0, 2.0]))
def test_windows_equal_the_definition(cells, length, step):
    timestamp, series, split_id = (
        np.array(column, np.int64) for column in (zip(*cells, strict=True) if cells else ([],) * 3)
    )
    found = window_rows(timestamp, series, split_id, length, 2.5 * step)
    expected = naive_windows(timestamp, series, split_id, length, step)
    as_tuples = sorted(
        (tuple(window) for window in found.tolist()),
        key=lambda w: (timestamp[w[-1]], series[w[-1]], w),
    )
    if length == 1:  # rows of one time are indistinguishable: any order of them is right
        assert sorted(as_tuples) == sorted(expected)
    else:
        assert as_tuples == expected
    assert (np.diff(timestamp[found[:, -1]]) >= 0).all()


@given(rows, st.integers(1, 4))
def test_there_is_a_window_exactly_when_a_run_is_long_enough(cells, length):
    timestamp, series, split_id = (
        np.array(column, np.int64) for column in (zip(*cells, strict=True) if cells else ([],) * 3)
    )
    run = longest_run(timestamp, series, split_id, 1.0)
    assert (len(window_rows(timestamp, series, split_id, length, 1.0)) > 0) == (run >= length)


@pytest.mark.parametrize(("step", "whole"), [(150, True), (151, False)])
def test_a_gap_is_longer_than_the_longest_step(step, whole):
    timestamp = np.array([0, 60, 60 + step, 120 + step])
    zeros = np.zeros(4, np.int64)
    assert len(window_rows(timestamp, zeros, zeros, 4, 150.0)) == int(whole)
    assert len(window_rows(timestamp, zeros, zeros, 4, np.array([150.0]))) == int(whole)


def test_links_of_one_file_may_have_their_own_cadences():
    fast, slow, short = 10 * np.arange(300), 60 * np.arange(50), np.array([0, 60, 120])
    timestamp = np.concatenate([fast, slow, short]).astype(float)
    series = np.repeat([0, 1, 2], [300, 50, 3])
    assert cadence(timestamp, series) == 10.0
    assert cadences(timestamp, series).tolist() == [10.0, 60.0, 10.0]
    limit = 2.5 * cadences(timestamp, series)
    windows = window_rows(timestamp, series, np.zeros(353, np.int8), 11, limit)
    assert np.bincount(series[windows[:, 0]]).tolist() == [290, 40]


def test_a_clock_that_jitters_loses_no_window():
    rng = np.random.default_rng(0)
    timestamp = np.cumsum(rng.integers(50, 71, 1000)).astype(float)
    zeros = np.zeros(1000, np.int64)
    limit = BandwidthData().gap_factor * cadences(timestamp, zeros)
    assert len(window_rows(timestamp, zeros, zeros, 11, limit)) == 990


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=120))
def test_cadences_are_those_of_each_series_alone(cells):
    series, steps = (np.array([cell[k] for cell in sorted(cells)], np.int64) for k in (0, 1))
    timestamp = np.cumsum(steps).astype(float)
    common = cadence(timestamp, series)
    for number, found in enumerate(cadences(timestamp, series)):
        own = timestamp[series == number]
        moved = np.diff(own)[np.diff(own) > 0]
        middle = np.sort(moved)[(len(moved) - 1) // 2] if len(moved) >= MIN_STEPS else np.nan
        regular = (np.abs(moved - middle) <= 0.5 * middle).sum() >= 0.75 * max(len(moved), 1)
        assert found == (middle if regular else common)


def test_a_node_that_is_seen_at_random_times_has_no_cadence_of_its_own():
    rng = np.random.default_rng(0)
    timestamp, series = 60.0 * np.arange(10_000), rng.integers(0, 100, 10_000)
    assert set(cadences(timestamp, series)) == {cadence(timestamp, series)}


def test_the_defaults_of_the_commands_are_those_of_the_contract():
    assert shared.gap_factor(lambda: None).__click_params__[0].default == GAP_FACTOR
    assert BandwidthData().gap_factor == LatencyData().gap_factor == GAP_FACTOR


def test_cadence_is_the_median_step_of_a_series():
    timestamp = np.array([0, 60, 120, 180, 1000, 7, 67, 127])
    series = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    assert cadence(timestamp, series) == 60.0


def test_cadence_tolerates_jitter_and_gaps():
    rng = np.random.default_rng(0)
    steps = 60 + rng.integers(-5, 6, 1000)
    steps[::50] = 3600
    assert 55 <= cadence(np.cumsum(steps), np.zeros(1000)) <= 65


def test_irregular_rows_have_the_most_frequent_step():
    rng = np.random.default_rng(0)
    steps = 60 * rng.geometric(0.02, 5000)
    assert cadence(np.cumsum(steps), np.zeros(5000)) < 0.5 * np.median(steps)


@pytest.mark.parametrize(("steps", "expected"), [([], None), ([0, -5], None), ([30], 30.0)])
def test_usual_step_of_few_steps(steps, expected):
    steps = np.array(steps, np.int64)
    assert usual_step(steps, np.ones(len(steps), np.int64)) == expected


def test_no_row_has_no_cadence():
    assert cadence(np.array([5]), np.array([0])) == 0.0
    assert cadence(np.empty(0, np.int64), np.empty(0, np.int64)) == 0.0
