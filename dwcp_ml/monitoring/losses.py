"""The regret of each joined prediction, and the pairs of two versions."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dwcp_ml.contract.examples import Examples
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
