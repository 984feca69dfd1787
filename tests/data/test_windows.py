import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwcp_ml.data.windows import cadence, longest_run, usual_step, window_rows
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
                0 < timestamp[b] - timestamp[a] <= 1.5 * step and split_id[a] == split_id[b]
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
    found = window_rows(timestamp, series, split_id, length, step)
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


@pytest.mark.parametrize(
    ("step", "whole"), [(90, True), (91, False)], ids=["1.5 cadences", "just over"]
)
def test_a_gap_is_more_than_one_and_a_half_cadences(step, whole):
    timestamp = np.array([0, 60, 60 + step, 120 + step])
    zeros = np.zeros(4, np.int64)
    assert len(window_rows(timestamp, zeros, zeros, 4, 60.0)) == int(whole)


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
