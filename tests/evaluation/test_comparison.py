from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from dwcp_ml.evaluation import comparison as c


def blocks_of(n: int, count: int = 30) -> c.Blocks:
    return c.time_blocks(np.arange(n), count)


def improvement(statistics, blocks, *, lower_is_better=False, resamples=c.RESAMPLES):
    """The interval of the improvement of the first of two statistics over the second."""
    own, other = (c.sampled(each, blocks, resamples) for each in statistics)
    return c.interval(other - own if lower_is_better else own - other, blocks)


def test_blocks_are_equal_spans_of_time_over_all_links():
    # Two links at the same six moments; three blocks of two moments each.
    timestamp = np.repeat([0, 60, 120, 180, 240, 300], 2)
    blocks = c.time_blocks(timestamp, 3)
    assert blocks.count == 3
    assert blocks.index.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]


def test_a_gap_leaves_no_empty_block():
    blocks = c.time_blocks(np.array([0, 1, 2, 98, 99, 100]), 10)
    assert blocks.count == 2
    assert set(blocks.index) == {0, 1}


def test_blocks_depend_on_timestamps_not_on_the_order_of_rows():
    timestamp = np.array([300, 0, 100, 200])
    assert c.time_blocks(timestamp, 4).index.tolist() == [3, 0, 1, 2]


def test_blocks_are_longer_than_windows_and_incidents(build, examples):
    def count(minutes, window=None, lasts=0):
        shape = (minutes, window) if window else (minutes, 6)
        name = "consensus_latency" if window else "reliability_detector"
        event = np.full(minutes, -1)
        event[:lasts] = 0
        rows = examples(np.ones(shape), event >= 0, event=event)
        return c.blocks_for(build(name, test=rows)).count

    # Rows by themselves: thirty blocks.
    assert count(900) == 30
    # Windows of 20 minutes: blocks of an hour, out of 899 minutes.
    assert count(900, window=20) == 14
    # An incident of 30 minutes (29 between its first and last row): blocks of 58.
    assert count(900, lasts=30) == 15
    # Never fewer than ten.
    assert count(300, window=20) == 10
    assert count(6) == 6


def test_blocks_hold_the_windows_of_the_slowest_link(build, examples):
    timestamp = np.concatenate([np.arange(9_000) * 10.0, np.arange(1_500) * 60.0])
    series = np.repeat([0, 1], [9_000, 1_500])
    rows = examples(np.ones((10_500, 20)), np.zeros(10_500), timestamp=timestamp, series=series)
    blocks = c.blocks_for(build("consensus_latency", test=rows, cadences=np.array([10.0, 60.0])))
    # Blocks of an hour, out of 89,990 s between the first and the last row.
    assert blocks.count == 24


@pytest.mark.parametrize(("timestamps", "count"), [([], 0), ([5, 5, 5], 1), ([1, 2], 2)])
def test_few_timestamps_make_few_blocks(timestamps, count):
    blocks = c.time_blocks(np.array(timestamps))
    assert blocks.count == count
    assert not blocks.enough


def test_draws_are_uniform_over_the_blocks_and_repeat_with_the_seed():
    blocks = blocks_of(300)
    draws = blocks.draws(4000)
    assert draws.shape == (4000, 30)
    assert np.all(draws.sum(axis=1) == 30)
    np.testing.assert_allclose(draws.mean(axis=0), 1.0, atol=0.08)
    np.testing.assert_array_equal(draws, blocks.draws(4000))
    assert not np.array_equal(draws, blocks.draws(4000, seed=1))


def repeated(blocks: c.Blocks, weights: np.ndarray) -> np.ndarray:
    """The rows of one draw, each as often as its block was drawn."""
    return np.repeat(np.arange(len(blocks.index)), weights.astype(int)[blocks.index])


@pytest.fixture
def example():
    rng = np.random.default_rng(3)
    n = 400
    truth = rng.gamma(3.0, 50.0, n)
    return {
        "truth": truth,
        "prediction": truth * rng.normal(1.0, 0.1, n),
        "label": rng.random(n) < 0.15,
        # Coarse on purpose: many equal scores.
        "score": np.round(rng.random(n) + 0.4 * (rng.random(n) < 0.15), 1),
        "series": rng.integers(0, 5, n),
        "blocks": c.time_blocks(np.sort(rng.integers(0, 100_000, n)), 12),
    }


def test_a_statistic_of_a_draw_is_the_metric_of_the_rows_drawn(example):
    from sklearn.metrics import average_precision_score

    blocks, truth, prediction = example["blocks"], example["truth"], example["prediction"]
    label, score, series = example["label"], example["score"], example["series"]
    some = truth > 100

    def median_within(rows):
        found = [
            np.corrcoef(truth[r], prediction[r])[0, 1]
            for r in (rows[series[rows] == name] for name in range(5))
        ]
        return np.median(found)

    cases = [
        (c.mean(truth, blocks), lambda r: truth[r].mean()),
        (c.mean(truth, blocks, some), lambda r: truth[r][some[r]].mean()),
        (c.ratio(truth, prediction, blocks), lambda r: truth[r].sum() / prediction[r].sum()),
        (
            c.correlation(truth, prediction, blocks),
            lambda r: np.corrcoef(truth[r], prediction[r])[0, 1],
        ),
        (c.median_correlation(truth, prediction, series, blocks), median_within),
        (
            c.pr_auc(label, score, blocks),
            lambda r: average_precision_score(label[r], score[r]),
        ),
    ]
    weights = np.vstack([np.ones((1, blocks.count)), blocks.draws(20)])
    for statistic, metric in cases:
        expected = [metric(repeated(blocks, row)) for row in weights]
        np.testing.assert_allclose(statistic(weights), expected, rtol=1e-10)
        assert c.point(statistic, blocks) == pytest.approx(expected[0])


def test_pr_auc_by_hand():
    # Falling scores: hit, miss, hit; then recall steps of 1/2 at precisions 1 and 2/3.
    truth = np.array([True, False, True, False])
    score = np.array([0.9, 0.8, 0.7, 0.1])
    blocks = blocks_of(4, 2)
    assert c.point(c.pr_auc(truth, score, blocks), blocks) == pytest.approx(0.5 + 0.5 * 2 / 3)
    # All equal: one step, precision is the prevalence.
    assert c.point(c.pr_auc(truth, np.zeros(4), blocks), blocks) == pytest.approx(0.5)


def test_without_positives_there_is_no_pr_auc():
    blocks = blocks_of(50, 10)
    statistic = c.pr_auc(np.zeros(50, bool), np.random.default_rng(0).random(50), blocks)
    assert np.isnan(c.point(statistic, blocks))
    assert improvement((statistic, statistic), blocks, lower_is_better=False) is None


def test_a_constant_prediction_has_no_correlation():
    truth = np.arange(40.0) + 1e6
    blocks = blocks_of(40, 10)
    assert np.isnan(c.point(c.correlation(truth, np.full(40, 0.1), blocks), blocks))
    series = np.repeat([0, 1], 20)
    prediction = np.where(series == 0, 5.0, -truth)
    # The link whose prediction never varies is left out; the other's correlation is -1.
    statistic = c.median_correlation(truth, prediction, series, blocks)
    assert c.point(statistic, blocks) == pytest.approx(-1.0)


def autocorrelated(rng, n, rho=0.95):
    noise = rng.normal(size=n)
    out = np.empty(n)
    out[0] = noise[0]
    for i in range(1, n):
        out[i] = rho * out[i - 1] + np.sqrt(1 - rho**2) * noise[i]
    return out


@pytest.mark.slow
def test_for_equal_models_the_lower_bound_is_rarely_above_zero():
    """A/A: errors of both are strongly autocorrelated (a window of 20), and neither is better."""
    wrong = wrong_rows = 0
    draws = 200
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        blocks = blocks_of(2000)
        own, other = autocorrelated(rng, 2000), autocorrelated(rng, 2000)
        statistics = (c.mean(own, blocks), c.mean(other, blocks))
        found = improvement(statistics, blocks, lower_is_better=True, resamples=1000)
        wrong += found.lower > 0
        # What resampling single rows would say: it takes neighbours for independent.
        difference = other - own
        wrong_rows += difference.mean() > 1.96 * difference.std() / np.sqrt(len(difference))
    assert wrong <= 0.05 * draws
    # The test has teeth: without blocks a third of the equal models would seem better.
    assert wrong_rows > 0.25 * draws


@pytest.mark.slow
def test_a_model_as_good_as_a_strong_reference_is_rarely_rejected_by_it():
    """A/A: the errors are correlated over a window of 20; nominally 2.5 % are rejected."""
    rho, n, draws = 0.9, 2000, 600
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(draws, 2, n))
    noise[..., 1:] *= np.sqrt(1 - rho**2)
    errors = lfilter([1.0], [1.0, -rho], noise, axis=2)
    blocks = blocks_of(n)
    rejected = approved_as_better = 0
    for own, other in errors:
        statistics = (c.mean(own, blocks), c.mean(other, blocks))
        found = improvement(statistics, blocks, lower_is_better=True, resamples=1000)
        rejected += found.upper < 0
        approved_as_better += found.lower > 0
    assert rejected <= 0.05 * draws
    assert approved_as_better <= 0.05 * draws
    # The test has teeth: some are, as chance has it.
    assert rejected >= 0.01 * draws


@pytest.mark.slow
def test_for_equal_detectors_the_pr_auc_bound_is_rarely_above_zero():
    wrong = rejected = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        blocks = blocks_of(900)
        # Incidents of 15 rows; two scores equally good.
        label = np.repeat(rng.random(60) < 0.15, 15)
        own, other = (label + 1.5 * autocorrelated(rng, 900, 0.9) for _ in range(2))
        statistics = (c.pr_auc(label, own, blocks), c.pr_auc(label, other, blocks))
        found = improvement(statistics, blocks, lower_is_better=False, resamples=400)
        wrong += found is not None and found.lower > 0
        rejected += found is not None and found.upper < 0
    assert wrong <= 0.05 * 200
    assert rejected <= 0.05 * 200


def test_a_real_improvement_has_the_right_sign_and_size():
    rng = np.random.default_rng(0)
    blocks = blocks_of(3000)
    other = rng.gamma(2.0, 2.75, 3000)
    own = other - 1.0 + 0.2 * rng.normal(size=3000)
    found = improvement(
        (c.mean(own, blocks), c.mean(other, blocks)),
        blocks,
        lower_is_better=True,
    )
    assert found.value == pytest.approx(1.0, abs=0.02)
    assert 0 < found.lower < found.value < found.upper
    higher = improvement((c.mean(own, blocks), c.mean(other, blocks)), blocks)
    assert higher.value == pytest.approx(-found.value)
    assert higher.upper < 0


def test_a_model_that_equals_its_baseline_does_not_beat_it():
    blocks = blocks_of(500)
    same = c.mean(np.random.default_rng(0).random(500), blocks)
    found = improvement((same, same), blocks, lower_is_better=False)
    assert (found.value, found.lower, found.upper) == (0.0, 0.0, 0.0)


def test_the_standard_error_corrects_the_variance_of_few_blocks():
    values = np.random.default_rng(2).normal(size=60)
    blocks = blocks_of(60, 6)
    statistic = c.mean(values, blocks)
    spread = statistic(blocks.draws(500)).std()
    assert c.standard_error(statistic, blocks, 500) == pytest.approx(spread * np.sqrt(6 / 5))


def test_five_blocks_are_enough_and_four_are_not():
    assert blocks_of(5).enough
    assert not blocks_of(4).enough
    same = c.mean(np.arange(5.0), blocks_of(5))
    assert improvement((same, same), blocks_of(5), lower_is_better=True) is not None


def test_a_metric_that_is_not_defined_here_is_not_compared():
    """Half of the draws have a value; the test split itself has none."""
    blocks = blocks_of(20, 10)

    def odd(weights):
        values = np.arange(len(weights), dtype=float)
        values[0] = np.nan
        return values

    assert improvement((odd, odd), blocks, lower_is_better=True) is None


def test_most_draws_must_have_a_value():
    blocks = blocks_of(20, 10)

    def rare(weights):
        values = np.full(len(weights), np.nan)
        values[: len(weights) // 3] = 1.0
        return values

    assert improvement((rare, rare), blocks, lower_is_better=True) is None
    assert np.isnan(c.standard_error(rare, blocks))


@pytest.mark.parametrize("side", [0, 1])
def test_a_constant_side_has_no_correlation(side):
    values = [np.random.default_rng(0).normal(50, 1, 40), np.full(40, 1e7 / 3)]
    blocks = blocks_of(40, 10)
    statistic = c.correlation(values[side], values[1 - side], blocks)
    assert np.isnan(statistic(blocks.draws(50))).all()


def test_the_median_is_over_the_links_that_have_a_correlation():
    rng = np.random.default_rng(0)
    series = np.repeat(np.arange(4), 50)
    truth = rng.normal(size=200)
    # Correlations of about 1, 0.7 and 0; and a link that never varies.
    noise = np.array([0.0, 1.0, 1e6, 0.0])[series] * rng.normal(size=200)
    prediction = np.where(series == 3, 1.0, truth + noise)
    blocks = blocks_of(200, 10)
    found = c.point(c.median_correlation(truth, prediction, series, blocks), blocks)
    expected = np.corrcoef(truth[series == 1], prediction[series == 1])[0, 1]
    assert found == pytest.approx(expected)
    two = np.isin(series, [0, 1])
    within = c.Blocks(blocks.index[two], blocks.count)
    found = c.point(c.median_correlation(truth[two], prediction[two], series[two], within), within)
    assert found == pytest.approx((1.0 + expected) / 2)


def test_too_few_blocks_have_no_comparison():
    blocks = blocks_of(4)
    statistic = c.mean(np.arange(4.0), blocks)
    assert improvement((statistic, statistic), blocks, lower_is_better=True) is None
    assert np.isnan(c.standard_error(statistic, blocks))


def test_the_standard_error_is_that_of_the_mean_of_independent_rows():
    values = np.random.default_rng(1).normal(10.0, 2.0, 6000)
    blocks = blocks_of(6000)
    error = c.standard_error(c.mean(values, blocks), blocks)
    # 30 blocks know their own variance to about 13 %.
    assert error == pytest.approx(2.0 / np.sqrt(6000), rel=0.3)
    assert c.standard_error(c.mean(np.ones(100), blocks_of(100)), blocks_of(100)) == 0.0


@pytest.mark.parametrize("count", [10, 14, 30, 100])
def test_the_expanded_tail_has_the_values_of_hesterberg(count):
    t = stats.t.ppf(0.975, count - 1)
    expected = stats.norm.cdf(-np.sqrt(count / (count - 1)) * t)
    assert c.expanded_tail(count) == pytest.approx(expected, rel=1e-3)
