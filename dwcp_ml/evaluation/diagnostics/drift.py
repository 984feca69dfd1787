"""Drift of the features between the training and the test split."""

from __future__ import annotations

from typing import Final

import numpy as np

from dwcp_ml.contract.arrays import Array, Floats
from dwcp_ml.contract.diagnostics import FeatureDrift
from dwcp_ml.contract.distribution import BUCKETS as DECILES
from dwcp_ml.contract.distribution import FeatureDistribution
from dwcp_ml.contract.examples import ModelData
from dwcp_ml.evaluation.metrics import feature
from dwcp_ml.rollout.drift import LARGE_PSI, stability_index

BUCKETS: Final = 20

_GAP: Final = 1e-6
"""Relative; a server compares in float32, whose numbers are at most 1.2e-7 apart."""


def feature_drift(data: ModelData) -> tuple[FeatureDrift, ...]:
    """Return the drift of each feature, of the last step of a window; largest PSI first."""
    found = []
    for name in data.spec.features:
        newer, older = (_last(data, split.inputs, name) for split in (data.test, data.train))
        psi, chance = stability_index(*histograms(newer, older))
        found.append(
            FeatureDrift(feature=name, psi=psi, chance_psi=chance, ks=distance(newer, older))
        )
    return tuple(sorted(found, key=lambda each: -each.psi))


def training_distribution(data: ModelData) -> tuple[FeatureDistribution, ...]:
    """Return the distribution of each feature in the training split, by its deciles."""
    found = []
    for name in data.spec.features:
        values = _last(data, data.train.inputs, name)
        edges = _quantiles(values, DECILES)
        counts = _counts(values, edges) + 0.5
        shares = (counts / counts.sum()).tolist()
        found.append(FeatureDistribution(feature=name, edges=edges.tolist(), shares=shares))
    return tuple(found)


def drift_notes(drift: tuple[FeatureDrift, ...]) -> tuple[str, ...]:
    """Return a warning that names the features whose PSI is large and not chance, if any."""
    large = [each for each in drift if each.psi > max(LARGE_PSI, each.chance_psi)]
    if not large:
        return ()
    names = ", ".join(f"{each.feature} ({each.psi:.2f})" for each in large)
    return (
        f"Features drift between training and test: {names} have a population stability index "
        f"above {LARGE_PSI:g}. A test split of a few hours can differ by the time of day alone.",
    )


def histograms(newer: Floats, older: Floats) -> tuple[Floats, Floats]:
    """Return the counts of both between quantiles of the older; values (n,) and (m,).

    A value that is a quantile itself counts below it, so a code has a bucket of its own.
    """
    edges = _quantiles(older, BUCKETS)
    return _counts(newer, edges), _counts(older, edges)


def distance(left: Floats, right: Floats) -> float:
    """Return the largest difference of the two empirical distribution functions."""
    left, right = np.sort(left), np.sort(right)
    grid = np.concatenate([left, right])
    below = [np.searchsorted(each, grid, side="right") / len(each) for each in (left, right)]
    return float(np.abs(below[0] - below[1]).max())


def _quantiles(values: Floats, buckets: int) -> Floats:
    """Return the distinct quantiles between buckets of about equal counts, ascending.

    Where the smallest value is one of them, a bound just below comes first: a value that is less
    than all of ``values`` is not in the bucket of many equal ones.
    """
    lowest, gap = float(values.min()), max(abs(float(values.min())), 1.0) * _GAP
    quantiles = np.quantile(values, np.arange(1, buckets) / buckets, method="lower")
    edges: Floats = np.unique([*([lowest - gap] if lowest in quantiles else []), *quantiles])
    return edges


def _counts(values: Floats, edges: Floats) -> Floats:
    places = np.searchsorted(edges, values, side="left")
    return np.bincount(places, minlength=len(edges) + 1).astype(np.float64)


def _last(data: ModelData, inputs: Array, name: str) -> Floats:
    values = feature(data, inputs, name)
    return values if values.ndim == 1 else values[:, -1]
