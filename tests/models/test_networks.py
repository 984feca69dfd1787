"""What each of the three networks promises on its own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dwcp_ml.contract.errors import ErrorCode, TrainingFailed
from dwcp_ml.contract.examples import Examples, ModelData
from dwcp_ml.contract.models import COMPRESSION
from dwcp_ml.models import FitContext, create
from dwcp_ml.models.compression_selector import log_regret
from dwcp_ml.models.consensus_latency import ConsensusLatency
from tests.errors import about

# The design table, layer by layer: kind, units, other settings.
TABLE = {
    ("bandwidth_predictor", "next_throughput_mbps"): [
        ("LSTM", 64, {"return_sequences": True, "dropout": 0.2}),
        ("LSTM", 32, {"return_sequences": False, "dropout": 0.2}),
        ("Dense", 16, {"activation": "relu"}),
        ("Dense", 1, {"activation": "linear"}),
    ],
    ("bandwidth_predictor", "bandwidth_class"): [
        ("LSTM", 64, {"return_sequences": True, "dropout": 0.2}),
        ("LSTM", 32, {"return_sequences": False, "dropout": 0.2}),
        ("Dense", 16, {"activation": "relu"}),
        ("Dense", 3, {"activation": "softmax"}),
    ],
    ("compression_selector", "compression_level"): [
        ("Dense", 64, {"activation": "relu"}),
        ("Dropout", None, {"rate": 0.3}),
        ("Dense", 32, {"activation": "relu"}),
        ("Dropout", None, {"rate": 0.3}),
        ("Dense", 16, {"activation": "relu"}),
        ("Dense", 10, {"activation": "softmax"}),
    ],
    ("consensus_latency", "high_latency"): [
        ("LSTM", 64, {"return_sequences": True, "dropout": 0.2}),
        ("LSTM", 32, {"return_sequences": False, "dropout": 0.0}),
        ("RepeatVector", None, {"n": 20}),
        ("LSTM", 32, {"return_sequences": True, "dropout": 0.2}),
        ("LSTM", 64, {"return_sequences": True, "dropout": 0.0}),
        ("TimeDistributed", None, {}),
    ],
}


@pytest.mark.train
@pytest.mark.parametrize(("pair", "layers"), TABLE.items(), ids=lambda x: str(x)[:40])
def test_the_network_is_that_of_the_design_table(pair, layers):
    network = create(pair[0], form=pair[1]).network()
    assert [type(layer).__name__ for layer in network.layers] == [kind for kind, _, _ in layers]
    for layer, (_, units, rest) in zip(network.layers, layers, strict=True):
        config = layer.get_config()
        assert units is None or config["units"] == units
        for key, value in rest.items():
            assert config[key] == value, (layer.name, key)
    if pair[0] == "consensus_latency":
        assert network.layers[-1].layer.units == 1


@pytest.mark.train
def test_the_type_follows_from_the_level(train_once):
    levels = train_once("compression_selector", "compression_level")
    types = train_once("compression_selector", "compression_type")
    inputs = types.data.test.inputs
    by_level = levels.model.predict(inputs)["probabilities"]
    by_type = types.model.predict(inputs)["probabilities"]
    for weight, other in zip(types.model.weights, levels.model.weights, strict=True):
        np.testing.assert_array_equal(weight, other)
    none = by_level[:, 0]
    is_hde = inputs[:, 4] > 0.5
    expected = np.column_stack((none, (1 - none) * is_hde, (1 - none) * ~is_hde))
    np.testing.assert_allclose(by_type, expected, atol=1e-6)


@pytest.mark.train
def test_the_type_needs_gains(make_data):
    data = make_data("compression_selector", "compression_type")
    data = dataclasses.replace(data, train=dataclasses.replace(data.train, gains=None))
    with pytest.raises(TrainingFailed, check=about(ErrorCode.NO_DATA, "gain")):
        create("compression", form="compression_type").fit(data, FitContext(epochs=1))


@pytest.mark.train
@pytest.mark.parametrize("reads", ["level", "distance"])
@pytest.mark.parametrize("predicts", ["level", "change"])
def test_the_throughput_is_learned(make_data, predicts, reads):
    """Better than the mean by far, whatever is predicted; and the correction is on validation."""
    data = make_data("bandwidth_predictor", train=1200)
    model = create("bandwidth", {"predicts": predicts, "reads": reads})
    model.fit(data, FitContext(epochs=6))
    answer = model.predict(data.test.inputs)["next_throughput_mbps"]
    assert np.corrcoef(answer, data.test.truth)[0, 1] > 0.95
    on_validation = model.predict(data.validation.inputs)["next_throughput_mbps"]
    bias = np.log1p(on_validation) - np.log1p(data.validation.truth)
    assert abs(bias.mean()) < 1e-4


@pytest.mark.train
def test_epochs_are_compared_by_what_the_finished_model_answers(train_once):
    """The best validation loss is that of corrected outputs: a bias costs an epoch nothing."""
    trained = train_once("bandwidth_predictor", "next_throughput_mbps")
    validation = trained.data.validation
    answer = trained.model.predict(validation.inputs)["next_throughput_mbps"]
    error = np.abs(np.log1p(answer) - np.log1p(validation.truth)).mean()
    best = min(epoch.validation_loss for epoch in trained.result.epochs)
    assert best == pytest.approx(error / trained.model.fitted["target_deviation"], rel=1e-3)


@pytest.mark.train
def test_few_validation_rows_correct_nothing(make_data):
    data = make_data("bandwidth_predictor")
    few = data.validation.take(np.arange(50))
    model = create("bandwidth")
    model.fit(dataclasses.replace(data, validation=few), FitContext(epochs=1))
    assert model.fitted["output_scale"] == model.fitted["target_deviation"]
    assert model.fitted["output_offset"] == model.fitted["target_mean"]


@pytest.mark.train
def test_episodes_are_found_and_normal_windows_are_not(train_once):
    trained = train_once("consensus_latency", "high_latency")
    answers = trained.model.predict(trained.data.test.inputs)
    truth = trained.data.test.truth
    assert (answers["is_high_latency"] == truth).mean() > 0.95
    error = answers["reconstruction_error"]
    assert error[truth].min() > np.median(error[~truth])


@pytest.mark.train
def test_the_error_and_the_threshold_are_what_they_are_called(train_once):
    trained = train_once("consensus_latency", "high_latency")
    fitted = trained.model.fitted
    validation = trained.data.validation
    error = trained.model.predict(validation.inputs)["reconstruction_error"][~validation.truth]
    assert fitted["reconstruction_mae"] == pytest.approx(error.mean(), rel=1e-4)
    for key, percentile in (
        ("threshold", fitted["threshold_percentile"]),
        ("threshold_at_98", 98.0),
    ):
        assert fitted[key] == pytest.approx(np.percentile(error, percentile), rel=1e-4)


@pytest.mark.train
def test_episodes_teach_the_autoencoder_nothing(train_once):
    """Windows of episodes in the training split change neither scaling nor weights."""
    trained = train_once("consensus_latency", "high_latency")
    inputs = trained.data.train.inputs.copy()
    inputs[trained.data.train.truth] *= 50
    train = dataclasses.replace(trained.data.train, inputs=inputs)
    model = create("latency")
    model.fit(dataclasses.replace(trained.data, train=train), FitContext(epochs=3))
    assert model.scaling == trained.model.scaling
    for a, b in zip(model.weights, trained.model.weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.train
def test_episodes_everywhere_are_a_reason(make_data):
    data = make_data("consensus_latency")
    train = dataclasses.replace(data.train, truth=np.ones(len(data.train), bool))
    with pytest.raises(TrainingFailed, check=about(ErrorCode.NO_DATA, "normal windows")):
        create("latency").fit(dataclasses.replace(data, train=train), FitContext(epochs=1))


def percentile(errors, truth, **threshold):
    rule = ConsensusLatency({"threshold": threshold}).settings.threshold.rule
    return rule.best(np.asarray(errors, np.float32), np.asarray(truth, bool))


def test_the_percentile_is_the_most_accurate_one_within_its_range():
    normal = np.linspace(0, 1, 2000)
    truth = np.r_[np.zeros(2000, bool), np.ones(200, bool)]
    high = percentile(np.r_[normal, np.full(200, 5.0)], truth)
    assert high == pytest.approx(99.9)
    # Episodes that lie among the highest 1 % of normal windows pull the threshold down to them.
    low = percentile(np.r_[normal, np.full(200, 0.99)], truth)
    assert low == pytest.approx(99.0, abs=0.06)
    assert percentile(np.r_[normal, np.full(200, 0.5)], truth) == pytest.approx(99.9)


def test_the_percentile_keeps_to_the_range_and_has_a_fallback():
    normal, none = np.linspace(0, 1, 500), np.zeros(500, bool)
    assert percentile(normal, none) == 99.5
    truth = np.r_[none, np.ones(50, bool)]
    chosen = percentile(np.r_[normal, np.full(50, 9.0)], truth, percentile_range=[98.5, 99.5])
    assert 98.5 <= chosen <= 99.5


def gambles(n, seed):
    """Rows in which level 4 is best in three of five, by little, and ruinous in the others."""
    rng = np.random.default_rng(seed)
    gains = np.zeros((n, 10))
    gains[:, 3] = 1.0
    gains[:, 4] = np.where(rng.random(n) < 0.6, 1.05, -0.5)
    inputs = rng.uniform(1, 2, (n, 6)).astype(np.float32)  # which row is which can't be seen
    none = np.full(n, -1)
    return Examples(inputs, gains.argmax(axis=1), np.arange(n) * 60.0, 0 * none, none, gains)


def gamble_data(source="measured"):
    parts = (gambles(n, seed) for n, seed in ((600, 1), (200, 2), (200, 3)))
    return ModelData(COMPRESSION, "compression_level", *parts, ("a->b",), 60.0, source)


@pytest.mark.train
@pytest.mark.parametrize(
    ("loss", "level"), [("sparse_categorical_crossentropy", 4), ("expected_regret", 3)]
)
def test_the_expected_regret_avoids_what_costs_much(loss, level):
    data = gamble_data()
    model = create("compression", {"training": {"loss": loss, "learning_rate": 0.01}})
    model.fit(data, FitContext(epochs=8))
    chosen = model.predict(data.test.inputs)["compression_level"]
    assert (chosen == level).mean() > 0.9


@pytest.mark.train
def test_the_expected_regret_is_deterministic():
    settings = {"training": {"loss": "expected_regret"}}
    weights = []
    for _ in range(2):
        model = create("compression", settings)
        model.fit(gamble_data(), FitContext(epochs=2))
        weights.append(np.concatenate([part.ravel() for part in model.weights]))
    np.testing.assert_array_equal(*weights)


@pytest.mark.parametrize("source", ["cost_model", "measured"])
def test_the_expected_regret_needs_measured_gains(source):
    data = gamble_data(source)
    if source == "measured":
        data = dataclasses.replace(data, train=dataclasses.replace(data.train, gains=None))
    model = create("compression", {"training": {"loss": "expected_regret"}})
    with pytest.raises(TrainingFailed, check=about(ErrorCode.NO_DATA, "gain")):
        model.fit(data, FitContext(epochs=1))


def test_the_log_regret_by_hand():
    gains = np.array([[0.0, 1.0, 3.0], [0.0, -1.0, -0.5]])
    none = np.full(2, -1)
    rows = Examples(np.ones((2, 6), np.float32), gains.argmax(1), none * 1.0, none, none, gains)
    expected = [[np.log(4), np.log(2), 0], [0, np.log(1000), np.log(2)]]
    np.testing.assert_allclose(log_regret(rows), expected, rtol=1e-6)
