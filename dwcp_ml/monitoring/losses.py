"""The loss of each joined prediction, and the pairs of two versions."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dwcp_ml.contract.examples import Examples
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.evaluation.bandwidth import MIN_MBPS
from dwcp_ml.evaluation.classification import gain_at

COLUMNS: Final = (
    "model",
    "version",
    "request_id",
    "row",
    "link",
    "observed_at",
    "prediction",
    "score",
    "ground_truth",
    "loss",
    "regret",
)
"""The columns of the joined predictions."""


def losses(
    spec: ModelSpec, prediction: NDArray[np.float64], ground_truth: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the loss of each prediction, (n,); its mean is the model's error rate.

    Bandwidth: the absolute relative error, NaN under 1 Mbit/s, so that 100 times the mean is MAPE.
    The others: 0 where the prediction is right, 1 where it is wrong.
    """
    if spec.short_name != "bandwidth":
        return np.asarray(prediction != ground_truth, np.float64)
    counted = ground_truth >= MIN_MBPS
    relative = np.abs(prediction - ground_truth) / np.where(counted, ground_truth, 1.0)
    return np.where(counted, relative, np.nan)


def regrets(examples: Examples, prediction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far each chosen level's gain is below the best, (n,); NaN for other models."""
    gains = examples.gains
    if gains is None:
        return np.full(len(examples), np.nan)
    regret: NDArray[Any] = gains.max(axis=1) - gain_at(gains, prediction.astype(np.int64))
    return regret


def paired(frame: pd.DataFrame, model: str, stable: str, candidate: str) -> pd.DataFrame:
    """Return the requests that two versions of a model both predicted, in the order of time.

    Parameters
    ----------
    frame
        Of :func:`dwcp_ml.monitoring.joined`.

    Returns
    -------
    DataFrame
        ``request_id``, ``row``, ``link``, ``observed_at``, ``ground_truth``,
        ``prediction_stable``, ``prediction_candidate``, ``loss_stable``, ``loss_candidate`` and
        ``difference``, the candidate's loss less the stable's: above 0 the candidate is worse.
    """
    key = ["request_id", "row"]
    ours = frame[frame["model"] == model]
    both = ours[ours["version"] == stable].merge(
        ours[ours["version"] == candidate][[*key, "prediction", "loss"]],
        on=key,
        suffixes=("_stable", "_candidate"),
        validate="one_to_one",
    )
    both["difference"] = both["loss_candidate"] - both["loss_stable"]
    per_version = [
        f"{name}_{arm}" for name in ("prediction", "loss") for arm in ("stable", "candidate")
    ]
    chosen = both[[*key, "link", "observed_at", "ground_truth", *per_version, "difference"]]
    return chosen.sort_values(["observed_at", *key], ignore_index=True)
