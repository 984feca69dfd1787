"""How well high-latency episodes of the consensus are told from normal operation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dwcp_ml.contract.examples import ModelData
from dwcp_ml.contract.records import TrainingRecord
from dwcp_ml.evaluation import baselines, comparison
from dwcp_ml.evaluation.baselines import Scores
from dwcp_ml.evaluation.comparison import Blocks
from dwcp_ml.evaluation.detection import detection
from dwcp_ml.evaluation.events import few_positives
from dwcp_ml.evaluation.metrics import EvaluationResult, Metrics, model_output

USUAL_PERCENTILE: Final = 98.0
"""The percentile that the architecture document names; accuracy at it is always reported."""


def evaluate(
    data: ModelData,
    predictions: Mapping[str, NDArray[Any]],
    training: TrainingRecord,
    blocks: Blocks,
) -> EvaluationResult:
    """Assess reconstruction errors, and the flags at the threshold that ships.

    A baseline gets the same rule: its threshold is the same percentile of its scores on the normal
    windows of the validation split. ``most_frequent`` gives every window the commoner answer of
    the training split: where episodes are rare, flagging nothing is nearly always right.
    """
    error = model_output(data, predictions, "reconstruction_error").astype(np.float64)
    flagged = model_output(data, predictions, "is_high_latency").astype(bool)
    percentile = training.fitted.get("threshold_percentile", USUAL_PERCENTILE)
    naive, strong = baselines.latency(data)
    model = metrics_of(data, error, flagged, blocks)
    _add_reconstruction(model, data, error, training, blocks)

    def metrics_at_percentile(scores: Scores) -> Metrics:
        flags = scores.test >= threshold_of(data, scores, percentile)
        return metrics_of(data, scores.test, flags, blocks)

    notes = [
        f"The threshold that ships is the {percentile:g}th percentile of the errors of normal "
        "validation windows, chosen on validation data only."
    ]
    notes += few_positives(data)
    notes += _within_the_bound(model, blocks)
    if data.label_source == "derived":
        notes.append("The data hold no labels: a step counts as high by the derived rule.")
    return EvaluationResult(
        model=model,
        baselines={
            **{name: metrics_at_percentile(each) for name, each in naive.items()},
            "most_frequent": _constant(data, blocks),
        },
        references={name: metrics_at_percentile(each) for name, each in strong.items()},
        plot_arrays=_plot_arrays(data, error, flagged, training),
        notes=tuple(notes),
    )


def threshold_of(data: ModelData, scores: Scores, percentile: float) -> float:
    """Return the percentile of the scores of normal validation windows; infinity without any."""
    normal = scores.validation[~data.validation.truth.astype(bool)]
    return float(np.percentile(normal, percentile)) if len(normal) else float("inf")


def metrics_of(
    data: ModelData, score: NDArray[np.float64], flagged: NDArray[np.bool_], blocks: Blocks
) -> Metrics:
    """Return how well errors and flags of shape (n,) find the episodes of the test split."""
    found = detection(data, score, flagged, blocks, of_events="episode_recall")
    right = flagged == data.test.truth.astype(bool)
    # What decides stands first in a table, and the rate of its false alarms beside it.
    first = {
        "detection_accuracy": comparison.mean(right, blocks),
        "false_positive_rate": found.statistics["false_positive_rate"],
    }
    return Metrics(first | found.statistics, found.plain)


def _constant(data: ModelData, blocks: Blocks) -> Metrics:
    common = 2 * int(data.train.truth.sum()) > len(data.train)
    count = len(data.test)
    return metrics_of(data, np.zeros(count), np.full(count, common), blocks)


def _add_reconstruction(
    model: Metrics,
    data: ModelData,
    error: NDArray[np.float64],
    training: TrainingRecord,
    blocks: Blocks,
) -> None:
    """Add what only the autoencoder has: accuracy at the 98th percentile, and its errors."""
    truth = data.test.truth.astype(bool)
    model.statistics["reconstruction_mae"] = comparison.mean(error, blocks, ~truth)
    if "threshold_at_98" in training.fitted:
        usual = error >= training.fitted["threshold_at_98"]
        model.statistics["detection_accuracy_at_98"] = comparison.mean(usual == truth, blocks)
    if "reconstruction_mae_bound" in training.fitted:
        model.plain["reconstruction_mae_bound"] = training.fitted["reconstruction_mae_bound"]


def _within_the_bound(model: Metrics, blocks: Blocks) -> list[str]:
    """Return a sentence that holds the reconstruction error against its stated bound."""
    bound = model.plain.get("reconstruction_mae_bound")
    if bound is None:
        return []
    found = comparison.point(model.statistics["reconstruction_mae"], blocks)
    word = "within" if found <= bound else "over"
    return [
        f"The mean reconstruction error of normal test windows, {found:.4f} in scaled units, is "
        f"{word} its stated bound of {bound:g}."
    ]


def _plot_arrays(
    data: ModelData,
    error: NDArray[np.float64],
    flagged: NDArray[np.bool_],
    training: TrainingRecord,
) -> dict[str, NDArray[Any]]:
    """Return the errors of the node with the most episodes over time, and those of all nodes."""
    test = data.test
    truth = test.truth.astype(bool)
    positives = np.bincount(test.series, weights=truth, minlength=len(data.series_names))
    node = int(np.argmax(positives))
    rows = np.flatnonzero(test.series == node)[:2000]
    return {
        "truth": truth[rows],
        "error": error[rows],
        "flagged": flagged[rows],
        "timestamp": test.timestamp[rows],
        "latency_ms": test.inputs[rows, -1].reshape(len(rows), -1)[:, 0].astype(np.float64),
        "series_name": np.array(data.series_names[node]),
        "threshold": np.array(training.fitted.get("threshold", np.nan)),
        "threshold_at_98": np.array(training.fitted.get("threshold_at_98", np.nan)),
        "errors_normal": error[~truth][:: max(1, int((~truth).sum() // 10_000))],
        "errors_high": error[truth][:: max(1, int(truth.sum() // 10_000))],
    }
