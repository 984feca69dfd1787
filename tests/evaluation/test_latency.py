from __future__ import annotations

import numpy as np
import pytest

from dwcp_ml.contract.threshold import PercentileRule
from dwcp_ml.evaluation.reasons import best_baseline
from tests.evaluation.cases import comparison_with, latency_case, run


def test_the_latency_metrics_by_hand(build, examples, trained):
    truth = np.array([0, 1, 1, 0, 0, 1, 0, 0], bool)
    event = np.array([-1, 0, 0, -1, -1, 1, -1, -1])
    error = np.array([0.1, 0.9, 0.8, 0.55, 0.2, 0.3, 0.7, 0.1])
    test = examples(np.full((8, 20), 5.0), truth, event=event)
    data = build("consensus_latency", test=test)
    training = trained(
        data,
        threshold=0.6,
        threshold_percentile=99.5,
        threshold_at_98=0.5,
    )
    evaluation, plot_data = run(
        data, {"reconstruction_error": error, "is_high_latency": error >= 0.6}, training
    )
    achieved = evaluation.metrics
    # Wrong: the missed .3 and the false .7; at the 98th percentile the .55 as well.
    assert achieved["detection_accuracy"] == pytest.approx(6 / 8)
    assert achieved["detection_accuracy_at_98"] == pytest.approx(5 / 8)
    assert achieved["episode_recall"] == pytest.approx(1 / 2)
    assert achieved["false_positive_rate"] == pytest.approx(1 / 5)
    assert achieved["recall"] == pytest.approx(2 / 3)
    normal = np.mean([0.1, 0.55, 0.2, 0.7, 0.1])
    assert achieved["reconstruction_mae"] == pytest.approx(normal)
    assert "reconstruction_mae" not in evaluation.missed_targets
    assert any("99.5th percentile" in note for note in evaluation.notes)
    assert plot_data["threshold_at_98"] == 0.5


def test_no_score_is_adjusted_by_episode(build, examples, trained):
    """One flagged window of a long episode finds the episode and nothing else."""
    truth = np.zeros(100, bool)
    truth[20:60] = True
    test = examples(np.full((100, 20), 5.0), truth, event=np.where(truth, 0, -1))
    data = build("consensus_latency", test=test)
    flags = np.zeros(100, bool)
    flags[40] = True
    evaluation, _ = run(
        data,
        {"reconstruction_error": flags.astype(float), "is_high_latency": flags},
        trained(data, threshold=0.5),
    )
    assert evaluation.metrics["episode_recall"] == 1.0
    assert evaluation.metrics["detection_accuracy"] == pytest.approx(0.61)
    assert evaluation.metrics["recall"] == pytest.approx(1 / 40)


def test_each_reference_has_its_own_percentile_by_the_rule_of_the_model(
    build, examples, trained, worse
):
    from dwcp_ml.evaluation import baselines

    data = latency_case(build, examples)
    predictions = {
        "reconstruction_error": np.zeros(len(data.test)),
        "is_high_latency": data.test.truth,
    }
    naive, strong = baselines.latency(data)
    assert set(strong) == {
        "largest_step", "window_mean", "window_deviation", "mean_and_deviation"
    }  # fmt: skip
    chosen = set()
    for limits in ((98.0, 99.9), (98.0, 98.0)):
        section = {"percentile_range": limits, "percentile_without_episodes": 98.0}
        # The percentile of the model itself is of no consequence.
        training = worse(
            trained(data, threshold=1.0, threshold_percentile=99.0),
            hyperparameters={"threshold": section},
        )
        evaluation, _ = run(data, predictions, training)
        for name, scores in {**naive, **strong}.items():
            rule = PercentileRule(limits, 98.0)
            percentile = rule.best(scores.validation, data.validation.truth)
            chosen.add(percentile)
            normal = scores.validation[~data.validation.truth]
            flags = scores.test >= np.percentile(normal, percentile)
            found = {**evaluation.baselines, **evaluation.references}[name]
            expected = np.mean(flags == data.test.truth)
            assert found["detection_accuracy"] == pytest.approx(expected), name
    assert {98.0} < chosen


def test_flagging_nothing_is_the_best_baseline_where_episodes_are_rare(build, examples, trained):
    """99 % accuracy is no achievement where 1 % of the windows are high."""
    n = 3000
    rng = np.random.default_rng(0)
    truth = np.arange(n) % 100 == 0
    data = build("consensus_latency", test=examples(np.exp(rng.normal(3, 0.1, (n, 20))), truth))
    flags = rng.random(n) < 0.005
    evaluation, _ = run(
        data,
        {"reconstruction_error": flags * 1.0, "is_high_latency": flags},
        trained(data, threshold=0.5, threshold_percentile=99.5),
    )
    assert evaluation.missed_targets == ()
    assert evaluation.baselines["most_frequent"]["detection_accuracy"] == pytest.approx(0.99)
    assert best_baseline(evaluation) == "most_frequent"
    assert not comparison_with(evaluation, "most_frequent").passed


def test_a_score_at_its_threshold_is_flagged(build, examples, trained):
    """Equal windows: the percentile of the baselines' scores is the score itself."""
    truth = np.arange(8) >= 6
    test = examples(np.full((8, 20), 5.0), truth)
    data = build("consensus_latency", test=test)
    error = np.full(8, 0.5)
    evaluation, _ = run(
        data,
        {"reconstruction_error": error, "is_high_latency": truth},
        trained(data, threshold=0.5, threshold_at_98=0.5),
    )
    assert evaluation.baselines["ewma"]["recall"] == 1.0
    assert evaluation.metrics["detection_accuracy_at_98"] == pytest.approx(2 / 8)
    # 0.5 is not under 0.5.
    assert evaluation.missed_targets == ("reconstruction_mae",)


@pytest.mark.parametrize(("source", "noted"), [("derived", True), ("labelled", False)])
def test_a_note_names_derived_labels(source, noted, build, examples, trained):
    rows = examples(np.full((8, 20), 5.0), np.arange(8) >= 6)
    data = build("consensus_latency", test=rows, label_source=source)
    error = np.ones(8)
    evaluation, _ = run(
        data, {"reconstruction_error": error, "is_high_latency": error > 2}, trained(data)
    )
    assert any("hold no labels" in note for note in evaluation.notes) == noted


@pytest.mark.parametrize(("positives", "recall"), [(4, 0.0), (5, 1.0)])
def test_the_most_frequent_class_of_training_is_a_baseline(
    positives, recall, build, examples, trained
):
    train = examples(np.full((8, 20), 5.0), np.arange(8) < positives)
    test = examples(np.full((6, 20), 5.0), np.arange(6) < 1)
    data = build("consensus_latency", train=train, test=test)
    error = np.ones(6)
    evaluation, _ = run(
        data, {"reconstruction_error": error, "is_high_latency": error > 2}, trained(data)
    )
    assert evaluation.baselines["most_frequent"]["recall"] == recall
