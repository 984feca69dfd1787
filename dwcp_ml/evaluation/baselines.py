"""The references of a model: naive baselines that it must beat, and strong ones that it must match.

All are fitted on training examples only, what they choose on validation examples. Each function
returns two dictionaries by name: the naive references, and the strong ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from dwcp_ml.contract.arrays import Floats, Ints
from dwcp_ml.contract.examples import Examples, ModelData
from dwcp_ml.contract.models import BANDWIDTH_LOG_OFFSETS
from dwcp_ml.contract.records import TrainingRecord
from dwcp_ml.evaluation.metrics import feature

SMOOTHINGS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
MAX_NEIGHBOURS: Final = 20_000
"""Maximum number of training examples of the nearest-neighbour baseline."""

PENALTIES: Final = tuple(10.0**power for power in range(-8, 2))
"""Penalties of the ridge regression to choose from, per training example and unit variance."""

MAX_LOG: Final = 60.0
"""Maximum of a predicted log(1 + Mbit/s), as of the model's own predictions."""


@dataclass(frozen=True)
class Scores:
    """The scores of one detector on two splits, float64; higher is more anomalous."""

    validation: Floats
    test: Floats


def bandwidth(data: ModelData) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Predict the next throughput, Mbit/s, of the test windows.

    Naive: ``last_value``; ``ewma`` with the smoothing that had the lowest MAPE in training. Strong:
    ``linear_autoregression`` on the link's own lags (logarithms: links differ in size);
    ``ridge_on_all_inputs`` on all features of all steps.
    """
    train, test = data.train, data.test
    known = feature(data, train.inputs, "throughput_mbps")
    lags = feature(data, test.inputs, "throughput_mbps")
    errors = [_relative_error(ewma(known, alpha), train) for alpha in SMOOTHINGS]
    naive = {"last_value": lags[:, -1], "ewma": ewma(lags, SMOOTHINGS[int(np.argmin(errors))])}
    strong = {
        "linear_autoregression": _own_lags(data, known, lags),
        "ridge_on_all_inputs": _ridge(data),
    }
    return naive, strong


def _relative_error(predicted: Floats, examples: Examples) -> float:
    """Return the mean relative error of rows with at least 1 Mbit/s; infinity without any."""
    truth = examples.truth.astype(np.float64)
    counted = truth >= 1.0
    if not counted.any():
        return float("inf")
    return float(np.mean(np.abs(predicted - truth)[counted] / truth[counted]))


def ewma(windows: Floats, alpha: float) -> Floats:
    """Return the exponentially weighted mean of each window, (n, steps) to (n,).

    The weight of a step k before the last is alpha (1 - alpha)^k, normalised over the window.
    """
    age = np.arange(windows.shape[1])[::-1]
    weights = (1.0 - alpha) ** age
    weighted: Floats = windows @ (weights / weights.sum())
    return weighted


def _own_lags(data: ModelData, known: Floats, lags: Floats) -> Floats:
    """Fit each link on its own training windows; with few of them, on all links."""
    x, y, z = np.log1p(known), np.log1p(data.train.truth.astype(np.float64)), np.log1p(lags)
    predicted = _least_squares(x, y, z)
    for link in np.unique(data.test.series):
        rows = data.train.series == link
        if rows.sum() >= 10 * (x.shape[1] + 1):
            test_rows = data.test.series == link
            predicted[test_rows] = _least_squares(x[rows], y[rows], z[test_rows])
    return np.expm1(predicted)


def _ridge(data: ModelData) -> Floats:
    """Fit the log throughput on the logarithms of all inputs, with the model's own offsets.

    The penalty has the lowest MAPE on the validation split (Hoerl and Kennard, Technometrics 12
    (1970), 55-67, for the method).
    """
    offsets = np.array([BANDWIDTH_LOG_OFFSETS[name] for name in data.spec.features])
    scale = _Standard(_log_inputs(data.train, offsets))
    target = np.log1p(data.train.truth.astype(np.float64))
    values, vectors = np.linalg.eigh(scale.fitted.T @ scale.fitted / len(target))
    projected = vectors.T @ (scale.fitted.T @ (target - target.mean())) / len(target)

    def predict(examples: Examples, penalty: float) -> Floats:
        coefficients = vectors @ (projected / (np.maximum(values, 0.0) + penalty))
        logs = scale(_log_inputs(examples, offsets)) @ coefficients + target.mean()
        predicted: Floats = np.expm1(np.clip(logs, 0.0, MAX_LOG))
        return predicted

    validation = data.validation
    errors = [_relative_error(predict(validation, each), validation) for each in PENALTIES]
    return predict(data.test, PENALTIES[int(np.argmin(errors))])


def _log_inputs(examples: Examples, offsets: Floats) -> Floats:
    """Return log(x + offset) of all features of all steps, (n, steps * features)."""
    logs = np.log(np.maximum(examples.inputs.astype(np.float64), 0.0) + offsets)
    return logs.reshape(len(examples), -1)


def _least_squares(x: Floats, y: Floats, z: Floats) -> Floats:
    """Fit y on x, standardised and with an intercept, and predict at z."""
    centre, spread = x.mean(axis=0), x.std(axis=0)
    spread[spread == 0] = 1.0
    x, z = (x - centre) / spread, (z - centre) / spread
    mean = float(y.mean())
    coefficients = np.linalg.lstsq(x, y - mean, rcond=1e-8)[0]
    return z @ coefficients + mean


def classification(
    data: ModelData, training: TrainingRecord
) -> tuple[dict[str, Ints], dict[str, Ints]]:
    """Choose a class for each test example.

    ``best_fixed_level`` is the level with the highest mean gain in training (without gains, or for
    classes, ``most_frequent``); ``nearest_neighbour`` takes the class of the nearest training
    example; ``last_class`` (bandwidth) the class of the last value.
    """
    if data.spec.name == "bandwidth_predictor":
        return {
            "most_frequent": _constant(data, _mode(data)),
            "last_class": _last(data, training),
        }, {}
    gains = data.train.gains
    naive = {"nearest_neighbour": _nearest(data)}
    if data.form == "compression_level" and gains is not None:
        naive["best_fixed_level"] = _constant(data, int(np.argmax(gains.mean(axis=0))))
    naive["most_frequent"] = _constant(data, _mode(data))
    return naive, {}


def _constant(data: ModelData, value: int) -> Ints:
    return np.full(len(data.test), value, np.int64)


def _mode(data: ModelData) -> int:
    return int(np.argmax(np.bincount(data.train.truth.astype(np.int64))))


def _nearest(data: ModelData) -> Ints:
    from sklearn.neighbors import KNeighborsClassifier

    rows = np.linspace(0, len(data.train) - 1, min(len(data.train), MAX_NEIGHBOURS)).astype(int)
    scale = _Standard(np.log1p(data.train.inputs[rows].astype(np.float64)))
    model = KNeighborsClassifier(1).fit(scale.fitted, data.train.truth[rows])
    nearest = model.predict(scale(np.log1p(data.test.inputs.astype(np.float64))))
    return np.asarray(nearest, np.int64)


def _last(data: ModelData, training: TrainingRecord) -> Ints:
    """Return the class of each window's last value, by the link's 95th percentile in training."""
    settings = training.hyperparameters.get("data", {})
    shares = settings.get("good_share", 0.7), settings.get("degraded_share", 0.4)
    last = feature(data, data.train.inputs, "throughput_mbps")[:, -1]
    now = feature(data, data.test.inputs, "throughput_mbps")[:, -1]
    reference = np.full(len(now), np.nan)
    for link in np.unique(data.test.series):
        own = last[data.train.series == link]
        reference[data.test.series == link] = np.quantile(own if len(own) else last, 0.95)
    below = [(now < share * reference).astype(np.int64) for share in shares]
    worse: Ints = below[0] + below[1]
    return worse


class _Standard:
    """Centre and spread of training rows, (n, k); calling it standardises other rows."""

    def __init__(self, rows: Floats) -> None:
        self.centre, spread = rows.mean(axis=0), rows.std(axis=0)
        self.spread = np.where(spread > 0, spread, 1.0)
        self.fitted = self(rows)

    def __call__(self, rows: Floats) -> Floats:
        scaled: Floats = (rows - self.centre) / self.spread
        return scaled


def reliability(data: ModelData) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Score the test rows.

    Naive: ``random``; ``l2_norm`` of the standardised features; ``pca``: the squared length that
    the components holding 90 % of the variance leave over. Strong: ``signed_log_z``: the sum of the
    z-scores of the logarithms, uptime (as downtime) and all others counted upwards;
    ``<feature>_alone``: each feature by itself, in the same direction.
    """
    train, test = (each.inputs.astype(np.float64) for each in (data.train, data.test))
    scale = _Standard(train)
    rows = scale(test)
    _, spread, axes = np.linalg.svd(scale.fitted, full_matrices=False)
    share = np.cumsum(spread**2) / max(float(np.sum(spread**2)), 1e-300)
    kept = axes[: int(np.searchsorted(share, 0.9)) + 1]
    kept = kept[: max(1, len(axes) - 1)]
    naive = {
        "random": np.random.default_rng(42).random(len(test)),
        "l2_norm": np.linalg.norm(rows, axis=1),
        "pca": np.sum((rows - rows @ kept.T @ kept) ** 2, axis=1),
    }
    uptime = data.spec.features.index("uptime_pct")

    def logarithms(values: Floats) -> Floats:
        values = values.copy()
        values[:, uptime] = 100.0 - values[:, uptime]
        return np.log(np.maximum(values, 0.0) + 1e-3)

    strong = {"signed_log_z": _Standard(logarithms(train))(logarithms(test)).sum(axis=1)}
    for position, name in enumerate(data.spec.features):
        strong[f"{name}_alone"] = test[:, position] * (-1.0 if position == uptime else 1.0)
    return naive, strong


def latency(data: ModelData) -> tuple[dict[str, Scores], dict[str, Scores]]:
    """Score the validation and test windows by the logarithm of their latencies.

    Naive: ``rolling_z_score``: the largest deviation of a step from its window's mean, in standard
    deviations of the window; ``ewma``: the largest step above the exponentially weighted mean of
    those before it. Strong: ``largest_step``, ``window_mean`` and ``window_deviation`` of the
    window; ``mean_and_deviation``: the z-scores, against normal training windows, of the last two,
    added.
    """

    def on_both(score: Callable[[Floats], Floats]) -> Scores:
        return Scores(score(_logs(data.validation)), score(_logs(data.test)))

    normal = _logs(data.train)[~data.train.truth.astype(bool)]
    scale = _Standard(_mean_and_deviation(normal if len(normal) else _logs(data.train)))
    naive = {"rolling_z_score": on_both(_largest_z), "ewma": on_both(_largest_innovation)}
    strong = {
        "largest_step": on_both(lambda windows: windows.max(axis=1)),
        "window_mean": on_both(lambda windows: windows.mean(axis=1)),
        "window_deviation": on_both(lambda windows: windows.std(axis=1)),
        "mean_and_deviation": on_both(lambda w: scale(_mean_and_deviation(w)).sum(axis=1)),
    }
    return naive, strong


def _logs(examples: Examples) -> Floats:
    return np.log(np.maximum(examples.inputs.astype(np.float64), 1e-6))


def _mean_and_deviation(windows: Floats) -> Floats:
    return np.stack([windows.mean(axis=1), windows.std(axis=1)], axis=1)


def _largest_z(windows: Floats) -> Floats:
    centre, spread = windows.mean(axis=1), windows.std(axis=1)
    deviation: Floats = np.abs(windows - centre[:, None]).max(axis=1)
    largest: Floats = deviation / np.maximum(spread, 1e-9)
    return largest


def _largest_innovation(windows: Floats, alpha: float = 0.3) -> Floats:
    level = windows[:, 0].copy()
    largest = np.zeros(len(windows))
    for step in range(1, windows.shape[1]):
        largest = np.maximum(largest, windows[:, step] - level)
        level += alpha * (windows[:, step] - level)
    return largest
