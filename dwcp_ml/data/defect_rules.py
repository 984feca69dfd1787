"""Turn the counts of a scan into defects with verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from dwcp_ml.contract.columns import COLUMNS
from dwcp_ml.contract.data_window import utc_time
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.contract.records import Defect
from dwcp_ml.data.convert import MILLISECONDS
from dwcp_ml.data.defects import Context, cell_defects, defect, too_many_rows
from dwcp_ml.data.incidents import Incident
from dwcp_ml.data.scanning import Pass
from dwcp_ml.data.source import TelemetrySource
from dwcp_ml.data.tally import Count, shown


def find_defects(
    scan: Pass, context: Context, specs: Sequence[ModelSpec], incidents: Sequence[Incident] | None
) -> list[Defect]:
    """Return all defects of a file, the most important first."""
    source = scan.task.source
    ignored = scan.plan.ignored
    kept = {name: who for name, who in context.needed_by.items() if name not in ignored}
    context = replace(context, needed_by=kept)
    defects = cell_defects(scan.final_tally(), context)
    defects += _row_defects(source, scan, context)
    defects += _order_defects(scan) + _constant_columns(scan)
    defects += _label_warnings(specs, source, scan) + _unknown_columns(source)
    if incidents is not None:
        defects += _incident_defects(scan, incidents)
    return sorted(defects, key=_weight)


_RANKS: Final = {
    "missing_column": -4,
    "packet_loss_above_1": -3,
    "truncated": -2,
    "empty_column": -1,
    "empty_window": -1,
    "too_few_rows": 1,  # the defects that left too few rows explain more
}


def _weight(found_defect: Defect) -> tuple[int, int, int, str, str]:
    """Order by verdict, then by how much a defect explains, by number of rows, by name."""
    verdict = ("error", "quarantine", "warning").index(found_defect.verdict)
    rank = _RANKS.get(found_defect.code, 0)
    return verdict, rank, -found_defect.count, found_defect.code, found_defect.column or ""


def _row_defects(source: TelemetrySource, scan: Pass, context: Context) -> list[Defect]:
    tally, defects = scan.tally, []
    malformed, duplicate = tally.of("malformed_row"), tally.of("duplicate")
    if scan.malformed and _cut_off(source, scan):
        last = scan.malformed[-1].row
        message = f"{source.label} ends in the middle of row {last}: copy or export it again."
        defects.append(defect("truncated", message, None, Count(1, [last])))
    if malformed.count:
        message = (
            f"{malformed.count} rows have more or fewer cells than the header, the first is row "
            f"{malformed.examples[0]}. These rows are quarantined."
        )
        defects.append(defect("malformed_row", message, None, malformed))
        what, advice = "have more or fewer cells than the header", "check the separators and quotes"
        defects += too_many_rows(what, malformed, context, advice)
    if duplicate.count:
        message = (
            f"{duplicate.count} rows repeat (timestamp, node_id, peer_id) of an earlier row, the "
            f"first is row {duplicate.examples[0]}. The earlier rows are kept, these are "
            "quarantined, whatever their other cells hold."
        )
        defects.append(defect("duplicate", message, None, duplicate))
        what = "repeat the (timestamp, node_id, peer_id) of an earlier one"
        defects += too_many_rows(what, duplicate, context, "remove the repeated ones")
    clean = scan.rows - scan.quarantined
    if clean == 0 and scan.outside.rows:
        defects.append(_empty_window(source, scan))
    elif clean < 2:
        message = f"{source.label} has {clean} usable rows of {scan.rows}: at least two are needed."
        if scan.rows == 1 and clean == 1:
            message = f"{source.label} has one row: no model can learn from it; provide more rows."
        elif scan.rows == 0:
            message = f"{source.label} has a header and no rows: provide telemetry rows."
        defects.append(defect("too_few_rows", message, None, Count(clean, [])))
    return defects


def _empty_window(source: TelemetrySource, scan: Pass) -> Defect:
    outside, skipped = scan.outside, scan.task.skipped
    times = "no time between 2000 and 2100"
    if outside.first is not None and outside.last is not None:
        times = f"times from {utc_time(outside.first)} to {utc_time(outside.last)}"
    message = (
        f"{source.label} has no usable row in the data window, {scan.task.window}: the others have "
        f"{times}{'' if skipped is None else f', and {skipped}'}; choose another window."
    )
    return defect("empty_window", message, None, Count(0, []))


def _cut_off(source: TelemetrySource, scan: Pass) -> bool:
    """Return whether the last row lacks cells and the end of its line."""
    last = scan.malformed[-1]
    at_the_end = last.row >= scan.rows_read and not source.ends_with_newline
    return at_the_end and last.cells < len(source.header)


def _order_defects(scan: Pass) -> list[Defect]:
    tally, defects = scan.tally, []
    column = "consensus_latency_ms"
    disagreement = tally.of("consensus_disagreement", column)
    if disagreement.count:
        message = (
            f"{disagreement.count} rows report another {column} than an earlier row of another "
            f"peer of the same node and time, the first is row {disagreement.examples[0]}: the "
            "latency belongs to the node, so make its peers agree."
        )
        defects.append(defect("consensus_disagreement", message, column, disagreement))
    late = tally.of("out_of_order")
    if late.count:
        message = f"{late.count} rows are older than a row of their link before them: sorted."
        defects.append(defect("out_of_order", message, None, late))
    gap = tally.of("gap")
    if gap.count:
        message = (
            f"{gap.count} steps between rows of a link exceed {scan.task.gap_factor:g} times the "
            f"usual step of the link ({scan.known_steps.cadence():g} s over all links); no window "
            "crosses them."
        )
        defects.append(defect("gap", message, None, gap))
    return defects


def _constant_columns(scan: Pass) -> list[Defect]:
    # The gain of level 0 over itself is 0 by definition.
    names = [name for name in scan.checks.constant() if name != "throughput_gain_0"]
    message = "Column '{}' has the same value in every row: no model can learn from it."
    return [
        defect("constant_column", message.format(name), name, Count(scan.rows, []))
        for name in names
        if scan.rows > 1
    ]


def _label_warnings(
    specs: Sequence[ModelSpec], source: TelemetrySource, scan: Pass
) -> list[Defect]:
    defects = []
    for spec in specs:
        present = [name for name in spec.labels if name in source.header]
        usable = [name for name in present if name not in scan.plan.ignored]
        if present and len(usable) < len(spec.labels):
            absent = [name for name in spec.labels if name not in usable]
            message = (
                f"{spec.name} can't use its labels: {', '.join(absent)} "
                "are missing or empty. Labels are derived instead."
            )
            defects.append(defect("incomplete_labels", message, None, Count(len(absent), [])))
    return defects


def _unknown_columns(source: TelemetrySource) -> list[Defect]:
    unknown = [name for name in source.header if name not in COLUMNS]
    if not unknown:
        return []
    listed = ", ".join(map(shown, unknown[:10])) + (", ..." if len(unknown) > 10 else "")
    message = f"{len(unknown)} columns are not in the contract and are ignored: {listed}."
    return [defect("unknown_column", message, None, Count(len(unknown), []))]


def _incident_defects(scan: Pass, incidents: Sequence[Incident]) -> list[Defect]:
    if not incidents:
        none = "The list of incidents is empty"
        if scan.task.window is not None:
            none = "No incident overlaps the data window"
        message = f"{none}: the reliability model can't be evaluated."
        return [defect("no_incidents", message, None, Count(0, []))]
    defects = []
    unknown = [k for k, item in enumerate(incidents, 1) if item.node_id not in scan.observers]
    if unknown:
        first = incidents[unknown[0] - 1].node_id
        message = (
            f"{len(unknown)} of {len(incidents)} incidents name nodes that are not in the "
            f"telemetry (first: '{shown(first)}'); they label nothing."
        )
        count = Count(len(unknown), unknown[:5])
        defects.append(defect("incident_unknown_node", message, None, count))
    low, high = (time / MILLISECONDS for time in (scan.first or 0, scan.last or 0))
    bounds = [item.interval(0.0) for item in incidents]
    outside = [k for k, (start, end) in enumerate(bounds, 1) if end < low or start > high]
    if outside:
        message = (
            f"{len(outside)} of {len(incidents)} incidents lie before or after the telemetry; "
            "they label nothing."
        )
        count = Count(len(outside), outside[:5])
        defects.append(defect("incident_outside_time", message, None, count))
    return defects
