"""False rollbacks and faults: our decision compared with Flagger, Argo Rollouts and Kayenta.

    python -m benchmarks.bench_decisions [--rollouts N] [--processes 2]

Every rule gets the same simulated environments with 100 requests a second: one seed gives the same
arrivals in every minute. Ours decides every 10 s (30 s where there is no fault), the others once a
minute, which is their interval. Prints tables in Markdown, and the progress on the error stream.
docs/decision-rules.md explains the tables and the other rules.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from benchmarks.rules.comparison import Cell, summary
from benchmarks.rules.rows import (
    OURS,
    SHAPES,
    STABLE_LOSS,
    TRUTH_SHARE,
    Row,
    equal_rows,
    fault_rows,
)
from dwcp_ml.rollout.simulation import simulate

SEED = 42

OTHERS_INTERVAL = 60.0
OUR_INTERVALS = {True: 10.0, False: 30.0}
"""Seconds, with and without a fault: a rollout without one takes ten times as many decisions."""


@dataclass
class Throughput:
    """Number and duration of the rollouts of each rule."""

    rollouts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, rule: str, rollouts: int, seconds: float) -> None:
        """Count more rollouts of a rule."""
        self.rollouts[rule] = self.rollouts.get(rule, 0) + rollouts
        self.seconds[rule] = self.seconds.get(rule, 0.0) + seconds

    def table(self) -> str:
        """Return a table of the rollouts a minute of every rule."""
        lines = ["| rule | rollouts | rollouts a minute |", "| --- | --- | --- |"]
        for rule, count in self.rollouts.items():
            lines.append(f"| {rule} | {count:,} | {60 * count / self.seconds[rule]:,.0f} |")
        return "\n".join(lines)


def measure(
    row: Row, rollouts: int, pool: ProcessPoolExecutor, throughput: Throughput
) -> list[Cell]:
    """Return the cells of a row, ours first."""
    cells = []
    for name, rule in row.rules().items():
        started = time.monotonic()
        reconcile_seconds = OTHERS_INTERVAL if name != OURS else OUR_INTERVALS[row.fault]
        outcomes = list(
            simulate(
                row.spec,
                row.traffic,
                rollouts,
                seed=SEED,
                reconcile_seconds=reconcile_seconds,
                rule=rule,
                pool=pool,
            )
        )
        cells.append(Cell.of(name, outcomes))
        seconds = time.monotonic() - started
        throughput.add(name, rollouts, seconds)
        sys.stderr.write(f"{row.name}, {name}: {cells[-1].interval}, {seconds:.0f} s\n")
    return cells


def partners(row: Row, equal: list[Row]) -> list[str]:
    """Return the rows without a fault that a fault's row is compared with."""
    return [other.name for other in equal if other.base == row.base and other.truth == row.truth]


def equal_table(measured: dict[str, list[Cell]]) -> str:
    """Return the table of false rollbacks."""
    lines = [
        "| base errors, load | rollouts | rule | rolled back (95 %) | undecided |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row, cells in measured.items():
        for place, cell in enumerate(cells):
            name = f"**{cell.rule}**" if not place else cell.rule
            where = f"{row} | {cell.caught.of:,}" if not place else " |"
            lines.append(f"| {where} | {name} | {cell.interval} | {cell.undecided or ''} |")
    return "\n".join(lines)


def fault_table(measured: dict[str, list[Cell]]) -> str:
    """Return the table of faults."""
    lines = [
        "| fault | rule | caught (95 %) | step, median % | caught at step % | delay, median "
        "| exposed, median | exposed, p90 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row, cells in measured.items():
        for place, cell in enumerate(cells):
            name = f"**{cell.rule}**" if not place else cell.rule
            lines.append(f"| {row if not place else ''} | {name} | {fault_cells(cell)} |")
    return "\n".join(lines)


def fault_cells(cell: Cell) -> str:
    """Return the columns of one rule at one fault; empty where nothing was caught."""
    if cell.seconds is None or cell.exposed is None or cell.exposed_p90 is None:
        return f"{cell.interval} | | | | |"
    places = ", ".join(f"{percent}: {count}" for percent, count in cell.places)
    return (
        f"{cell.interval} | {cell.step} | {places} | {cell.seconds / 60:.1f} min "
        f"| {cell.exposed:,.0f} | {cell.exposed_p90:,.0f}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rollouts", type=int, default=2000, help="a row without a fault")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    throughput, started = Throughput(), time.monotonic()
    rows, faults = equal_rows(), fault_rows()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, mp_context=context) as pool:
        equal = {
            row.name: measure(row, rollouts_of(row, options.rollouts), pool, throughput)
            for row in rows
        }
        caught = {
            row.name: measure(row, rollouts_of(row, options.rollouts), pool, throughput)
            for row in faults
        }
    print(report(rows, faults, equal, caught))
    print(f"\n## Time\n\n{(time.monotonic() - started) / 60:.1f} minutes in all, "
          f"{options.processes} processes.\n\n{throughput.table()}")  # fmt: skip


def rollouts_of(row: Row, rollouts: int) -> int:
    """Return how many rollouts a row gets: half for a fault, a quarter for hours of labels."""
    return max(1, rollouts // (2 if row.fault else 4 if row.truth else 1))


def report(
    rows: list[Row],
    faults: list[Row],
    equal: dict[str, list[Cell]],
    caught: dict[str, list[Cell]],
) -> str:
    """Return the summary and the tables."""
    alpha = rows[0].spec.analysis.alpha
    lines = summary(equal, caught, {row.name: partners(row, rows) for row in faults}, alpha)
    return "\n\n".join(
        [
            "## Summary",
            "\n".join(lines),
            "## The candidate is as good as the stable",
            f"{_counts(equal)} Loads: {', '.join(SHAPES)}. Every rollback is an error.",
            equal_table(equal),
            "## The candidate is worse",
            f"{_counts(caught)} Exposed: requests of the candidate of a caught rollout. "
            f"In the MAPE rows callers report the outcomes of {TRUTH_SHARE:.0%} of the predictions "
            f"two minutes later, ours is the test reported_loss (required), and the absolute "
            f"limit of the others is 1.5 times the stable's loss of {STABLE_LOSS:g}.",
            fault_table(caught),
        ]
    )


def _counts(measured: dict[str, list[Cell]]) -> str:
    sizes = sorted({cell.caught.of for cells in measured.values() for cell in cells})
    return f"{' or '.join(f'{size:,}' for size in sizes)} rollouts a row and rule."


if __name__ == "__main__":
    main()
