"""One pass over a file: check it, count, and write the clean copy.

The first pass expects what most files are: typed cells, rows in the order of time, no duplicates.
Where the file differs, the pass ends with ``Replan``, which carries the plan of the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from dwcp_ml.contract.arrays import Floats, Ints, Mask
from dwcp_ml.contract.columns import COLUMNS
from dwcp_ml.contract.data_window import DataWindow
from dwcp_ml.contract.examples import GAP_FACTOR
from dwcp_ml.data.checks import CellChecks, Checked, Units
from dwcp_ml.data.ordering import (
    MAX_SERIES,
    Agreement,
    LatestTimes,
    LinkIndex,
    SeriesEnds,
    Steps,
    key_of,
)
from dwcp_ml.data.output import CleanWriter
from dwcp_ml.data.outside import Outside, split_batch
from dwcp_ml.data.source import Batch, Malformed, NotTyped, Progress, TelemetrySource, Unreadable
from dwcp_ml.data.spill import Spill, disagreements, duplicates_and_steps
from dwcp_ml.data.tally import EXAMPLES, Count, Tally
from dwcp_ml.storage.partitions import SkippedFiles

MAX_MALFORMED_ROWS = 100_000
"""Malformed rows that are kept in memory; a file with more is rejected."""


@dataclass(frozen=True)
class Plan:
    """The facts about a file that a pass relies on.

    A ``tolerant`` pass reads cells as text; one with ``spill`` writes the keys of rows that are not
    in the order of time to a temporary file. The last three are read back from it, and None before.
    """

    tolerant: bool = False
    spill: bool = False
    ignored: frozenset[str] = frozenset()
    duplicates: Ints | None = None
    steps: Steps | None = None
    disagreeing: Ints | None = None


class Replan(Exception):
    """The file differs from the plan; ``plan`` is the next one."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan


@dataclass(frozen=True)
class ScanTask:
    """The input of every pass.

    ``columns`` are those of the contract that the file holds, ``needed`` those that a chosen model
    needs, ``labels`` the optional ones among them. ``keep_ends`` keeps the first and the last
    time of each link and node, which the merge of partitions needs. Rows outside ``window`` are
    counted, and not used; ``None`` is no window. ``skipped`` are files of the data set that are not
    read because of it.
    """

    source: TelemetrySource
    columns: tuple[str, ...]
    needed: frozenset[str]
    labels: frozenset[str]
    units: Units
    latest: int
    workspace: Path
    write: bool
    gap_factor: float = GAP_FACTOR
    progress: Progress | None = None
    keep_ends: bool = False
    window: DataWindow | None = None
    skipped: SkippedFiles | None = None


@dataclass
class Pass:
    """The state of one pass, and its results; all but ``outside`` is about rows in the window."""

    task: ScanTask
    plan: Plan
    tally: Tally = field(default_factory=Tally)
    rows: int = 0
    quarantined: int = 0
    links: LinkIndex = field(default_factory=LinkIndex)
    observers: set[str] = field(default_factory=set)
    first: int | None = None
    last: int | None = None
    malformed: tuple[Malformed, ...] = ()
    outside: Outside = field(default_factory=Outside)

    def __post_init__(self) -> None:
        self.checks = CellChecks(
            self.task.columns,
            self.task.needed - self.plan.ignored,
            self.task.units,
            self.task.latest,
            self.tally,
        )
        self.steps = Steps(self.task.gap_factor)
        self._clock, self._agreement = LatestTimes(), Agreement()
        self.link_ends, self.node_ends = SeriesEnds(), SeriesEnds()
        self._spills: list[Spill] = []

    def run(self) -> Pass:
        """Read the whole file; ``Replan`` asks for another pass, ``Unreadable``: it is broken."""
        task, plan = self.task, self.plan
        writer = CleanWriter(task.workspace, task.columns) if task.write else None
        try:
            if plan.spill and plan.duplicates is None:
                self._spills = [Spill(task.workspace / name) for name in ("links", "nodes")]
            self._read(writer)
            if self._spills:
                self._replan_with_keys()
            self._replan_without_empty_labels()
        finally:
            for spill in self._spills:
                spill.close()
            if writer is not None:
                writer.close()
        return self

    def _read(self, writer: CleanWriter | None) -> None:
        task, plan = self.task, self.plan
        try:
            scan = task.source.scan(task.columns, tolerant=plan.tolerant, progress=task.progress)
            for raw in scan if task.window is None else self._in_window(scan, task.window):
                checked = self.checks.check(raw)
                self.rows += len(raw.row)
                self._across_rows(checked)
                self.quarantined += int(checked.bad.sum())
                if writer is not None:
                    writer.write(raw, checked)
                self._check_malformed()
        except NotTyped as error:
            raise Replan(replace(plan, tolerant=True)) from error
        self._check_malformed()
        self.malformed = tuple(task.source.malformed)
        if self.malformed:
            numbers = np.array([bad.row for bad in self.malformed])
            self.tally.add("malformed_row", None, numbers)
            self.rows += len(numbers)
            self.quarantined += len(numbers)
            if writer is not None:
                writer.write_malformed(self.malformed)

    def _in_window(self, scan: Iterator[Batch], window: DataWindow) -> Iterator[Batch]:
        for raw in scan:
            inside, outside = split_batch(raw, window)
            self.outside = self.outside.plus(outside)
            if inside is not None:
                yield inside
            self._check_malformed()

    def _check_malformed(self) -> None:
        malformed = self.task.source.malformed
        if len(malformed) > MAX_MALFORMED_ROWS:
            raise Unreadable(
                "too_many_invalid",
                f"Over {MAX_MALFORMED_ROWS} rows have more or fewer cells than the header, first "
                f"row {malformed[0].row}: check the separators and quotes.",
            )

    def _across_rows(self, checked: Checked) -> None:
        """Check the rows whose cells are good, and quarantine duplicates."""
        good = np.flatnonzero(~checked.bad)
        time, node, link = self._keys(checked, good)
        row = checked.row[good]
        late, duplicate = self._order(link, time, row)
        self.tally.add("out_of_order", None, row[late])
        self.tally.add("duplicate", None, row[duplicate])
        if duplicate.any():
            mask = np.zeros(len(checked.bad), np.bool_)
            mask[good[duplicate]] = True
            np.logical_or(checked.bad, mask, out=checked.bad)
            checked.reasons.append(("duplicate", mask))
        if self.task.keep_ends:
            self.link_ends.add(link, time, row)
            self.node_ends.add(node, time, row)
        if self.compares_peers:
            # A row that repeats one of the same peer is no other peer that disagrees.
            latency, single = np.asarray(checked.values["consensus_latency_ms"]), ~duplicate
            self._compare_peers(node[single], time[single], row[single], latency[good[single]])
        clean = time[~duplicate]
        if len(clean):
            low, high = int(clean.min()), int(clean.max())
            self.first = low if self.first is None else min(self.first, low)
            self.last = high if self.last is None else max(self.last, high)

    def _keys(self, checked: Checked, good: Ints) -> tuple[Ints, Ints, Ints]:
        """Return time, number of the node and number of the link of the good rows."""
        time = np.asarray(checked.values["timestamp"])[good]
        node, peer = checked.words("node_id"), checked.words("peer_id")
        self.observers.update(node.words)
        nodes, peers = self.links.nodes(node)[good], self.links.nodes(peer)[good]
        links = self.links.links(nodes, peers)
        self.check_links()
        return time, nodes, links

    def check_links(self) -> None:
        """Raise ``Unreadable`` if there are more nodes or links than a key can number."""
        if max(len(self.links.names), len(self.links)) > MAX_SERIES:
            raise Unreadable(
                "too_many_links",
                f"The file has over {MAX_SERIES:,} nodes or links: split it, and check that "
                "node_id and peer_id hold names of nodes.",
            )

    def _order(self, link: Ints, time: Ints, row: Ints) -> tuple[Mask, Mask]:
        """Return which rows are late, and which are duplicates."""
        before = self._clock.before(link, time)
        late = time < before
        if self.plan.duplicates is not None:
            duplicate = np.isin(row, self.plan.duplicates)
            return late & ~duplicate, duplicate
        if self.plan.spill:
            self._spills[0].append(key_of(link, time), row)
            return late, np.zeros(len(row), np.bool_)
        if late.any():
            raise Replan(replace(self.plan, spill=True))
        onward = (before >= 0) & (time > before)
        self.steps.add(link[onward], (time - before)[onward], row[onward])
        return late, time == before

    def _compare_peers(self, node: Ints, time: Ints, row: Ints, latency: Floats) -> None:
        if self.plan.disagreeing is not None:
            return
        if self.plan.spill:
            self._spills[1].append(key_of(node, time), row, latency)
            return
        late, disagrees = self._agreement.check(node, time, latency)
        if late.any():
            raise Replan(replace(self.plan, spill=True))
        self.tally.add("consensus_disagreement", "consensus_latency_ms", row[disagrees])

    def _replan_with_keys(self) -> None:
        """Read the keys back, and pass their results to the next pass."""
        links, nodes = self._spills
        duplicates, steps = duplicates_and_steps(links, self.task.gap_factor)
        disagreeing = disagreements(nodes, duplicates)
        known = replace(self.plan, duplicates=duplicates, steps=steps, disagreeing=disagreeing)
        if len(duplicates):
            raise Replan(known)
        self.plan = known

    def _replan_without_empty_labels(self) -> None:
        """Ignore label columns without a single value."""
        empty = {
            name
            for name in self.task.labels - self.plan.ignored
            if self.rows and self.tally.of("missing", name).count == self.rows
        }
        if empty:
            raise Replan(replace(self.plan, ignored=self.plan.ignored | empty))

    @property
    def compares_peers(self) -> bool:
        """Whether the peers of a node must report the same latency at the same time."""
        return "consensus_latency_ms" in self.checks.needed

    @property
    def rows_read(self) -> int:
        """The rows of the file, those outside the window as well: rows are numbered up to it."""
        return self.rows + self.outside.rows

    @property
    def known_steps(self) -> Steps:
        """The steps between rows of one link, from the keys if the file was not in order."""
        return self.plan.steps or self.steps

    def add_disagreements(self) -> None:
        """Count the rows that disagree, as far as the keys showed them."""
        if self.plan.disagreeing is not None:
            rows = self.plan.disagreeing
            self.tally.add("consensus_disagreement", "consensus_latency_ms", rows)

    def final_tally(self) -> Tally:
        """Return the tally, completed by the results from the keys."""
        self.add_disagreements()
        count, rows = self.known_steps.gaps()
        if count:
            self.tally.counts[("gap", None)] = Count(count, rows[:EXAMPLES].tolist())
        return self.tally


def scan_file(task: ScanTask, plan: Plan | None = None) -> Pass:
    """Scan a file, with one pass for most files and at most five."""
    current = plan or Plan()
    while True:
        try:
            return Pass(task, current).run()
        except Replan as known:
            current = known.plan


def present_columns(header: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of the contract that a file holds, in the order of the file."""
    return tuple(name for name in header if name in COLUMNS)
