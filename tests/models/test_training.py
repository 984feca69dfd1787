"""The training loop against Keras: the same layers, the same Adam, the same losses."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dwcp_ml.contract.errors import DwcpError, ErrorCode, TrainingFailed
from dwcp_ml.contract.models import MODELS
from dwcp_ml.contract.records import Epoch
from dwcp_ml.models import FitContext, create
from dwcp_ml.models.checkpoint import State
from dwcp_ml.models.settings import Training
from dwcp_ml.models.training_loop import Scaled, has_stopped, order_of_buffer
from tests.errors import about

NETWORKS = [
    (spec.name, form.name)
    for spec in MODELS.values()
    if spec.name != "reliability_detector"
    for form in spec.forms
]


def settings(**changes: Any) -> Training:
    usual: dict[str, Any] = {
        "epochs": 4, "batch_size": 8, "learning_rate": 0.001, "patience": 2,
        "anneal_from": 0.0, "anneal_to": 0.0, "loss": "mse",
    }  # fmt: skip
    return Training(**(usual | changes))


@pytest.fixture
def tf() -> Any:
    from dwcp_ml.models import runtime

    runtime.start(1)
    runtime.seed_everything(1)
    import tensorflow

    return tensorflow


def network_and_inputs(name: str, form: str) -> tuple[Any, NDArray[np.float32]]:
    model = create(name, form=form)
    shape = (20, 1) if name == "consensus_latency" else model.spec.input.shape
    return model.network(), np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)


@pytest.mark.train
@pytest.mark.parametrize(("name", "form"), NETWORKS, ids=lambda word: word)
def test_the_fused_layers_are_the_keras_layers(tf, name, form):
    from dwcp_ml.models.fused import forward

    network, inputs = network_and_inputs(name, form)
    weights = network.trainable_weights
    for weight in weights:  # also the biases, which begin at zero
        weight.assign(weight + 0.1 * tf.random.normal(weight.shape))
    with tf.GradientTape() as tape:
        keras_outputs = network(inputs, training=False)
        keras_sum = tf.reduce_sum(keras_outputs * tf.cos(keras_outputs + 1.0))
    keras_gradients = tape.gradient(keras_sum, [w.value for w in weights])
    ours = [tf.constant(np.asarray(w.value)) for w in weights]
    with tf.GradientTape() as tape:
        tape.watch(ours)
        outputs = forward(network.layers, ours, tf.constant(inputs), None)
        total = tf.reduce_sum(outputs * tf.cos(outputs + 1.0))
    np.testing.assert_allclose(outputs, keras_outputs, atol=2e-6)
    for gradient, expected in zip(tape.gradient(total, ours), keras_gradients, strict=True):
        scale = float(np.abs(expected).max()) + 1e-6
        np.testing.assert_allclose(gradient / scale, expected / scale, atol=1e-5)


@pytest.mark.train
def test_dropout_is_that_of_keras(tf):
    """One mask on a layer's inputs for all time steps, and none where the share is 0."""
    from dwcp_ml.models.fused import Dropout, forward

    network, inputs = network_and_inputs("bandwidth_predictor", "next_throughput_mbps")
    weights = [tf.constant(np.asarray(w.value)) for w in network.trainable_weights]
    plain = forward(network.layers, weights, tf.constant(inputs), None)
    seed = tf.constant([5, 11])
    none = forward(network.layers, weights, tf.constant(inputs), Dropout(tf.constant(0.0), seed))
    np.testing.assert_array_equal(none, plain)
    full = Dropout(tf.constant(1.0), seed)
    given = forward(network.layers, weights, tf.constant(inputs), full)
    first, second, *rest = network.layers
    x = first(inputs * full.mask(0.2, 0, (8, 7))[:, tf.newaxis], training=False)
    x = second(x * full.mask(0.2, 1, (8, 64))[:, tf.newaxis], training=False)
    for layer in rest:
        x = layer(x)
    np.testing.assert_allclose(given, x, atol=2e-6)
    assert np.abs(given - plain).max() > 1e-3


@pytest.mark.train
def test_masks_keep_the_mean_and_differ_from_step_to_step(tf):
    from dwcp_ml.models.fused import Dropout

    for share in (1.0, 0.5):
        mask = Dropout(tf.constant(share), tf.constant([1, 2])).mask(0.3, 0, (1000, 64))
        assert float(tf.reduce_mean(tf.cast(mask == 0, tf.float32))) == pytest.approx(
            0.3 * share, abs=0.01
        )
        assert float(tf.reduce_mean(mask)) == pytest.approx(1.0, abs=0.01)
    masks = [
        Dropout(tf.constant(1.0), tf.constant(seed)).mask(0.3, place, (50, 64)).numpy().tobytes()
        for seed in ([1, 0], [1, 5], [2, 0])
        for place in (0, 1)
    ]
    assert len(set(masks)) == len(masks)


@pytest.mark.train
def test_adam_is_that_of_keras(tf):
    import keras

    from dwcp_ml.models.training_loop import adam

    rng = np.random.default_rng(3)
    start = rng.normal(size=(4, 5)).astype(np.float32)
    variable = keras.Variable(start)
    optimizer = keras.optimizers.Adam(0.01)
    weights, zeros = [tf.constant(start)], [tf.zeros((4, 5))]
    first, second, steps = zeros, zeros, tf.constant(0.0)
    for _ in range(5):
        gradient = tf.constant(rng.normal(size=(4, 5)).astype(np.float32))
        optimizer.apply([gradient], [variable])
        weights, first, second, steps = adam(weights, [gradient], first, second, steps + 1, 0.01)
    np.testing.assert_allclose(weights[0], variable.value, atol=1e-6)


@pytest.mark.train
@pytest.mark.parametrize(
    ("name", "keras_name"),
    [("mse", "MeanSquaredError"), ("mae", "MeanAbsoluteError"), ("huber", "Huber")],
)
def test_losses_are_those_of_keras(tf, name, keras_name):
    import keras

    from dwcp_ml.models.training_loop import loss_function

    rng = np.random.default_rng(3)
    outputs, targets = (tf.constant(rng.normal(size=(6, 4)).astype(np.float32)) for _ in "ab")
    expected = getattr(keras.losses, keras_name)()(targets, outputs)
    given = loss_function(name)(outputs, targets)
    assert given.shape == (6,)
    assert float(tf.reduce_mean(given)) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.train
def test_cross_entropy_is_that_of_keras(tf):
    import keras

    from dwcp_ml.models.training_loop import loss_function

    rng = np.random.default_rng(3)
    outputs = tf.nn.softmax(tf.constant(rng.normal(size=(6, 4)).astype(np.float32)))
    targets = tf.constant([0, 3, 2, 1, 1, 0])
    name = "sparse_categorical_crossentropy"
    given = loss_function(name)(outputs, targets)
    np.testing.assert_allclose(given, getattr(keras.losses, name)(targets, outputs), rtol=1e-5)


@pytest.mark.train
def test_the_expected_regret_by_hand(tf):
    from dwcp_ml.models.training_loop import loss_function

    outputs = tf.constant([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]])
    costs = tf.constant([[2.0, 0.0, 1.0], [0.0, 0.0, 4.0]])  # of two best classes the first
    given = loss_function("expected_regret")(outputs, costs)
    expected = [0.5 * 2 + 0.2 - 0.1 * np.log(0.3), 0.1 * 4 - 0.1 * np.log(0.1)]
    np.testing.assert_allclose(given, expected, rtol=1e-5)


@pytest.mark.train
def test_a_loss_that_explodes_is_a_reason(tf):
    import keras

    from dwcp_ml.models.training_loop import train

    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    inputs = np.full((16, 2), 1e30, np.float32)
    data = Scaled(inputs, inputs[:, :1])
    with pytest.raises(TrainingFailed, check=about(ErrorCode.NOT_FINITE, "loss of epoch 1")):
        train(network, data, data, settings(), FitContext())


@pytest.mark.train
def test_a_layer_that_the_loop_does_not_know_is_refused(tf):
    import keras

    from dwcp_ml.models.fused import forward

    layers = [keras.layers.GRU(3)]
    with pytest.raises(TypeError, match="does not know the layer GRU"):
        forward(layers, [], tf.zeros((2, 3, 4)), None)


@pytest.mark.train
def test_fewer_examples_than_a_batch_are_one_batch(tf):
    import keras

    from dwcp_ml.models.training_loop import train

    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    data = Scaled(np.ones((3, 2), np.float32), np.ones((3, 1), np.float32))
    state = train(network, data, data, settings(batch_size=32), FitContext())
    assert state.steps == 4
    assert state.history[-1].validation_loss < state.history[0].validation_loss


def one_step_an_epoch(**changes):
    """Return the states of a training of four epochs of one step, after each of them."""
    import keras

    from dwcp_ml.models.training_loop import train

    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    data = Scaled(np.ones((3, 2), np.float32), np.ones((3, 1), np.float32))
    states = []
    for epochs in range(1, 5):
        loss = settings(epochs=epochs, patience=9, learning_rate=0.1, **changes)
        states.append(train(network, data, data, loss, FitContext()))
    return [np.asarray(w.value) for w in network.trainable_weights], states


@pytest.mark.train
def test_what_is_evaluated_is_the_moving_average_of_the_weights(tf):
    average, states = one_step_an_epoch(average=0.25)
    for step, state in enumerate(states, 1):
        share = 1 - min(0.25, (1 + step) / (10 + step))
        pairs = zip(average, state.weights, strict=True)
        average = [a + share * (w - a) for a, w in pairs]
        for expected, found in zip(average, state.average, strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-6)
    assert all((b == a).all() for b, a in zip(states[0].best, states[0].average, strict=True))


@pytest.mark.train
def test_without_an_average_the_weights_are_evaluated(tf):
    _, states = one_step_an_epoch()
    for state in states:
        for weights, average in zip(state.weights, state.average, strict=True):
            np.testing.assert_array_equal(weights, average)


@pytest.mark.train
def test_the_cosine_schedule_is_that_of_keras(tf):
    import keras

    from dwcp_ml.models.training_loop import learning_rate

    ours = settings(schedule="cosine", learning_rate=0.01)
    theirs = keras.optimizers.schedules.CosineDecay(0.01, 40)
    for step in (0, 1, 20, 39, 40, 50):
        found = float(learning_rate(ours, tf.constant(float(step)), 40))
        assert found == pytest.approx(float(theirs(step)), abs=1e-8)
    assert learning_rate(settings(learning_rate=0.01), tf.constant(9.0), 40) == 0.01


def test_every_epoch_has_an_order_of_its_own():
    def order_of(*seed: int) -> tuple[NDArray[np.int64], int]:
        return order_of_buffer(np.random.default_rng(seed), 103, 10)

    order, dropout = order_of(42, 1)
    assert order.shape == (10, 10)
    assert len(np.unique(order)) == 100
    assert 0 <= order.min() <= order.max() < 103
    again, same = order_of(42, 1)
    np.testing.assert_array_equal(order, again)
    assert dropout == same
    for other in ((42, 2), (43, 1)):
        changed, another = order_of(*other)
        assert (changed != order).any()
        assert another != dropout


def history(*losses: float, dropout: float = 0.0) -> State:
    state = State.initial([np.zeros(1, np.float32)])
    for number, loss in enumerate(losses, start=1):
        epoch = Epoch(epoch=number, loss=1.0, validation_loss=loss, dropout=dropout)
        state = state.after(epoch, state)
    return state


def test_it_stops_when_nothing_gets_better():
    assert not has_stopped(history(), 2)
    assert not has_stopped(history(3, 2, 2), 2)
    assert has_stopped(history(3, 2, 2, 2.5), 2)
    assert not has_stopped(history(3, 2, 2, 1.9), 2)


def test_it_never_stops_while_dropout_falls():
    assert not has_stopped(history(3, 2, 2, 2.5, 2.5, dropout=0.1), 2)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import make_data
from dwcp_ml.models import FitContext, create

def kill(progress):
    if progress.epoch == 3 and progress.fraction > 0.5:
        os.kill(os.getpid(), signal.SIGKILL)

create("compression").fit(
    make_data("compression_selector"),
    FitContext(epochs=4, checkpoint_directory=Path({directory!r}), progress=kill),
)
"""


@pytest.mark.train
def test_a_killed_training_ends_like_an_undisturbed_one(tmp_path, make_data):
    program = KILLED.format(tests=str(Path(__file__).parent), directory=str(tmp_path))
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.npz"]
    data = make_data("compression_selector")
    resumed, undisturbed = create("compression"), create("compression")
    seen: list[int] = []
    context = FitContext(
        epochs=4, checkpoint_directory=tmp_path, progress=lambda p: seen.append(p.epoch)
    )
    one, other = resumed.fit(data, context), undisturbed.fit(data, FitContext(epochs=4))
    assert min(seen) == 3
    assert one == other
    for a, b in zip(resumed.weights, undisturbed.weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.train
def test_another_number_of_threads_needs_another_process(tf):
    from dwcp_ml.models import runtime

    runtime.start(1)
    runtime.start()
    tf.zeros(1) + 1
    with pytest.raises(DwcpError, check=about(ErrorCode.CONFLICT, "threads")):
        runtime.start(2)
