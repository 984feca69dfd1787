"""Histograms of inputs and predictions, against NumPy's."""

import copy
from itertools import pairwise

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dwcp_ml.contract.columns import column_of_feature
from dwcp_ml.contract.models import COMPARED_OUTPUTS, MODELS
from dwcp_ml.serving.sketches import BUFFER_ROWS, FINE_BUCKETS, Sketch, Sketches, edges_between
from tests.serving.bundles import VERSION, rows_for


@pytest.mark.parametrize(
    ("low", "high", "whole", "first", "last", "number"),
    [
        (0, 9, True, 0.0, 9.0, 10),
        (0, 32, True, 0.0, 32.0, 33),
        (0, 33, True, 0.0, 1e9, 38),
        (0.0, 100.0, False, 0.0, 100.0, 11),
        (0.0, 1.0, False, 0.0, 1.0, 17),
        (0.0, None, False, 0.0, 1e9, 38),
        (None, None, False, 0.0, 1e9, 38),
    ],
)
def test_edges(low, high, whole, first, last, number):
    edges = edges_between(low, high, whole)
    assert (edges[0], edges[-1], len(edges)) == (first, last, number)
    assert all(a < b for a, b in pairwise(edges))


def test_edges_are_decades_in_three_steps():
    edges = edges_between(0.0, None, whole=False)
    assert {0.001, 0.01, 0.1, 1.0, 10.0, 1e6} <= set(edges)
    ratios = np.array(edges[2:]) / np.array(edges[1:-1])
    np.testing.assert_allclose(ratios, 10 ** (1 / 3), rtol=0.02)


def test_every_feature_has_edges_that_hold_its_range():
    for spec in MODELS.values():
        for feature in spec.features:
            column = column_of_feature(feature)
            edges = edges_between(column.minimum, column.maximum, whole=False)
            if column.maximum is not None:
                assert edges[-1] >= column.maximum


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_numpys(seed):
    edges = edges_between(0.0, None, whole=False)
    rng = np.random.default_rng(seed)
    values = np.exp(rng.normal(0.0, 5.0, 5000)).astype(np.float32)
    sketch = Sketch(edges)
    for part in np.split(values, [10, 11, 4000]):
        sketch.add(part)
    cumulative = dict(sketch.cumulative())
    for edge in edges:
        assert cumulative[f"{edge:g}"] == (values <= np.float32(edge)).sum()
    assert cumulative["+Inf"] == 5000
    assert sketch.total == pytest.approx(float(values.sum(dtype=np.float64)))


def test_a_value_on_an_edge_counts_below_it():
    sketch = Sketch((0.0, 0.1, 1.0))
    sketch.add(np.array([-1.0, 0.0, 0.1, 1.0, 2.0], np.float32))
    counts = [("0", 2.0), ("0.1", 3.0), ("1", 4.0), ("+Inf", 5.0)]
    assert sketch.cumulative() == counts


def series(registry, family):
    """Labels and value of each sample of a family."""
    text = generate_latest(registry).decode()
    return {
        (sample.name, *(value for key, value in sorted(sample.labels.items()))): sample.value
        for family_ in text_string_to_metric_families(text)
        if family_.name == family
        for sample in family_.samples
    }


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("rows", [1, 3, BUFFER_ROWS, 2 * BUFFER_ROWS + 5])
def test_a_model_counts_its_newest_observation_and_its_answers(models, name, rows):
    registry = CollectorRegistry()
    sketches = Sketches(models.values(), registry)
    inputs = rows_for(name, rows)
    outputs = models[name].run(inputs)
    half = rows // 2
    for start, end in ((0, half), (half, rows))[half == 0 :]:
        part = {k: v[start:end] for k, v in outputs.items()}
        sketches.add(models[name], inputs[start:end], part, list(range(end - start)))
    features = MODELS[name].features
    newest = inputs.reshape(rows, -1)[:, -len(features) :]
    received = series(registry, "dwcp_feature")
    for column, feature in enumerate(features):
        key = (feature, name, VERSION)
        assert received["dwcp_feature_count", *key] == rows
        expected = float(newest[:, column].sum(dtype=np.float64))
        assert received["dwcp_feature_sum", *key] == pytest.approx(expected)
    received = series(registry, "dwcp_prediction")
    for output in models[name].outputs:
        key = ("dwcp_prediction_count", name, output.name, VERSION)
        if output.shape:
            assert key not in received
        else:
            assert received[key] == rows


@pytest.mark.parametrize("name", MODELS)
def test_newest_observations_are_counted_beside_the_training_data(models, name):
    """The bundle says: a quarter of the training examples up to 1, a half up to 10."""
    registry = CollectorRegistry()
    sketches = Sketches(models.values(), registry)
    rows = BUFFER_ROWS + 7
    inputs = rows_for(name, rows)
    sketches.add(models[name], inputs, models[name].run(inputs), list(range(rows)))
    features = MODELS[name].features
    newest = inputs.reshape(rows, -1)[:, -len(features) :]
    live = series(registry, "dwcp_feature_values")
    shares = series(registry, "dwcp_feature_training_share")
    for column, feature in enumerate(features):
        values = newest[:, column]
        expected = (values <= 1).sum(), ((values > 1) & (values <= 10)).sum(), (values > 10).sum()
        for bucket, (count, share) in enumerate(zip(expected, (0.25, 0.5, 0.25), strict=True)):
            key = (str(bucket), feature, name, VERSION)
            assert live["dwcp_feature_values_total", *key] == count
            assert shares["dwcp_feature_training_share", *key] == share


def test_a_bundle_without_a_training_distribution_has_no_such_counts(models):
    served = models["reliability_detector"]
    older = copy.copy(served)
    older.manifest = served.manifest.replace(training_distribution=())
    registry = CollectorRegistry()
    sketches = Sketches([older], registry)
    sketches.add(older, rows_for(older.name, 2), older.run(rows_for(older.name, 2)), [0, 1])
    assert series(registry, "dwcp_feature_values") == {}
    assert series(registry, "dwcp_feature")


def test_the_sketches_of_other_models_are_unchanged(models):
    registry = CollectorRegistry()
    sketches = Sketches(models.values(), registry)
    name = "reliability_detector"
    sketches.add(models[name], rows_for(name, 2), models[name].run(rows_for(name, 2)), [0, 1])
    received = series(registry, "dwcp_feature")
    others = [value for key, value in received.items() if name not in key]
    assert others
    assert not any(others)


@pytest.mark.parametrize("name", MODELS)
def test_the_first_prediction_of_each_request_is_counted_once(models, name):
    registry = CollectorRegistry()
    sketches = Sketches(models.values(), registry)
    inputs = rows_for(name, 6)
    outputs = models[name].run(inputs)
    sketches.add(models[name], inputs, outputs, [0, 1, 4])
    (compared,) = [each for each in COMPARED_OUTPUTS[name] if each in outputs]
    received = series(registry, "dwcp_request_prediction")
    key = (name, compared, VERSION)
    assert received["dwcp_request_prediction_count", *key] == 3
    expected = float(outputs[compared][[0, 1, 4]].astype(np.float32).sum(dtype=np.float64))
    assert received["dwcp_request_prediction_sum", *key] == pytest.approx(expected)


def test_predictions_are_compared_in_fine_buckets():
    edges = np.array(edges_between(0.0, None, whole=False, buckets=FINE_BUCKETS))
    assert len(edges) == 12 * FINE_BUCKETS + 2
    np.testing.assert_allclose(edges[2:] / edges[1:-1], 10 ** (1 / FINE_BUCKETS), rtol=0.03)
    assert len({f"{edge:g}" for edge in edges}) == len(edges)
