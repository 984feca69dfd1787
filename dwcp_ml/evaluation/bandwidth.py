"""Evaluate predictions of the next throughput."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from dwcp_ml.contract.arrays import Array, Floats
from dwcp_ml.contract.examples import ModelData
from dwcp_ml.contract.models import MIN_MBPS
from dwcp_ml.contract.records import TrainingRecord
from dwcp_ml.evaluation import baselines, comparison
from dwcp_ml.evaluation.comparison import Blocks
from dwcp_ml.evaluation.metrics import EvaluationResult, Metrics, model_output
from dwcp_ml.evaluation.plot_data import sample

_OPTIMIZED: Final = {
    loss: f"The network was trained to minimise {words} of the logarithm of the throughput; "
    "neither MAPE nor the correlation was optimized."
    for loss, words in (
        ("mae", "the mean absolute error"),
        ("mse", "the mean squared error"),
        ("huber", "the Huber loss"),
    )
}
"""What the training optimized, by its loss, as a note of the report."""


def evaluate(
    data: ModelData,
    predictions: Mapping[str, Array],
    training: TrainingRecord,
    blocks: Blocks,
) -> EvaluationResult:
    """Evaluate predictions of the next throughput, in Mbit/s.

    The correlation is computed over all rows, and as the median of the links. Over all rows it is
    high even if only the size of each link is known.
    """
    prediction = _outputs(data, predictions)
    naive, strong = baselines.bandwidth(data)
    model = metrics_of(data, prediction, blocks)
    excluded = int(model.plain["mape_excluded_rows"])
    loss = training.hyperparameters.get("training", {}).get("loss")
    notes = [_OPTIMIZED[loss]] if loss in _OPTIMIZED else []
    if excluded:
        notes.append(
            f"MAPE excludes {excluded} of {len(data.test)} rows with less than {MIN_MBPS:g} Mbit/s."
        )
    return EvaluationResult(
        model=model,
        baselines={name: metrics_of(data, each, blocks) for name, each in naive.items()},
        references={name: metrics_of(data, each, blocks) for name, each in strong.items()},
        plot_arrays=_plot_arrays(data, prediction, naive),
        notes=tuple(notes),
    )


def metrics_of_outputs(
    data: ModelData, predictions: Mapping[str, Array], blocks: Blocks
) -> Metrics:
    """Return the metrics of the outputs of a model on the test split."""
    return metrics_of(data, _outputs(data, predictions), blocks)


def _outputs(data: ModelData, predictions: Mapping[str, Array]) -> Floats:
    return model_output(data, predictions, "next_throughput_mbps").astype(np.float64)


def metrics_of(data: ModelData, prediction: Floats, blocks: Blocks) -> Metrics:
    """Return the metrics of predicted throughputs, Mbit/s, of shape (n,), on the test split."""
    truth = data.test.truth.astype(np.float64)
    error = np.abs(prediction - truth)
    counted = truth >= MIN_MBPS
    relative = 100.0 * error / np.where(counted, truth, 1.0)
    return Metrics(
        statistics={
            "correlation": comparison.correlation(truth, prediction, blocks),
            "correlation_within_link_median": comparison.median_correlation(
                truth, prediction, data.test.series, blocks
            ),
            "mape_percent": comparison.mean(relative, blocks, counted),
            "mae_mbps": comparison.mean(error, blocks),
        },
        plain={
            "rmse_mbps": float(np.sqrt(np.mean(error**2))),
            "mape_excluded_rows": float(np.sum(~counted)),
        },
    )


def _plot_arrays(
    data: ModelData, prediction: Floats, naive: Mapping[str, Floats]
) -> dict[str, Array]:
    """Return a sample of all links, and the first rows of the link with the most test rows."""
    test = data.test
    rows = sample(len(test))
    names, sizes = np.unique(test.series, return_counts=True)
    link = int(names[np.argmax(sizes)])
    excerpt = np.flatnonzero(test.series == link)[:400]
    arrays = {
        "truth": test.truth[rows],
        "prediction": prediction[rows],
        "series": test.series[rows],
        "timestamp": test.timestamp[rows],
        "excerpt_truth": test.truth[excerpt],
        "excerpt_prediction": prediction[excerpt],
        "excerpt_timestamp": test.timestamp[excerpt],
        "excerpt_name": np.array(data.series_names[link]),
    }
    arrays.update({f"excerpt_baseline:{name}": each[excerpt] for name, each in naive.items()})
    arrays.update({f"baseline:{name}": each[rows] for name, each in naive.items()})
    return arrays
