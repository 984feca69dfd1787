"""All searches for leaks in the data of one model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from pydantic import Field

from dwcp_ml.contract.evaluation import Leak
from dwcp_ml.contract.examples import ModelData
from dwcp_ml.contract.models import BANDWIDTH, RELIABILITY
from dwcp_ml.contract.record import Record
from dwcp_ml.evaluation.leaks import foreknowledge, labels, rows
from dwcp_ml.evaluation.leaks.table import MIN_ROWS, LeakRows, Lost


@dataclass(frozen=True)
class LeakData:
    """What is searched for leaks.

    Parameters
    ----------
    data
        The examples of the model in its default form.
    rows
        The rows that they are made of.
    lost
        The labels of the quarantined rows; ``None`` without any.
    labelled
        The labels were given, and not derived from the inputs by a rule of ours.
    """

    data: ModelData
    rows: LeakRows
    lost: Lost | None
    labelled: bool


class NotSearched(StrEnum):
    """Why the data of a model were not searched for leaks."""

    NO_EXAMPLES = "NoExamples"
    TOO_FEW_ROWS = "TooFewRows"


class LeakSearch(Record):
    """What a search found in the data of one model, or why there was none."""

    leaks: tuple[Leak, ...] = ()
    not_searched: NotSearched | None = Field(
        default=None, description="why the data were not searched; null if they were"
    )
    message: str = Field(default="", description="the same as a sentence for people")

    @property
    def searched(self) -> bool:
        """Whether the data were searched: without that, no leaks means nothing."""
        return self.not_searched is None


def search(given: LeakData, accepted: Collection[str] = ()) -> LeakSearch:
    """Return the leaks of ``find_leaks``, or that the rows are too few to search."""
    if len(given.rows) < MIN_ROWS:
        message = f"Not searched: {len(given.rows):,} rows, and at least {MIN_ROWS:,} are needed."
        return LeakSearch(not_searched=NotSearched.TOO_FEW_ROWS, message=message)
    return LeakSearch(leaks=find_leaks(given, accepted))


def find_leaks(given: LeakData, accepted: Collection[str] = ()) -> tuple[Leak, ...]:
    """Return every sign that the data hold what the model has to predict; none of few rows.

    Parameters
    ----------
    accepted
        Columns (or ``row_order``, ``split``, ``quarantine``) whose leaks are known to the user.
    """
    spec = given.data.spec
    if len(given.rows) < MIN_ROWS:
        return ()
    found = [
        *rows.split_copies(given.data),
        *rows.quarantine(given.lost),
        *rows.row_numbers(given.rows),
    ]
    if given.labelled:
        found += [*rows.row_order(given.rows), *labels.format_leaks(given.rows)]
        if given.rows.classes:
            found += labels.label_leaks(given.rows, symptoms=spec == RELIABILITY)
    if spec == BANDWIDTH:
        found += foreknowledge.throughput_leaks(given.data)
    return tuple(leak.replace(accepted=leak.column in accepted) for leak in found)
