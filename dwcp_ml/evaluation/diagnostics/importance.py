"""Permutation importance: how much worse a metric is without the information of one feature.

The values of a feature over the whole window are exchanged for those of another example, and the
model predicts again (Breiman, Machine Learning 45, 2001; the permutation of a trained model is that
of Fisher, Rudin and Dominici, JMLR 20, 2019). Not single examples are exchanged but blocks of time
of one link: within a block the order stays, so the feature still varies in time as it does.
A feature that others replace, such as one of two that are almost equal, has little importance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from dwcp_ml.contract.arrays import Array, Floats32, Ints
from dwcp_ml.contract.diagnostics import FeatureImportance, PermutationImportance
from dwcp_ml.contract.examples import Examples, ModelData
from dwcp_ml.evaluation.comparison import Blocks, point
from dwcp_ml.evaluation.diagnostics.series import MetricsOf
from dwcp_ml.evaluation.labels import is_error

Predict = Callable[[Floats32], Mapping[str, Array]]
"""Raw inputs (n, ...) -> output name -> predictions, (n, ...)."""

MAX_EXAMPLES: Final = 2000
"""Examples of the test split that are predicted again, evenly spaced in time."""

REPETITIONS: Final = 3


def permutation_importance(
    data: ModelData,
    predict: Predict,
    metrics_of: MetricsOf,
    metric: str,
    blocks: Blocks,
    seed: int,
) -> PermutationImportance | None:
    """Return the importance of every feature for one metric, most important first.

    None for a model with one feature, or where the metric is not defined.
    """
    if len(data.spec.features) < 2:
        return None
    rows = np.unique(np.linspace(0, len(data.test) - 1, MAX_EXAMPLES).astype(np.int64))
    part = dataclasses.replace(data, test=data.test.take(rows))
    within = Blocks(blocks.index[rows], blocks.count)

    def value(inputs: Floats32) -> float:
        return point(metrics_of(part, predict(inputs), within).statistics[metric], within)

    own = value(part.test.inputs)
    if not np.isfinite(own):
        return None
    sign = 1.0 if is_error(metric) else -1.0
    generator = np.random.default_rng(seed)
    orders = [block_order(part.test, within, generator) for _ in range(REPETITIONS)]
    found = []
    for position, feature in enumerate(data.spec.features):
        losses = []
        for target, source in orders:
            inputs = part.test.inputs.copy()
            inputs[target, ..., position] = part.test.inputs[source, ..., position]
            losses.append(sign * (value(inputs) - own))
        found.append(
            FeatureImportance(
                feature=feature, loss=float(np.mean(losses)), deviation=float(np.std(losses))
            )
        )
    return PermutationImportance(
        metric=metric,
        value=own,
        examples=len(rows),
        repetitions=REPETITIONS,
        features=tuple(sorted(found, key=lambda each: -each.loss)),
    )


def block_order(
    examples: Examples, blocks: Blocks, generator: np.random.Generator
) -> tuple[Ints, Ints]:
    """Return the examples that get another's values, and whose: a permutation of blocks.

    Both are all examples, (n,). A block is one block of time of one series; its examples stay
    together and in their order.
    """
    unit = examples.series * blocks.count + blocks.index
    _, unit = np.unique(unit, return_inverse=True)
    place = generator.permutation(unit.max() + 1)
    moment = examples.timestamp
    return np.lexsort((moment, unit)), np.lexsort((moment, place[unit]))
