from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dwcp_ml.contract.comparison import Outcome
from dwcp_ml.evaluation import evaluate
from dwcp_ml.evaluation.comparison import blocks_for, time_blocks
from dwcp_ml.evaluation.diagnostics.calibration import score_bins, score_calibration, wilson
from dwcp_ml.evaluation.diagnostics.drift import (
    distance,
    drift_notes,
    feature_drift,
    training_distribution,
)
from dwcp_ml.evaluation.diagnostics.importance import block_order, permutation_importance
from dwcp_ml.evaluation.evaluate import METRICS
from dwcp_ml.rollout.drift import stability_index
from dwcp_ml.serving.sketches import Sketch
from tests.evaluation.cases import latency_case

OUTPUT = "next_throughput_mbps"


def diagnosed(data, predictions, training, predict):
    targets = data.spec.form(data.form).targets
    return evaluate(data, predictions, training, targets, predict=predict)[0]


def last_value(inputs):
    return {OUTPUT: inputs[:, -1, 2].astype(np.float64)}


def test_the_metrics_of_the_links_add_up_to_those_of_the_test_split(bandwidth, trained):
    data, prediction = bandwidth
    evaluation = diagnosed(data, {OUTPUT: prediction}, trained(data), last_value)
    links = evaluation.diagnostics.series
    assert sum(each.examples for each in links) == evaluation.test_set_size
    for metric in ("mape_percent", "mae_mbps"):
        summed = sum(each.examples * each.metrics[metric] for each in links)
        assert summed / evaluation.test_set_size == pytest.approx(evaluation.metrics[metric])
    reference = links[0].comparison.reference
    summed = sum(each.examples * each.reference["mape_percent"] for each in links)
    expected = evaluation.references[reference]["mape_percent"]
    assert summed / evaluation.test_set_size == pytest.approx(expected)
    assert expected == min(each["mape_percent"] for each in evaluation.references.values())
    # Both links are of the same noise, and the model beats the reference on each.
    assert {each.comparison.outcome for each in links} == {Outcome.BETTER}


def test_the_worst_link_is_first_and_where_the_reference_is_better_it_says_so(bandwidth, trained):
    data, prediction = bandwidth
    second = data.test.series == 1
    spoiled = np.where(second, prediction * 1.3, prediction)
    links = diagnosed(data, {OUTPUT: spoiled}, trained(data), last_value).diagnostics.series
    assert [each.series for each in links] == ["node-1", "node-0"]
    assert [each.comparison.outcome for each in links] == [Outcome.WORSE, Outcome.BETTER]
    truth = data.test.truth[second]
    by_hand = 100 * np.mean(np.abs(spoiled[second] - truth) / truth)
    assert links[0].metrics["mape_percent"] == pytest.approx(by_hand)


def test_without_the_model_there_are_no_diagnostics_and_with_it_the_same_metrics(
    bandwidth, trained
):
    data, prediction = bandwidth
    without = diagnosed(data, {OUTPUT: prediction}, trained(data), None)
    given = diagnosed(data, {OUTPUT: prediction}, trained(data), last_value)
    assert without.diagnostics is None
    assert given.replace(diagnostics=None, notes=()) == without.replace(notes=())


def test_alarms_of_the_nodes_add_up_over_their_links(build, examples, trained):
    truth = np.zeros(400, bool)
    truth[50:60] = truth[250:260] = True
    series = np.repeat([0, 1, 2, 3], 100)
    test = examples(
        np.ones((400, 6)), truth, series=series, timestamp=np.tile(np.arange(100) * 60, 4),
        event=np.where(truth, series, -1),
    )  # fmt: skip
    data = replace(
        build("reliability_detector", test=test), series_names=("a->b", "a->c", "b->a", "b->c")
    )
    flagged = truth.copy()
    flagged[[55, 10, 110, 210]] = [False, True, True, True]
    score = np.where(flagged, 0.9, 0.1)
    predictions = {"anomaly_score": score, "is_anomaly": flagged}

    def predict(inputs):
        return {"anomaly_score": np.zeros(len(inputs)), "is_anomaly": np.zeros(len(inputs), bool)}

    evaluation = diagnosed(data, predictions, trained(data, threshold=0.5), predict)
    nodes = {each.series: each for each in evaluation.diagnostics.series}
    assert {name: each.examples for name, each in nodes.items()} == {"a": 200, "b": 200}
    assert nodes["a"].metrics["recall"] == pytest.approx(0.9)
    assert nodes["b"].metrics["recall"] == pytest.approx(1.0)
    alarms = [each.metrics["false_alarms_per_day"] for each in nodes.values()]
    assert sum(alarms) == pytest.approx(evaluation.metrics["false_alarms_per_day"])
    assert [each.series for each in evaluation.diagnostics.series] == ["a", "b"]


def test_the_coverage_counts_the_true_values_between_the_bounds(build, examples, trained):
    truth = np.array([99.0, 149.0, 220.0, 49.0])
    data = build("bandwidth_predictor", test=examples(np.ones((4, 10, 7)), truth))
    prediction = np.array([99.0, 99.0, 99.0, 99.0])
    # exp(0.7) is 2.01: from 48.7 to 200.4 Mbit/s.
    training = trained(data, interval_half_width=0.7, interval_nominal=0.9, interval_examples=500.0)
    shown = diagnosed(data, {OUTPUT: prediction}, training, last_value).diagnostics
    assert shown.intervals.coverage == 0.75
    assert shown.intervals.nominal == 0.9
    assert shown.intervals.calibration_examples == 500
    expected = (100 * np.exp(0.7) - 100 * np.exp(-0.7)) / 99
    assert shown.intervals.median_width == pytest.approx(expected)
    assert shown.series[0].metrics["interval_coverage"] == 0.75


def test_a_feature_that_the_model_does_not_read_has_no_importance(bandwidth, trained):
    data, _ = bandwidth
    found = permutation_importance(
        data, last_value, METRICS[OUTPUT], "mape_percent", blocks_for(data), seed=1
    )
    assert found.features[0].feature == "throughput_mbps"
    # Two links of 100 and 5 Mbit/s: half of the exchanges are between them.
    assert found.features[0].loss > 50
    assert {each.feature: each.loss for each in found.features[1:]} == pytest.approx(
        dict.fromkeys((each.feature for each in found.features[1:]), 0.0)
    )
    truth = data.test.truth
    assert found.value == pytest.approx(
        100 * np.mean(np.abs(data.test.inputs[:, -1, 2] - truth) / truth)
    )
    again = permutation_importance(
        data, last_value, METRICS[OUTPUT], "mape_percent", blocks_for(data), seed=1
    )
    assert again == found


def test_blocks_are_exchanged_whole_and_each_example_once(bandwidth):
    data, _ = bandwidth
    blocks = time_blocks(data.test.timestamp, 10)
    target, source = block_order(data.test, blocks, np.random.default_rng(3))
    assert sorted(target) == sorted(source) == list(range(len(data.test)))
    assert (target != source).any()
    # The next example in time is almost always still the next one.
    step = np.diff(data.test.timestamp[source])
    assert np.mean(step == 60) > 0.9
    assert len(np.unique(data.test.series[source[data.test.series[target] == 0]])) == 2


def test_a_model_with_one_feature_has_no_importance(build, examples, trained):
    data = latency_case(build, examples)

    def predict(inputs):
        error = inputs[:, -1] / 100
        return {"reconstruction_error": error, "is_high_latency": error > 0.5}

    training = trained(data, threshold=0.5, threshold_percentile=98.0)
    shown = diagnosed(data, predict(data.test.inputs), training, predict).diagnostics
    assert shown.importance is None
    assert shown.calibration.output == "reconstruction_error"
    assert [each.feature for each in shown.drift] == ["consensus_latency_ms"]
    assert set(shown.series[0].metrics) == {
        "detection_accuracy", "recall", "false_alarms_per_day"
    }  # fmt: skip


def test_the_score_bins_hold_every_example_once():
    score = np.array([0.0, 0.1, 0.2, 0.2, 0.5, 0.9, 1.0])
    positive = np.array([0, 0, 0, 1, 1, 1, 1], bool)
    bins = score_bins(score, positive, np.array([0.0, 0.2, 0.6, 1.0]))
    assert [(each.examples, each.positives) for each in bins] == [(2, 0), (3, 2), (2, 2)]
    assert [each.share for each in bins] == [0.0, pytest.approx(2 / 3), 1.0]
    assert (bins[1].lower, bins[1].upper, bins[1].mean_score) == (0.2, 0.5, pytest.approx(0.3))
    # One value only.
    assert score_bins(np.full(3, 0.5), np.ones(3, bool), np.array([0.5]))[0].examples == 3


def test_the_interval_of_a_share_is_wilsons():
    from scipy.stats import binomtest

    for positives, count in ((0, 5), (3, 5), (5, 5), (180, 200)):
        expected = binomtest(positives, count).proportion_ci(method="wilson")
        assert wilson(positives, count) == pytest.approx((expected.low, expected.high))


def test_calibrated_probabilities_have_a_small_error_and_others_not(build, examples):
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1.0, 20_000)
    right = rng.uniform(size=20_000) < confidence
    probabilities = np.zeros((20_000, 10))
    probabilities[:, 0], probabilities[:, 1] = confidence, 1 - confidence
    data = build("compression_selector", test=examples(np.ones((20_000, 6)), np.where(right, 0, 1)))
    given = {"compression_level": np.zeros(20_000, int), "probabilities": probabilities}
    found = score_calibration(data, given)
    assert found.is_probability
    assert found.expected_calibration_error < 0.02
    assert found.brier_score == pytest.approx(np.mean((confidence - right) ** 2))
    sure = score_calibration(data, {**given, "probabilities": np.eye(10)[np.zeros(20_000, int)]})
    assert sure.expected_calibration_error == pytest.approx(1 - right.mean())


def test_a_detectors_score_is_no_probability(build, examples):
    truth = np.arange(1000) >= 950
    data = build("reliability_detector", test=examples(np.ones((1000, 6)), truth))
    found = score_calibration(data, {"anomaly_score": np.arange(1000) / 1000})
    assert not found.is_probability
    assert found.brier_score is None
    assert found.expected_calibration_error is None
    assert sum(each.examples for each in found.bins) == 1000
    assert [each.share for each in found.bins][-3:] == [1.0, 1.0, 1.0]
    assert found.bins[0].share == 0.0


def test_drift_is_large_where_a_feature_has_moved_and_little_elsewhere(build, examples):
    rng = np.random.default_rng(0)
    train, test = rng.lognormal(size=(2, 4000, 6))
    test[:, 2] *= 3.0
    train[:, 4] = test[:, 4] = rng.integers(0, 4, 4000)  # a code
    data = build(
        "compression_selector",
        train=examples(train, np.zeros(4000, int)),
        test=examples(test, np.zeros(4000, int)),
    )
    found = feature_drift(data)
    assert found[0].feature == "link_type_encoded"
    assert found[0].psi > 0.25
    assert all(each.psi < 0.05 for each in found[1:])
    assert next(e for e in found if e.feature == "hde_delta_hit_rate").psi == pytest.approx(0.0)
    (note,) = drift_notes(found)
    assert "link_type_encoded" in note
    assert "rtt_ms" not in note
    assert drift_notes(found[1:]) == ()


@pytest.mark.parametrize(
    ("live", "psi"), [(9.0, 18.4), (11.0, 18.4), (10.0, 0.0)], ids=["below", "above", "same"]
)
def test_a_constant_feature_drifts_where_it_becomes_another_constant(build, examples, live, psi):
    """Also as float32, as a server compares."""
    inputs, labels = np.full((5000, 6), 10.0), np.zeros(5000, int)
    data = build(
        "compression_selector",
        train=examples(inputs, labels),
        test=examples(np.full((5000, 6), live), labels),
    )
    assert all(each.psi == pytest.approx(psi, abs=0.1) for each in feature_drift(data))
    for each in training_distribution(data):
        sketch = Sketch(each.edges)
        sketch.add(np.full(5000, live, np.float32))
        counts = np.array(each.shares) * 5000
        assert stability_index(sketch.counts, counts)[0] == pytest.approx(psi, rel=0.1, abs=0.1)


@pytest.mark.parametrize("lowest", [0.0, -3.0, 1e9, 0.1])
def test_a_distribution_has_a_bucket_for_each_value_and_for_what_is_outside(
    build, examples, lowest
):
    values = np.float32(lowest) + np.float32(max(abs(lowest), 1.0)) * np.arange(
        20, dtype=np.float32
    )
    inputs = np.repeat(values[::2], 50)[:, None] * np.ones(6, np.float32)
    split = examples(inputs, np.zeros(500, int))
    data = build("compression_selector", train=split, test=split)
    for each in training_distribution(data):
        assert np.allclose(each.shares, (0.001, *[0.1] * 10), atol=1e-3)
        sketch = Sketch(each.edges)
        sketch.add(inputs[:, 0])
        assert sketch.counts.tolist() == [0, *[50] * 10]


def test_the_distance_is_that_of_kolmogorov_and_smirnov():
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(1)
    left, right = rng.normal(size=300), rng.normal(0.3, 1.2, size=200)
    assert distance(left, right) == pytest.approx(ks_2samp(left, right).statistic)
    codes = np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0])
    assert distance(*codes) == pytest.approx(1 / 3)
