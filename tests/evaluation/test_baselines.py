"""What the models have to beat is computed by hand here, and shown to see nothing but training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dwcp_ml.evaluation import baselines


def test_the_ewma_weights_recent_steps_more():
    windows = np.array([[1.0, 2.0, 4.0]])
    # Weights 1/4, 1/2, 1 over 7/4.
    assert baselines.ewma(windows, 0.5)[0] == pytest.approx((0.25 + 1.0 + 4.0) / 1.75)
    assert baselines.ewma(windows, 1.0)[0] == 4.0


def test_bandwidth_baselines(bandwidth):
    data, _ = bandwidth
    naive, strong = baselines.bandwidth(data)
    np.testing.assert_allclose(naive["last_value"], data.test.inputs[:, -1, 2])
    errors = {
        name: np.mean(np.abs(each - data.test.truth) / data.test.truth)
        for name, each in {**naive, **strong}.items()
    }
    # A random walk: no model can be much better than the last value, whose steps are 5 %.
    assert errors["last_value"] == pytest.approx(0.04, abs=0.008)
    for name in ("ewma", "linear_autoregression", "ridge_on_all_inputs"):
        assert errors[name] < 1.25 * errors["last_value"]


def test_the_autoregression_is_fitted_to_each_link(build, examples):
    """Link 0 stays, link 1 halves at every step: one fit for both would be wrong about both."""
    rng = np.random.default_rng(0)
    n = 600
    series = np.arange(n) % 2
    last = rng.uniform(10, 100, n)
    truth = np.where(series == 0, last, last / 2)
    inputs = np.ones((n, 10, 7))
    inputs[:, :, 2] = rng.uniform(10, 100, (n, 10))
    inputs[:, -1, 2] = last
    both = examples(inputs, truth, series=series)
    data = build("bandwidth_predictor", test=both)
    predicted = baselines.bandwidth(data)[1]["linear_autoregression"]
    np.testing.assert_allclose(predicted, truth, rtol=0.05)


def poisoned(data, scale):
    """The same data with another future: the truth of the test split, and other test rows."""
    test = data.test
    changed = replace(test, truth=np.roll(test.truth, 7), inputs=test.inputs.copy())
    changed.inputs[1:] = changed.inputs[1:] * scale
    return replace(data, test=changed)


def test_no_baseline_is_fitted_on_the_test_split(bandwidth, build, examples):
    rng = np.random.default_rng(0)
    rows = examples(
        rng.gamma(2.0, 1.0, (300, 6)),
        rng.integers(0, 3, 300),
        gains=rng.random((300, 10)),
    )
    binary = replace(rows, truth=rows.truth == 0)
    windows = examples(np.exp(rng.normal(3, 0.2, (300, 20))), rng.random(300) < 0.2)
    reliability = build("reliability_detector", test=binary)
    cases = [
        (bandwidth[0], baselines.bandwidth),
        (reliability, baselines.reliability),
        (build("consensus_latency", test=windows), baselines.latency),
        (
            build("compression_selector", test=rows),
            lambda data: baselines.classification(data, None),
        ),
    ]
    for data, function in cases:
        for before, after in zip(function(data), function(poisoned(data, 3.0)), strict=True):
            for name in before:
                first = [getattr(each[name], "test", each[name])[0] for each in (before, after)]
                assert first[0] == first[1], f"{data.spec.name}: {name}"


def test_the_nearest_neighbour_of_a_training_row_is_the_row_itself(build, examples):
    rng = np.random.default_rng(1)
    train = examples(rng.random((500, 6)) * [1, 10, 1, 1, 1, 100], rng.integers(0, 10, 500))
    data = build("compression_selector", train=train, test=train.take(np.arange(0, 500, 7)))
    chosen = baselines.classification(data, None)[0]["nearest_neighbour"]
    np.testing.assert_array_equal(chosen, data.test.truth)


def test_the_best_fixed_level_is_best_in_training_by_gain_not_by_frequency(build, examples):
    gains = np.zeros((5, 10))
    gains[:4, 2] = 0.1
    gains[4, 7] = 5.0
    rows = examples(np.ones((5, 6)), gains.argmax(axis=1), gains=gains)
    naive, _ = baselines.classification(build("compression_selector", test=rows), None)
    assert set(naive["best_fixed_level"]) == {7}
    assert set(naive["most_frequent"]) == {2}


def test_the_last_class_uses_the_links_own_reference_in_training(build, examples, trained):
    # Link 0 reaches about 100, link 1 about 10; a value of 9 is bad on one and good on the other.
    series = np.repeat([0, 1], 100)
    size = np.where(series == 0, 100.0, 10.0)
    inputs = np.ones((200, 10, 7))
    inputs[:, -1, 2] = size
    train = examples(inputs, np.zeros(200, np.int64), series=series)
    test_inputs = np.ones((4, 10, 7))
    test_inputs[:, -1, 2] = [9.0, 9.0, 50.0, 69.9]
    test = examples(test_inputs, np.zeros(4, np.int64), series=[0, 1, 0, 0])
    data = build("bandwidth_predictor", "bandwidth_class", train=train, test=test)
    chosen = baselines.classification(data, trained(data))[0]["last_class"]
    assert chosen.tolist() == [2, 0, 1, 1]


def test_reliability_baselines_detect_obvious_incidents(build, examples):
    rng = np.random.default_rng(2)
    # Two directions carry the variance; an incident leaves them.
    hidden = rng.normal(size=(500, 2))
    inputs = hidden @ rng.normal(size=(2, 6)) + 0.01 * rng.normal(size=(500, 6)) + 50
    truth = np.arange(500) >= 480
    inputs[truth] += rng.normal(size=6) * 3
    inputs[truth, 0] -= 10
    test = examples(inputs, truth)
    healthy = test.take(~truth)
    data = build("reliability_detector", train=healthy, test=test)
    naive, strong = baselines.reliability(data)
    for name in ("l2_norm", "pca"):
        assert naive[name][truth].min() > np.quantile(naive[name][~truth], 0.99), name
    assert naive["random"].min() >= 0
    assert naive["random"].max() <= 1
    assert abs(np.corrcoef(naive["random"], truth)[0, 1]) < 0.15
    alone = {f"{name}_alone" for name in data.spec.features}
    assert set(strong) == {"signed_log_z"} | alone
    # Downtime is counted upwards, every other feature as it is.
    np.testing.assert_array_equal(strong["uptime_pct_alone"], -test.inputs[:, 0])
    np.testing.assert_array_equal(strong["rtt_ms_alone"], test.inputs[:, 5])


def test_the_signed_sum_counts_downtime_upwards(build, examples):
    rng = np.random.default_rng(3)
    inputs = rng.gamma(2.0, 1.0, (200, 6))
    inputs[:, 0] = 100 - rng.gamma(2.0, 0.01, 200)
    worse = inputs[:2].copy()
    worse[1] = worse[0]
    worse[1, 0] -= 1.0
    train = examples(inputs, np.zeros(200, bool))
    data = build("reliability_detector", train=train, test=examples(worse, [False, True]))
    score = baselines.reliability(data)[1]["signed_log_z"]
    assert score[1] > score[0]


def test_latency_baselines_by_hand(build, examples):
    calm = np.full((2, 20), 10.0)
    calm[1, 15] = 10.0 * np.e
    data = build("consensus_latency", test=examples(calm, [False, True]))
    naive, _ = baselines.latency(data)
    # A step of one in the logarithm over a level that had not moved.
    assert naive["ewma"].test.tolist() == pytest.approx([0.0, 1.0], abs=1e-6)
    # One of twenty deviates: mean 1/20, deviation sqrt(19)/20, largest 19/20.
    assert naive["rolling_z_score"].test[1] == pytest.approx(19 / np.sqrt(19), rel=1e-5)
    np.testing.assert_array_equal(naive["ewma"].validation, naive["ewma"].test)


def test_the_latency_reference_is_fitted_on_normal_windows_only(build, examples):
    rng = np.random.default_rng(4)
    windows = np.exp(rng.normal(3, 0.1, (400, 20)))
    truth = np.arange(400) % 10 == 0
    windows[truth] *= 5
    data = build("consensus_latency", test=examples(windows, truth))
    score = baselines.latency(data)[1]["mean_and_deviation"].test
    assert score[truth].min() > score[~truth].max()
    # Standardised by normal windows: their own scores have a mean of 0.
    assert score[~truth].mean() == pytest.approx(0.0, abs=1e-9)


def test_the_smoothing_has_the_lowest_mape_in_training(build, examples):
    """Noise around a level: old steps are worth as much as the last, so smoothing pays."""
    rng = np.random.default_rng(6)
    level = np.exp(rng.normal(3, 1, 800))
    inputs = np.ones((800, 10, 7))
    inputs[:, :, 2] = level[:, None] * rng.normal(1, 0.1, (800, 10))
    truth = level * rng.normal(1, 0.1, 800)
    truth[:5] = 0.5
    rows = examples(inputs, truth, series=np.arange(800) % 2)
    data = build("bandwidth_predictor", test=rows)
    counted = truth >= 1
    mape = {
        alpha: np.mean(
            np.abs(baselines.ewma(rows.inputs[:, :, 2].astype(float), alpha) - truth)[counted]
            / truth[counted]
        )
        for alpha in baselines.SMOOTHINGS
    }
    best = min(mape, key=lambda alpha: mape[alpha])
    assert best < 0.3
    expected = baselines.ewma(rows.inputs[:, :, 2].astype(float), best)
    np.testing.assert_allclose(baselines.bandwidth(data)[0]["ewma"], expected)


def test_a_link_with_few_windows_uses_the_fit_of_all_links(build, examples):
    """110 windows are enough for eleven coefficients, 109 are not."""
    rng = np.random.default_rng(0)
    for few, own in ((110, True), (109, False)):
        n = 2000 + few
        series = np.where(np.arange(n) < 2000, 0, 1)
        last = rng.uniform(10, 100, n)
        truth = np.where(series == 0, last, last / 4)
        inputs = np.ones((n, 10, 7))
        inputs[:, :, 2] = rng.uniform(10, 100, (n, 10))
        inputs[:, -1, 2] = last
        data = build("bandwidth_predictor", test=examples(inputs, truth, series=series))
        predicted = baselines.bandwidth(data)[1]["linear_autoregression"]
        error = np.abs(predicted - truth)[series == 1] / truth[series == 1]
        assert (np.median(error) < 0.1) == own


def test_pca_scores_are_the_residual_of_two_components(build, examples):
    """Three copies of one signal and three of another: two components hold everything."""
    rng = np.random.default_rng(7)
    signals = rng.choice([-1.0, 1.0], (1000, 2))
    signals -= signals.mean(axis=0)
    signals /= signals.std(axis=0)
    train = np.repeat(signals, 3, axis=1)
    inside = np.array([2.0, 2.0, 2.0, -1.0, -1.0, -1.0])
    outside = np.array([3.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    rows = examples(np.stack([inside, outside]), [False, True])
    data = build("reliability_detector", train=examples(train, np.zeros(1000, bool)), test=rows)
    naive, _ = baselines.reliability(data)
    # (3, 0, 0) less its mean (1, 1, 1): 4 + 1 + 1.
    np.testing.assert_allclose(naive["pca"], [0.0, 6.0], atol=1e-3)
    np.testing.assert_allclose(naive["l2_norm"], [np.sqrt(15), 3.0], rtol=1e-3)


def test_pca_always_has_a_residual_component(build, examples):
    rng = np.random.default_rng(8)
    train = examples(rng.normal(size=(3000, 6)), np.zeros(3000, bool))
    far = examples(10 * rng.normal(size=(50, 6)), np.ones(50, bool))
    naive, _ = baselines.reliability(build("reliability_detector", train=train, test=far))
    # Six equal directions: five are kept, and the sixth is not nothing.
    shares = naive["pca"] / naive["l2_norm"] ** 2
    assert 0.08 < shares.mean() < 0.3


def test_the_signed_sum_by_hand(build, examples):
    rng = np.random.default_rng(9)
    inputs = rng.gamma(2.0, 1.0, (100, 6)).astype(np.float32)
    inputs[:, 0] = 100 - inputs[:, 0]
    inputs[0, 1] = 0.0
    rows = examples(inputs, np.zeros(100, bool))
    values = inputs.astype(float)
    values[:, 0] = 100 - values[:, 0]
    logs = np.log(values + 1e-3)
    expected = ((logs - logs.mean(axis=0)) / logs.std(axis=0)).sum(axis=1)
    score = baselines.reliability(build("reliability_detector", test=rows))[1]["signed_log_z"]
    np.testing.assert_allclose(score, expected, rtol=1e-9)


def test_the_ewma_of_latency_follows_the_level(build, examples):
    """Two jumps of one: the second is measured from a level that has begun to follow."""
    window = np.full((1, 20), 1.0)
    window[0, 5:] = np.e
    window[0, 7:] = np.e**2
    data = build("consensus_latency", test=examples(window, [True]))
    # Level after steps 5 and 6: 0.3, then 0.51; step 7 stands at 2.
    assert baselines.latency(data)[0]["ewma"].test[0] == pytest.approx(2 - 0.51, rel=1e-5)
