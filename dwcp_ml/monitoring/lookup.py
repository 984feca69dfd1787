"""Rows of telemetry by series and moment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dwcp_ml.contract.keys import link_of
from dwcp_ml.data.features import series_index

Indices = NDArray[np.int64]


class Rows:
    """Rows in the order of series and time.

    Parameters
    ----------
    timestamp : float64 of shape (n,)
        Epoch seconds.
    series : int64 of shape (n,)
        The index of each row's series, 0 to ``count`` - 1.

    Attributes
    ----------
    order : int64 of shape (n,)
        ``order[k]`` is the position of the k-th row.
    timestamp, series : float64 and int64 of shape (n,)
        In that order.
    """

    def __init__(self, timestamp: NDArray[np.float64], series: Indices, count: int) -> None:
        self.order = np.lexsort((timestamp, series))
        self.timestamp = timestamp[self.order]
        self.series = series[self.order]
        self._bounds = np.searchsorted(self.series, np.arange(count + 1))

    def first_after(self, series: Indices, moment: NDArray[np.float64]) -> Indices:
        """Return which row (in this order) is the first of its series after a moment.

        Where the series has none, that is where the next series begins.

        Parameters
        ----------
        series : int64 of shape (m,)
        moment : float64 of shape (m,)
            Epoch seconds.
        """
        position = np.zeros(len(series), np.int64)
        by_series = np.argsort(series, kind="stable")
        present, begins = np.unique(series[by_series], return_index=True)
        for each, selected in zip(present, np.split(by_series, begins[1:]), strict=False):
            start, end = self._bounds[each], self._bounds[each + 1]
            times = self.timestamp[start:end]
            position[selected] = start + np.searchsorted(times, moment[selected], side="right")
        return position

    def next_row(
        self, series: Indices, moment: NDArray[np.float64]
    ) -> tuple[Indices, NDArray[np.float64]]:
        """Return the first row after each moment and how far it is, seconds; infinity for none."""
        place = self.first_after(series, moment)
        exists = place < self._bounds[series + 1]
        row = np.where(exists, place, 0)
        return row, np.where(exists, self.timestamp[row] - moment, np.inf)

    def row_at(
        self, series: Indices, moment: NDArray[np.float64]
    ) -> tuple[Indices, NDArray[np.float64]]:
        """Return the latest row not after each moment and its age, seconds; infinity for none."""
        place = self.first_after(series, moment) - 1
        exists = place >= self._bounds[series]
        row = np.where(exists, place, 0)
        return row, np.where(exists, moment - self.timestamp[row], np.inf)


class Links:
    """The names that requests give to links and nodes, in their normal form (``link_of``).

    Parameters
    ----------
    frame
        Telemetry with ``node_id`` and ``peer_id``.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.series, self.names = series_index(frame, ("node_id", "peer_id"))
        self.node, self.nodes = series_index(frame, ("node_id",))
        self.count = len(self.names)
        _, first = np.unique(self.series, return_index=True)
        self._node_of_link = self.node[first]
        peers = frame["peer_id"].to_numpy()[first]
        named = zip(self._node_of_link, peers, strict=True)
        self._link = {
            link_of(f"{self.nodes[node]}/{peer}"): i for i, (node, peer) in enumerate(named)
        }
        self._node = {link_of(name): index for index, name in enumerate(self.nodes)}

    def links(self, names: Sequence[str | None]) -> Indices:
        """Return the series of each name, int64; -1 where the telemetry has no such link."""
        index = [-1 if name is None else self._link.get(name, -1) for name in names]
        return np.array(index, np.int64)

    def nodes_of(self, names: Sequence[str | None]) -> Indices:
        """Return the index of each name's node, int64; -1 where the telemetry has no such node."""
        return np.array([self._node_index(name) for name in names], np.int64)

    def _node_index(self, name: str | None) -> int:
        if name is None:
            return -1
        if name in self._node:
            return self._node[name]
        link = self._link.get(name)
        if link is not None:
            return int(self._node_of_link[link])
        return self._node.get(name.partition("/")[0], -1)
