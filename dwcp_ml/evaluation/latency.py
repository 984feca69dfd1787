"""Evaluate the detection of high-latency episodes of the consensus."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dwcp_ml.contract.arrays import Array, Floats, Mask
from dwcp_ml.contract.examples import ModelData
from dwcp_ml.contract.records import TrainingRecord
from dwcp_ml.contract.threshold import USUAL_PERCENTILE, PercentileRule
from dwcp_ml.evaluation import baselines, comparison
from dwcp_ml.evaluation.baselines import Scores
from dwcp_ml.evaluation.comparison import Blocks, Statistic
from dwcp_ml.evaluation.events import detection, few_positives
from dwcp_ml.evaluation.metrics import EvaluationResult, Metrics, model_output


def evaluate(
    data: ModelData, predictions: Mapping[str, Array], training: TrainingRecord, blocks: Blocks
) -> EvaluationResult:
    """Evaluate reconstruction errors, and the flags at the model's threshold.

    The threshold of every reference comes from the model's own rule: the percentile of its scores
    on the normal windows of the validation split that has the highest accuracy there.
    ``most_frequent`` predicts the more frequent class of the training split for every window; its
    accuracy is high where episodes are rare.
    """
    error, flagged = _outputs(data, predictions)
    percentile = training.fitted.get("threshold_percentile", USUAL_PERCENTILE)
    rule = PercentileRule.of(training.hyperparameters)
    episodes = data.validation.truth.astype(bool)
    naive, strong = baselines.latency(data)
    model = metrics_of(data, error, flagged, blocks)
    _add_reconstruction(model, data, error, training, blocks)

    def metrics_by_rule(scores: Scores) -> Metrics:
        flags = scores.test >= rule.threshold(scores.validation, episodes)
        return metrics_of(data, scores.test, flags, blocks)

    notes = [
        f"The threshold is the {percentile:g}th percentile of the errors of normal validation "
        "windows, chosen on the validation split only."
    ]
    notes += few_positives(data)
    if data.label_source == "derived":
        notes.append("The data hold no labels, so a step counts as high by the derived rule.")
    return EvaluationResult(
        model=model,
        baselines={
            **{name: metrics_by_rule(each) for name, each in naive.items()},
            "most_frequent": _constant(data, blocks),
        },
        references={name: metrics_by_rule(each) for name, each in strong.items()},
        plot_arrays=_plot_arrays(data, error, flagged, training),
        notes=tuple(notes),
    )


def metrics_of_outputs(
    data: ModelData, predictions: Mapping[str, Array], blocks: Blocks
) -> Metrics:
    """Return the metrics of the outputs of a model on the test split."""
    return metrics_of(data, *_outputs(data, predictions), blocks)


def _outputs(data: ModelData, predictions: Mapping[str, Array]) -> tuple[Floats, Mask]:
    error = model_output(data, predictions, "reconstruction_error").astype(np.float64)
    return error, model_output(data, predictions, "is_high_latency").astype(bool)


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
    model.statistics.update(reconstruction_of(data, error, blocks))
    if "threshold_at_98" in training.fitted:
        usual = error >= training.fitted["threshold_at_98"]
        right = usual == data.test.truth.astype(bool)
        model.statistics["detection_accuracy_at_98"] = comparison.mean(right, blocks)


def reconstruction_of(data: ModelData, error: Floats, blocks: Blocks) -> dict[str, Statistic]:
    """Return the mean error of the normal windows, of errors of shape (n,) in scaled units."""
    normal = ~data.test.truth.astype(bool)
    return {"reconstruction_mae": comparison.mean(error, blocks, normal)}


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
