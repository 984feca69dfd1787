"""Log, clip, standardise: fitted on what it is given, the same in NumPy and in Keras."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from dwcp_ml.models.scaling import Scaling

OFFSET = (0.01, 1.0, 1e-7)


def rows(n=500, seed=0):
    return np.exp(np.random.default_rng(seed).normal(size=(n, 4, 3)) * (1, 2, 3)).astype(np.float32)


def test_training_rows_come_out_standardised():
    inputs = rows()
    scaled = Scaling.fit(inputs, OFFSET, clips=True).apply(inputs).reshape(-1, 3)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(scaled.std(axis=0), 1, atol=1e-4)


def test_the_scale_is_the_logarithm():
    inputs = rows()
    scaled = Scaling.fit(inputs, OFFSET, clips=True).apply(inputs).reshape(-1, 3)
    logs = np.log(inputs.reshape(-1, 3).astype(np.float64) + np.array(OFFSET))
    for feature in range(3):
        assert np.corrcoef(scaled[:, feature], logs[:, feature])[0, 1] > 0.999999


def test_clipping_ends_at_the_training_range():
    inputs = rows()
    clipping = Scaling.fit(inputs, OFFSET, clips=True)
    low, high = clipping.apply(inputs.min(axis=(0, 1))), clipping.apply(inputs.max(axis=(0, 1)))
    beyond = np.stack([inputs.min(axis=(0, 1)) / 100, inputs.max(axis=(0, 1)) * 100])
    np.testing.assert_allclose(clipping.apply(beyond), np.stack([low, high]), rtol=1e-4, atol=1e-4)
    free = Scaling.fit(inputs, OFFSET, clips=False).apply(beyond)
    assert (free[1] > high + 0.5).all()


def test_a_constant_feature_gives_zero():
    inputs = rows()
    inputs[..., 1] = 3.0
    scaling = Scaling.fit(inputs, OFFSET, clips=True)
    np.testing.assert_allclose(scaling.apply(inputs)[..., 1], 0, atol=1e-5)
    assert np.isfinite(scaling.apply(inputs * 1e6)).all()


def test_nothing_below_zero_counts():
    scaling = Scaling.fit(rows(), OFFSET, clips=False)
    np.testing.assert_array_equal(scaling.apply(-rows(3)), scaling.apply(rows(3) * 0))


@pytest.mark.parametrize("distance", [False, True])
def test_it_survives_json(distance):
    scaling = Scaling.fit(rows(), OFFSET, clips=True)
    scaling = scaling.with_distance(rows()) if distance else scaling
    assert Scaling.from_json(json.loads(json.dumps(dataclasses.asdict(scaling)))) == scaling


def test_earlier_steps_are_distances_in_their_own_spread_and_the_last_stays():
    inputs = rows()
    plain = Scaling.fit(inputs, OFFSET, clips=True)
    scaled = plain.with_distance(inputs).apply(inputs)
    levels = plain.apply(inputs)
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled[:, -1], levels[:, -1])
    np.testing.assert_allclose(scaled[:, :-1].std(axis=(0, 1)), 1, atol=1e-4)
    distance = levels[:, :-1] - levels[:, -1:]
    np.testing.assert_allclose(scaled[:, :-1], distance / distance.std(axis=(0, 1)), atol=1e-4)


def test_distances_do_not_know_how_large_a_link_is():
    inputs = rows()
    scaling = Scaling.fit(inputs, (0.0,) * 3, clips=False).with_distance(inputs)
    larger = scaling.apply(inputs * 8)
    np.testing.assert_allclose(larger[:, :-1], scaling.apply(inputs)[:, :-1], atol=1e-4)
    assert (larger[:, -1] > scaling.apply(inputs)[:, -1] + 0.1).all()


def test_the_distance_of_a_constant_feature_is_zero():
    inputs = rows()
    inputs[..., 1] = inputs[:, :1, 1]
    scaling = Scaling.fit(inputs, OFFSET, clips=True).with_distance(inputs)
    np.testing.assert_allclose(scaling.apply(inputs)[:, :-1, 1], 0, atol=1e-4)


@pytest.mark.train
@pytest.mark.parametrize("distance", [False, True])
@pytest.mark.parametrize("clips", [True, False])
def test_the_layers_do_the_same(clips, distance):
    from dwcp_ml.models import runtime

    runtime.start(1)
    import keras

    scaling = Scaling.fit(rows(), OFFSET, clips=clips)
    scaling = scaling.with_distance(rows()) if distance else scaling
    features = keras.Input((4, 3))
    model = keras.Model(features, scaling.layers(features))
    for inputs in (rows(seed=1), rows(2) * 0, rows(2) * 1e6, np.full((1, 4, 3), 1e30, np.float32)):
        np.testing.assert_allclose(model(inputs), scaling.apply(inputs), rtol=1e-5, atol=1e-5)
