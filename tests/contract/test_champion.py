"""How a challenger differs from the champion."""

import math

import numpy as np
import pytest
from pydantic import ValidationError

from dwcp_ml.contract.champion import (
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
