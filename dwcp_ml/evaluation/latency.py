"""Evaluate the detection of high-latency episodes of the consensus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from dwcp_ml.contract.arrays import Array, Floats, Mask
from dwcp_ml.contract.examples import ModelData
from dwcp_ml.contract.records import TrainingRecord
from dwcp_ml.evaluation import baselines, comparison
from dwcp_ml.evaluation.baselines import Scores
from dwcp_ml.evaluation.comparison import Blocks
from dwcp_ml.evaluation.events import detection, few_positives
from dwcp_ml.evaluation.metrics import EvaluationResult, Metrics, model_output

DOCUMENT_PERCENTILE: Final = 98.0
"""The percentile of the architecture document; the accuracy at it is always reported."""


def evaluate(
    data: ModelData, predictions: Mapping[str, Array], training: TrainingRecord, blocks: Blocks
) -> EvaluationResult:
    """Evaluate reconstruction errors, and the flags at the model's threshold.

    The threshold of a baseline is the same percentile of its scores on the normal windows of the
    validation split. ``most_frequent`` predicts the more frequent class of the training split for
    every window; its accuracy is high where episodes are rare.
    """
    error = model_output(data, predictions, "reconstruction_error").astype(np.float64)
    flagged = model_output(data, predictions, "is_high_latency").astype(bool)
    percentile = training.fitted.get("threshold_percentile", DOCUMENT_PERCENTILE)
    naive, strong = baselines.latency(data)
    model = metrics_of(data, error, flagged, blocks)
    _add_reconstruction(model, data, error, training, blocks)

    def metrics_at_percentile(scores: Scores) -> Metrics:
        flags = scores.test >= threshold_of(data, scores, percentile)
        return metrics_of(data, scores.test, flags, blocks)

    notes = [
        f"The threshold is the {percentile:g}th percentile of the errors of normal validation "
        "windows, chosen on the validation split only."
    ]
    notes += few_positives(data)
    notes += _reconstruction_notes(model, blocks)
    if data.label_source == "derived":
        notes.append("The data hold no labels, so a step counts as high by the derived rule.")
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


def metrics_of(data: ModelData, score: Floats, flagged: Mask, blocks: Blocks) -> Metrics:
    """Return the metrics of errors and flags, of shape (n,), on the episodes of the test split."""
    metrics = detection(data, score, flagged, blocks, of_events="episode_recall")
    right = flagged == data.test.truth.astype(bool)
    # Tables list the metric with a target first, and the false-positive rate next.
    first = {
        "detection_accuracy": comparison.mean(right, blocks),
        "false_positive_rate": metrics.statistics["false_positive_rate"],
    }
    return Metrics(first | metrics.statistics, metrics.plain)


def _constant(data: ModelData, blocks: Blocks) -> Metrics:
    common = 2 * int(data.train.truth.sum()) > len(data.train)
    count = len(data.test)
    return metrics_of(data, np.zeros(count), np.full(count, common), blocks)


def _add_reconstruction(
    model: Metrics, data: ModelData, error: Floats, training: TrainingRecord, blocks: Blocks
) -> None:
    """Add the metrics of the autoencoder only: accuracy at the 98th percentile, errors."""
    truth = data.test.truth.astype(bool)
    model.statistics["reconstruction_mae"] = comparison.mean(error, blocks, ~truth)
    if "threshold_at_98" in training.fitted:
        usual = error >= training.fitted["threshold_at_98"]
        model.statistics["detection_accuracy_at_98"] = comparison.mean(usual == truth, blocks)
    if "reconstruction_mae_bound" in training.fitted:
        model.plain["reconstruction_mae_bound"] = training.fitted["reconstruction_mae_bound"]


def _reconstruction_notes(model: Metrics, blocks: Blocks) -> list[str]:
    """Return a note that compares the reconstruction error with its limit."""
    bound = model.plain.get("reconstruction_mae_bound")
    if bound is None:
        return []
    error = comparison.point(model.statistics["reconstruction_mae"], blocks)
    relation = "within" if error <= bound else "above"
    return [
        f"The mean reconstruction error of normal test windows, {error:.4f} in scaled units, is "
        f"{relation} its limit of {bound:g}."
    ]


def _plot_arrays(
    data: ModelData, error: Floats, flagged: Mask, training: TrainingRecord
) -> dict[str, Array]:
    """Return the errors of the node with the most episodes, and a sample of all errors."""
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
