"""Small models of the real shapes, a report to finalize them with, and finalized bundles."""

import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pytest

from dwcp_ml.contract.evaluation import Evaluation
from dwcp_ml.contract.models import RELIABILITY, Target
from dwcp_ml.contract.records import DataReport, ExportRecord, ModelReport, TrainingRecord
from dwcp_ml.export.forest import forest_onnx
from dwcp_ml.export.keys import make_key_pair
from dwcp_ml.export.signing import sign_bundle
from dwcp_ml.export.verify import open_bundle
from dwcp_ml.models.forest import ForestArrays
from tests.export.bundles import finalize
from tests.export.malicious import finalize_small


@dataclass
class Forest:
    """A fitted scikit-learn pipeline, the truth, and its arrays, which an export is made of."""

    pipeline: Any
    arrays: ForestArrays
    rows: np.ndarray

    def score(self, rows: np.ndarray) -> np.ndarray:
        return -self.pipeline.score_samples(rows)

    @cached_property
    def onnx(self) -> bytes:
        return forest_onnx(RELIABILITY, "anomaly", self.arrays, 0.5)


def reliability_rows(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    columns = (
        100 - rng.exponential(1.0, n),
        rng.exponential(0.2, n),
        rng.exponential(0.01, n),
        rng.poisson(20, n),
        rng.exponential(1.0, n),
        20 + rng.gamma(2.0, 20.0, n),
    )
    return np.column_stack(columns).astype(np.float32)


@pytest.fixture(scope="session")
def forest() -> Forest:
    from sklearn.ensemble import IsolationForest
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = reliability_rows(3000)
    pipeline = make_pipeline(StandardScaler(), IsolationForest(n_estimators=100, random_state=42))
    pipeline.fit(rows.copy())
    return Forest(pipeline, ForestArrays.of(*pipeline), rows)


@pytest.fixture(scope="session")
def report() -> ModelReport:
    data = DataReport(
        path="telemetry.csv", md5="0" * 32, size_bytes=1, rows=1, rows_quarantined=0,
        columns=(), links=1, source="simulated",
    )  # fmt: skip
    training = TrainingRecord(
        model_name="reliability_detector", version="7", form="anomaly", success=True,
        training_date="2026-01-02T03:04:05+00:00", training_time_seconds=1.0,
        hyperparameters={"training": {"n_estimators": 100}}, seed=42, threads=1,
        fitted={"threshold": 0.5}, libraries={"scikit-learn": "0.0"},
    )  # fmt: skip
    evaluation = Evaluation(
        model_name="reliability_detector", version="7", form="anomaly", success=True,
        test_set_size=1, targets=(Target("recall", ">=", 0.98),),
        metrics={"recall": 0.99, "pr_auc": None}, primary_metric="pr_auc",
    )  # fmt: skip
    export = ExportRecord(model_name="reliability_detector", version="7", success=True)
    return ModelReport(
        model_name="reliability_detector", version="7", training_date=training.training_date,
        target_metrics={"recall": 0.98}, achieved_metrics=evaluation.metrics,
        test_set_size=1, training_time_seconds=1.0, model_size_mb=0.1, success=True,
        hyperparameters=training.hyperparameters, deployment_ready=True, verdict="APPROVED",
        reasons=(), training=training, evaluation=evaluation, export=export, data=data,
    )  # fmt: skip


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    """A private and a public key."""
    return make_key_pair(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def other_keys(tmp_path_factory):
    return make_key_pair(tmp_path_factory.mktemp("other"))


def _copied(bundle, models):
    return shutil.copytree(bundle, models / bundle.parent.name / bundle.name)


@pytest.fixture(scope="session")
def finalized_once(tmp_path_factory, forest, report):
    """A bundle that holds the forest; not to be changed."""
    return finalize(tmp_path_factory.mktemp("finalized") / "models", forest, report)


@pytest.fixture
def finalized(tmp_path, finalized_once):
    """A bundle that holds the forest."""
    return _copied(finalized_once, tmp_path / "models")


@pytest.fixture(scope="session")
def signed_once(tmp_path_factory, finalized_once, keys):
    path = _copied(finalized_once, tmp_path_factory.mktemp("signed") / "models")
    sign_bundle(path, keys[0])
    return path


@pytest.fixture
def signed(tmp_path, signed_once):
    return _copied(signed_once, tmp_path / "models")


@pytest.fixture
def outside(tmp_path):
    """A directory outside the bundle that must not be read."""
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "secret.txt").write_text("secret")
    os.mkfifo(directory / "pipe")
    return directory


@pytest.fixture(scope="session")
def small_once(tmp_path_factory, report, keys):
    """A small bundle, signed; not to be changed."""
    models = tmp_path_factory.mktemp("small") / "models"
    path = finalize_small(models / "reliability_detector" / "7", report)
    sign_bundle(path, keys[0])
    # Imports what verification imports, so that the hook sees the bundle's files alone.
    assert open_bundle(path, public_key=keys[1]).signature == "valid"
    return path


@pytest.fixture
def bundle(tmp_path, small_once):
    """A small bundle, signed, for others to spoil."""
    return _copied(small_once, tmp_path / "models")
