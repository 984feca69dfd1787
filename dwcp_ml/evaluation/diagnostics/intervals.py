"""The coverage of the prediction intervals on the test split."""

from __future__ import annotations

from typing import Final

import numpy as np

from dwcp_ml.contract.arrays import Array, Mask
from dwcp_ml.contract.diagnostics import IntervalCoverage
from dwcp_ml.contract.examples import ModelData
from dwcp_ml.contract.intervals import bounds
from dwcp_ml.contract.records import TrainingRecord
from dwcp_ml.evaluation import comparison
from dwcp_ml.evaluation.comparison import Blocks

COVERAGE: Final = "interval_coverage"


def interval_coverage(
    data: ModelData, prediction: Array, training: TrainingRecord, blocks: Blocks
) -> tuple[IntervalCoverage, Mask] | None:
    """Return the coverage, and which test examples lie inside, (n,).

    None if the training calibrated no interval.
    """
    fitted = training.fitted
    if "interval_half_width" not in fitted:
        return None
    lower, upper = bounds(prediction, fitted["interval_half_width"])
    truth = data.test.truth
    inside = (truth >= lower) & (truth <= upper)
    statistic = comparison.mean(inside, blocks)
    found = comparison.interval(comparison.sampled(statistic, blocks), blocks)
    width = (upper.astype(np.float64) - lower) / np.maximum(prediction, 1e-9)
    record = IntervalCoverage(
        nominal=fitted["interval_nominal"],
        coverage=float(inside.mean()),
        lower=None if found is None else found.lower,
        upper=None if found is None else found.upper,
        calibration_examples=int(fitted["interval_examples"]),
        median_width=float(np.median(width)),
    )
    return record, inside
