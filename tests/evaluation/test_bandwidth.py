from __future__ import annotations

import numpy as np
import pytest

from dwcp_ml.contract.comparison import Outcome, ReferenceKind, Requirement
from tests.evaluation.cases import comparison_with, run


def test_the_bandwidth_metrics_by_hand(build, examples, trained):
    truth = np.array([100.0, 200.0, 0.5, 50.0])
    inputs = np.ones((4, 10, 7))
    inputs[:, -1, 2] = [90.0, 200.0, 0.5, 40.0]
    data = build("bandwidth_predictor", test=examples(inputs, truth))
    evaluation, _ = run(
        data, {"next_throughput_mbps": np.array([110.0, 190.0, 1.0, 50.0])}, trained(data)
    )
    achieved = evaluation.metrics
    # 10 %, 5 % and 0 %; the row with 0.5 Mbit/s does not count.
    assert achieved["mape_percent"] == pytest.approx(5.0)
    assert achieved["mape_excluded_rows"] == 1
    assert achieved["mae_mbps"] == pytest.approx((10 + 10 + 0.5 + 0) / 4)
    assert achieved["rmse_mbps"] == pytest.approx(np.sqrt((100 + 100 + 0.25) / 4))
    expected = np.corrcoef(truth, [110.0, 190.0, 1.0, 50.0])[0, 1]
    assert achieved["correlation"] == pytest.approx(expected)
    assert evaluation.baselines["last_value"]["mape_percent"] == pytest.approx((10 + 0 + 20) / 3)
    # 5 % is not under 5 %.
    assert evaluation.missed_targets == ("mape_percent",)
    assert evaluation.test_set_size == 4
    assert any("excludes 1 of 4 rows" in note for note in evaluation.notes)
    # Four moments are too few for a comparison.
    assert {each.outcome for each in evaluation.comparisons} == {Outcome.UNKNOWN}


def test_the_pooled_correlation_is_high_where_the_median_within_links_is_not(
    build, examples, trained
):
    rng = np.random.default_rng(0)
    series = np.repeat([0, 1, 2], 50)
    truth = np.array([10.0, 100.0, 1000.0])[series] * rng.normal(1, 0.01, 150)
    inputs = np.ones((150, 10, 7)) * truth[:, None, None]
    data = build(
        "bandwidth_predictor",
        series=3,
        test=examples(inputs, truth, series=series, timestamp=np.tile(np.arange(50) * 60, 3)),
    )
    # Knows the size of the link and nothing of the moment.
    guess = np.array([10.0, 100.0, 1000.0])[series] * rng.normal(1, 0.01, 150)
    evaluation, _ = run(data, {"next_throughput_mbps": guess}, trained(data))
    assert evaluation.metrics["correlation"] > 0.99
    assert abs(evaluation.metrics["correlation_within_link_median"]) < 0.4
    assert evaluation.missed_targets == ("correlation_within_link_median",)


def test_a_good_prediction_beats_every_baseline(bandwidth, trained):
    data, prediction = bandwidth
    evaluation, plot_data = run(data, {"next_throughput_mbps": prediction}, trained(data))
    assert evaluation.missed_targets == ()
    for name in ("last_value", "ewma"):
        found = comparison_with(evaluation, name)
        assert (found.kind, found.requirement) == (ReferenceKind.NAIVE, Requirement.BETTER)
        assert found.outcome is Outcome.BETTER
        assert found.improvement == pytest.approx(
            evaluation.baselines[name]["mape_percent"] - evaluation.metrics["mape_percent"]
        )
    assert set(evaluation.baselines) == {"last_value", "ewma"}
    assert set(evaluation.references) == {"linear_autoregression", "ridge_on_all_inputs"}
    assert all(each.passed for each in evaluation.comparisons)
    assert evaluation.findings == ()
    assert len(plot_data["truth"]) == len(data.test)


def test_predicting_the_last_value_beats_no_baseline(bandwidth, trained):
    data, _ = bandwidth
    last = data.test.inputs[:, -1, 2]
    evaluation, _ = run(data, {"next_throughput_mbps": last}, trained(data))
    assert comparison_with(evaluation, "last_value").outcome is Outcome.AS_GOOD
    assert not comparison_with(evaluation, "last_value").passed


def test_a_throughput_of_exactly_one_counts_in_mape(build, examples, trained):
    inputs = np.ones((3, 10, 7))
    data = build("bandwidth_predictor", test=examples(inputs, np.array([1.0, 1.5, 0.999])))
    evaluation, _ = run(data, {"next_throughput_mbps": np.array([1.1, 1.5, 9.0])}, trained(data))
    assert evaluation.metrics["mape_percent"] == pytest.approx(5.0)
    assert evaluation.metrics["mape_excluded_rows"] == 1


def test_the_excerpt_is_of_the_link_with_the_most_rows(build, examples, trained):
    series = np.array([0, 1, 1, 1, 0, 1])
    truth = np.arange(1.0, 7.0)
    data = build("bandwidth_predictor", test=examples(np.ones((6, 10, 7)), truth, series=series))
    _, plot_data = run(data, {"next_throughput_mbps": truth + 10}, trained(data))
    assert str(plot_data["excerpt_name"]) == "node-1"
    assert plot_data["excerpt_truth"].tolist() == [2, 3, 4, 6]
    assert plot_data["excerpt_prediction"].tolist() == [12, 13, 14, 16]
    for prefix, rows in (("baseline", 6), ("excerpt_baseline", 4)):
        found = plot_data.scores(prefix)
        assert set(found) == {"last_value", "ewma"}
        assert {len(each) for each in found.values()} == {rows}
