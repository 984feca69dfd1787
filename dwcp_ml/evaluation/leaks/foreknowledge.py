"""Columns that know the next value of a series better than the past of the series allows.

The *innovation* of the next throughput is what its best linear prediction from the window's
throughput leaves over (on a log scale, relative to the last value). A gauge of the present knows
some of it: the round-trip time at t shows a load that the throughput of the next interval will
feel. But it then knows as much of the present throughput. A column made of the next value knows the
next innovation and, once that value is given, nothing of the present one. So two correlations are
compared for every column and every step of the window:

    ahead    of the column's step and the next innovation, given the window's throughput
    present  of its last step and the last throughput, given the throughput before and after it

A leak is ``|ahead| - 2 |present|`` above ``MAX_EXCESS``, or ``|ahead|`` above ``MAX_AHEAD``, which
also finds a two-sided moving average.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from dwcp_ml.contract.arrays import Floats, Ints
from dwcp_ml.contract.columns import column_of_feature
from dwcp_ml.contract.evaluation import Leak, LeakKind
from dwcp_ml.contract.examples import ModelData
from dwcp_ml.evaluation.leaks.ranks import Known, cell_means, correlation, ranks_within
from dwcp_ml.evaluation.leaks.table import MIN_ROWS

PRESENT_WEIGHT: Final = 2.0
"""Gauges know up to twice as much of the next value: the value after it is given for the last."""

MAX_EXCESS: Final = 0.10
"""Honest columns stay below 0.05; a copy with 30 % noise has 0.2."""

MAX_AHEAD: Final = 0.60
"""A gauge that shows the load at t without noise has 0.56, by the simulator's equations."""

MAX_WINDOWS: Final = 40_000
"""Windows of a larger file are thinned evenly: the correlations then have an error of 0.005."""

_DAY: Final = 86_400.0
_TINY: Final = 1e-6


@dataclass(frozen=True)
class _Innovations:
    """The next and the last throughput, each with what is known beside it; one row a window."""

    before_next: Known
    next_own: Floats
    around_last: Known
    last_own: Floats

    @classmethod
    def of(cls, throughput: Floats, following: Floats, series: Ints, moment: Floats) -> Self:
        """Take logs of the window's throughput, (n, window), and of the next, (n,)."""
        before_next = Known.of(_base(throughput, series, moment))
        earlier = throughput[:, :-1]
        beside = _base(earlier, series, moment)
        around_last = Known.of(np.column_stack([beside, following - earlier[:, -1]]))
        return cls(
            before_next,
            before_next.without(following - throughput[:, -1]),
            around_last,
            around_last.without(throughput[:, -1] - earlier[:, -1]),
        )

    def ahead(self, column: Floats) -> float:
        """Return what a column, (n,), knows of the next value."""
        return abs(correlation(self.before_next.without(column), self.next_own))

    def present(self, column: Floats) -> float:
        """Return what the last step of a column, (n,), knows of the last value."""
        return abs(correlation(self.around_last.without(column), self.last_own))


def throughput_leaks(data: ModelData) -> list[Leak]:
    """Return the columns of the bandwidth model that know the next throughput.

    Parameters
    ----------
    data
        Windows of the form ``next_throughput_mbps``: inputs (n, window, features).
    """
    parts = (data.train, data.validation, data.test)
    truth = np.concatenate([part.truth for part in parts]).astype(np.float64)
    if len(truth) < MIN_ROWS:
        return []
    rows = np.arange(0, len(truth), -(-len(truth) // MAX_WINDOWS))
    inputs = np.concatenate([part.inputs for part in parts])[rows].astype(np.float64)
    series = np.concatenate([part.series for part in parts])[rows]
    moment = np.concatenate([part.timestamp for part in parts])[rows]
    target = data.spec.features.index("throughput_mbps")
    own = _Innovations.of(_logs(inputs[:, :, target]), _logs(truth[rows]), series, moment)
    leaks = [
        _leak(column_of_feature(feature).name, own, inputs[:, :, place], series)
        for place, feature in enumerate(data.spec.features)
        if place != target
    ]
    return [leak for leak in leaks if leak.statistic > leak.limit]


def _leak(column: str, own: _Innovations, values: Floats, series: Ints) -> Leak:
    """Return the largest statistic of one column, (n, window), over its steps and forms."""
    steps = values.shape[1]
    present = [own.present(form) for form in _forms(values[:, -1], series)]
    found = [
        (own.ahead(form), place, steps - step)
        for step in range(steps)
        for place, form in enumerate(_forms(values[:, step], series))
    ]
    # A column that is constant in its last step only has no present to be compared with.
    excesses = [
        (ahead - PRESENT_WEIGHT * (present[place] if present else 0.0), steps_ahead)
        for ahead, place, steps_ahead in found
    ]
    # The largest of a hundred correlations of n windows that are 0 is about 3 / sqrt(n).
    limit = MAX_EXCESS + 3.0 / float(np.sqrt(len(values)))
    statistic, ahead = max(excesses, default=(0.0, 1))
    if statistic <= limit:
        statistic, ahead = max(((each[0], each[2]) for each in found), default=(0.0, 1))
        limit = MAX_AHEAD
    return Leak(
        kind=LeakKind.FOREKNOWLEDGE,
        column=column,
        statistic=round(statistic, 4),
        limit=round(limit, 4),
        steps_ahead=ahead,
    )


def _logs(values: Floats) -> Floats:
    logs: Floats = np.log(np.maximum(values, _TINY))
    return logs


def _base(throughput: Floats, series: Ints, moment: Floats) -> Floats:
    """Return what is known: steps of the log throughput, its level in the link, and the hour."""
    last = throughput[:, -1]
    level = last - cell_means(last, series)
    angle = 2 * np.pi * (moment % _DAY) / _DAY
    steps = throughput[:, :-1] - last[:, np.newaxis]
    known = (np.ones(len(last)), level, level**2, np.sin(angle), np.cos(angle))
    return np.column_stack([*known, steps])


def _forms(values: Floats, series: Ints) -> Iterator[Floats]:
    """Yield a column as logarithm (where it has one) and as ranks, relative to its own link."""
    plain = _logs(values) if values.min() >= 0 else values
    if np.ptp(plain - cell_means(plain, series)) > _TINY:
        yield plain - cell_means(plain, series)
        yield ranks_within(values, series)
