"""The first table of a report: what became of the rows of the telemetry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dwcp_ml.contract.data_use import DataUse, LeftOut, LossCause
from dwcp_ml.contract.records import ModelReport
from dwcp_ml.evaluation.report.tables import EMPTY, Table

HEADER = ("model", "rows", "rows used", "examples", "rows lost", "lost to", "trained on")


def data_use(reports: Iterable[ModelReport]) -> Table | None:
    """Return rows in, rows used, examples and losses of each model; None where none is known."""
    known = [(report.model_name, report.training.data_use) for report in reports]
    rows = tuple(_row(name, use) for name, use in known if use is not None)
    if not rows:
        return None
    caption = "A row is lost where no example ends: the metrics say nothing about it."
    return Table(HEADER, rows, caption)


def data_warnings(reports: Iterable[ModelReport]) -> tuple[str, ...]:
    """Return what is doubtful about the data of each model, in words."""
    uses = (report.training.data_use for report in reports)
    return tuple(warning.message for use in uses if use is not None for warning in use.warnings)


def _row(name: str, use: DataUse) -> tuple[str, ...]:
    merged = f" ({use.merged_rows:,} merged with a peer's)" if use.merged_rows else ""
    trained = EMPTY
    if use.trained_examples is not None:
        trained = f"{use.trained_examples:,}"
        if use.streamed_examples is not None:
            trained += f" of {use.streamed_examples:,} in a stream of all rows"
        trained += f"; not on {_counts(use.left_out)}" if any(use.left_out.values()) else ""
    return (
        name,
        f"{use.rows:,}{merged}",
        f"{use.rows_used:,}",
        f"{use.examples:,}",
        f"{100 * use.share_lost:.3g} %",
        _counts(use.lost) or EMPTY,
        trained,
    )


def _counts(counts: Mapping[LossCause, int] | Mapping[LeftOut, int]) -> str:
    return ", ".join(f"{count:,} {cause.words}" for cause, count in counts.items() if count)
