"""The defects that validation finds: their codes, verdicts and messages.

``DEFECTS`` is the complete list; ``docs/data-contract.md`` is generated from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dwcp_ml.contract.columns import COLUMNS, Column, ColumnType
from dwcp_ml.contract.examples import GAP_FACTOR
from dwcp_ml.contract.records import Defect, DefectVerdict
from dwcp_ml.data.tally import Count, Tally, shown

DEFECTS: Final[dict[str, tuple[DefectVerdict, str]]] = {
    "no_file": ("error", "there is no such file"),
    "directory": ("error", "the path is a directory"),
    "not_a_file": ("error", "the path is a device or a pipe"),
    "empty_file": ("error", "the file is empty"),
    "binary": ("error", "neither CSV nor Parquet: compressed, UTF-16, a spreadsheet"),
    "not_utf8": ("error", "text of another encoding"),
    "unreadable": ("error", "broken or truncated Parquet, no permission"),
    "changed": ("error", "the file changed while it was read"),
    "duplicate_column": ("error", "a column of the contract twice in the header"),
    "partition_columns": ("error", "the partitions of a data set have different columns"),
    "missing_column": ("error", "a column that a chosen model needs is not there"),
    "truncated": ("error", "the last row of a CSV file was cut off"),
    "packet_loss_above_1": ("error", "the column holds percent: `--packet-loss-unit percent`"),
    "empty_column": ("error", "a needed column without a single value"),
    "consensus_disagreement": ("error", "peers of one node report different latencies at one time"),
    "too_many_invalid": ("error", "over 5 % of a needed column, or of the rows, is quarantined"),
    "too_many_links": ("error", "more nodes or links than a file may have (2 million)"),
    "too_few_rows": ("error", "fewer than two clean rows: no model can learn from them"),
    "empty_window": ("error", "no usable row in the data window"),
    "malformed_row": ("quarantine", "more or fewer cells than the header"),
    "missing": ("quarantine", "an empty cell, or NaN"),
    "not_finite": ("quarantine", "infinity"),
    "wrong_type": ("quarantine", "not a number, or a fraction where a whole number is required"),
    "out_of_range": ("quarantine", "outside the range of the contract"),
    "unknown_category": ("quarantine", "a word that the contract does not list"),
    "unparsable_timestamp": ("quarantine", "neither ISO 8601 nor epoch seconds"),
    "timestamp_too_early": ("quarantine", "before 2000: the clock of the node was never set"),
    "timestamp_in_future": ("quarantine", "over a day ahead of the clock, or after 2100"),
    "duplicate": (
        "quarantine",
        "(timestamp, node_id, peer_id) of an earlier row, which is kept; other cells may differ",
    ),
    "out_of_order": ("warning", "older than the row of its link before it; sorted afterwards"),
    "gap": (
        "warning",
        f"a step of over {GAP_FACTOR:g} (`--gap-factor`) usual steps of its link; no window "
        "crosses it",
    ),
    "constant_column": ("warning", "a needed column with one value in all rows"),
    "incomplete_labels": ("warning", "optional labels that can't be used; they are derived"),
    "unknown_column": ("warning", "columns that are not in the contract; they are ignored"),
    "no_incidents": ("warning", "no incident, or none that overlaps the data window"),
    "incident_unknown_node": ("warning", "incidents of nodes that are not in the telemetry"),
    "incident_outside_time": ("warning", "incidents before or after the telemetry"),
}
"""Code -> (verdict in a column that a model needs, meaning); in other columns a warning."""

CELL_DEFECTS: Final = (
    "missing",
    "not_finite",
    "wrong_type",
    "out_of_range",
    "unknown_category",
    "unparsable_timestamp",
    "timestamp_too_early",
    "timestamp_in_future",
)
"""The defects of single cells."""


@dataclass(frozen=True)
class Context:
    """The facts that the messages use.

    ``needed_by`` maps each needed column to the models that need it.
    """

    needed_by: Mapping[str, Sequence[str]]
    rows: int
    threshold: float

    @property
    def allowed(self) -> str:
        """The share that may be missing or invalid, in words."""
        return f"{100 * self.threshold:.3g} %"

    def who(self, column: str) -> str:
        """Return the models that need a column, as the end of a sentence."""
        models = self.needed_by.get(column, ())
        return f"{', '.join(models)} need{'s' if len(models) == 1 else ''}"


def defect(
    code: str,
    message: str,
    column: str | None = None,
    found: Count | None = None,
    verdict: DefectVerdict | None = None,
) -> Defect:
    """Return one defect, by default with the verdict that its code has."""
    count = found or Count(count=1)
    return Defect(
        code=code,
        column=column,
        count=count.count,
        examples=tuple(count.examples),
        verdict=verdict or DEFECTS[code][0],
        message=message,
    )


def missing_columns(context: Context, header: Sequence[str]) -> list[Defect]:
    """Return an error for each needed column that the file does not hold."""
    found = ", ".join(map(shown, header[:60])) or "nothing"
    return [
        defect(
            "missing_column",
            f"Column '{name}' is missing, which {context.who(name)}; the file holds: {found}.",
            name,
        )
        for name in context.needed_by
        if name not in header
    ]


def cell_defects(tally: Tally, context: Context) -> list[Defect]:
    """Return the defects of cells, and an error for each column that has too many of them."""
    result: list[Defect] = []
    for (code, column), found in tally.counts.items():
        if column is None or code not in (*CELL_DEFECTS, "packet_loss_above_1"):
            continue
        needed = column in context.needed_by
        message = _cell_message(code, COLUMNS[column], found)
        if needed and code in CELL_DEFECTS:
            message += " These rows are quarantined."
        result.append(defect(code, message, column, found, None if needed else "warning"))
    for column in context.needed_by:
        result += _too_many(tally, context, column)
    return result


def _too_many(tally: Tally, context: Context, column: str) -> list[Defect]:
    parts = {code: tally.of(code, column) for code in CELL_DEFECTS}
    count = sum(part.count for part in parts.values())
    if context.rows == 0 or count <= context.threshold * context.rows:
        return []
    if parts["missing"].count == context.rows:
        message = f"Column '{column}' holds no value at all, and {context.who(column)} it."
        return [defect("empty_column", message, column, parts["missing"])]
    examples = sorted({row for part in parts.values() for row in part.examples})[:5]
    listed = ", ".join(
        f"{part.count} {code.replace('_', ' ')}" for code, part in parts.items() if part.count
    )
    # A part's examples come in the order in which it was looked for; the sample is the first's.
    first = min((part for part in parts.values() if part.examples), key=lambda it: it.examples[0])
    shown = f"; the first is '{first.sample}' in row {first.examples[0]}" if first.sample else ""
    message = (
        f"{_percent(count, context.rows)} of column '{column}' is missing or invalid ({listed}"
        f"{shown}), and at most {context.allowed} may be: repair the data, or "
        f"leave out the models that need it."
    )
    return [defect("too_many_invalid", message, column, Count(count, examples))]


def too_many_rows(what: str, found: Count, context: Context, advice: str) -> list[Defect]:
    """Return an error when a defect of whole rows concerns more of them than allowed."""
    if found.count <= context.threshold * context.rows:
        return []
    message = (
        f"{_percent(found.count, context.rows)} of the rows {what}, first row "
        f"{found.examples[0]}, and at most {context.allowed} may: {advice}."
    )
    return [defect("too_many_invalid", message, None, found)]


def _percent(count: int, rows: int) -> str:
    return f"{100 * count / rows:.3g} %"


def _cell_message(code: str, column: Column, found: Count) -> str:
    name, count = column.name, found.count
    first = f"(first: '{found.sample}' in row {found.examples[0]})"
    values = f"{count} value{'' if count == 1 else 's'} of '{name}'"
    verb = "is" if count == 1 else "are"
    if code == "packet_loss_above_1":
        return (
            f"{values} exceed{'s' if count == 1 else ''} 1 {first}, but packet_loss is a fraction "
            "from 0 to 1: if the file holds percent, pass --packet-loss-unit percent."
        )
    if code == "timestamp_in_future" and _in_milliseconds(found.sample):
        return f"{values} {verb} in the far future {first}: give epoch seconds, not milliseconds."
    kinds = {ColumnType.INTEGER: "whole number", ColumnType.TIMESTAMP: "time"}
    ends = {
        "missing": f"{verb} missing (first in row {found.examples[0]}).",
        "not_finite": f"{verb} infinite {first}.",
        "wrong_type": f"{verb} no {kinds.get(column.kind, 'number')} {first}.",
        "out_of_range": f"{verb} out of range {first}: {range_of(column)}.",
        "unknown_category": f"{verb} unknown {first}: allowed are {', '.join(column.categories)}.",
        "unparsable_timestamp": f"can't be read {first}: give ISO 8601 or epoch seconds.",
        "timestamp_too_early": f"{verb} before the year 2000 {first}.",
        "timestamp_in_future": f"{verb} in the future {first}.",
    }
    return f"{values} {ends[code]}"


def _in_milliseconds(sample: str) -> bool:
    try:
        return float(sample) > 1e11
    except ValueError:
        return False


def range_of(column: Column) -> str:
    """Return the range of a column in words; empty for one without."""
    if column.codes:
        return ", ".join(f"{word} = {code}" for word, code in column.codes)
    if column.minimum is not None and column.maximum is not None:
        return f"{column.minimum:g} to {column.maximum:g}"
    if column.minimum is None:
        return ""
    return f"{'over' if column.exclusive_minimum else 'at least'} {column.minimum:g}"
