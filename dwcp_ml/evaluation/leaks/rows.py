"""Leaks through whole rows: copies across the split, row numbers, the order, the quarantine."""

from __future__ import annotations

from typing import Final

import numpy as np

from dwcp_ml.contract.arrays import Array, Floats, Floats32, Mask
from dwcp_ml.contract.evaluation import NO_COLUMN, Leak, LeakKind
from dwcp_ml.contract.examples import ModelData
from dwcp_ml.evaluation.leaks.ranks import (
    area_under_roc,
    correlation,
    partial_correlation,
    ranks,
    ranks_within,
)
from dwcp_ml.evaluation.leaks.table import MIN_ROWS, LeakRows, Lost

ROW_ORDER, SPLIT, QUARANTINE = NO_COLUMN

MAX_COPIES: Final = 0.01
"""Share of the test examples that occur in the training split, beyond twice that within it."""

MAX_ROW_NUMBER: Final = 0.999
"""Correlation of a column's ranks with the order of the rows; its values must all differ."""

MAX_ORDER: Final = 0.5
"""Partial correlation, given the time, of a row's place in the file with its outcome."""

MAX_IN_ORDER: Final = 0.98
"""Correlation of the order of a link's rows with time from which a file is in the order of time."""

MAX_QUARANTINE: Final = 0.75
"""Probability that a quarantined row has a higher score than one that was kept, or a lower one."""

MIN_LOST: Final = 50
"""Quarantined rows from which their labels are compared."""

MIN_LOST_SHARE: Final = 0.10
"""Share of the tail that is quarantined, from which it matters.

Cells are missing more often while a network is in trouble. As long as nine of ten such rows are
kept, the examples still hold what is hard, and metrics move by less than their statistical error.
"""

TAIL: Final = 0.05
"""Share of the rows, the hardest of them, that are the tail; of a label it is the positive rows."""

_SIGNIFICANT: Final = 3


def split_copies(data: ModelData) -> list[Leak]:
    """Return a leak if test examples are copies of training examples, exact or rounded.

    Quantised telemetry repeats itself. Where the split is one of time, the share of the last 15 %
    of the training examples that occur in the other 85 % is subtracted twice; where it is random,
    copies are in the training split as well, and columns that repeat themselves are not judged.
    An example that occurs more than once in one part is no copy: a node that is down writes the
    same row again and again.
    """
    train, test = data.train.inputs, data.test.inputs
    if not len(test) or len(train) + len(test) < MIN_ROWS:
        return []
    earlier = int(0.85 * len(train))
    temporal = float(data.test.timestamp.min()) >= float(data.train.timestamp.max())
    if not temporal and not _continuous(train):
        return []
    largest = 0.0
    for key in (_exact, _rounded):
        known = key(train)
        usual = _copied(known[earlier:], known[:earlier]) if temporal else 0.0
        largest = max(largest, _copied(key(test), known) - 2.0 * usual)
    return _above(LeakKind.SPLIT_COPY, SPLIT, largest, MAX_COPIES)


def _copied(later: Array, earlier: Array) -> float:
    """Return the share of the later keys, (n,), that occur once in each of the two parts."""
    if not len(later):
        return 0.0
    return len(np.intersect1d(_once(later), _once(earlier), assume_unique=True)) / len(later)


def _once(keys: Array) -> Array:
    """Return the keys that occur once."""
    names, counts = np.unique(keys, return_counts=True)
    once: Array = names[counts == 1]
    return once


def _continuous(inputs: Floats32) -> bool:
    """Return whether at least three features of rows (n, features) hardly repeat their values."""
    repeats = [len(np.unique(column)) < 0.3 * len(inputs) for column in inputs.T]
    return repeats.count(False) >= 3


def _exact(inputs: Floats32) -> Array:
    """Return a key of each example, equal for equal inputs, (n,)."""
    flat = np.ascontiguousarray(inputs.reshape(len(inputs), -1))
    return flat.view(np.dtype((np.void, flat.itemsize * flat.shape[1]))).ravel()


def _rounded(inputs: Floats32) -> Array:
    """Return a key that small noise often does not change: three digits of the last step's inputs.

    Of a window of one feature it is all of its steps.
    """
    flat = inputs if inputs.ndim != 3 else inputs[:, -1, :]
    size = 10.0 ** (np.floor(np.log10(np.maximum(np.abs(flat), 1e-12))) - _SIGNIFICANT + 1)
    return _exact((np.rint(flat / size) * size).astype(np.float32))


def row_numbers(rows: LeakRows) -> list[Leak]:
    """Return the columns that count the rows, in the order of the file or of time."""
    leaks = []
    orders = (ranks(rows.position), ranks(rows.timestamp))
    for name, values in rows.columns.items():
        if len(np.unique(values)) < 0.999 * len(values):
            continue
        own = ranks(values)
        largest = max(abs(correlation(own - own.mean(), each - each.mean())) for each in orders)
        leaks += _above(LeakKind.ROW_NUMBER, name, largest, MAX_ROW_NUMBER)
    return leaks


def row_order(rows: LeakRows) -> list[Leak]:
    """Return a leak if the file is in the order of what is to be predicted.

    A file in the order of time, forwards or backwards, is not: its order holds nothing that the
    time does not.
    """
    known = np.flatnonzero(np.isfinite(rows.outcome))
    series = rows.series[known]
    place = ranks_within(rows.position[known], series)
    time = ranks_within(rows.timestamp[known], series)
    outcome = ranks_within(rows.outcome[known], series)
    # Equal outcomes share a rank: this is the correlation of a file sorted by them.
    most = np.sqrt(float(outcome @ outcome) / max(float(place @ place), 1e-12))
    in_order = abs(correlation(place - place.mean(), time - time.mean())) > MAX_IN_ORDER
    if in_order or most <= 0.0:
        return []
    found = abs(partial_correlation(place, outcome, time)) / min(max(most, 0.05), 1.0)
    return _above(LeakKind.ROW_ORDER, ROW_ORDER, min(found, 1.0), MAX_ORDER)


def quarantine(lost: Lost | None) -> list[Leak]:
    """Return a leak if what was quarantined depends on what was to be predicted, and matters."""
    if lost is None or len(lost.lost) < max(MIN_LOST, 0.001 * len(lost.kept)):
        return []
    score = np.concatenate([lost.lost, lost.kept])
    gone = np.arange(len(score)) < len(lost.lost)
    area = area_under_roc(score, gone)
    if gone[_tail(score if area >= 0.5 else -score)].mean() < MIN_LOST_SHARE:
        return []
    return _above(LeakKind.QUARANTINE, QUARANTINE, max(area, 1.0 - area), MAX_QUARANTINE)


def _tail(score: Floats) -> Mask:
    """Return the rows of the highest scores, (n,), about ``TAIL`` of them; of labels all of 1."""
    edge = np.quantile(score, 1.0 - TAIL)
    above: Mask = score > edge
    return above if above.any() else score >= edge


def _above(kind: LeakKind, column: str, statistic: float, limit: float) -> list[Leak]:
    if not statistic > limit:
        return []
    return [Leak(kind=kind, column=column, statistic=round(statistic, 4), limit=limit)]
