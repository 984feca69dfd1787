"""The operator with a thousand rollouts at once: reconciliations, writes, processor time, memory.

On a real API server. KServe's status is simulated for the thousand, and fifty run with KServe's own
controller. The operator is a process of its own, with the rights of manifests/base.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.cluster.build import build
from tests.cluster.operator.scale import Measured, measure
from tests.cluster.own import KwokCluster


def main() -> None:
    """Measure both, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--many", type=int, default=1000, help="with KServe simulated (%(default)s)"
    )
    parser.add_argument("--few", type=int, default=50, help="with KServe's own (%(default)s)")
    given = parser.parse_args()
    built = build()
    rows = []
    for number, real in ((given.few, True), (given.many, False)):
        if not number:
            continue
        cluster = KwokCluster(built)
        try:
            with tempfile.TemporaryDirectory() as directory:
                rows.append((real, measure(cluster, Path(directory), number, real=real)))
        finally:
            cluster.end()
    print("\n".join(lines(rows)))


def lines(rows: list[tuple[bool, Measured]]) -> list[str]:
    """Return the table, one column for each run."""
    runs = [run for _, run in rows]
    head = [f"{run.rollouts:,}, KServe {'real' if real else 'simulated'}" for real, run in rows]
    table = {
        "promoted, rolled back (one in ten is bad at 25 %)":
            [f"{run.promoted:,}, {run.rolled_back:,}" for run in runs],
        "from the first object to the last end": [f"{run.seconds:.0f} s" for run in runs],
        "reconciliations of a ModelRollout": [f"{run.reconciliations:,}" for run in runs],
        "99 % of them took no longer than": [f"{run.p99_below():g} s" for run in runs],
        "took no longer than 1 s":
            [f"{100 * run.below[1.0] / run.reconciliations:.2f} %" for run in runs],
        "writes of a rollout, mean and most (2 x (steps + 2) + 1 = 15)":
            [f"{run.writes[0]:.1f}, {run.writes[1]}" for run in runs],
        "processor time of a rollout":
            [f"{1000 * run.cpu_seconds / run.rollouts:.0f} ms" for run in runs],
        "processor, when all have ended (of one core)":
            [f"{run.idle_cpu_percent:.1f} %" for run in runs],
        "memory at most": [f"{run.peak_mebibytes:.0f} MiB" for run in runs],
    }  # fmt: skip
    return [
        f"| | {' | '.join(head)} |",
        "| --- " * (len(head) + 1) + "|",
        *(f"| {what} | {' | '.join(values)} |" for what, values in table.items()),
    ]


if __name__ == "__main__":
    main()
