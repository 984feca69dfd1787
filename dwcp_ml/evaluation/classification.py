"""Evaluate predicted classes: compression level or type, and the bandwidth class of a link.

The targets are on the accuracy, the strict agreement with the oracle. For the compression level the
cost of a wrong class is reported as well, because the throughput gain of each level is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from dwcp_ml.contract.arrays import Array, Floats, Ints, Mask
from dwcp_ml.contract.examples import ModelData
from dwcp_ml.contract.models import COMPRESSION
from dwcp_ml.contract.records import TrainingRecord
from dwcp_ml.evaluation import baselines, comparison
from dwcp_ml.evaluation.comparison import Blocks
from dwcp_ml.evaluation.metrics import EvaluationResult, Metrics, model_output
from dwcp_ml.evaluation.plot_data import sample

NEAR_TIE: Final = 0.01
"""A level is as good as the oracle's when it lacks at most this share of the oracle's gain."""

STRATIFIED_SPLIT: Final = (
    "The verdict is on the stratified split, whose test rows are drawn at random: the same hours "
    "of the same links are in training. The method temporal under cross-validation is a second "
    "model, tested on later rows than it was trained on; a report without it has no such number."
)
TEMPORAL_SPLIT: Final = (
    "The verdict is on a temporal split, as set by data.split: every test row is later than every "
    "training row. The architecture document requires the stratified split."
)


def evaluate(
    data: ModelData, predictions: Mapping[str, Array], training: TrainingRecord, blocks: Blocks
) -> EvaluationResult:
    """Evaluate the class that is the output of the form of ``data``."""
    chosen = model_output(data, predictions, data.form).astype(np.int64)
    naive, strong = baselines.classification(data, training)
    fixed = naive.get("best_fixed_level")
    notes = []
    if data.label_source == "cost_model":
        notes.append(
            "The oracle is the documented cost model, because the data hold no measured gains."
        )
    if data.spec.name == COMPRESSION.name:
        temporal = "test_starts" in data.facts
        notes.append(TEMPORAL_SPLIT if temporal else STRATIFIED_SPLIT)
    return EvaluationResult(
        model=metrics_of(data, chosen, fixed, blocks),
        baselines={name: metrics_of(data, each, fixed, blocks) for name, each in naive.items()},
        references={name: metrics_of(data, each, fixed, blocks) for name, each in strong.items()},
        plot_arrays=_plot_arrays(data, chosen, naive),
        notes=tuple(notes),
    )


def metrics_of_outputs(
    data: ModelData, predictions: Mapping[str, Array], blocks: Blocks
) -> Metrics:
    """Return the metrics of the output of a model on the test split, compared with no level."""
    chosen = model_output(data, predictions, data.form).astype(np.int64)
    return metrics_of(data, chosen, None, blocks)


def metrics_of(data: ModelData, chosen: Ints, fixed: Ints | None, blocks: Blocks) -> Metrics:
    """Return the metrics of chosen classes, of shape (n,), on the test split."""
    truth = data.test.truth
    right = chosen == truth
    recalls = [right[truth == value].mean() for value in np.unique(truth)]
    metrics = Metrics(
        statistics={"accuracy": comparison.mean(right, blocks)},
        plain={"balanced_accuracy": float(np.mean(recalls))},
    )
    gains = data.test.gains
    if data.form != "compression_level" or gains is None:
        return metrics
    reached = gain_at(gains, chosen)
    best = gains.max(axis=1)
    metrics.statistics.update(
        throughput_gain=comparison.mean(reached, blocks),
        agreement_within_1_percent=comparison.mean(is_near(reached, best), blocks),
        regret=comparison.mean(best - reached, blocks),
        near_tie_share=comparison.mean(near_ties(gains), blocks),
    )
    if fixed is not None:
        metrics.statistics["gain_over_best_fixed"] = comparison.mean(
            reached - gain_at(gains, fixed), blocks
        )
    return metrics


def gain_at(gains: Floats, level: Ints) -> Floats:
    """Return the gain of the chosen level of each row: (n, levels) and (n,) to (n,)."""
    return np.take_along_axis(gains, level[:, None], axis=1)[:, 0]


def is_near(reached: Floats, best: Floats) -> Mask:
    """Return whether a gain lacks at most 1 % of the best one, both of shape (n,)."""
    return reached >= best - NEAR_TIE * np.abs(best)


def near_ties(gains: Floats) -> Mask:
    """Return for which rows of (n, levels) the second-best level is within 1 % of the best."""
    ordered = np.sort(gains, axis=1)
    return is_near(ordered[:, -2], ordered[:, -1])


def _plot_arrays(data: ModelData, chosen: Ints, naive: Mapping[str, Ints]) -> dict[str, Array]:
    truth, gains = data.test.truth, data.test.gains
    classes = int(data.spec.form(data.form).outputs[0].maximum or 0) + 1
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (truth, chosen), 1)
    arrays: dict[str, Array] = {"confusion": confusion}
    if data.form == "compression_level" and gains is not None:
        rows = sample(len(truth), chosen != truth)
        best = gains.max(axis=1)
        arrays["regret"] = (best - gain_at(gains, chosen))[rows]
        for name, each in naive.items():
            arrays[f"regret:{name}"] = (best - gain_at(gains, each))[rows]
    return arrays
