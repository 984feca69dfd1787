"""High-latency episodes of a node: runs of consecutive high rows."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dwcp_ml.contract.arrays import Ints, Mask
from dwcp_ml.data.windows import run_lengths


def one_row_a_node(frame: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """Return one row for each node and time, and whether all of them are labelled.

    Rows of several peers at one time agree on the latency; the time is labelled high if any of
    them is.
    """
    key = ["timestamp", "node_id"]
    labelled = "is_high_latency" in frame and bool(frame["is_high_latency"].notna().all())
    columns = ["consensus_latency_ms", *(["is_high_latency"] if labelled else [])]
    grouped = frame.groupby(key, sort=True, as_index=False)[columns]
    return grouped.agg(
        {name: "max" if name == "is_high_latency" else "first" for name in columns}
    ), labelled


def episodes(timestamp: Ints, series: Ints, high: Mask, step: float) -> Ints:
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
