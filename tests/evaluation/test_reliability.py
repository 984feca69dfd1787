from __future__ import annotations

import numpy as np
import pytest

from dwcp_ml.contract.comparison import Outcome, ReferenceKind
from dwcp_ml.contract.records import ThresholdSource
from dwcp_ml.evaluation.ceiling import Oracle
from dwcp_ml.evaluation.reliability import WHY_AUTO
from tests.evaluation.cases import comparison_with, run, with_oracle


def test_the_reliability_metrics_by_hand(build, examples, trained):
    truth = np.array([0, 1, 1, 0, 0, 1, 0, 0], bool)
    event = np.array([-1, 0, 0, -1, -1, 1, -1, -1])
    score = np.array([0.6, 0.9, 0.8, 0.1, 0.2, 0.3, 0.7, 0.1])
    test = examples(np.random.default_rng(0).random((8, 6)), truth, event=event)
    data = build("reliability_detector", test=test)
    evaluation, plot_data = run(
        data, {"anomaly_score": score, "is_anomaly": score >= 0.5}, trained(data, threshold=0.5)
    )
    achieved = evaluation.metrics
    assert achieved["recall"] == pytest.approx(2 / 3)
    assert achieved["precision"] == pytest.approx(2 / 4)
    assert achieved["false_positive_rate"] == pytest.approx(2 / 5)
    assert achieved["event_recall"] == pytest.approx(1 / 2)
    assert achieved["flagged_share"] == pytest.approx(4 / 8)
    assert achieved["prevalence"] == pytest.approx(3 / 8)
    # Falling scores: hit, hit, miss (.7), miss (.6), hit (.3): 1/3 * (1 + 1 + 3/5).
    assert achieved["pr_auc"] == pytest.approx((1 + 1 + 3 / 5) / 3)
    # Two false alarms in eight minutes.
    assert achieved["false_alarms_per_day"] == pytest.approx(2 * 1440 / 8)
    # Both are of one link.
    assert achieved["false_alarms_per_link_day"] == achieved["false_alarms_per_day"]
    assert plot_data["threshold"] == 0.5
    # Every baseline flags four rows as well.
    for metrics in evaluation.baselines.values():
        assert metrics["flagged_share"] == pytest.approx(4 / 8)


def test_the_bound_on_false_alarms_grows_with_the_links(build, examples, trained):
    """Two links flagged in the same minute are two alarms, of two links."""
    truth = np.array([1, 1, 0, 0, 0, 0], bool)
    test = examples(
        np.ones((6, 6)),
        truth,
        timestamp=np.repeat(np.arange(3) * 60.0, 2),
        series=np.tile([0, 1], 3),
        event=np.where(truth, 0, -1),
    )
    data = build("reliability_detector", test=test)
    flagged = np.array([1, 1, 0, 0, 1, 1], bool)
    evaluation, _ = run(
        data, {"anomaly_score": flagged.astype(float), "is_anomaly": flagged}, trained(data)
    )
    assert evaluation.metrics["false_alarms_per_day"] == pytest.approx(2 * 1440 / 3)
    assert evaluation.metrics["false_alarms_per_link_day"] == pytest.approx(1440 / 3)
    assert "false_alarms_per_link_day" in evaluation.missed_targets


def test_the_threshold_auto_is_reported_beside_the_chosen_one(build, examples, trained):
    truth = np.array([0, 1, 1, 0, 0, 1, 0, 0], bool)
    score = np.array([0.6, 0.9, 0.8, 0.1, 0.2, 0.3, 0.7, 0.1])
    test = examples(np.ones((8, 6)), truth, event=np.where(truth, 0, -1))
    data = build("reliability_detector", test=test)
    predictions = {"anomaly_score": score, "is_anomaly": score >= 0.75}
    record = trained(data, threshold=0.75, threshold_auto=0.25)
    achieved = run(data, predictions, record)[0].metrics
    assert (achieved["recall"], achieved["precision"]) == pytest.approx((2 / 3, 1))
    assert achieved["false_alarms_per_day"] == 0
    assert (achieved["recall_at_auto"], achieved["precision_at_auto"]) == pytest.approx((1, 3 / 5))
    assert achieved["false_alarms_per_day_at_auto"] == pytest.approx(2 * 1440 / 8)
    assert "recall_at_auto" not in run(data, predictions, trained(data))[0].metrics


@pytest.mark.parametrize("source", list(ThresholdSource))
def test_a_note_says_why_the_training_incidents_were_not_used(build, examples, trained, source):
    data = build("reliability_detector", test=examples(np.ones((8, 6)), np.arange(8) % 2 == 0))
    score = np.linspace(0, 1, 8)
    record = trained(data).replace(threshold_source=source)
    evaluation, _ = run(data, {"anomaly_score": score, "is_anomaly": score > 0.5}, record)
    assert [note in evaluation.notes for note in WHY_AUTO.values()] == [
        each is source for each in WHY_AUTO
    ]


def test_a_model_that_is_worse_than_a_strong_reference_fails_beside_it(build, examples, trained):
    rng = np.random.default_rng(0)
    truth = rng.random(300) < 0.2
    inputs = rng.gamma(2.0, 1.0, (300, 6))
    inputs[:, 0] = 99.0
    inputs[truth, 1:] *= 20
    data = build("reliability_detector", test=examples(inputs, truth))
    noise = rng.random(300)
    evaluation, _ = run(
        data, {"anomaly_score": noise, "is_anomaly": noise > 0.9}, trained(data, threshold=0.9)
    )
    found = comparison_with(evaluation, "signed_log_z")
    assert found.kind is ReferenceKind.STRONG
    assert found.outcome is Outcome.WORSE
    assert not found.passed
    # Uptime never varies here, so that random scores are as good as it alone.
    assert [each.rule for each in evaluation.findings] == ["uptime_pct_alone"]


def test_a_note_explains_the_label_window(build, examples, trained):
    data = build(
        "reliability_detector",
        test=examples(np.ones((8, 6)), np.arange(8) % 2 == 0),
        label_source="window",
    )
    score = np.linspace(0, 1, 8)
    evaluation, _ = run(data, {"anomaly_score": score, "is_anomaly": score > 0.5}, trained(data))
    assert any("before the onset" in note for note in evaluation.notes)


def test_a_recall_above_that_of_the_oracle_is_no_leak(build, examples, trained):
    """The simulator writes no recall, because a model that flags every row has a recall of 1."""
    truth = np.random.default_rng(0).random(4000) < 0.1
    data = build(
        "reliability_detector", test=examples(np.random.default_rng(1).random((4000, 6)), truth)
    )
    score = np.where(np.arange(4000) % 3 == 0, 1.0 - truth, truth)
    oracle = Oracle.of(data, {"pr_auc": {"anomaly_score": score, "is_anomaly": score > 1}})
    flags = np.ones(4000, bool)
    evaluation, _ = run(
        data,
        {"anomaly_score": truth.astype(float), "is_anomaly": flags},
        trained(data),
        oracle=oracle,
    )
    assert evaluation.metrics["recall"] == 1.0
    assert {metric: each.passed for metric, each in with_oracle(evaluation).items()} == {
        "pr_auc": False
    }


def test_of_equal_scores_the_earliest_are_flagged():
    from dwcp_ml.evaluation.reliability import highest

    score = np.array([0.1, 0.9, 0.5, 0.5, 0.5])
    assert highest(score, 3).tolist() == [False, True, True, True, False]
    assert highest(score, 0).tolist() == [False] * 5


def test_the_precision_recall_curve_by_hand():
    from dwcp_ml.evaluation.reliability import precision_recall_curve

    truth = np.array([True, False, True, True, False])
    score = np.array([0.9, 0.8, 0.8, 0.3, 0.1])
    recall, precision = precision_recall_curve(truth, score)
    np.testing.assert_allclose(recall, [1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(precision, [1, 2 / 3, 3 / 4])
    assert precision_recall_curve(np.zeros(3, bool), np.ones(3)).shape == (2, 0)
    rng = np.random.default_rng(0)
    long = precision_recall_curve(rng.random(50_000) < 0.3, rng.random(50_000))
    assert 300 < long.shape[1] <= 400
    assert long[0, -1] == 1.0
