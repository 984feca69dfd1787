"""All diagnostics of one model."""

from __future__ import annotations

from collections.abc import Mapping

from dwcp_ml.contract.arrays import Array
from dwcp_ml.contract.diagnostics import Diagnostics
from dwcp_ml.contract.examples import ModelData
from dwcp_ml.contract.records import TrainingRecord
from dwcp_ml.evaluation.comparison import Blocks
from dwcp_ml.evaluation.diagnostics.calibration import score_calibration
from dwcp_ml.evaluation.diagnostics.drift import feature_drift, training_distribution
from dwcp_ml.evaluation.diagnostics.importance import Predict, permutation_importance
from dwcp_ml.evaluation.diagnostics.intervals import COVERAGE, interval_coverage
from dwcp_ml.evaluation.diagnostics.series import MetricsOf, Predictions, series_metrics


def diagnose(
    data: ModelData,
    predictions: Predictions,
    predict: Predict,
    training: TrainingRecord,
    metrics_of: MetricsOf,
    reference: tuple[str, Predictions] | None,
    blocks: Blocks,
) -> Diagnostics:
    """Return the diagnostics of a model whose predictions of the test split are known.

    Parameters
    ----------
    predict
        Predicts other inputs with the same model.
    metrics_of
        Returns the metrics of predictions on the test split of some data.
    reference
        Name and predictions of the best strong reference; None without any.
    """
    means: Mapping[str, Array] = {}
    intervals = None
    if data.form == "next_throughput_mbps":
        found = interval_coverage(data, predictions[data.form], training, blocks)
        if found is not None:
            intervals, means = found[0], {COVERAGE: found[1]}
    primary = data.spec.form(data.form).primary_metric
    return Diagnostics(
        series=series_metrics(data, metrics_of, predictions, reference, blocks, means),
        intervals=intervals,
        calibration=score_calibration(data, predictions),
        importance=permutation_importance(
            data, predict, metrics_of, primary, blocks, training.seed
        ),
        drift=feature_drift(data),
        training=training_distribution(data),
    )
