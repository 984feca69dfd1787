"""Whether the search for leaks accuses honest telemetry, and whether it finds planted leaks.

    python -m benchmarks.bench_leaks                      the 25 seeds, variations, planted leaks
    python -m benchmarks.bench_leaks --unseen 200         and two hundred further seeds

Prints Markdown. No model is trained: about ten seconds of one core a seed of four days.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from benchmarks.bench_variations import variations
from benchmarks.planted_leaks import cases, found, honest
from dwcp_ml.contract.models import MODELS

SEEDS = (*range(1, 18), 42, 123, 2025, *range(101, 106))
FIRST_UNSEEN = 1000


def accusations(seed: int, **settings: float) -> list[str]:
    """Return what is found in honest telemetry, where nothing should be."""
    telemetry = honest(seed, **settings)
    return [
        f"{spec.short_name} {leak.kind} {leak.column} {leak.statistic:.3g}"
        for spec in MODELS.values()
        for leak in found(telemetry, spec)
    ]


def report(name: str, runs: Iterable[tuple[str, list[str]]]) -> None:
    """Print one row: how many files were searched, and each accusation.

    Each file is printed to standard error when it was searched, so that a stop loses nothing.
    """
    count, wrong = 0, []
    for label, accused in runs:
        count += 1
        print(f"{label}: {'; '.join(accused) or 'nothing'}", file=sys.stderr, flush=True)
        wrong += [f"{label}: {words}" for words in accused]
    print(f"| {name} | {count} | {len(wrong)} | {'; '.join(wrong)} |", flush=True)


def planted(seed: int, days: float) -> None:
    """Print what is found of each planted leak."""
    telemetry = honest(seed, days=days)
    print("\n| planted | model | found | by |\n| --- | --- | --- | --- |")
    for name, spec, plant, column in cases():
        leaks = [leak for leak in found(plant(telemetry, spec), spec) if leak.column == column]
        how = ", ".join(f"{leak.kind} {leak.statistic:.3g}" for leak in leaks)
        print(f"| {name} | {spec.short_name} | {'yes' if leaks else 'NO'} | {how} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--days", type=float, default=4.0, help="length of the telemetry")
    parser.add_argument("--seeds", type=int, nargs="*", default=list(SEEDS))
    parser.add_argument("--unseen", type=int, default=0, help="number of further seeds, from 1000")
    parser.add_argument("--no-variations", action="store_true", help="leave the variations out")
    parser.add_argument("--no-planted", action="store_true", help="plant no leak")
    parser.add_argument("--planted-seed", type=int, default=42)
    options = parser.parse_args()
    days = options.days
    print("| honest telemetry | files | accusations | |\n| --- | --- | --- | --- |")
    report("seeds", ((str(seed), accusations(seed, days=days)) for seed in options.seeds))
    if not options.no_variations:
        changed = variations().items()
        report("variations", ((n, accusations(42, days=days, **each)) for n, each in changed))
    if options.unseen:
        unseen = range(FIRST_UNSEEN, FIRST_UNSEEN + options.unseen)
        report("unseen seeds", ((str(seed), accusations(seed, days=days)) for seed in unseen))
    if not options.no_planted:
        planted(options.planted_seed, days)


if __name__ == "__main__":
    main()
