"""What reports of outcomes, and the kept requests, cost a server.

    python -m benchmarks.bench_feedback [--outcomes 10000000]

Counts outcomes in one process, in reports of three sizes, and prints the processor time of each
outcome and the memory before and after. The ring is measured by ``bench_servers --option``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import orjson
from prometheus_client import CollectorRegistry

from dwcp_ml.contract.models import BANDWIDTH
from dwcp_ml.serving.outcomes import MAX_OUTCOMES, Outcomes
from dwcp_ml.serving.served_model import ServedModel

SIZES: Final = (1, 100, MAX_OUTCOMES)
FIRST: Final = 200_000
"""Outcomes after which the memory is full: more than the ids that are remembered."""


def memory() -> float:
    """Return the resident memory of this process, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def reports(version: str, count: int, size: int) -> Iterator[bytes]:
    """Yield reports of ``size`` outcomes each, of different ids."""
    for start in range(0, count, size):
        outcomes = [
            {"version": version, "prediction": 5.0, "outcome": 6.0, "id": f"{size}-{start + each}"}
            for each in range(size)
        ]
        yield orjson.dumps({"outcomes": outcomes})


def measure(outcomes: Outcomes, model: ServedModel, count: int, size: int) -> float:
    """Count outcomes; return the processor time of each, microseconds, without making them."""
    spent = 0.0
    for body in reports(model.version, count, size):
        began = time.process_time()
        outcomes.add(model, body)
        spent += time.process_time() - began
    return spent / count * 1e6


def main() -> None:
    """Measure and print."""
    from tests.serving.bundles import make_bundle

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--outcomes", type=int, default=10_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model = ServedModel.load(make_bundle(Path(scratch), BANDWIDTH.name))
    outcomes = Outcomes([model], CollectorRegistry())
    print("| outcomes in a report | µs of an outcome |")
    print("| --- | --- |")
    for size in SIZES:
        print(f"| {size:,} | {measure(outcomes, model, FIRST, size):.1f} |", flush=True)
    before = memory()
    spent = measure(outcomes, model, options.outcomes, MAX_OUTCOMES)
    print(
        f"\n{options.outcomes:,} more in reports of {MAX_OUTCOMES:,}: {spent:.1f} µs each, ", end=""
    )
    print(f"memory {before:.0f} MB before and {memory():.0f} MB after.")


if __name__ == "__main__":
    main()
