"""An isolation forest as plain arrays, which are stored, scored and exported.

scikit-learn grows the trees; afterwards its objects are not needed, and are never unpickled.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from dwcp_ml.contract.arrays import Array, Floats, Floats32, Ints

EULER_GAMMA = 0.5772156649015329

SMALLEST = np.finfo(np.float32).tiny
"""What the logarithm is taken of below the range of a feature, where there would be none."""

ROWS_AT_ONCE = 8192
"""Rows that are scored at once; bounds the memory."""


@dataclass(frozen=True)
class ForestArrays:
    """The nodes of all trees, one after another, and the scaling before them.

    Parameters
    ----------
    tree, node : int64 of shape (nodes,)
        The tree that a node belongs to, in rising order, and its number in it; the root is 0.
    feature : int64 of shape (nodes,)
        The feature that a node compares; -1 for a leaf.
    threshold : float64 of shape (nodes,)
        A row goes left where its scaled feature is at most this; 0 at a leaf.
    left, right : int64 of shape (nodes,)
        Numbers of the children in the tree; -1 at a leaf.
    path_length : float64 of shape (nodes,)
        At a leaf: edges from the root plus the average path length of the rows in it; else 0.
    n_samples : int64 of shape (nodes,)
        Training rows of the tree that reached the node.
    mean, scale : float32 of shape (features,)
        ``scaled = (values - mean) / scale``, all in float32.
    max_samples : int64 of shape ()
        Training rows of each tree.
    centre, sign : float64 of shape (features,), or (0,) without a transform
        ``values = log((raw - centre) / sign)``; without a transform ``values = raw``. Where the
        sign is -1, so is that of ``scale``: scaled values always rise with raw ones.
    """

    tree: Ints
    node: Ints
    feature: Ints
    threshold: Floats
    left: Ints
    right: Ints
    path_length: Floats
    n_samples: Ints
    mean: Floats32
    scale: Floats32
    max_samples: Ints
    centre: Floats = field(default_factory=lambda: np.empty(0))
    sign: Floats = field(default_factory=lambda: np.empty(0))

    @classmethod
    def of(cls, scaler: Any, forest: Any, shift: Any = None) -> ForestArrays:
        """Return the arrays of a fitted ``StandardScaler`` and ``IsolationForest``.

        ``shift`` is the ``RobustScaler`` before a logarithm, if there is one.
        """
        nothing = np.empty(0)
        trees = [estimator.tree_ for estimator in forest.estimators_]
        columns: dict[str, list[Array]] = {name: [] for name in _NODE_FIELDS}
        for number, tree in enumerate(trees):
            leaf = tree.children_left < 0
            depth = _depths(tree.children_left, tree.children_right)
            rest = average_path_length(tree.n_node_samples)
            columns["tree"].append(np.full(tree.node_count, number))
            columns["node"].append(np.arange(tree.node_count))
            columns["feature"].append(np.where(leaf, -1, tree.feature))
            columns["threshold"].append(np.where(leaf, 0.0, tree.threshold))
            columns["left"].append(tree.children_left)
            columns["right"].append(tree.children_right)
            columns["path_length"].append(np.where(leaf, depth + rest, 0.0))
            columns["n_samples"].append(tree.n_node_samples)
        return cls(
            **{name: np.concatenate(parts) for name, parts in columns.items()},
            mean=np.asarray(scaler.mean_, dtype=np.float32),
            scale=np.asarray(scaler.scale_, dtype=np.float32),
            max_samples=np.asarray(forest.max_samples_),
            centre=nothing if shift is None else np.asarray(shift.center_, np.float64),
            sign=nothing if shift is None else np.asarray(shift.scale_, np.float64),
        )

    @property
    def trees(self) -> int:
        """Number of trees."""
        return int(self.tree[-1]) + 1

    @property
    def normaliser(self) -> float:
        """Average path length of a tree of ``max_samples`` rows."""
        return float(average_path_length(self.max_samples[np.newaxis])[0])

    def as_dict(self) -> dict[str, Array]:
        """Return the arrays by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def scaled(self, inputs: Floats32) -> Floats32:
        """Scale raw rows ``(n, features)`` as scikit-learn does, with the same rounding."""
        rows = inputs.astype(np.float32)
        with np.errstate(over="ignore"):  # infinity goes right at every split, as it should
            if len(self.centre):
                rows -= self.centre  # in place: computed in float64, rounded to float32
                rows /= self.sign
                rows = np.log(np.maximum(rows, SMALLEST))
            return np.asarray((rows - self.mean) / self.scale)

    def scores(self, inputs: Floats32) -> Floats:
        """Return the anomaly score of raw rows ``(n, features)``: ``-score_samples``, in (0, 1].

        Liu, Ting, Zhou, "Isolation Forest", ICDM 2008, equation 2:
        ``2 ** (-mean path length / average path length of max_samples rows)``.
        """
        parts = [
            self._path_lengths(self.scaled(inputs[start : start + ROWS_AT_ONCE]))
            for start in range(0, len(inputs), ROWS_AT_ONCE)
        ]
        lengths = np.concatenate(parts) if parts else np.empty(0)
        normaliser = self.normaliser
        if normaliser == 0:
            return np.full(len(lengths), 0.5)
        return np.asarray(2.0 ** (-lengths / (self.trees * normaliser)))

    def _path_lengths(self, rows: Floats32) -> Floats:
        """Return the path lengths of scaled rows, summed over the trees."""
        total = np.zeros(len(rows))
        every = np.arange(len(rows))
        for root in np.flatnonzero(self.node == 0):
            place = np.full(len(rows), root)
            moving = every
            while len(moving):
                here = place[moving]
                inner = self.feature[here] >= 0
                moving, here = moving[inner], here[inner]
                goes_left = rows[moving, self.feature[here]] <= self.threshold[here]
                place[moving] = root + np.where(goes_left, self.left[here], self.right[here])
            total += self.path_length[place]
        return total


_NODE_FIELDS = (
    "tree", "node", "feature", "threshold", "left", "right", "path_length", "n_samples",
)  # fmt: skip


def average_path_length(samples: Array) -> Floats:
    """Return the average path length of an unsuccessful search in a tree of that many rows.

    Equation 1 of the same paper: ``2 H(n - 1) - 2 (n - 1) / n``; 1 for two rows, 0 below.
    """
    count = samples.astype(np.float64)
    many = np.maximum(count, 3.0)
    searched = 2.0 * (np.log(many - 1.0) + EULER_GAMMA) - 2.0 * (many - 1.0) / many
    return np.where(count > 2, searched, np.where(count == 2, 1.0, 0.0))


def _depths(left: Array, right: Array) -> Floats:
    """Return each node's edges from the root; children come after their parent."""
    depth = np.zeros(len(left))
    for node in np.flatnonzero(left >= 0):
        depth[[left[node], right[node]]] = depth[node] + 1
    return depth
