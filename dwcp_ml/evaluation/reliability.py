"""Evaluate the detection of incidents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from dwcp_ml.contract.arrays import Array, Floats, Mask
from dwcp_ml.contract.examples import ModelData
from dwcp_ml.contract.records import ThresholdSource, TrainingRecord
from dwcp_ml.evaluation import baselines, comparison
from dwcp_ml.evaluation.comparison import Blocks
from dwcp_ml.evaluation.events import (
    detection,
    false_alarms_per_day,
    false_alarms_per_link_day,
    few_positives,
)
from dwcp_ml.evaluation.metrics import EvaluationResult, Metrics, model_output
from dwcp_ml.evaluation.plot_data import sample

WHY_AUTO: Final = {
    ThresholdSource.AUTO_TOO_FEW_INCIDENTS: "The threshold is the forest's own, auto: the training "
    "split has fewer incidents than threshold.min_incidents.",
    ThresholdSource.AUTO_NO_INTERVALS: "The threshold is the forest's own, auto: the incidents "
    "have no start and end, so it is unknown which rows of the training split are anomalous.",
}
"""Why the rule `incidents` was not applied, as a note of the report."""

SIGNED: Final = "signed_log_z"
"""The strong reference whose curve is drawn beside those of the baselines."""


def evaluate(
    data: ModelData, predictions: Mapping[str, Array], training: TrainingRecord, blocks: Blocks
) -> EvaluationResult:
    """Evaluate anomaly scores, the flags, and what they would be at the threshold ``auto``.

    The comparison with the baselines is on PR-AUC, which needs no threshold. For recall, precision
    and alarms a baseline flags as many rows of the test split as the model does, its highest scores
    first.
    """
    score, flagged = _outputs(data, predictions)
    naive, strong = baselines.reliability(data)
    budget = int(flagged.sum())
    model = metrics_of(data, score, flagged, blocks)
    auto = training.fitted.get("threshold_auto")
    if auto is not None:
        model.plain.update(metrics_at_auto(data, score >= np.float32(auto), blocks))

    def metrics_at_budget(other: Floats) -> Metrics:
        return metrics_of(data, other, highest(other, budget), blocks)

    notes = few_positives(data)
    if data.label_source == "window":
        notes.append(
            "The incidents have no start and end, so rows within a window of their timestamp count "
            "as positive. No model can detect those before the onset."
        )
    if training.threshold_source in WHY_AUTO:
        notes.append(WHY_AUTO[training.threshold_source])
    threshold = training.fitted.get("threshold", 0.5)
    return EvaluationResult(
        model=model,
        baselines={name: metrics_at_budget(each) for name, each in naive.items()},
        references={name: metrics_at_budget(each) for name, each in strong.items()},
        plot_arrays=_plot_arrays(data, score, naive | {SIGNED: strong[SIGNED]}, threshold),
        notes=tuple(notes),
    )


def metrics_of_outputs(
    data: ModelData, predictions: Mapping[str, Array], blocks: Blocks
) -> Metrics:
    """Return the metrics of the outputs of a model on the test split."""
    return metrics_of(data, *_outputs(data, predictions), blocks)


def _outputs(data: ModelData, predictions: Mapping[str, Array]) -> tuple[Floats, Mask]:
    score = model_output(data, predictions, "anomaly_score").astype(np.float64)
    return score, model_output(data, predictions, "is_anomaly").astype(bool)


def highest(score: Floats, count: int) -> Mask:
    """Return a mask of the ``count`` highest values of ``score``; of equal values the earliest."""
    chosen = np.zeros(len(score), bool)
    chosen[np.argsort(-score, kind="stable")[:count]] = True
    return chosen


def metrics_of(data: ModelData, score: Floats, flagged: Mask, blocks: Blocks) -> Metrics:
    """Return the metrics of scores and flags, of shape (n,), on the incidents of the test split."""
    metrics = detection(data, score, flagged, blocks, of_events="event_recall")
    metrics.statistics["flagged_share"] = comparison.mean(flagged, blocks)
    metrics.plain["false_alarms_per_link_day"] = false_alarms_per_link_day(data, flagged)
    return metrics


def metrics_at_auto(data: ModelData, flagged: Mask, blocks: Blocks) -> dict[str, float]:
    """Return recall, precision and false alarms of the flags, (n,), at the threshold auto."""
    truth = data.test.truth.astype(bool)
    hits = flagged & truth
    return {
        "recall_at_auto": comparison.point(comparison.ratio(hits, truth, blocks), blocks),
        "precision_at_auto": comparison.point(comparison.ratio(hits, flagged, blocks), blocks),
        "false_alarms_per_day_at_auto": false_alarms_per_day(data, flagged),
    }


def _plot_arrays(
    data: ModelData, score: Floats, others: Mapping[str, Floats], threshold: float
) -> dict[str, Array]:
    """Return the scores of a sample, and all precision-recall curves on the whole test split."""
    truth = data.test.truth.astype(bool)
    rows = sample(len(truth), truth)
    arrays: dict[str, Array] = {
        "truth": truth[rows],
        "score": score[rows],
        "threshold": np.array(threshold),
        "prevalence": np.array(truth.mean()),
        "curve": precision_recall_curve(truth, score),
    }
    for name, each in others.items():
        arrays[f"curve:{name}"] = precision_recall_curve(truth, each)
    return arrays


def precision_recall_curve(truth: Mask, score: Floats, points: int = 400) -> Floats:
    """Return recall and precision at falling thresholds, float64 (2, at most ``points``).

    Equal scores are one threshold; without positives there is no curve: shape (2, 0).
    """
    if not truth.any():
        return np.zeros((2, 0))
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(truth[order])
    last = np.append(np.diff(score[order]) != 0, True)
    recall = hits[last] / hits[-1]
    precision = hits[last] / (np.flatnonzero(last) + 1)
    # At most ``points``, evenly along the recall.
    positions = np.searchsorted(recall, np.linspace(recall[0], 1.0, points))
    shown = np.unique(np.minimum(positions, len(recall) - 1))
    return np.stack([recall[shown], precision[shown]])
