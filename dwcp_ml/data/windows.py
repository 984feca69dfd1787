"""Runs of consecutive rows of one series: the windows that fit in them, and the episodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from dwcp_ml.contract.arrays import Array, Floats, Ints, Mask

if TYPE_CHECKING:
    import pandas as pd

MIN_STEPS: Final = 20
"""A series with fewer steps shows no cadence of its own: that of the file counts."""

OWN_SHARE: Final = 0.75
"""The share of the steps of a series that must be near their median, for a cadence of its own."""


def usual_step(steps: Array, counts: Ints) -> float | None:
    """Return the cadence that a histogram of steps shows, in the unit of the steps.

    The median step if at least half of the steps lie within 50 % of it, else, where the rows are
    irregular, the most frequent step (the shortest of them). ``None`` without a positive step.
    ``steps`` are the distinct ones and ``counts`` how often each occurs, shape (k,).
    """
    steps, counts, one = _positive(steps, counts, np.zeros(len(steps), np.int64))
    if len(steps) == 0:
        return None
    regular = regular_steps(steps, counts, one, 1)[0]
    return float(steps[counts == counts.max()].min() if np.isnan(regular) else regular)


def regular_steps(
    steps: Array, counts: Ints, series: Ints, size: int, share: float = 0.5
) -> Floats:
    """Return the median step of each series, NaN where its steps are irregular, (size,).

    They are regular if at least ``share`` of them lie within 50 % of the median. ``series`` is the
    series of each of the distinct steps, from 0 to ``size`` - 1, (k,).
    """
    steps, counts, series = _positive(steps, counts, series)
    totals = np.bincount(series, counts, size)
    present = totals > 0
    ranks = np.cumsum(totals) - totals + (totals + 1) // 2
    medians = np.full(size, np.nan)
    medians[present] = steps[np.searchsorted(np.cumsum(counts), ranks[present])]
    near = np.abs(steps - medians[series]) <= 0.5 * medians[series]
    regular = np.bincount(series, counts * near, size) >= share * totals
    return np.where(present & regular, medians, np.nan)


def _positive(steps: Array, counts: Ints, series: Ints) -> tuple[Floats, Ints, Ints]:
    """Return the steps above 0 in the order of series, then of size."""
    order = np.lexsort((steps, series))
    order = order[(steps[order] > 0) & (counts[order] > 0)]
    return np.asarray(steps[order], np.float64), counts[order], series[order]


def own_or_common(steps: Array, counts: Ints, series: Ints, size: int) -> Floats:
    """Return the usual step of each series, (size,), of all series where it has few steps.

    A series has a usual step of its own if it has ``MIN_STEPS`` steps and they are regular, so that
    links of one file may be polled at different intervals. 0 if no series has a step. Parameters
    as in :func:`usual_step`, ``series`` from 0 to ``size`` - 1.
    """
    common = usual_step(*_summed(steps, counts))
    totals = np.bincount(series, counts * (steps > 0), size)
    own = regular_steps(steps, counts, series, size, OWN_SHARE)
    enough = (totals >= MIN_STEPS) & ~np.isnan(own)
    return np.where(enough, own, 0.0 if common is None else common)


def cadence(timestamp: Floats, series: Array) -> float:
    """Return the usual step between rows of one series, in seconds; 0 where there is none."""
    steps, counts, _ = _steps(timestamp, series)
    return usual_step(*_summed(steps, counts)) or 0.0


def _summed(steps: Array, counts: Ints) -> tuple[Array, Ints]:
    """Return the distinct steps of all series, and how often each occurs."""
    distinct, place = np.unique(steps, return_inverse=True)
    return distinct, np.bincount(place, counts, len(distinct)).astype(np.int64)


def cadences(timestamp: Floats, series: Ints) -> Floats:
    """Return the usual step of each series, in seconds, (k,); see :func:`own_or_common`.

    ``series`` numbers the series from 0 to k - 1.
    """
    return own_or_common(*_steps(timestamp, series), int(series.max(initial=-1)) + 1)


def _steps(timestamp: Floats, series: Array) -> tuple[Floats, Ints, Ints]:
    """Return the distinct steps of each series, in seconds, how often each occurs, the series."""
    order = np.lexsort((timestamp, series))
    within = np.diff(series[order]) == 0
    steps = np.rint(1000.0 * np.diff(timestamp[order])[within]) / 1000.0
    whose = np.asarray(series[order][1:][within], np.int64)
    order = np.lexsort((steps, whose))
    steps, whose = steps[order], whose[order]
    begins = np.ones(len(steps), np.bool_)
    begins[1:] = (np.diff(steps) != 0) | (np.diff(whose) != 0)
    counts = np.diff(np.append(np.flatnonzero(begins), len(steps)))
    return steps[begins], counts, whose[begins]


def run_lengths(
    timestamp: Floats, series: Array, split_id: Array, max_step: Floats | float
) -> tuple[Ints, Ints]:
    """Return the rows in the order of series and time, and how many consecutive ones end at each.

    Both are int64 (n,): ``order[k]`` is the position of the k-th row, ``lengths[k]`` counts the
    rows of its run up to and including it. A run ends where the series or the split changes, where
    a step exceeds ``max_step`` seconds (of its series, where an array (k,) is given), and where two
    rows have the same time.
    """
    order = np.lexsort((timestamp, series))
    step = np.diff(timestamp[order])
    limit = max_step[series[order][1:]] if isinstance(max_step, np.ndarray) else max_step
    joined = (step > 0) & (step <= limit)
    for key in (series, split_id):
        joined &= key[order][1:] == key[order][:-1]
    position = np.arange(len(order))
    starts = np.zeros(len(order), np.int64)
    starts[1:] = np.where(joined, 0, position[1:])
    return order, position - np.maximum.accumulate(starts) + 1


def window_rows(
    timestamp: Floats, series: Array, split_id: Array, length: int, max_step: Floats | float
) -> Ints:
    """Return every window of ``length`` consecutive rows, as row positions, int64 (m, length).

    A window crosses no end of a run of :func:`run_lengths`. Each is in the order of time, the
    windows in the order of their last rows (time, then series). All arrays have shape (n,), times
    are epoch seconds.
    """
    order, lengths = run_lengths(timestamp, series, split_id, max_step)
    ends = np.flatnonzero(lengths >= length)
    rows = order[ends[:, np.newaxis] + np.arange(1 - length, 1)]
    last = rows[:, -1]
    result: Ints = rows[np.lexsort((series[last], timestamp[last]))]
    return result


def longest_run(timestamp: Floats, series: Array, split_id: Array, max_step: Floats | float) -> int:
    """Return the rows of the longest run of :func:`run_lengths`; 0 for no rows."""
    _, lengths = run_lengths(timestamp, series, split_id, max_step)
    return int(lengths.max(initial=0))


TOGETHER: Final = 0.25
"""Rows of a node that follow each other within this share of the cadence of its links are one
observation: the rows of its peers, each written a few milliseconds after the other."""


def observation_times(timestamp: Floats, series: Ints, together: Floats | float) -> Floats:
    """Return the time of the observation that each row belongs to, that of its first row.

    A series whose rows follow each other so closely without end, because its rows are spread over
    the whole cadence, is left as it is.

    Parameters
    ----------
    timestamp, series
        Epoch seconds and the number of the series, shape (n,), in any order.
    together
        A row that follows another one within this time belongs to its observation, seconds; of
        each series, (k,), or of all.
    """
    order = np.lexsort((timestamp, series))
    times, of_series = timestamp[order], series[order]
    if isinstance(together, np.ndarray):
        together = together[of_series]
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


def one_row_a_node(
    frame: pd.DataFrame, together: Mapping[str, float] | None = None
) -> tuple[pd.DataFrame, bool]:
    """Return one row for each node and observation, and whether all of them are labelled.

    Rows of several peers at one time agree on the latency; the time is labelled high if any of
    them is. Column ``observed_rows`` counts them. ``together`` is that of the nodes, by
    :func:`node_together` of more rows; nodes that it lacks have the shortest of all.
    """
    key = ["timestamp", "node_id"]
    timestamp = frame["timestamp"].to_numpy(np.float64)
    spans = node_together(frame) if together is None else together
    node, names = _nodes(frame)
    shortest = min(spans.values(), default=0.0)
    limits = np.array([spans.get(name, shortest) for name in names], np.float64)
    frame = frame.assign(timestamp=observation_times(timestamp, node, limits), observed_rows=1)
    labelled = "is_high_latency" in frame and bool(frame["is_high_latency"].notna().all())
    rules = {"consensus_latency_ms": "first", "observed_rows": "sum"}
    rules |= {"is_high_latency": "max"} if labelled else {}
    return frame.groupby(key, sort=True, as_index=False)[list(rules)].agg(rules), labelled


def node_together(frame: pd.DataFrame) -> dict[str, float]:
    """Return the time within which rows of a node are one observation, seconds, by its name."""
    link = np.asarray(frame.groupby(["node_id", "peer_id"], sort=False).ngroup(), np.int64)
    node, names = _nodes(frame)
    shortest = _shortest_cadence(frame["timestamp"].to_numpy(np.float64), link, node)
    return dict(zip(names, (TOGETHER * shortest).tolist(), strict=True))


def _nodes(frame: pd.DataFrame) -> tuple[Ints, list[str]]:
    """Return the index of each row's node, and the names of the nodes, as they appear."""
    index = np.asarray(frame.groupby("node_id", sort=False).ngroup(), np.int64)
    return index, frame["node_id"].unique().tolist()


def _shortest_cadence(timestamp: Floats, link: Ints, node: Ints) -> Floats:
    """Return the shortest regular step of the links of each node, seconds, (k,); 0 for none.

    A link with few steps has that of all links.
    """
    steps, counts, series = _steps(timestamp, link)
    size = int(link.max(initial=-1)) + 1
    common = regular_steps(steps, counts, np.zeros(len(steps), np.int64), 1)[0]
    totals = np.bincount(series, counts * (steps > 0), size)
    own = regular_steps(steps, counts, series, size)
    of_link = np.where(totals >= MIN_STEPS, own, common)
    shortest = np.full(int(node.max(initial=-1)) + 1, np.inf)
    np.fmin.at(shortest, node, of_link[link])
    result: Floats = np.where(np.isfinite(shortest), shortest, 0.0)
    return result


def episodes(timestamp: Floats, series: Ints, high: Mask, max_step: Floats | float) -> Ints:
    """Return the index of the episode of every row, -1 outside: a run of consecutive high rows.

    Episodes are numbered in the order in which they begin (then of their series), so later
    rows never change the number of an earlier one.
    """
    order, lengths = run_lengths(timestamp, series, high, max_step)
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
