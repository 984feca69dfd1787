"""Columns that hold the label: copied with noise, cut at a threshold, or in the form of numbers.

A symptom of an incident differs from one incident to the next, and lasts: within the rows of one
label it is still correlated from one row to the next. A copy of the label with noise is not,
because there is nothing in it but the label. ``persistence`` is that correlation: of the column's
ranks, without the mean of each series and label, between consecutive rows of the same label, with
two standard errors added.

Where rows are independent of each other, nothing lasts, and an honest symptom cannot be told from
such a copy. So a column is judged only if it, or the label, lasts when the label is not given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from dwcp_ml.contract.arrays import Array, Floats, Ints, Mask
from dwcp_ml.contract.evaluation import Leak, LeakKind
from dwcp_ml.evaluation.leaks.ranks import (
    area_under_roc,
    cell_means,
    correlation,
    cramers_v,
    ranks,
)
from dwcp_ml.evaluation.leaks.table import LeakRows

MIN_PERSISTENCE: Final = 0.12
"""A copy has 0.01. Honest columns have 0.5, and 0.19 where incidents are half as severe."""

MIN_SHARE: Final = 0.02
"""Share of a column's variance that the label explains, from which the column is judged."""

MIN_VALUES: Final = 200
"""Values of a column from which the form of its numbers is judged."""

MAX_STEPS_AHEAD: Final = 3
"""The label is looked for in the column up to this many steps before it is due."""

MAX_AREA: Final = 0.99999
"""Area under the ROC curve of one column; the label of a row is then a threshold of it."""

MIN_EVENTS: Final = 40
"""Runs of rows with a label other than the usual one, from which a column is judged."""

MIN_EVENTS_OF_SERIES: Final = 3
"""The same, for each series on average."""

MIN_HEALTHY: Final = 10_000
"""Rows outside of incidents, from which the separation is judged."""

MAX_FORMAT: Final = 0.3
"""Cramér's V between the label and how the numbers of a column are written."""

_DIGITS: Final = 6


def label_leaks(rows: LeakRows, *, symptoms: bool) -> list[Leak]:
    """Return the columns that hold the label of their row or of one of the next.

    Parameters
    ----------
    rows
        Rows whose ``outcome`` is a class.
    symptoms
        The columns are symptoms of the label, none of which is complete: one that alone separates
        the labels is what they were made from.
    """
    leaks = []
    known = np.isfinite(rows.outcome)
    label = np.where(known, rows.outcome, 0).astype(np.int64)
    for name, values in rows.columns.items():
        copy = _copy(rows, name, values, label, known)
        if copy is not None:
            leaks.append(copy)
        elif symptoms and (area := _separation(rows, values, label, known)) > MAX_AREA:
            leaks.append(_found(LeakKind.LABEL_THRESHOLD, name, area, MAX_AREA))
    return leaks


def _found(kind: LeakKind, name: str, statistic: float, limit: float, ahead: int = 0) -> Leak:
    return Leak(
        kind=kind, column=name, statistic=round(statistic, 4), limit=limit, steps_ahead=ahead
    )


def _separation(rows: LeakRows, values: Floats, label: Ints, known: Mask) -> float:
    """Return how well a column alone separates the labels, 1/2 to 1; 1/2 if events are few.

    A handful of incidents may well be separated by chance.
    """
    positive = label > 0
    begins = positive[1:] & ~(positive[:-1] & rows.followed(1)[:-1])
    if int(begins.sum()) < MIN_EVENTS or int((known & ~positive).sum()) < MIN_HEALTHY:
        return 0.5
    area = area_under_roc(values[known], positive[known])
    return max(area, 1.0 - area)


def _copy(rows: LeakRows, name: str, values: Floats, label: Ints, known: Mask) -> Leak | None:
    """Return a leak if the column is the label of its row or of a later one, and noise."""
    aligned = [_Aligned.of(rows, values, label, known, k) for k in range(MAX_STEPS_AHEAD + 1)]
    # The label that the column is closest to is the one that it could be a copy of.
    ahead = max(range(len(aligned)), key=lambda k: aligned[k].share)
    persistence = aligned[ahead].persistence()
    if aligned[ahead].share < MIN_SHARE or persistence >= MIN_PERSISTENCE:
        return None
    if not (_lasts(rows, values, known) or _lasts(rows, label, known)):
        return None
    kind = LeakKind.FOREKNOWLEDGE if ahead else LeakKind.LABEL_COPY
    return _found(kind, name, persistence, MIN_PERSISTENCE, ahead)


def _lasts(rows: LeakRows, values: Array, known: Mask) -> bool:
    """Return whether values, (n,), surely persist from one row to the next, whatever the label."""
    rank = ranks(values)
    own = rank - cell_means(rank, rows.series)
    pairs = np.flatnonzero(rows.followed(1)[:-1] & known[:-1] & known[1:])
    error = 1.0 / float(np.sqrt(max(len(pairs), 1)))
    return correlation(own[pairs + 1], own[pairs]) - 2.0 * error > MIN_PERSISTENCE


@dataclass(frozen=True)
class _Aligned:
    """A column beside the label some steps later.

    ``share`` of the variance of the column within a series is explained by that label, ``left``
    (m,) is not; ``consecutive`` (m - 1,) are the rows that the next row of the same label follows.
    """

    share: float
    left: Floats
    label: Ints
    series: Ints
    consecutive: Mask

    @classmethod
    def of(cls, rows: LeakRows, values: Floats, label: Ints, known: Mask, ahead: int) -> Self:
        """Align the column with the label ``ahead`` steps later."""
        chosen = np.flatnonzero(rows.followed(ahead)) if ahead else np.arange(len(rows))
        chosen = chosen[known[chosen + ahead]]
        later, series = label[chosen + ahead], rows.series[chosen]
        rank = ranks(values[chosen])
        cell = series * (int(label.max()) + 1) + later
        left = rank - cell_means(rank, cell)
        own = rank - cell_means(rank, series)
        total = float(own @ own)
        varies = total > 1e-6 * len(own)
        share = 1.0 - float(left @ left) / total if varies else 0.0
        next_row = (np.diff(chosen) == 1) & rows.followed(1)[chosen[:-1]]
        return cls(share, left, later, series, next_row & (np.diff(cell) == 0))

    def persistence(self) -> float:
        """Return the correlation of consecutive rows of one label, plus two standard errors.

        The most frequent label does not count: rows without an incident may well be nothing but
        noise. Few rows have a large error, and few events in a series are all of its mean: both are
        no sign of a leak.
        """
        names, counts = np.unique(self.label, return_counts=True)
        if len(names) < 2:
            return 1.0
        usual = names[counts.argmax()]
        unusual = self.label != usual
        pairs = np.flatnonzero(self.consecutive & unusual[1:])
        events, series = int(unusual.sum()) - len(pairs), len(np.unique(self.series[unusual]))
        if events < max(MIN_EVENTS, MIN_EVENTS_OF_SERIES * series):
            return 1.0
        error = 1.0 / np.sqrt(max(len(pairs), 1))
        return correlation(self.left[pairs + 1], self.left[pairs]) + 2.0 * float(error)


def format_leaks(rows: LeakRows) -> list[Leak]:
    """Return the columns whose last digit, or number of digits, tells the outcome."""
    chosen = np.isfinite(rows.outcome)
    outcome: Array = rows.outcome[chosen]
    if not rows.classes:  # of a quantity: whether it rises
        outcome = outcome > rows.columns["throughput_mbps"][chosen]
    leaks = []
    for name, values in rows.columns.items():
        found = _format(values[chosen], outcome)
        if found > MAX_FORMAT:
            leaks.append(_found(LeakKind.NUMBER_FORMAT, name, found, MAX_FORMAT))
    return leaks


def _format(values: Floats, outcome: Array) -> float:
    """Return how far the form of the numbers tells the outcome, 0 to 1.

    A column of a fixed number of decimals has more significant digits where it is larger, one of a
    fixed number of significant digits has fewer decimals there: only what both of them tell counts.
    Values at the ends of the column's range are left out: a clipped value is written shorter.
    """
    inside = (values > values.min()) & (values < values.max())
    units = np.rint(np.abs(values[inside]) * 10**_DIGITS).astype(np.int64)
    if len(units) < MIN_VALUES or len(np.unique(units)) < 100:
        return 0.0
    zeros = sum((units % 10**power == 0).astype(np.int64) for power in range(1, _DIGITS + 1))
    digits = np.floor(np.log10(np.maximum(units, 1))).astype(np.int64) - zeros
    length = min(cramers_v(zeros, outcome[inside]), cramers_v(digits, outcome[inside]))
    resolution = 10 ** int(zeros.min())
    if np.quantile(units, 0.1) < 1000 * resolution:  # the last digit is then part of the size
        return length
    return max(length, cramers_v(units // resolution % 10, outcome[inside]))
