"""Rollouts with real processes: good candidates, five broken ones, and a controller that is killed.

Every rollout has two real model servers and a real Envoy in front of them, and replayed telemetry
as traffic. ``good`` is the same graph under another version. The broken candidates:

- ``errors``: 2 % of the responses are 500
- ``slow``: every response takes longer by twice the stable's p99, which triples the p99
- ``scale``: every prediction is 1.3 times too high
- ``nan``: predictions above 100 Mbit/s are NaN, so that the server responds with 500
- ``crash``: the process ends 30 s after its first response, and after every restart

Then the controller of good candidates is killed with SIGKILL at random moments, and resumed, until
``--kills`` are done.

    python -m benchmarks.bench_rollouts --each 20 --kills 100 --parallel 3
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dwcp_ml.files import write_text
from dwcp_ml.local_rollout.broken_bundles import FAULTS, break_bundle
from dwcp_ml.local_rollout.driver import drive, start_machine
from dwcp_ml.local_rollout.running import rollout_request
from dwcp_ml.local_rollout.servers import SERVE
from dwcp_ml.local_rollout.store import Store
from dwcp_ml.rollout.simulation import Share

MODEL: Final = "bandwidth_predictor"
BROKEN: Final = Path(__file__).resolve().parents[1] / "tests/local_rollout/broken_server.py"
KINDS: Final = ("good", "errors", "slow", "scale", "nan", "crash")
REQUESTS_PER_SECOND: Final = 100.0
LIMIT_SECONDS: Final = 420.0

SETTINGS: Final[dict[str, Any]] = {
    "steps": [
        {"traffic_percent": share, "minimum_requests": 60, "dwell_seconds": 8}
        for share in (5, 25, 50, 100)
    ],
    "watch_seconds": 8,
    "analysis": {
        "warm_up_seconds": 2,
        "max_restarts": 1,
        "unready_seconds": 60,
        "error_rate": {"margin": 0.05},
        "latency": {"margin": 0.1},
        "divergence": {"tolerance": 0.25},
        "ground_truth": {"margin": 0.05},
    },
}
"""The steps take seconds instead of minutes; the tests are those of a real rollout."""


@dataclass
class Ended:
    """How one rollout ended."""

    kind: str
    outcome: str
    exposed_requests: int
    seconds: float
    percent: int
    reason: str
    mismatches: int = 0
    reconciliations: int = 0
    not_answered: int = 0
    kills: int = 0
    steps: list[int] = field(default_factory=list)


def run_rollout(
    kind: str, number: int, stable: Path, telemetry: Path, scratch: Path, p99: float
) -> Ended:
    """Run one rollout in this process."""
    place = scratch / f"{kind}-{number}"
    candidate = candidate_of(kind, stable, place)
    store = begin(stable, candidate, telemetry, place / "state")
    commands = {}
    if kind in ("errors", "slow", "crash"):
        commands["candidate"] = (sys.executable, str(BROKEN), kind, str(_size(kind, p99)))
    seen: list[tuple[int, int | None]] = []
    started = time.monotonic()
    with start_machine(store, store.request(), {"stable": SERVE, **commands}) as machine:
        outcome = drive(
            store, machine, limit_seconds=LIMIT_SECONDS,
            watcher=lambda status, now: seen.append((status.target_percent, now.live_percent)),
        )  # fmt: skip
        responses = machine.replay.responses.copy()
    status = store.status()
    pairs = zip([(0, 0), *seen[:-1]], seen, strict=True)
    return Ended(
        kind=kind,
        outcome=outcome,
        exposed_requests=status.exposed_requests,
        seconds=time.monotonic() - started,
        percent=max((target for target, _ in seen), default=0),
        reason=status.cause.sentence,
        mismatches=sum(live != before for (before, _), (_, live) in pairs),
        reconciliations=len(seen),
        not_answered=sum(count for (_, how), count in responses.items() if how != "2xx"),
        steps=list(dict.fromkeys(target for target, _ in seen)),
    )


def killed(number: int, kills: int, stable: Path, telemetry: Path, scratch: Path) -> Ended:
    """Run one rollout of a good candidate whose controller is killed again and again."""
    place, rng = scratch / f"kill-{number}", random.Random(number)
    store = begin(stable, candidate_of("good", stable, place), telemetry, place / "state")
    words = [sys.executable, "-m", "dwcp_ml.cli", "rollout", "resume", "--state",
             str(store.directory), "--limit-minutes", "8"]  # fmt: skip
    done, started = 0, time.monotonic()
    while True:
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(rng.uniform(2.0, 14.0) if done < kills else LIMIT_SECONDS)
            break
        except subprocess.TimeoutExpired:
            if done == kills:
                process.kill()
                break
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            done += 1
    status = store.status()
    targets = [each.target_percent for each in store.reconciliations()]
    return Ended(
        kind="killed",
        outcome={"Promoted": "Promoted", "RolledBack": "RolledBack"}.get(status.phase, "Held"),
        exposed_requests=status.exposed_requests,
        seconds=time.monotonic() - started,
        percent=max(targets, default=0),
        reason=status.cause.sentence,
        reconciliations=len(targets),
        mismatches=sum(after < before for before, after in itertools.pairwise(targets)),
        kills=done,
        steps=list(dict.fromkeys(targets)),
    )


def begin(stable: Path, candidate: Path, telemetry: Path, state: Path) -> Store:
    """Start one rollout."""
    store = Store(state)
    store.create(
        rollout_request(
            stable, candidate, telemetry, requests_per_second=REQUESTS_PER_SECOND,
            settings=SETTINGS, label_delay_seconds=2.0,
        )
    )  # fmt: skip
    return store


def candidate_of(kind: str, stable: Path, place: Path) -> Path:
    """Make the candidate's bundle: broken in its graph, or the same graph under another version."""
    fault = kind if kind in FAULTS else None
    return break_bundle(stable, place / MODEL / f"{kind}-candidate", fault)


def _size(kind: str, p99: float) -> float:
    return {"errors": 0.02, "slow": 2.0 * p99, "crash": 30.0}[kind]


def stable_p99(stable: Path, telemetry: Path, scratch: Path) -> float:
    """Return the p99 of the stable under this traffic, seconds, from its histogram."""
    store = begin(stable, candidate_of("good", stable, scratch / "p99"), telemetry, scratch / "p")
    with start_machine(store, store.request()) as machine:
        time.sleep(15.0)
        arm = machine.observe(store.request(), store, store.status()).stable
    if arm is None or not arm.replicas or arm.replicas[0].latency is None:
        raise SystemExit("the stable shows no latency")
    histogram = arm.replicas[0].latency
    total = histogram.counts[-1]
    places = [
        edge
        for edge, count in zip(histogram.edges, histogram.counts, strict=False)
        if count >= 0.99 * total
    ]
    return places[0]


def row(kind: str, ended: Sequence[Ended], expected: str) -> str:
    """Return one line of the table."""
    right = Share.of_counts(sum(each.outcome == expected for each in ended), len(ended))
    exposed = sorted(each.exposed_requests for each in ended)
    seconds = sorted(each.seconds for each in ended)
    shares = Counter(each.percent for each in ended)
    middle = len(ended) // 2
    return (
        f"| {kind} | {expected} {right.count} of {right.of} ({right.low:.0%}–{right.high:.0%}) | "
        f"{', '.join(f'{share} %: {count}' for share, count in sorted(shares.items()))} | "
        f"{exposed[middle]:,} ({exposed[0]:,}–{exposed[-1]:,}) | {seconds[middle]:.0f} | "
        f"{sum(each.mismatches for each in ended)} of "
        f"{sum(each.reconciliations for each in ended):,} | "
        f"{sum(each.not_answered for each in ended)} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/latest"), help="whose model it is")
    parser.add_argument("--each", type=int, default=20)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--kills-each", type=int, default=5)
    parser.add_argument("--parallel", type=int, default=3, help="rollouts at the same time")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--details", type=Path, help="every rollout, as JSON lines")
    options = parser.parse_args()
    run = options.run.resolve()
    stable = run / "models" / MODEL / run.name
    telemetry = run / "work/dataset/telemetry.parquet"
    with tempfile.TemporaryDirectory(prefix="dwcp-rollouts-") as name:
        scratch = Path(name)
        p99 = stable_p99(stable, telemetry, scratch)
        print(f"p99 of the stable: {1000 * p99:.2f} ms; {options.parallel} rollouts at a time, "
              f"{REQUESTS_PER_SECOND:g} requests/s each.\n", flush=True)  # fmt: skip
        results: list[Ended] = []
        with ProcessPoolExecutor(options.parallel) as pool:
            jobs = [
                pool.submit(run_rollout, kind, number, stable, telemetry, scratch, p99)
                for number in range(options.each)
                for kind in options.kinds.split(",")
            ]
            jobs += [
                pool.submit(killed, number, options.kills_each, stable, telemetry, scratch)
                for number in range(options.kills // options.kills_each)
            ]
            for place, job in enumerate(jobs):
                results.append(job.result())
                last = results[-1]
                sys.stderr.write(f"{place + 1}/{len(jobs)} {last.kind}: {last.outcome} after "
                                 f"{last.seconds:.0f} s: {last.reason[:100]}\n")  # fmt: skip
    if options.details is not None:
        write_text(options.details, "".join(json.dumps(vars(each)) + "\n" for each in results))
    report(results)


def report(results: Sequence[Ended]) -> None:
    """Print the table, and what became of the killed ones."""
    print(
        "| candidate | ended as it should (95 %) | highest share | requests exposed, median "
        "(range) | seconds | live share other than the status | requests not answered with 2xx |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for kind in KINDS:
        ended = [each for each in results if each.kind == kind]
        if ended:
            print(row(kind, ended, "Promoted" if kind == "good" else "RolledBack"))
    dead = [each for each in results if each.kind == "killed"]
    if dead:
        steps = [0, *(step["traffic_percent"] for step in SETTINGS["steps"])]
        same = sum(each.outcome == "Promoted" and each.steps[-4:] == steps[1:] for each in dead)
        print(
            f"\nThe controller was killed {sum(each.kills for each in dead)} times in {len(dead)} "
            f"rollouts and resumed each time: {same} ended Promoted over every step in its order, "
            f"like the undisturbed ones; {sum(each.mismatches for each in dead)} times a step was "
            "rolled back or repeated."
        )


if __name__ == "__main__":
    main()
