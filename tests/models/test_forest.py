"""The forest as arrays scores like scikit-learn's own, and finds what is far away."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest

from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.contract.records import ThresholdSource
from dwcp_ml.models import FitContext, create
from dwcp_ml.models.forest import ForestArrays, average_path_length
from tests.errors import about

pytestmark = pytest.mark.train


def fitted(rows, **arguments):
    from sklearn.ensemble import IsolationForest
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), IsolationForest(random_state=0, **arguments))
    return pipeline.fit(rows.copy())


def skewed(n, seed=0):
    rng = np.random.default_rng(seed)
    rows = np.exp(rng.normal(size=(n, 6)) * (0.1, 1, 2, 3, 0.5, 1))
    rows[:, 0] = 100 - 0.01 * rows[:, 1]  # where float32 runs out of digits: rounding must agree
    return rows.astype(np.float32)


@pytest.mark.parametrize(
    ("n", "arguments"),
    [
        (2000, {"n_estimators": 100}),
        (100, {"n_estimators": 30}),
        (700, {"n_estimators": 20, "max_samples": 64}),
        (500, {"n_estimators": 1}),
        (2, {"n_estimators": 10}),
    ],
)
def test_scores_are_sklearns(n, arguments):
    rows, others = skewed(n), skewed(3000, seed=1)
    pipeline = fitted(rows, **arguments)
    ours = ForestArrays.of(*pipeline)
    for inputs in (rows, others, others * 1e6, -others, np.zeros((1, 6), np.float32)):
        expected = -pipeline.score_samples(inputs.copy())
        np.testing.assert_allclose(ours.scores(inputs), expected, rtol=1e-9)
    assert ours.trees == arguments["n_estimators"]


def test_a_constant_feature_is_left_alone():
    rows = skewed(300)
    rows[:, 2] = 7.0
    pipeline = fitted(rows)
    ours = ForestArrays.of(*pipeline)
    np.testing.assert_allclose(ours.scores(rows), -pipeline.score_samples(rows.copy()), rtol=1e-9)


def test_rows_that_are_all_alike_are_neither_normal_nor_not():
    rows = np.ones((50, 6), np.float32)
    pipeline = fitted(rows)
    ours = ForestArrays.of(*pipeline)
    np.testing.assert_allclose(ours.scores(rows), -pipeline.score_samples(rows.copy()), rtol=1e-9)


def test_many_rows_are_scored_in_parts(monkeypatch):
    rows = skewed(500)
    ours = ForestArrays.of(*fitted(rows, n_estimators=10))
    whole = ours.scores(rows)
    monkeypatch.setattr("dwcp_ml.models.forest.ROWS_AT_ONCE", 7)
    np.testing.assert_array_equal(ours.scores(rows), whole)
    assert ours.scores(rows[:0]).shape == (0,)


def test_a_row_on_a_split_goes_left():
    """One tree of one split at 0.5: a leaf of one row on the left, of three on the right."""
    whole, real = np.int64, np.float64
    arrays = ForestArrays(
        tree=np.zeros(3, whole),
        node=np.arange(3),
        feature=np.array([0, -1, -1]),
        threshold=np.array([0.5, 0, 0]),
        left=np.array([1, -1, -1]),
        right=np.array([2, -1, -1]),
        path_length=np.array([0.0, 1.0, 1.0 + average_path_length(np.array([3]))[0]], real),
        n_samples=np.array([4, 1, 3]),
        mean=np.zeros(1, np.float32),
        scale=np.ones(1, np.float32),
        max_samples=np.array(4),
    )
    above = np.nextafter(np.float32(0.5), np.float32(1))
    scores = arrays.scores(np.array([[0.5], [above], [-9], [9]], np.float32))
    assert scores[0] == scores[2] > scores[1] == scores[3]


def test_path_length_of_a_search():
    """Against the definition: 2 H(n - 1) - 2 (n - 1) / n, with the logarithm for H."""
    given = average_path_length(np.array([0, 1, 2, 3, 256]))
    assert given[:3].tolist() == [0.0, 0.0, 1.0]
    harmonic = np.log([2, 255]) + 0.5772156649015329
    expected = 2 * harmonic - 2 * np.array([2 / 3, 255 / 256])
    np.testing.assert_allclose(given[3:], expected, rtol=1e-12)


def test_leaves_hold_depth_and_every_row_is_in_one():
    rows = skewed(1000)
    ours = ForestArrays.of(*fitted(rows, n_estimators=5))
    leaf = ours.feature < 0
    assert ((ours.left >= 0) == ~leaf).all()
    assert (ours.path_length[~leaf] == 0).all()
    for tree in range(5):
        assert ours.n_samples[leaf & (ours.tree == tree)].sum() == 256


DOCUMENT = {
    "features": {"transform": "none"},
    "forest": {"max_samples": "auto"},
    "threshold": {"rule": "auto"},
}
"""The settings of the architecture document."""


def with_incidents(data, count=30):
    """Return the data with the positive training rows spread over ``count`` incidents."""
    event = np.where(data.train.truth, np.arange(len(data.train)) % count, -1)
    return dataclasses.replace(data, train=dataclasses.replace(data.train, event=event))


def test_the_model_of_the_document_is_its_table(make_data):
    """StandardScaler, then IsolationForest(100, auto, auto, the run's seed)."""
    from sklearn.ensemble import IsolationForest
    from sklearn.preprocessing import StandardScaler

    data = make_data("reliability_detector", train=600)
    model = create("reliability", DOCUMENT)
    result = model.fit(data, FitContext(seed=42))
    scaled = StandardScaler().fit_transform(data.train.inputs.copy())
    forest = IsolationForest(
        n_estimators=100, contamination="auto", max_samples="auto", random_state=42
    ).fit(scaled)
    scaler = StandardScaler().fit(data.train.inputs.copy())
    expected = -forest.score_samples(scaler.transform(data.test.inputs.copy()))
    answers = model.predict(data.test.inputs)
    np.testing.assert_allclose(answers["anomaly_score"], expected, rtol=1e-6)
    assert model.fitted["threshold"] == model.fitted["threshold_auto"] == 0.5
    assert result.threshold_source is ThresholdSource.AUTO
    assert answers["is_anomaly"][data.test.truth].mean() > 0.95
    assert answers["is_anomaly"][~data.test.truth].mean() < 0.1


def test_a_stated_share_of_anomalies_moves_the_threshold(make_data):
    data = make_data("reliability_detector", train=600)
    rule = {"forest": {"contamination": 0.02}, "threshold": {"rule": "auto"}}
    model = create("reliability", rule)
    model.fit(data, FitContext())
    assert model.fitted["threshold"] > 0.5
    flagged = model.predict(data.train.inputs)["is_anomaly"].mean()
    assert flagged == pytest.approx(0.02, abs=0.005)


def test_two_thresholds_at_once_are_refused():
    with pytest.raises(UsageError, check=about(ErrorCode.OUT_OF_RANGE)):
        create("reliability", {"forest": {"contamination": 0.02}})


@pytest.mark.parametrize("recall", [0.5, 0.9, 0.995, 1.0])
def test_the_threshold_is_where_the_training_incidents_have_the_recall(make_data, recall):
    data = with_incidents(make_data("reliability_detector", train=3000))
    model = create("reliability", {"threshold": {"incident_recall": recall}})
    result = model.fit(data, FitContext())
    assert result.threshold_source is ThresholdSource.INCIDENTS
    flagged = model.predict(data.train.inputs)["is_anomaly"][data.train.truth]
    # At least the recall, by one row at most.
    assert flagged.mean() >= recall > (flagged.sum() - 2) / len(flagged)
    assert model.fitted["threshold_auto"] == 0.5


@pytest.mark.parametrize("rule", ["incidents", "auto"])
@pytest.mark.parametrize("transform", ["log", "none"])
def test_the_pickled_pipeline_flags_the_same_rows(make_data, rule, transform):
    data = with_incidents(make_data("reliability_detector", train=1000))
    settings = {"features": {"transform": transform}, "threshold": {"rule": rule}}
    model = create("reliability", settings)
    model.fit(data, FitContext())
    pipeline = pickle.loads(model.pickled)
    rows = data.test.inputs
    ours = model.predict(rows)
    np.testing.assert_array_equal(pipeline.predict(rows.copy()) == -1, ours["is_anomaly"])
    expected = -pipeline.score_samples(rows.copy())
    np.testing.assert_allclose(model.forest().scores(rows), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("incidents", "labels", "source"),
    [
        (9, "intervals", ThresholdSource.AUTO_TOO_FEW_INCIDENTS),
        (10, "intervals", ThresholdSource.INCIDENTS),
        (10, "window", ThresholdSource.AUTO_NO_INTERVALS),
    ],
)
def test_without_incidents_to_learn_from_the_threshold_is_the_forests(
    make_data, incidents, labels, source
):
    data = with_incidents(make_data("reliability_detector", train=1000), incidents)
    model = create("reliability")
    result = model.fit(dataclasses.replace(data, label_source=labels), FitContext())
    assert result.threshold_source is source
    chosen = source is ThresholdSource.INCIDENTS
    assert (model.fitted["threshold"] != model.fitted["threshold_auto"]) is chosen


def test_the_transform_is_the_logarithm_and_rises_with_each_feature(make_data):
    data = make_data("reliability_detector", train=1000)
    model = create("reliability")
    model.fit(data, FitContext())
    forest, row = model.forest(), np.empty((3, 6), np.float32)
    row[:, 1:] = np.array([1, 10, 100])[:, None]
    row[:, 0] = [99.0, 99.9, 99.99]  # a tenth of the downtime, and a hundredth
    logs = forest.scaled(row) * forest.scale + forest.mean
    steps = np.diff(logs, axis=0) * np.sign(forest.scale)
    np.testing.assert_allclose(steps, np.log(10), rtol=0.05)
    assert np.isfinite(forest.scaled(np.array([[100, 0, 0, 0, 0, 0]], np.float32))).all()


def test_labels_teach_the_trees_nothing(make_data):
    data = make_data("reliability_detector")
    models = []
    for truth in (data.train.truth, ~data.train.truth):
        train = dataclasses.replace(data.train, truth=truth)
        model = create("reliability")
        model.fit(dataclasses.replace(data, train=train), FitContext())
        models.append(model.predict(data.test.inputs)["anomaly_score"])
    np.testing.assert_array_equal(*models)
