"""Ranks, correlations and averages that the search for leaks is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from dwcp_ml.contract.arrays import Array, Floats, Ints, Mask


def ranks(values: Array) -> Floats:
    """Return the ranks of ``values``, (n,), as shares from -1/2 to 1/2; equal values share one."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2
    shares: Floats = middle[inverse] / max(len(values), 1) - 0.5
    return shares


def cell_means(values: Floats, cell: Ints) -> Floats:
    """Return for each row the mean of ``values`` over the rows of its cell; both are (n,)."""
    count = np.bincount(cell)
    means: Floats = (np.bincount(cell, weights=values) / np.maximum(count, 1))[cell]
    return means


def ranks_within(values: Array, series: Ints) -> Floats:
    """Return the ranks of ``values`` among the rows of the same series, (n,)."""
    result = np.empty(len(values))
    order = np.argsort(series, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(series[order])) + 1):
        result[rows] = ranks(values[rows])
    return result


def correlation(left: Floats, right: Floats) -> float:
    """Return the uncentred correlation of two residuals, (n,); 0 if one of them is constant."""
    size = float(np.sqrt((left @ left) * (right @ right)))
    return float(left @ right) / size if size > 1e-12 * max(len(left), 1) else 0.0


@dataclass(frozen=True)
class Known:
    """An orthonormal basis, (n, k), of what is known of each row."""

    basis: Floats

    @classmethod
    def of(cls, columns: Floats) -> Self:
        """Return the basis of columns (n, k), the first constant; those that hardly vary go."""
        varies = columns.std(axis=0) > 1e-9
        varies[0] = True
        vectors, sizes, _ = np.linalg.svd(columns[:, varies], full_matrices=False)
        return cls(vectors[:, sizes > 1e-9 * sizes[0]])

    def without(self, variable: Floats) -> Floats:
        """Return what the best linear prediction from the known leaves of a variable, (n,)."""
        left: Floats = variable - self.basis @ (self.basis.T @ variable)
        return left


def partial_correlation(left: Floats, right: Floats, given: Floats) -> float:
    """Return the correlation of two variables, each without its linear part in a third, (n,)."""
    known = Known.of(np.stack([np.ones(len(given)), given], axis=1))
    return correlation(known.without(left), known.without(right))


def area_under_roc(score: Array, positive: Mask) -> float:
    """Return the probability that a positive row has the higher score, ties count half."""
    count = int(positive.sum())
    if count in (0, len(positive)):
        return 0.5
    place = (ranks(score) + 0.5) * len(score)
    total = float(place[positive].sum()) - count * (count + 1) / 2
    return total / (count * (len(score) - count))


def cramers_v(left: Array, right: Array) -> float:
    """Return Cramér's V of two classifications of the rows, 0 (independent) to 1, without bias.

    Bergsma, Journal of the Korean Statistical Society 42 (2013), 323-328.
    """
    rows, row = np.unique(left, return_inverse=True)
    columns, column = np.unique(right, return_inverse=True)
    if min(len(rows), len(columns)) < 2:
        return 0.0
    table = np.zeros((len(rows), len(columns)))
    np.add.at(table, (row, column), 1.0)
    count = table.sum()
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / count
    phi = float(((table - expected) ** 2 / expected).sum()) / count
    r, k = table.shape
    phi = max(0.0, phi - (r - 1) * (k - 1) / (count - 1))
    smaller = min(r - (r - 1) ** 2 / (count - 1), k - (k - 1) ** 2 / (count - 1)) - 1
    return float(np.sqrt(phi / smaller)) if smaller > 0 else 0.0
