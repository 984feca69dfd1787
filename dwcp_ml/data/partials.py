"""The scan of one partition of a data set as a record, and the merge of such records.

Merged in their order, they give what one pass over all rows gives: the same counts, steps, gaps and
verdicts, and the same row numbers in the examples. Only the examples of gaps may be others, because
a scan keeps a limited number of candidates. Two things can't be merged, and are ``NotMergeable``:

- partitions in which a node or link has a row that is not newer than all of its rows in the
  partitions before, because then a duplicate, a late row or a peer that disagrees may span them;
- a label column that is empty in some partitions only, because it is ignored only if it is empty in
  all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

import numpy as np
from pydantic import ConfigDict

from dwcp_ml.contract.arrays import Ints
from dwcp_ml.contract.data_window import DataWindow
from dwcp_ml.contract.record import Record
from dwcp_ml.data.ordering import SeriesEnds
from dwcp_ml.data.outside import Outside
from dwcp_ml.data.scanning import Pass, Plan, ScanTask
from dwcp_ml.data.tally import Count
from dwcp_ml.data.versioning import FileVersion
from dwcp_ml.files import write_text

PARTIAL_NAME: Final = "partial.json"


class MergeObstacle(StrEnum):
    """Why the scans of partitions can't be merged."""

    OVERLAP = "overlap"
    LABELS = "labels"
    SETTINGS = "settings"


class NotMergeable(Exception):
    """The scans of two partitions can't be merged; ``partition`` is the later one."""

    def __init__(self, obstacle: MergeObstacle, partition: str, series: str = "") -> None:
        super().__init__()
        self.obstacle, self.partition, self.series = obstacle, partition, series


class ScanSettings(Record):
    """What a scan was told; only scans with the same settings are merged."""

    needed: tuple[str, ...]
    packet_loss_unit: str
    congestion_window_unit: str
    latest: int
    gap_factor: float
    window: DataWindow | None

    @classmethod
    def of(cls, task: ScanTask) -> Self:
        """Return the settings of a task."""
        return cls(
            needed=tuple(sorted(task.needed)),
            packet_loss_unit=task.units.packet_loss,
            congestion_window_unit=task.units.congestion_window,
            latest=task.latest,
            gap_factor=task.gap_factor,
            window=task.window,
        )


class PartialCount(Record):
    """How often a defect occurs in a partition; its rows are numbered from 1."""

    code: str
    column: str | None
    count: int
    examples: tuple[int, ...]
    sample: str


class PartialEnds(Record):
    """The first and the last time of each series, milliseconds, and the row of the first."""

    series: tuple[int, ...]
    first: tuple[int, ...]
    first_row: tuple[int, ...]
    last: tuple[int, ...]

    @classmethod
    def of(cls, ends: SeriesEnds) -> Self:
        """Return the ends of the series that have rows."""
        series = ends.present()
        columns = (series, ends.first[series], ends.row[series], ends.last[series])
        names = ("series", "first", "first_row", "last")
        return cls(**{name: _numbers(column) for name, column in zip(names, columns, strict=True)})


class PartialSteps(Record):
    """How often each step between rows of a link occurs, and candidates of gaps."""

    link: tuple[int, ...]
    milliseconds: tuple[int, ...]
    count: tuple[int, ...]
    candidates: tuple[tuple[int, int, int], ...]


class PartialReport(Record):
    """The scan of one partition: all that its merge with the other partitions needs.

    Nodes and links are numbered by their places in ``nodes`` and ``link_node``, ``link_peer``.
    """

    # The range of a column includes infinity where a cell holds it, which JSON has no number for.
    model_config = ConfigDict(ser_json_inf_nan="strings")

    name: str
    md5: str
    size_bytes: int
    settings: ScanSettings
    header: tuple[str, ...]
    ignored: tuple[str, ...]
    rows: int
    rows_quarantined: int
    outside: Outside
    nodes: tuple[str, ...]
    observers: tuple[str, ...]
    link_node: tuple[int, ...]
    link_peer: tuple[int, ...]
    link_ends: PartialEnds
    node_ends: PartialEnds
    steps: PartialSteps
    counts: tuple[PartialCount, ...]
    lowest: dict[str, float]
    highest: dict[str, float]
    distinct: dict[str, tuple[str, ...]]
    first: int | None
    last: int | None

    @property
    def version(self) -> FileVersion:
        """The md5 and size of the file."""
        return FileVersion(self.md5, self.size_bytes)


@dataclass(frozen=True)
class StoredPartial:
    """A partial report in ``partial.json`` of a directory, and what is needed before the merge.

    The arrays of a report are read one partition at a time: those of thousands of partitions with
    thousands of links would fill the memory.
    """

    directory: Path
    name: str
    version: FileVersion
    header: tuple[str, ...]
    ignored: tuple[str, ...]
    rows: int
    rows_read: int

    @classmethod
    def of(cls, directory: Path, report: PartialReport) -> Self:
        """Return the report of a directory, without its arrays."""
        return cls(
            directory,
            report.name,
            report.version,
            report.header,
            report.ignored,
            report.rows,
            report.rows + report.outside.rows,
        )

    @classmethod
    def write(cls, directory: Path, report: PartialReport) -> Self:
        """Write a report to a directory."""
        write_text(directory / PARTIAL_NAME, report.to_json())
        return cls.of(directory, report)

    @classmethod
    def find(cls, directory: Path) -> Self:
        """Return the report in a directory; ``DwcpError`` if there is none."""
        return cls.of(directory, PartialReport.read(directory / PARTIAL_NAME))

    def read(self) -> PartialReport:
        """Return the whole report."""
        return PartialReport.read(self.directory / PARTIAL_NAME)


def partial_report(scan: Pass, name: str, version: FileVersion) -> PartialReport:
    """Return the record of a finished scan, whose task had ``keep_ends``."""
    scan.add_disagreements()
    node, peer = scan.links.pairs()
    link, step, count = scan.known_steps.counted()
    return PartialReport(
        name=name,
        md5=version.md5,
        size_bytes=version.size_bytes,
        settings=ScanSettings.of(scan.task),
        header=scan.task.source.header,
        ignored=tuple(sorted(scan.plan.ignored)),
        rows=scan.rows,
        rows_quarantined=scan.quarantined,
        outside=scan.outside,
        nodes=tuple(scan.links.names),
        observers=tuple(sorted(scan.observers)),
        link_node=_numbers(node),
        link_peer=_numbers(peer),
        link_ends=PartialEnds.of(scan.link_ends),
        node_ends=PartialEnds.of(scan.node_ends),
        steps=PartialSteps(
            link=_numbers(link),
            milliseconds=_numbers(step),
            count=_numbers(count),
            candidates=scan.known_steps.candidates,
        ),
        counts=tuple(
            PartialCount(
                code=code,
                column=column,
                count=found.count,
                examples=tuple(found.examples),
                sample=found.sample,
            )
            for (code, column), found in scan.tally.counts.items()
        ),
        lowest=scan.checks.lowest,
        highest=scan.checks.highest,
        distinct={name: tuple(sorted(seen)) for name, seen in scan.checks.distinct.items()},
        first=scan.first,
        last=scan.last,
    )


def merged_scan(task: ScanTask, partials: Sequence[StoredPartial]) -> Pass:
    """Return the scan of all partitions, as one pass over their rows in this order leaves it.

    Raises
    ------
    NotMergeable
        If the records do not suffice.
    Unreadable
        If there are too many nodes or links.
    """
    settings = ScanSettings.of(task)
    ignored = next((set(part.ignored) for part in partials if part.rows), set[str]())
    scan = Pass(task, Plan(ignored=frozenset(ignored)))
    for stored in partials:
        part = stored.read()
        if part.settings != settings:
            raise NotMergeable(MergeObstacle.SETTINGS, part.name)
        if part.rows and set(part.ignored) != ignored:
            raise NotMergeable(MergeObstacle.LABELS, part.name)
        _absorb(scan, part)
    return scan


def _absorb(scan: Pass, part: PartialReport) -> None:
    """Add the rows of the next partition to a scan."""
    names, offset = scan.links.names, scan.rows_read
    node = np.array([names.setdefault(name, len(names)) for name in part.nodes], np.int64)
    link = scan.links.links(node[list(part.link_node)], node[list(part.link_peer)])
    scan.check_links()
    _join(scan, part, node, link)
    counted = (
        link[list(part.steps.link)],
        _array(part.steps.milliseconds),
        _array(part.steps.count),
    )
    scan.steps.absorb(
        counted, ((row + offset, int(link[of]), ms) for row, of, ms in part.steps.candidates)
    )
    for found in part.counts:
        count = Count(found.count, list(found.examples), found.sample)
        scan.tally.absorb((found.code, found.column), count, offset)
    for name, low in part.lowest.items():
        scan.checks.lowest[name] = min(low, scan.checks.lowest.get(name, np.inf))
        scan.checks.highest[name] = max(part.highest[name], scan.checks.highest.get(name, -np.inf))
    for name, seen in part.distinct.items():
        scan.checks.distinct.setdefault(name, set()).update(seen)
    scan.observers.update(part.observers)
    scan.rows += part.rows
    scan.quarantined += part.rows_quarantined
    scan.outside = scan.outside.plus(part.outside)
    if part.first is not None and part.last is not None:
        scan.first = part.first if scan.first is None else min(scan.first, part.first)
        scan.last = part.last if scan.last is None else max(scan.last, part.last)


def _join(scan: Pass, part: PartialReport, node: Ints, link: Ints) -> None:
    """Check that the next partition begins after the last one, and count the steps between."""
    if scan.compares_peers:
        _add_ends(scan.node_ends, part, part.node_ends, node, scan)
    codes, first, row, before = _add_ends(scan.link_ends, part, part.link_ends, link, scan)
    known = before >= 0
    scan.steps.add(codes[known], (first - before)[known], row[known])


def _add_ends(
    ends: SeriesEnds, part: PartialReport, later: PartialEnds, numbers: Ints, scan: Pass
) -> tuple[Ints, Ints, Ints, Ints]:
    """Return the series of a partition, their first times, the rows of these, the times before."""
    if not later.series:
        none = np.empty(0, np.int64)
        return none, none, none, none
    codes, first = numbers[list(later.series)], _array(later.first)
    row = _array(later.first_row) + scan.rows_read
    ends.reserve(int(codes.max()))
    before = ends.last[codes].copy()
    if (first <= before).any():
        place = later.series[int(np.argmax(first <= before))]
        is_node = ends is scan.node_ends
        source = place if is_node else part.link_node[place]
        name = part.nodes[source]
        series = name if is_node else f"{name}->{part.nodes[part.link_peer[place]]}"
        raise NotMergeable(MergeObstacle.OVERLAP, part.name, series)
    ends.add(codes, first, row)
    ends.last[codes] = _array(later.last)
    return codes, first, row, before


def _numbers(values: Ints) -> tuple[int, ...]:
    return tuple(values.tolist())


def _array(values: Sequence[int]) -> Ints:
    return np.array(values, np.int64)
