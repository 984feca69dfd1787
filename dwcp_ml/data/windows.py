"""Runs of consecutive rows of one series, and the windows that fit in them."""

from __future__ import annotations

from typing import Final

import numpy as np

from dwcp_ml.contract.arrays import Array, Ints

GAP_FACTOR: Final = 1.5
"""A step longer than this many cadences is a gap."""


def usual_step(steps: Ints, counts: Ints) -> float | None:
    """Return the cadence that a histogram of steps shows, in the unit of the steps.

    The median, if at least half of the steps lie within 50 % of it; else the rows are
    irregular, and the most frequent step (the shortest of them) is returned. ``None`` when
    there is no positive step.

    Parameters
    ----------
    steps : int64 of shape (k,)
        Distinct steps.
    counts : int64 of shape (k,)
        How often each occurs.
    """
    positive = (steps > 0) & (counts > 0)
    steps, counts = steps[positive], counts[positive]
    if len(steps) == 0:
        return None
    order = np.argsort(steps)
    steps, counts = steps[order], counts[order]
    running = np.cumsum(counts)
    median = float(steps[np.searchsorted(running, (running[-1] + 1) // 2)])
    near = counts[np.abs(steps - median) <= 0.5 * median].sum()
    return median if 2 * near >= running[-1] else float(steps[np.argmax(counts)])


def cadence(timestamp: Ints, series: Array) -> float:
    """Return the usual step between rows of one series, in seconds; 0 where there is none."""
    order = np.lexsort((timestamp, series))
    steps = np.diff(timestamp[order])[np.diff(series[order]) == 0]
    distinct, counts = np.unique(steps, return_counts=True)
    return usual_step(distinct, counts) or 0.0


def run_lengths(
    timestamp: Ints, series: Array, split_id: Array, cadence_seconds: float
) -> tuple[Ints, Ints]:
    """Return the rows in the order of series and time, and how many consecutive ones end at each.

    A run ends where the series or the split changes, where a step exceeds ``GAP_FACTOR`` cadences,
    and where two rows have the same time.

    Returns
    -------
    order, lengths : int64 of shape (n,)
        ``order[k]`` is the position of the k-th row; ``lengths[k]`` counts the rows of its run up
        to and including it.
    """
    order = np.lexsort((timestamp, series))
    step = np.diff(timestamp[order])
    joined = (step > 0) & (step <= GAP_FACTOR * cadence_seconds)
    for key in (series, split_id):
        joined &= key[order][1:] == key[order][:-1]
    position = np.arange(len(order))
    starts = np.zeros(len(order), np.int64)
    starts[1:] = np.where(joined, 0, position[1:])
    return order, position - np.maximum.accumulate(starts) + 1


def window_rows(
    timestamp: Ints, series: Array, split_id: Array, length: int, cadence_seconds: float
) -> Ints:
    """Return every window of ``length`` consecutive rows, as row positions.

    Parameters
    ----------
    timestamp : int64 of shape (n,)
        Epoch seconds.
    series, split_id : shape (n,)
        Windows never cross two values of either.
    length
        Rows in a window.
    cadence_seconds
        The usual step; a longer step than ``GAP_FACTOR`` of it is a gap, which no window crosses.

    Returns
    -------
    int64 of shape (m, length)
        Each window in the order of time, the windows in the order of their last rows (time, then
        series).
    """
    order, lengths = run_lengths(timestamp, series, split_id, cadence_seconds)
    ends = np.flatnonzero(lengths >= length)
    rows = order[ends[:, np.newaxis] + np.arange(1 - length, 1)]
    last = rows[:, -1]
    result: Ints = rows[np.lexsort((series[last], timestamp[last]))]
    return result


def longest_run(timestamp: Ints, series: Array, split_id: Array, cadence_seconds: float) -> int:
    """Return the rows of the longest run of :func:`run_lengths`; 0 for no rows."""
    _, lengths = run_lengths(timestamp, series, split_id, cadence_seconds)
    return int(lengths.max(initial=0))
