"""Matrices of cases: a few of them fast, the others among the slow tests."""

import itertools
import os

import pytest


def diagonal(*axes):
    """Return every combination as parameters; off the diagonal they are slow tests.

    Each value of each axis stands in one that is fast.
    """
    axes = [list(axis) for axis in axes]
    fast = {tuple(n % len(axis) for axis in axes) for n in range(max(map(len, axes)))}
    return [
        pytest.param(
            *(axis[n] for axis, n in zip(axes, place, strict=True)),
            marks=() if place in fast else pytest.mark.slow,
        )
        for place in itertools.product(*(range(len(axis)) for axis in axes))
    ]


def few(values, *fast):
    """Return the values as parameters; all but those that are named are slow tests."""
    values = list(values)
    assert set(fast) <= set(values)
    return [pytest.param(one, marks=() if one in fast else pytest.mark.slow) for one in values]


def examples(number):
    """Return how many random examples a test draws: all in ``make test``, a third in ``pytest``."""
    return number if os.environ.get("EVERY_EXAMPLE") else number // 3
