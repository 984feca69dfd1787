from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dwcp_ml.contract.models import MODELS
from dwcp_ml.evaluation.classification import STRATIFIED_SPLIT, TEMPORAL_SPLIT
from tests.evaluation.cases import run


def test_the_compression_metrics_by_hand(build, examples, trained):
    gains = np.zeros((4, 10))
    gains[0, 3] = 1.0
    gains[1, [4, 5]] = [0.5, 0.499]
    gains[2, 2] = 0.2
    gains[3, 9] = 2.0
    truth = gains.argmax(axis=1)
    data = build("compression_selector", test=examples(np.ones((4, 6)), truth, gains=gains))
    chosen = np.array([3, 5, 0, 9])
    evaluation, plot_data = run(data, {"compression_level": chosen}, trained(data))
    achieved = evaluation.metrics
    assert achieved["accuracy"] == pytest.approx(0.5)
    # Gains of 1, 0.499, 0 and 2.
    assert achieved["throughput_gain"] == pytest.approx(3.499 / 4)
    assert achieved["regret"] == pytest.approx((0.001 + 0.2) / 4)
    # The second is within 1 % of the oracle's gain.
    assert achieved["agreement_within_1_percent"] == pytest.approx(0.75)
    assert achieved["near_tie_share"] == pytest.approx(0.25)
    # Best fixed level in training: 9, with a mean gain of 0.5.
    assert achieved["gain_over_best_fixed"] == pytest.approx(3.499 / 4 - 0.5)
    assert evaluation.baselines["best_fixed_level"]["throughput_gain"] == pytest.approx(0.5)
    assert achieved["balanced_accuracy"] == pytest.approx((1 + 0 + 0 + 1) / 4)
    assert plot_data["confusion"].shape == (10, 10)
    assert plot_data["confusion"][4, 5] == 1
    assert plot_data["confusion"][2, 0] == 1
    assert plot_data["confusion"].trace() == 2
    np.testing.assert_allclose(plot_data["regret"], [0, 0.001, 0.2, 0], atol=1e-12)


def test_without_gains_only_the_accuracy_is_reported(build, examples, trained):
    data = build("compression_selector", test=examples(np.ones((6, 6)), np.arange(6)))
    evaluation, plot_data = run(data, {"compression_level": np.arange(6)}, trained(data))
    assert evaluation.metrics == {"accuracy": 1.0, "balanced_accuracy": 1.0}
    assert "throughput_gain" in evaluation.missed_targets
    assert "regret" not in plot_data


def test_a_note_names_the_cost_model(build, examples, trained):
    data = build(
        "compression_selector",
        test=examples(np.ones((6, 6)), np.arange(6)),
        label_source="cost_model",
    )
    evaluation, _ = run(data, {"compression_level": np.arange(6)}, trained(data))
    assert evaluation.label_source == "cost_model"
    assert any("cost model" in note for note in evaluation.notes)


@pytest.mark.parametrize(
    ("facts", "note"), [({}, STRATIFIED_SPLIT), ({"test_starts": 0.0}, TEMPORAL_SPLIT)]
)
def test_a_note_names_the_split_that_decides(build, examples, trained, facts, note):
    data = build("compression_selector", test=examples(np.ones((6, 6)), np.arange(6)))
    data = dataclasses.replace(data, facts=facts)
    evaluation, _ = run(data, {"compression_level": np.arange(6)}, trained(data))
    assert {STRATIFIED_SPLIT, TEMPORAL_SPLIT} & {*evaluation.notes} == {note}


@pytest.mark.parametrize("name", ["bandwidth_predictor", "compression_selector"])
def test_the_alternative_forms_are_evaluated_by_accuracy(name, build, examples, trained, bandwidth):
    form = MODELS[name].forms[1].name
    rng = np.random.default_rng(0)
    inputs = bandwidth[0].test.inputs if name == "bandwidth_predictor" else rng.random((200, 6))
    truth = rng.integers(0, 3, len(inputs))
    data = build(name, form, test=examples(inputs, truth, gains=rng.random((len(inputs), 10))))
    evaluation, plot_data = run(data, {form: truth}, trained(data))
    assert evaluation.metrics["accuracy"] == 1.0
    assert evaluation.primary_metric == "accuracy"
    assert "throughput_gain" not in evaluation.metrics
    assert plot_data["confusion"].shape == (3, 3)
    assert evaluation.form == form


@pytest.mark.parametrize(("lacking", "near"), [(0.0, True), (0.009, True), (0.011, False)])
def test_near_is_one_percent_of_the_oracles_gain(lacking, near):
    from dwcp_ml.evaluation.classification import is_near

    best = np.array([2.0, 0.5])
    assert is_near(best * (1 - lacking), best).tolist() == [near, near]
    # Without any gain only no loss is near.
    assert is_near(np.array([0.0, -0.1]), np.zeros(2)).tolist() == [True, False]


def test_balanced_accuracy_weights_each_class_equally(build, examples, trained):
    truth = np.array([0, 0, 0, 1, 1, 2])
    data = build("compression_selector", test=examples(np.ones((6, 6)), truth))
    chosen = np.array([0, 0, 1, 1, 0, 2])
    evaluation, _ = run(data, {"compression_level": chosen}, trained(data))
    found = evaluation.metrics["balanced_accuracy"]
    assert found == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)


def test_the_plot_data_have_the_regret_of_the_baselines(build, examples, trained):
    gains = np.zeros((4, 10))
    gains[:, 1] = [1.0, 1.0, 0.2, 0.2]
    gains[:, 2] = [0.0, 0.0, 0.6, 0.6]
    data = build(
        "compression_selector", test=examples(np.ones((4, 6)), gains.argmax(1), gains=gains)
    )
    _, plot_data = run(data, {"compression_level": gains.argmax(1)}, trained(data))
    np.testing.assert_allclose(plot_data["regret:best_fixed_level"], [0, 0, 0.4, 0.4])
    np.testing.assert_allclose(plot_data["regret"], 0)
