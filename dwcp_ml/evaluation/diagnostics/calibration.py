"""The observed share of positives by score."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import Final

import numpy as np

from dwcp_ml.contract.arrays import Array, Floats, Mask
from dwcp_ml.contract.diagnostics import ScoreBin, ScoreCalibration
from dwcp_ml.contract.examples import ModelData

QUANTILES: Final = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 1.0)
"""The bins of a score that is no probability: finer at the top, where the anomalies are."""

PROBABILITY_BINS: Final = 10

_SCORES: Final = {"anomaly": "anomaly_score", "high_latency": "reconstruction_error"}


def score_calibration(data: ModelData, predictions: Mapping[str, Array]) -> ScoreCalibration | None:
    """Return the calibration of a detector's score, or of the probability of the predicted class.

    None for a form that is neither.
    """
    if data.form in _SCORES:
        output = _SCORES[data.form]
        score = np.asarray(predictions[output], np.float64)
        edges = np.unique(np.quantile(score, QUANTILES))
        truth = data.test.truth.astype(bool)
        return ScoreCalibration(
            output=output, is_probability=False, bins=score_bins(score, truth, edges)
        )
    if "probabilities" not in predictions:
        return None
    probabilities = np.asarray(predictions["probabilities"], np.float64)
    right = np.asarray(predictions[data.form]) == data.test.truth
    confidence = probabilities.max(axis=1)
    bins = score_bins(confidence, right, np.linspace(0.0, 1.0, PROBABILITY_BINS + 1))
    gaps = sum(each.examples * abs(each.mean_score - each.share) for each in bins)
    return ScoreCalibration(
        output="probabilities",
        is_probability=True,
        bins=bins,
        brier_score=float(np.mean((confidence - right) ** 2)),
        expected_calibration_error=gaps / len(right),
    )


def score_bins(score: Floats, positive: Mask, edges: Floats) -> tuple[ScoreBin, ...]:
    """Return the bins between ascending ``edges`` that hold an example, lowest score first.

    A score that equals an edge is in the bin above it; the last edge is in the last bin.
    """
    place = np.clip(np.searchsorted(edges, score, side="right") - 1, 0, max(0, len(edges) - 2))
    bins = []
    for each in np.unique(place):
        inside = place == each
        count, positives = int(inside.sum()), int(positive[inside].sum())
        low, high = wilson(positives, count)
        bins.append(
            ScoreBin(
                lower=float(score[inside].min()),
                upper=float(score[inside].max()),
                examples=count,
                positives=positives,
                mean_score=float(score[inside].mean()),
                share_lower=low,
                share_upper=high,
            )
        )
    return tuple(bins)


def wilson(positives: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval of a share after Wilson, JASA 22 (1927), 209-212.

    >>> [round(end, 4) for end in wilson(1, 10)]
    [0.0179, 0.4042]
    """
    z = NormalDist().inv_cdf((1.0 + confidence) / 2.0)
    share, excess = positives / count, z * z / count
    centre = (share + excess / 2.0) / (1.0 + excess)
    half = (
        z / (1.0 + excess) * float(np.sqrt(share * (1.0 - share) / count + excess / (4.0 * count)))
    )
    return max(0.0, centre - half), min(1.0, centre + half)
