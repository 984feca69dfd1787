"""The operator with a thousand rollouts at once: looks, writes, processor time, memory.

On a real API server. KServe's status is played for the thousand, and fifty run with KServe's own
controller. The operator is a process of its own, with the rights of manifests/base.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.cluster.build import build
from tests.cluster.operator.scale import Measured, measure
from tests.cluster.own import PlayedCluster


def main() -> None:
    """Measure both, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--many", type=int, default=1000, help="with KServe played (%(default)s)")
    parser.add_argument("--few", type=int, default=50, help="with KServe's own (%(default)s)")
    given = parser.parse_args()
    built = build()
    rows = []
    for number, real in ((given.few, True), (given.many, False)):
        if not number:
            continue
        cluster = PlayedCluster(built)
        try:
            with tempfile.TemporaryDirectory() as directory:
                rows.append((real, measure(cluster, Path(directory), number, real=real)))
        finally:
            cluster.end()
    print("\n".join(lines(rows)))


def lines(rows: list[tuple[bool, Measured]]) -> list[str]:
    """Return the table, one column for each run."""
    found = [one for _, one in rows]
    head = [f"{one.rollouts:,}, KServe {'real' if real else 'played'}" for real, one in rows]
    table = {
        "promoted, taken back (one in ten is bad at 25 %)":
            [f"{one.promoted:,}, {one.taken_back:,}" for one in found],
        "from the first object to the last end": [f"{one.seconds:.0f} s" for one in found],
        "looks at a ModelRollout": [f"{one.looks:,}" for one in found],
        "99 % of the looks took no longer than": [f"{one.p99_below():g} s" for one in found],
        "looks that took no longer than 1 s":
            [f"{100 * one.below[1.0] / one.looks:.2f} %" for one in found],
        "writes of a rollout, mean and most (2 x (steps + 2) = 14)":
            [f"{one.writes[0]:.1f}, {one.writes[1]}" for one in found],
        "processor time of a rollout":
            [f"{1000 * one.cpu_seconds / one.rollouts:.0f} ms" for one in found],
        "processor, when all have ended (of one core)":
            [f"{one.idle_cpu_percent:.1f} %" for one in found],
        "memory at most": [f"{one.peak_mebibytes:.0f} MiB" for one in found],
    }  # fmt: skip
    return [
        f"| | {' | '.join(head)} |",
        "| --- " * (len(head) + 1) + "|",
        *(f"| {what} | {' | '.join(values)} |" for what, values in table.items()),
    ]


if __name__ == "__main__":
    main()
