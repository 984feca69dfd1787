"""Counting defects while a file streams by: how many, the first few rows, one sample."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from dwcp_ml.contract.arrays import Ints

EXAMPLES: Final = 5
"""Row numbers that a defect lists."""

Key = tuple[str, str | None]
"""A code and the column it is in; ``None`` for the whole file."""


def shown(text: object, longest: int = 40) -> str:
    r"""Return untrusted text for a message: short, on one line, printable.

    >>> shown("a\nb\x1b[31m")
    'a b?[31m'
    """
    line = " ".join(str(text)[: 4 * longest].split())
    printable = "".join(letter if letter.isprintable() else "?" for letter in line)
    return printable if len(printable) <= longest else printable[: longest - 3] + "..."


@dataclass
class Count:
    """How often a defect occurs, its first rows, and the first bad value."""

    count: int = 0
    examples: list[int] = field(default_factory=list)
    sample: str = ""


@dataclass
class Tally:
    """The counts of all defects."""

    counts: dict[Key, Count] = field(default_factory=dict)

    def add(self, code: str, column: str | None, rows: Ints, sample: object = "") -> None:
        """Count rows (their numbers, ascending) that have a defect."""
        if len(rows) == 0:
            return
        entry = self.counts.setdefault((code, column), Count(sample=shown(sample)))
        entry.count += len(rows)
        missing = max(0, EXAMPLES - len(entry.examples))
        entry.examples.extend(int(row) for row in rows[:missing])

    def of(self, code: str, column: str | None = None) -> Count:
        """Return the count of a defect; an empty one if there is none."""
        return self.counts.get((code, column), Count())

    def absorb(self, key: Key, later: Count, offset: int) -> None:
        """Add the count of a later partition, whose rows are numbered after ``offset`` others."""
        entry = self.counts.setdefault(key, Count(sample=later.sample))
        entry.count += later.count
        missing = max(0, EXAMPLES - len(entry.examples))
        entry.examples.extend(row + offset for row in later.examples[:missing])
