"""Runs of consecutive rows of one series: the windows that fit in them, and the episodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from dwcp_ml.contract.arrays import Array, Floats, Ints, Mask

if TYPE_CHECKING:
    import pandas as pd

GAP_FACTOR: Final = 1.5
"""A step longer than this many cadences is a gap."""


def usual_step(steps: Array, counts: Ints) -> float | None:
    """Return the cadence that a histogram of steps shows, in the unit of the steps.

    That of ``regular_step``, or, where the rows are irregular, the most frequent step (the shortest
    of them). ``None`` when there is no positive step. ``steps`` are the distinct ones and
    ``counts`` how often each occurs, shape (k,).
    """
    positive = (steps > 0) & (counts > 0)
    steps, counts = steps[positive], counts[positive]
    if len(steps) == 0:
        return None
    regular = regular_step(steps, counts)
    return float(steps[counts == counts.max()].min()) if regular is None else regular


def regular_step(steps: Array, counts: Ints) -> float | None:
    """Return the median step if at least half of the steps lie within 50 % of it, else ``None``.

    ``steps`` are positive and ``counts`` is how often each occurs, shape (k,), k > 0.
    """
    order = np.argsort(steps)
    steps, counts = steps[order], counts[order]
    running = np.cumsum(counts)
    median = float(steps[np.searchsorted(running, (running[-1] + 1) // 2)])
    near = counts[np.abs(steps - median) <= 0.5 * median].sum()
    return median if 2 * near >= running[-1] else None


def cadence(timestamp: Floats, series: Array) -> float:
    """Return the usual step between rows of one series, in seconds; 0 where there is none."""
    return usual_step(*_steps(timestamp, series)) or 0.0


def _steps(timestamp: Floats, series: Array) -> tuple[Floats, Ints]:
    """Return the distinct steps between rows of one series, and how often each occurs."""
    order = np.lexsort((timestamp, series))
    steps = np.diff(timestamp[order])[np.diff(series[order]) == 0]
    return np.unique(np.rint(1000.0 * steps) / 1000.0, return_counts=True)


def run_lengths(
    timestamp: Floats, series: Array, split_id: Array, cadence_seconds: float
) -> tuple[Ints, Ints]:
    """Return the rows in the order of series and time, and how many consecutive ones end at each.

    Both are int64 (n,): ``order[k]`` is the position of the k-th row, ``lengths[k]`` counts the
    rows of its run up to and including it. A run ends where the series or the split changes, where
    a step exceeds ``GAP_FACTOR`` cadences, and where two rows have the same time.
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
    timestamp: Floats, series: Array, split_id: Array, length: int, cadence_seconds: float
) -> Ints:
    """Return every window of ``length`` consecutive rows, as row positions, int64 (m, length).

    A window crosses no end of a run of :func:`run_lengths`. Each is in the order of time, the
    windows in the order of their last rows (time, then series). All arrays have shape (n,), times
    are epoch seconds.
    """
    order, lengths = run_lengths(timestamp, series, split_id, cadence_seconds)
    ends = np.flatnonzero(lengths >= length)
    rows = order[ends[:, np.newaxis] + np.arange(1 - length, 1)]
    last = rows[:, -1]
    result: Ints = rows[np.lexsort((series[last], timestamp[last]))]
    return result


def longest_run(timestamp: Floats, series: Array, split_id: Array, cadence_seconds: float) -> int:
    """Return the rows of the longest run of :func:`run_lengths`; 0 for no rows."""
    _, lengths = run_lengths(timestamp, series, split_id, cadence_seconds)
    return int(lengths.max(initial=0))


TOGETHER: Final = 0.25
"""Rows of a node that follow each other within this share of the cadence of its links are one
observation: the rows of its peers, each written a few milliseconds after the other."""


def observation_times(timestamp: Floats, series: Ints, together: float) -> Floats:
    """Return the time of the observation that each row belongs to, that of its first row.

    A series whose rows follow each other so closely without end, because its rows are spread over
    the whole cadence, is left as it is.

    Parameters
    ----------
    timestamp, series
        Epoch seconds and the number of the series, shape (n,), in any order.
    together
        A row that follows another one within this time belongs to its observation, seconds.
    """
    order = np.lexsort((timestamp, series))
    times, of_series = timestamp[order], series[order]
    step = np.diff(times, prepend=-np.inf)
    begins = np.ones(len(order), np.bool_)
    begins[1:] = of_series[1:] != of_series[:-1]
    apart = begins | (step > 0.0)
    begins |= step > together
    first = times[np.flatnonzero(begins)[np.cumsum(begins) - 1]] if len(order) else times
    spread = np.isin(of_series, of_series[times - first > together])
    begins = np.where(spread, apart, begins)
    result = np.empty_like(timestamp)
    result[order] = times[np.flatnonzero(begins)[np.cumsum(begins) - 1]] if len(order) else times
    return result


def one_row_a_node(frame: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """Return one row for each node and observation, and whether all of them are labelled.

    Rows of several peers at one time agree on the latency; the time is labelled high if any of
    them is.
    """
    key = ["timestamp", "node_id"]
    timestamp = frame["timestamp"].to_numpy(np.float64)
    link, node = (
        np.asarray(frame.groupby(names, sort=False).ngroup(), np.int64)
        for names in (["node_id", "peer_id"], ["node_id"])
    )
    steps, counts = _steps(timestamp, link)
    step = regular_step(steps[steps > 0.0], counts[steps > 0.0]) if steps.any() else None
    together = TOGETHER * (step or 0.0)
    frame = frame.assign(timestamp=observation_times(timestamp, node, together))
    labelled = "is_high_latency" in frame and bool(frame["is_high_latency"].notna().all())
    columns = ["consensus_latency_ms", *(["is_high_latency"] if labelled else [])]
    grouped = frame.groupby(key, sort=True, as_index=False)[columns]
    return grouped.agg(
        {name: "max" if name == "is_high_latency" else "first" for name in columns}
    ), labelled


def episodes(timestamp: Floats, series: Ints, high: Mask, step: float) -> Ints:
    """Return the index of the episode of every row, -1 outside: a run of consecutive high rows.

    Episodes are numbered in the order in which they begin (then of their series), so later
    rows never change the number of an earlier one.
    """
    order, lengths = run_lengths(timestamp, series, high, step)
    begins = (lengths == 1) & high[order]
    first = order[begins]
    number = np.empty(len(first), np.int64)
    number[np.lexsort((series[first], timestamp[first]))] = np.arange(len(first))
    episode = np.full(len(high), -1, np.int64)
    inside = high[order]
    episode[order[inside]] = number[np.cumsum(begins)[inside] - 1]
    return episode


def latest_episode(episode: Ints, rows: Ints) -> Ints:
    """Return the latest episode that overlaps a window, -1 for none."""
    latest: Ints = episode[rows].max(axis=1)
    return latest
