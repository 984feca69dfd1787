"""How far predictions are from what came true; pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dwcp_ml.contract.models import MIN_MBPS


def losses(
    model: str, prediction: NDArray[np.float64], ground_truth: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the loss of each prediction, (n,); its mean is the model's error rate.

    Bandwidth: the absolute relative error, NaN under 1 Mbit/s, so that 100 times the mean is MAPE.
    The others: 0 where the prediction is right, 1 where it is wrong.

    Parameters
    ----------
    model
        Full name.
    prediction, ground_truth
        Of the compared output, shape (n,): Mbit/s; a level; 0 or 1.
    """
    if model != "bandwidth_predictor":
        return np.asarray(prediction != ground_truth, np.float64)
    counted = ground_truth >= MIN_MBPS
    relative = np.abs(prediction - ground_truth) / np.where(counted, ground_truth, 1.0)
    return np.where(counted, relative, np.nan)
