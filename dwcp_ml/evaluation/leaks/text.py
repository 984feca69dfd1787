"""One sentence about each kind of leak, with its numbers."""

from __future__ import annotations

from dwcp_ml.contract.evaluation import Leak, LeakKind


def describe(leak: Leak) -> str:
    """Return what was measured, against which limit, and what to do about it."""
    side = "at least" if leak.statistic < leak.limit else "at most"
    values = f"{leak.statistic:.3g}, {side} {leak.limit:g} is expected"
    what = _WHAT[leak.kind].format(leak=leak, values=values)
    if leak.accepted:
        return what
    advice = _ADVICE.get(leak.kind, _REMOVE_COLUMN)
    return f"{what} {advice} {_ACCEPT.format(leak=leak)}"


_REMOVE_COLUMN = "Remove the column from the data."

_ADVICE = {
    LeakKind.ROW_ORDER: "Write the rows in the order of time.",
    LeakKind.SPLIT_COPY: "Remove the copies from the data.",
    LeakKind.QUARANTINE: "Correct what makes these rows invalid, so that they are kept.",
}

_ACCEPT = "Or pass --accept-leak {leak.column} if it is so wherever the model is served."

_WHAT = {
    LeakKind.FOREKNOWLEDGE: "Column {leak.column} knows the value that is {leak.steps_ahead} "
    "step(s) ahead of it, more than the present allows ({values}).",
    LeakKind.LABEL_COPY: "Column {leak.column} holds the label and noise, and nothing that lasts "
    "from one row to the next ({values}).",
    LeakKind.LABEL_THRESHOLD: "Column {leak.column} alone separates the labels, as if they were "
    "made from it ({values}).",
    LeakKind.NUMBER_FORMAT: "The digits of column {leak.column} tell the label ({values}).",
    LeakKind.ROW_NUMBER: "Column {leak.column} counts the rows ({values}).",
    LeakKind.ROW_ORDER: "The rows of the file are in the order of what is to be predicted "
    "({values}): row_order.",
    LeakKind.SPLIT_COPY: "Examples of the test split are copies of examples of the training split "
    "(share {values}): split.",
    LeakKind.QUARANTINE: "Which rows are quarantined depends on what is to be predicted "
    "({values}): quarantine.",
}
