"""All searches for leaks in the data of one model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from dwcp_ml.contract.examples import ModelData
from dwcp_ml.contract.models import BANDWIDTH, RELIABILITY
from dwcp_ml.contract.records import Leak
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


def find_leaks(given: LeakData, accepted: Collection[str] = ()) -> tuple[Leak, ...]:
    """Return every sign that the data hold what the model has to predict.

    Parameters
    ----------
    accepted
        Columns (or ``row_order``, ``split``, ``quarantine``) whose leaks are known to the user.
    """
    spec = given.data.spec
    found = [*rows.split_copies(given.data), *rows.quarantine(given.lost)]
    if len(given.rows) >= MIN_ROWS:
        found += rows.row_numbers(given.rows)
        if given.labelled:
            found += [*rows.row_order(given.rows), *labels.format_leaks(given.rows)]
            if given.rows.classes:
                found += labels.label_leaks(given.rows, symptoms=spec == RELIABILITY)
    if spec == BANDWIDTH:
        found += foreknowledge.throughput_leaks(given.data)
    return tuple(leak.replace(accepted=leak.column in accepted) for leak in found)
