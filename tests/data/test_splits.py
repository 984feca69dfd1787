import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcp_ml.data.splits import (
    TEST,
    TRAIN,
    VALIDATION,
    Split,
    stratified_split,
    temporal_cuts,
    temporal_split_id,
)


def temporal_split(timestamp, validation_fraction, test_fraction):
    cuts = temporal_cuts(timestamp, validation_fraction, test_fraction)
    return Split.of(temporal_split_id(timestamp, cuts))


times = st.lists(st.integers(0, 10_000), min_size=1, max_size=200)


def test_cuts_part_a_regular_file_at_70_and_85_percent():
    split = temporal_split(np.arange(1000), 0.15, 0.15)
    assert [len(split.train), len(split.validation), len(split.test)] == [700, 150, 150]
    assert split.train.max() < split.validation.min() <= split.validation.max() < split.test.min()


def test_without_validation_the_two_cuts_are_one():
    cuts = temporal_cuts(np.arange(100), 0.0, 0.15)
    assert cuts == (85, 85)
    assert len(temporal_split(np.arange(100), 0.0, 0.15).validation) == 0


def test_validation_fraction_replaces_the_15_percent_and_the_test_split_stays():
    split = temporal_split(np.arange(1000), 0.3, 0.15)
    assert [len(split.train), len(split.validation), len(split.test)] == [550, 300, 150]


@given(times, st.sampled_from([0.0, 0.15, 0.3]), st.sampled_from([0.1, 0.15, 0.4]))
def test_rows_of_one_moment_lie_in_one_split_and_splits_follow_time(moments, validation, test):
    timestamp = np.array(moments)
    split_id = temporal_split_id(timestamp, temporal_cuts(timestamp, validation, test))
    assert (np.diff(split_id[np.argsort(timestamp, kind="stable")]) >= 0).all()
    for moment in set(moments):
        assert len(set(split_id[timestamp == moment])) == 1


@given(times, st.randoms())
def test_cuts_do_not_depend_on_the_order_of_rows(moments, random):
    shuffled = list(moments)
    random.shuffle(shuffled)
    assert temporal_cuts(np.array(moments), 0.15, 0.15) == temporal_cuts(
        np.array(shuffled), 0.15, 0.15
    )


@given(times)
def test_a_boundary_row_belongs_to_the_later_split(moments):
    timestamp = np.array(moments)
    t_validation, t_test = temporal_cuts(timestamp, 0.15, 0.15)
    split_id = temporal_split_id(timestamp, (t_validation, t_test))
    assert (split_id[timestamp >= t_test] == TEST).all()
    assert (split_id[(timestamp >= t_validation) & (timestamp < t_test)] == VALIDATION).all()
    assert (split_id[timestamp < t_validation] == TRAIN).all()


@given(st.lists(st.integers(0, 4), max_size=300), st.integers(0, 5))
def test_stratified_split_parts_every_row_once_and_keeps_shares(labels, seed):
    labels = np.array(labels, np.int64)
    split = stratified_split(labels, 0.15, 0.15, seed)
    everything = np.concatenate([split.train, split.validation, split.test])
    assert sorted(everything) == list(range(len(labels)))
    for label in np.unique(labels):
        members = (labels == label).sum()
        assert (labels[split.test] == label).sum() == round(0.15 * members)
        assert (labels[split.validation] == label).sum() == round(0.15 * members)
    for part in (split.train, split.validation, split.test):
        assert (np.diff(part) > 0).all()


def test_stratified_split_depends_on_the_seed_alone():
    labels = np.arange(1000) % 3
    same = stratified_split(labels, 0.15, 0.15, 42).test
    assert np.array_equal(same, stratified_split(labels, 0.15, 0.15, 42).test)
    assert not np.array_equal(same, stratified_split(labels, 0.15, 0.15, 43).test)


def test_a_changed_label_moves_hardly_any_other_row():
    labels = np.arange(1000) % 2
    before = stratified_split(labels, 0.15, 0.15, 42)
    labels[before.test[0]] = 1 - labels[before.test[0]]
    after = stratified_split(labels, 0.15, 0.15, 42)
    assert len(np.setxor1d(before.train, after.train)) <= 4


@pytest.mark.parametrize("fraction", [0.0, 0.2])
def test_an_empty_file_has_empty_splits(fraction):
    split = temporal_split(np.empty(0, np.int64), fraction, 0.15)
    assert len(split.train) == len(split.validation) == len(split.test) == 0
