"""Medians, spreads and ratios of several rounds, as a table."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Case:
    """What is measured in every round, of every arm.

    Parameters
    ----------
    what
        The protocol, or ``server``.
    load
        ``closed, 64`` and the like; empty where there is none.
    figure
        Name and unit.
    """

    what: str
    load: str
    figure: str


@dataclass(frozen=True)
class Spread:
    """A median with the least and the largest value."""

    median: float
    least: float
    largest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return that of some values.

        >>> Spread.of([3.0, 1.0, 2.0])
        Spread(median=2.0, least=1.0, largest=3.0)
        """
        return cls(statistics.median(values), min(values), max(values))

    def text(self) -> str:
        """Return it as a cell; of a single round there is no spread to show.

        >>> Spread(1234.56, 0.01234, 1e5).text(), Spread(2.0, 2.0, 2.0).text()
        ('1,235 (0.0123–100,000)', '2')
        """
        if self.least == self.largest:
            return number(self.median)
        return f"{number(self.median)} ({number(self.least)}–{number(self.largest)})"


def number(value: float) -> str:
    """Return three digits, or all of those before the point.

    >>> number(0.08261), number(8.261), number(8261.4), number(0)
    ('0.0826', '8.26', '8,261', '0')
    """
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def ratios(these: Sequence[float], others: Sequence[float]) -> Spread | None:
    """Return this arm's values divided by the other's of the same round.

    A ratio of one round leaves out what changes on the machine between rounds. ``None`` if the
    other one had nothing in any round.

    >>> ratios([1.0, 3.0, 8.0], [2.0, 3.0, 4.0])
    Spread(median=1.0, least=0.5, largest=2.0)
    """
    pairs = [(this, other) for this, other in zip(these, others, strict=True) if other]
    return Spread.of([this / other for this, other in pairs]) if pairs else None


class Rounds:
    """Values of each case and arm, one a round."""

    def __init__(self, arms: Sequence[str]) -> None:
        self._arms = tuple(arms)
        self._values: dict[Case, dict[str, list[float]]] = {}

    def add(self, arm: str, case: Case, value: float) -> None:
        by_arm = self._values.setdefault(case, {name: [] for name in self._arms})
        by_arm[arm].append(value)

    def median(self, arm: str, case: Case) -> float:
        return statistics.median(self._values[case][arm])

    def table(self) -> Iterator[str]:
        """Yield the lines of a Markdown table, in the order in which the cases came first."""
        compared = len(self._arms) == 2
        titles = ["server", "load", "figure", *self._arms]
        titles += [f"{' / '.join(self._arms)}"] if compared else []
        yield f"| {' | '.join(titles)} |"
        yield f"|{' --- |' * len(titles)}"
        for case, by_arm in self._values.items():
            cells = [case.what, case.load, case.figure]
            cells += [Spread.of(by_arm[arm]).text() for arm in self._arms]
            if compared:
                ratio = ratios(*(by_arm[arm] for arm in self._arms))
                cells.append(ratio.text() if ratio else "–")
            yield f"| {' | '.join(cells)} |"


def order_of(arms: Sequence[str], turn: int) -> list[str]:
    """Return the arms in the order of a turn: whoever came last comes first in the next one.

    >>> order_of(["a", "b"], 0), order_of(["a", "b"], 1)
    (['a', 'b'], ['b', 'a'])
    """
    return list(arms) if turn % 2 == 0 else list(reversed(arms))
