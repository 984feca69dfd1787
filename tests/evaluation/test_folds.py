from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dwcp_ml.contract.errors import ErrorCode, TrainingFailed, UsageError
from dwcp_ml.contract.models import MODELS
from dwcp_ml.evaluation.folds import METHODS, folds, summary
from tests.errors import about


@pytest.fixture
def rows(build, examples):
    """Compression examples: 700 train, 150 validation, 150 test, classes of 60, 30 and 10 %."""
    rng = np.random.default_rng(0)
    truth = rng.permutation(np.repeat([0, 1, 2], [600, 300, 100]))
    everything = examples(np.arange(1000)[:, None] * np.ones(6), truth, gains=np.ones((1000, 10)))
    parts = np.split(rng.permutation(1000), [700, 850])
    return build(
        "compression_selector",
        train=everything.take(parts[0]),
        validation=everything.take(parts[1]),
        test=everything.take(parts[2]),
    )


def identity(examples):
    """Which example it is: its first input."""
    return set(examples.inputs.reshape(len(examples), -1)[:, 0].astype(int).tolist())


def test_every_model_has_a_method_and_time_series_have_rolling_origin():
    assert set(METHODS) == set(MODELS)
    assert METHODS["bandwidth_predictor"] == ("rolling_origin", "leave_links_out")
    assert METHODS["compression_selector"] == ("stratified", "rolling_origin")


def test_stratified_folds_cover_everything_once_with_the_same_shares(rows):
    found = list(folds(rows, "stratified", 5))
    assert [fold.name for fold in found] == [f"stratified {i}/5" for i in range(1, 6)]
    tests = [identity(fold.data.test) for fold in found]
    assert set().union(*tests) == identity(rows.train) | identity(rows.validation)
    assert sum(map(len, tests)) == 850
    for fold in found:
        parts = fold.data.train, fold.data.validation, fold.data.test
        assert sum(map(len, parts)) == 850
        assert not identity(parts[0]) & identity(parts[2])
        assert not identity(parts[0]) & identity(parts[1])
        assert not identity(parts[1]) & identity(parts[2])
        for part in parts:
            shares = np.bincount(part.truth, minlength=3) / len(part)
            np.testing.assert_allclose(shares, [0.6, 0.3, 0.1], atol=0.05)
        assert len(parts[2]) == 170
        assert len(parts[1]) == pytest.approx(680 * 150 / 850, abs=6)
        assert fold.data.test.gains.shape == (170, 10)


def test_compression_is_tested_on_later_rows_too(rows):
    for fold in folds(rows, "rolling_origin", 3):
        train, validation, test = fold.data.train, fold.data.validation, fold.data.test
        assert train.timestamp.max() < validation.timestamp.min()
        assert validation.timestamp.max() < test.timestamp.min()
        assert test.gains.shape == (len(test), 10)


def test_the_temporal_check_is_one_fold_with_the_shares_of_the_run(rows):
    (fold,) = folds(rows, "temporal", 1)
    train, validation, test = fold.data.train, fold.data.validation, fold.data.test
    assert train.timestamp.max() < validation.timestamp.min()
    assert validation.timestamp.max() < test.timestamp.min()
    parts = identity(train) | identity(validation) | identity(test)
    assert parts == identity(rows.train) | identity(rows.validation)
    assert len(test) == pytest.approx(850 * 0.15, abs=2)
    assert len(validation) == pytest.approx(850 * 0.15, abs=2)


def test_no_fold_contains_the_test_split(rows, bandwidth):
    for fold in folds(rows, "stratified", 3):
        for part in (fold.data.train, fold.data.validation, fold.data.test):
            assert not identity(part) & identity(rows.test)
    data = bandwidth[0]
    first = data.test.timestamp.min()
    for method in METHODS["bandwidth_predictor"]:
        for fold in folds(data, method, 2):
            for part in (fold.data.train, fold.data.validation, fold.data.test):
                assert part.timestamp.max() < first


def test_the_same_seed_makes_the_same_folds(rows):
    first, again, other = (
        [identity(fold.data.test) for fold in folds(rows, "stratified", 4, seed)]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_rolling_origin_trains_on_the_past_only(bandwidth):
    data = bandwidth[0]
    found = list(folds(data, "rolling_origin", 3))
    assert len(found) == 3
    sizes = [len(fold.data.train) for fold in found]
    assert sizes == sorted(sizes)
    assert sizes[0] > 0
    covered = []
    for fold in found:
        train, validation, test = fold.data.train, fold.data.validation, fold.data.test
        # A window reaches nine steps back, its truth one step on.
        assert train.timestamp.max() + 60 < validation.timestamp.min() - 9 * 60
        assert validation.timestamp.max() + 60 < test.timestamp.min() - 9 * 60
        covered += test.timestamp.tolist()
    assert len(covered) == len(set(covered)) * 2  # both links, each moment once
    assert max(covered) == data.validation.timestamp.max()


def test_rolling_origin_starts_with_the_data_and_not_with_the_epoch(bandwidth):
    """Real timestamps are 1.7e9 seconds: the first cut lies among the rows, not in 1990."""
    data = bandwidth[0]

    def sizes(shift):
        def moved(part):
            return replace(part, timestamp=part.timestamp + shift, span=part.span + shift)

        shifted = replace(data, train=moved(data.train), validation=moved(data.validation))
        return [len(fold.data.train) for fold in folds(shifted, "rolling_origin", 3)]

    assert sizes(1_700_000_000) == sizes(0)


def test_no_window_contains_rows_of_both_sides_of_a_border(bandwidth):
    """Plant the row number in every step: no step of a training window occurs in a test window."""
    data = bandwidth[0]

    def planted(part):
        steps = part.timestamp[:, None] // 60 + np.arange(-9, 1)
        inputs = np.repeat((steps + 10_000 * part.series[:, None])[..., None], 7, axis=2)
        return replace(part, inputs=inputs.astype(np.float32))

    marked = replace(
        data,
        train=planted(data.train),
        validation=planted(data.validation),
        test=planted(data.test),
    )
    for fold in folds(marked, "rolling_origin", 3):
        steps = [set(np.unique(part.inputs)) for part in (fold.data.train, fold.data.test)]
        ground_truth = {float(s) + 1 for s in np.unique(fold.data.train.inputs[:, -1])}
        assert not steps[0] & steps[1]
        assert not ground_truth & steps[1]


def test_rolling_origin_without_validation_leaves_it_empty(build, examples):
    rows = examples(np.ones((100, 6)), np.arange(100) % 3 == 0)
    empty = rows.take(np.zeros(0, np.int64))
    data = build("reliability_detector", train=rows, validation=empty, test=rows)
    for fold in folds(data, "rolling_origin", 4):
        assert len(fold.data.validation) == 0
        assert fold.data.train.timestamp.max() < fold.data.test.timestamp.min()
    # Rows know no neighbours, so none is lost: the last fold holds all of them.
    assert len(fold.data.train) + len(fold.data.test) == 100


def test_only_windows_across_a_border_are_excluded(build, examples):
    """Bandwidth reaches nine steps back and one on; latency nineteen back. A step may be 150 s."""
    for name, back, ahead in (("bandwidth_predictor", 9, 1), ("consensus_latency", 19, 0)):
        n = 600
        truth = np.ones(n) if ahead else np.arange(n) % 7 == 0
        shape = (n, 10, 7) if ahead else (n, 20)
        rows = examples(np.ones(shape), truth)
        data = build(name, train=rows, validation=rows.take(np.zeros(0, np.int64)), test=rows)
        cuts = np.linspace(0, 599 * 60 + 1, 5)
        first, last = rows.timestamp - back * 150, rows.timestamp + ahead * 150
        for number, fold in enumerate(folds(data, "rolling_origin", 3)):
            start, end = cuts[number + 1], cuts[number + 2]
            expected = rows.timestamp[last < start]
            np.testing.assert_array_equal(fold.data.train.timestamp, expected)
            # No example is after the last timestamp, so there is no border.
            inside = (first >= start) & ((last < end) | (number == 2))
            np.testing.assert_array_equal(fold.data.test.timestamp, rows.timestamp[inside])


def test_folds_have_gains_only_if_both_splits_have_them(rows):
    half = replace(rows, validation=replace(rows.validation, gains=None))
    for fold in folds(half, "stratified", 2):
        assert fold.data.test.gains is None


def test_left_out_links_are_never_trained_on_and_each_is_left_out_once(build, examples):
    series = np.arange(300) % 7
    rows = examples(np.ones((300, 10, 7)), np.arange(300.0), series=series)
    data = build(
        "bandwidth_predictor",
        series=7,
        train=rows.take(np.arange(200)),
        validation=rows.take(np.arange(200, 250)),
        test=rows.take(np.arange(250, 300)),
    )
    left = []
    for fold in folds(data, "leave_links_out", 3):
        held = set(fold.data.test.series.tolist())
        left += sorted(held)
        assert not held & set(fold.data.train.series.tolist())
        assert not held & set(fold.data.validation.series.tolist())
        assert len(fold.data.train) + len(fold.data.validation) + len(fold.data.test) == 250
    assert sorted(left) == list(range(7))


def test_invalid_requests_are_errors(rows, build, examples):
    with pytest.raises(UsageError, check=about(ErrorCode.UNKNOWN_NAME, "stratifed")):
        list(folds(rows, "stratifed", 5))
    with pytest.raises(UsageError, check=about(ErrorCode.OUT_OF_RANGE, "folds")):
        list(folds(rows, "stratified", 1))
    single = build("bandwidth_predictor", test=examples(np.ones((30, 10, 7)), np.ones(30)))
    with pytest.raises(TrainingFailed, check=about(ErrorCode.TOO_FEW, "leave_links_out 1/2")):
        list(folds(single, "leave_links_out", 2))


def test_the_summary_of_three_folds_by_hand(records, worse):
    evaluation = records("consensus_latency")[1]
    each = [
        worse(evaluation, metrics={"detection_accuracy": value}, test_set_size=size)
        for value, size in ((0.97, 10), (0.99, 20))
    ]
    failed = worse(evaluation, success=False, reason="no window.", metrics={})
    found = summary(MODELS["consensus_latency"], {"rolling_origin": [*each, failed]})
    entry = found["rolling_origin"]
    assert entry["folds"] == 3
    assert entry["test_set_sizes"] == [10, 20, 150]
    assert entry["failures"] == ["no window."]
    metric = entry["metrics"]["detection_accuracy"]
    assert metric["values"] == [0.97, 0.99]
    assert metric["mean"] == pytest.approx(0.98)
    assert metric["standard_deviation"] == pytest.approx(np.std([0.97, 0.99], ddof=1))
    assert (metric["minimum"], metric["maximum"]) == (0.97, 0.99)


def test_the_summary_of_nothing_has_no_numbers(records, worse):
    failed = worse(records("consensus_latency")[1], success=False, reason="x.", metrics={})
    metric = summary(MODELS["consensus_latency"], {"rolling_origin": [failed]})["rolling_origin"][
        "metrics"
    ]["detection_accuracy"]
    assert metric["mean"] is None
    assert metric["standard_deviation"] is None
