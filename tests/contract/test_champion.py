"""How a challenger differs from the champion."""

import math

import numpy as np
import pytest
from pydantic import ValidationError

from dwcp_ml.contract.champion import (
    MAX_ANSWERS,
    QUANTILES,
    DifferenceRecord,
    difference_record,
    signed_difference,
)

NUMBER, CLASS = "next_throughput_mbps", "compression_level"


def test_numbers_are_compared_relatively_and_with_a_sign():
    champion = np.full(101, 200.0, np.float32)
    challenger = champion + np.linspace(-20, 20, 101, dtype=np.float32)
    record = difference_record(NUMBER, champion, challenger)
    assert record.quantiles == pytest.approx([0.2 * each - 0.1 for each in QUANTILES])
    assert record.changed == pytest.approx(96 / 101)
    assert signed_difference(NUMBER, 200.0, 180.0) == pytest.approx(-0.1)


def test_numbers_below_one_are_compared_absolutely():
    assert signed_difference(NUMBER, 0.0, 0.5) == 0.5


def test_classes_are_equal_or_not():
    record = difference_record(CLASS, np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5]))
    assert (record.changed, record.quantiles) == (0.25, None)
    assert signed_difference(CLASS, 3.0, 3.0) == 0.0


def test_a_prediction_that_is_not_a_number_has_no_difference():
    assert math.isnan(signed_difference(NUMBER, 200.0, math.nan))
    assert math.isnan(signed_difference(CLASS, math.nan, 1.0))


def test_the_largest_shares_are_those_of_a_run_of_one_link():
    """One link differs in 25 consecutive examples, which are not together in the file."""
    links, times = np.repeat(["a", "b"], 100), np.tile(np.arange(100), 2)
    challenger = np.full(200, 200.0)
    challenger[50:75] *= 1.1
    order = np.random.default_rng(1).permutation(200)
    found = difference_record(
        NUMBER, np.full(200, 200.0), challenger[order], links[order], times[order]
    )
    assert (found.changed, found.largest_changed) == (0.125, 1.0)
    assert found.largest_above[QUANTILES.index(0.5)] == 1.0
    assert found.largest_above[-1] == 0.0, "nothing is above the largest"


def test_small_links_count_as_one():
    links = np.arange(60)
    challenger = np.where(links < 6, 300.0, 200.0)
    found = difference_record(NUMBER, np.full(60, 200.0), challenger, links)
    assert found.largest_changed == 0.2


def test_quantiles_that_fall_are_refused():
    with pytest.raises(ValidationError):
        DifferenceRecord(examples=1, changed=0.0, quantiles=(0.1, 0.0, 0.2))


def test_classes_are_compared_by_the_champions_answer_too():
    champion, challenger = np.array([0, 0, 0, 2, 2]), np.array([0, 0, 1, 0, 0])
    found = difference_record(CLASS, champion, challenger)
    shares = [(each.answer, each.examples, each.changed) for each in found.by_answer]
    assert shares == [(0, 3, pytest.approx(1 / 3)), (2, 2, 1.0)]
    assert found.by_answer[0].quantiles is None
    assert difference_record(NUMBER, champion, challenger).by_answer == ()


def test_of_a_flag_the_scores_behind_it_are_compared_by_answer():
    flags = np.array([False, False, True, True])
    scores = np.array([0.1, 0.2, 0.8, 0.9]), np.array([0.1, 0.2, 0.7, 0.8])
    found = difference_record("is_anomaly", flags, flags, scores=scores)
    calm, flagged = found.by_answer
    assert (found.quantiles, calm.quantiles) == (None, (0.0,) * len(QUANTILES))
    assert flagged.quantiles == pytest.approx([-0.1] * len(QUANTILES))
    assert signed_difference("anomaly_score", 0.8, 0.7) == pytest.approx(-0.1)
    assert signed_difference("is_anomaly", 1.0, 0.0) == 1.0


def test_more_answers_than_an_output_has_are_left_out():
    many = np.arange(MAX_ANSWERS + 1)
    assert difference_record(CLASS, many, many).by_answer == ()


def test_a_record_of_an_earlier_bundle_is_read():
    old = {"examples": 10, "changed": 0.1, "largest_changed": 0.2}
    assert DifferenceRecord.model_validate(old).by_answer == ()
