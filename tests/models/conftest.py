"""Small data of each model's kind, and one trained model of each form a session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from dwcp_ml.contract.examples import Examples, ModelData
from dwcp_ml.contract.models import MODELS, ModelSpec
from dwcp_ml.models import FitContext, FitResult, Model, create

FORMS = [(spec.name, form.name) for spec in MODELS.values() for form in spec.forms]
EPOCHS = 3


def bandwidth(rng: np.random.Generator, n: int, form: str) -> dict[str, Any]:
    """Links whose throughput drifts; the next step goes on as the last two did."""
    base = rng.uniform(20, 400, n)[:, None] * np.exp(0.1 * rng.normal(size=(n, 11)).cumsum(axis=1))
    inputs = np.empty((n, 10, 7))
    inputs[..., 0] = 2000 / base[:, :10]
    inputs[..., 1] = 0.1 * inputs[..., 0]
    inputs[..., 2] = base[:, :10]
    inputs[..., 3] = rng.uniform(0, 0.01, (n, 10))
    inputs[..., 4] = rng.integers(0, 4, n)[:, None]
    inputs[..., 5] = rng.integers(1, 4, n)[:, None]
    inputs[..., 6] = np.rint(100 * base[:, :10])
    truth = base[:, 10]
    if form == "bandwidth_class":
        truth = np.digitize(-truth, [-200, -80])
    return {"inputs": inputs, "truth": truth}


def compression(rng: np.random.Generator, n: int, form: str) -> dict[str, Any]:
    """Rows whose best level follows from the rate and the ratio."""
    inputs = np.column_stack(
        (
            rng.uniform(1, 900, n),
            rng.uniform(1, 90, n),
            rng.integers(0, 4, n),
            rng.uniform(1, 11, n),
            rng.random(n),
            rng.uniform(1, 500, n),
        )
    )
    level = np.clip(inputs[:, 3] * 100 / inputs[:, 0], 0, 9).astype(np.int64)
    gains = -np.abs(np.arange(10) - level[:, None]).astype(np.float64)
    truth = level
    if form == "compression_type":
        truth = np.where(level == 0, 0, np.where(inputs[:, 4] > 0.5, 1, 2))
    return {"inputs": inputs, "truth": truth, "gains": gains}


def reliability(rng: np.random.Generator, n: int, form: str) -> dict[str, Any]:
    """Healthy nodes, one row in twelve far away in every feature."""
    truth = rng.random(n) < 1 / 12
    quiet = np.array([0.04, 0.25, 0.002, 400, 0.5, 20])
    factor = np.where(truth, 15.0, 1.0)[:, None]
    inputs = quiet * factor * np.exp(0.2 * rng.normal(size=(n, 6)))
    inputs[:, 0] = 100 - inputs[:, 0]
    inputs[:, 2] = np.minimum(inputs[:, 2], 1)
    return {"inputs": inputs, "truth": truth}


def latency(rng: np.random.Generator, n: int, form: str) -> dict[str, Any]:
    """Windows around 25 ms, one in six with an episode at its end."""
    truth = rng.random(n) < 1 / 6
    inputs = 25 * np.exp(0.05 * rng.normal(size=(n, 20)))
    inputs[:, -6:] += np.where(truth, 200.0, 0.0)[:, None]
    return {"inputs": inputs, "truth": truth}


MAKERS: dict[str, Callable[..., dict[str, Any]]] = {
    "bandwidth_predictor": bandwidth,
    "compression_selector": compression,
    "reliability_detector": reliability,
    "consensus_latency": latency,
}


def make_examples(name: str, form: str, n: int, seed: int) -> Examples:
    rng = np.random.default_rng(seed)
    made = MAKERS[name](rng, n, form)
    positive = made["truth"].astype(bool) if name in ("reliability_detector", "consensus_latency") \
        else np.zeros(n, bool)  # fmt: skip
    return Examples(
        made["inputs"].astype(np.float32),
        made["truth"],
        np.arange(n, dtype=np.int64) * 60,
        np.zeros(n, np.int64),
        np.where(positive, 0, -1).astype(np.int64),
        made.get("gains"),
    )


def make_data(name: str, form: str | None = None, train: int = 330) -> ModelData:
    spec: ModelSpec = MODELS[name]
    form = spec.form(form).name
    splits = (make_examples(name, form, n, s) for n, s in ((train, 1), (150, 2), (120, 3)))
    return ModelData(spec, form, *splits, ("a->b",), 60.0)


@pytest.fixture(scope="session", name="make_data")
def _make_data() -> Callable[..., ModelData]:
    """The function ``make_data(name, form=None, train=330)``."""
    return make_data


@dataclass(frozen=True)
class Trained:
    """A trained model, its training data and the result of its training."""

    model: Model
    data: ModelData
    result: FitResult


@pytest.fixture(scope="session")
def train_once() -> Callable[[str, str], Trained]:
    """Train a form at most once a session: ``train_once(name, form)``."""
    done: dict[tuple[str, str], Trained] = {}

    def trained(name: str, form: str) -> Trained:
        if (name, form) not in done:
            data, model = make_data(name, form), create(name, form=form)
            result = model.fit(data, FitContext(epochs=EPOCHS))
            done[name, form] = Trained(model, data, result)
        return done[name, form]

    return trained


@pytest.fixture(params=FORMS, ids=lambda pair: pair[1])
def trained(request, train_once) -> Trained:
    """A trained model: every form of all four in turn."""
    return train_once(*request.param)


@pytest.fixture(params=list(MODELS))
def default(request, train_once) -> Trained:
    """A trained model in its default form: all four in turn."""
    name = request.param
    return train_once(name, MODELS[name].forms[0].name)
