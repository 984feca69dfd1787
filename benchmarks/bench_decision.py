"""False and missed rollbacks of our decision where pods, clients and time are not all alike.

    python -m benchmarks.bench_decision [--rollouts N] [--only retries ramp] [--processes 2]

Runs the scenarios of ``rollout_scenarios`` with the default spec, but with steps of at least ten
minutes: in lockstep, as arrays that decide what ``decide`` does, or with ``--scalar`` one after
another with ``decide`` itself, which takes fifty times as long. Prints a table of them in Markdown,
and the progress on the error stream. Seconds and requests until a candidate is caught count from
its first request, or from the beginning of its harm where that comes later; one that was rolled
back before that is left out of them. The upper bound is Clopper and Pearson's, one-sided, 95 %.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from scipy import stats

from benchmarks.rollout_scenarios import EQUAL, WORSE, Scenario
from benchmarks.vectorized.rollouts import simulate_in_lockstep
from dwcp_ml.rollout.simulation import SimulatedRollout, simulate

SEED = 42
PROGRESS_SECONDS = 60.0
ROLLOUTS = 2000
SCALAR_ROLLOUTS = 200

HEADER = (
    "| scenario | rollouts | rolled back | upper bound | held | promoted | requests when caught, "
    "median | p90 | seconds to catch, median | p90 |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def upper_bound(count: int, total: int, level: float = 0.95) -> float:
    """Return the one-sided bound of a share by Clopper and Pearson (1934)."""
    return 1.0 if count == total else float(stats.beta.ppf(level, count + 1, total - count))


def row(name: str, outcomes: Sequence[SimulatedRollout]) -> str:
    """Return one line of a table."""
    total = len(outcomes)
    caught = [each for each in outcomes if each.end == "RolledBack"]
    in_time = [each for each in caught if each.harm_seconds > 0.0]
    held, promoted = (sum(each.end == end for each in outcomes) for end in ("Held", "Promoted"))
    cells = [
        name,
        f"{total:,}",
        f"{len(caught):,} ({len(caught) / total:.1%})",
        f"{upper_bound(len(caught), total):.1%}",
        f"{held:,}",
        f"{promoted:,}",
        *_median_and_p90([each.harmed_requests for each in in_time]),
        *_median_and_p90([each.harm_seconds for each in in_time]),
    ]
    return f"| {' | '.join(cells)} |"


def _median_and_p90(values: Sequence[float]) -> tuple[str, str]:
    if not values:
        return "", ""
    return f"{np.median(values):,.0f}", f"{np.quantile(values, 0.9):,.0f}"


def table(
    scenarios: dict[str, Scenario], options: argparse.Namespace, pool: ProcessPoolExecutor | None
) -> list[str]:
    """Run scenarios, and return the lines of their table."""
    lines = [HEADER]
    run = simulate if options.scalar else simulate_in_lockstep
    for name, scenario in scenarios.items():
        outcomes: list[SimulatedRollout] = []
        started = shown = time.monotonic()
        for outcome in run(
            scenario.spec(options.dwell),
            scenario.traffic,
            options.rollouts,
            seed=options.seed,
            reconcile_seconds=options.reconcile_seconds,
            limit_seconds=3600.0 * options.limit_hours,
            pool=pool,
        ):
            outcomes.append(outcome)
            if time.monotonic() - shown > PROGRESS_SECONDS:
                shown = time.monotonic()
                sys.stderr.write(f"{name}: {len(outcomes):,} of {options.rollouts:,}\n")
        lines.append(row(name, outcomes))
        seconds = time.monotonic() - started
        speed = 60.0 * options.rollouts / seconds
        sys.stderr.write(f"{lines[-1]} {seconds:.0f} s, {speed:,.0f} rollouts a minute\n")
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--rollouts", type=int, help=f"a scenario; {ROLLOUTS}, or {SCALAR_ROLLOUTS} with --scalar"
    )
    parser.add_argument("--scalar", action="store_true", help="one after another, with decide")
    parser.add_argument("--only", nargs="+", default=[""], help="parts of names of scenarios")
    parser.add_argument("--dwell", type=float, default=600.0, help="seconds of a step, at least")
    parser.add_argument("--reconcile-seconds", type=float, default=10.0)
    parser.add_argument("--limit-hours", type=float, default=8.0, help="then a rollout is held")
    parser.add_argument("--seed", type=int, default=SEED, help="of the first rollout")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    options.rollouts = options.rollouts or (SCALAR_ROLLOUTS if options.scalar else ROLLOUTS)
    started = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, mp_context=context) as pool:
        for title, scenarios in (
            ("The candidate is the same software as the stable", EQUAL),
            ("The candidate is worse", WORSE),
        ):
            chosen = {
                name: each
                for name, each in scenarios.items()
                if any(part in name for part in options.only)
            }
            if chosen:
                lines = table(chosen, options, pool)
                meanings = [f"- {name}: {each.models}" for name, each in chosen.items()]
                print(f"## {title}\n", *lines, "", *meanings, "", sep="\n", flush=True)
    print(f"{(time.monotonic() - started) / 60:.1f} minutes, {options.processes} processes.")


if __name__ == "__main__":
    main()
