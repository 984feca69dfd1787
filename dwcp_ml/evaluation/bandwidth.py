"""How well the next throughput is predicted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dwcp_ml.contract.examples import ModelData
from dwcp_ml.contract.records import TrainingRecord
from dwcp_ml.evaluation import baselines, comparison
from dwcp_ml.evaluation.comparison import Blocks
from dwcp_ml.evaluation.metrics import EvaluationResult, Metrics, model_output
from dwcp_ml.evaluation.plot_data import sample

MIN_MBPS: Final = 1.0
"""MAPE is over rows with at least this throughput: relative errors of nothing say nothing."""


def evaluate(
    data: ModelData,
    predictions: Mapping[str, NDArray[Any]],
    training: TrainingRecord,  # noqa: ARG001 - the four assessments are called alike
    blocks: Blocks,
) -> EvaluationResult:
    """Assess predictions of the next throughput, in Mbit/s.

    Correlation is given pooled and as the median within a link: pooling links of different size
    flatters it.
    """
    own = model_output(data, predictions, "next_throughput_mbps").astype(np.float64)
    naive, strong = baselines.bandwidth(data)
    model = metrics_of(data, own, blocks)
    excluded = int(model.plain["mape_excluded_rows"])
    notes = []
    if excluded:
        notes.append(
            f"MAPE leaves out {excluded} of {len(data.test)} rows with less than "
            f"{MIN_MBPS:g} Mbit/s."
        )
    return EvaluationResult(
        model=model,
        baselines={name: metrics_of(data, each, blocks) for name, each in naive.items()},
        references={name: metrics_of(data, each, blocks) for name, each in strong.items()},
        plot_arrays=_plot_arrays(data, own, naive),
        notes=tuple(notes),
    )


def metrics_of(data: ModelData, prediction: NDArray[np.float64], blocks: Blocks) -> Metrics:
    """Return how well predicted throughputs, Mbit/s, of shape (n,) fit the test split."""
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
    data: ModelData, own: NDArray[np.float64], naive: Mapping[str, NDArray[np.float64]]
) -> dict[str, NDArray[Any]]:
    """Return a sample of all links, and one link whole: the one with the most test rows."""
    test = data.test
    rows = sample(len(test))
    names, sizes = np.unique(test.series, return_counts=True)
    link = int(names[np.argmax(sizes)])
    excerpt = np.flatnonzero(test.series == link)[:400]
    arrays = {
        "truth": test.truth[rows],
        "prediction": own[rows],
        "series": test.series[rows],
        "timestamp": test.timestamp[rows],
        "excerpt_truth": test.truth[excerpt],
        "excerpt_prediction": own[excerpt],
        "excerpt_timestamp": test.timestamp[excerpt],
        "excerpt_name": np.array(data.series_names[link]),
    }
    arrays.update({f"excerpt_baseline:{name}": each[excerpt] for name, each in naive.items()})
    arrays.update({f"baseline:{name}": each[rows] for name, each in naive.items()})
    return arrays
