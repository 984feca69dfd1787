"""Runs all benchmarks, or the named ones, and writes their output to ``benchmarks/results/``.

python -m benchmarks                    all of them: about an hour on two cores
python -m benchmarks command_line seeds
"""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"

BENCHMARKS = {
    "command_line": "bench_command_line",
    "validation": "bench_validation",
    "training": "bench_training",
    "run": "bench_run",
    "leaks": "bench_leaks",
    "agreement": "bench_agreement",
    "serving": "bench_serving",
    "servers": "bench_servers",
    "soak": "bench_soak",
    "fuzz": "fuzz",
    "rollouts": "bench_rollouts",
    "operator": "bench_operator",
    "seeds": "bench_seeds",
    "variations": "bench_variations",
    "decisions": "bench_decisions",
    "divergence": "bench_divergence",
    "rare_flags": "bench_rare_flags",
    "retraining": "bench_retraining",
    "feedback": "bench_feedback",
    "scenarios": "bench_decision",
    "newcomer": "bench_newcomer",
    "window": "bench_window",
    "partitions": "bench_partitions",
}


def main(names: list[str]) -> int:
    """Run the named benchmarks one after another; return 1 if any of them failed."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        sys.stderr.write(
            f"There is no benchmark {unknown[0]}; the names are {', '.join(BENCHMARKS)}.\n"
        )
        return 2
    RESULTS.mkdir(exist_ok=True)
    failed = 0
    for name in names or BENCHMARKS:
        module = f"benchmarks.{BENCHMARKS[name]}"
        print(f"{name}: python -m {module}", flush=True)
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", module], check=False, stdout=subprocess.PIPE, text=True
        )
        if done.returncode != 0:
            failed = 1
            continue
        where = f"{platform.machine()}, {len_cores()} cores, Python {platform.python_version()}"
        text = (
            f"# {name}\n\n`python -m {module}`, {time.strftime('%Y-%m-%d')}, {where}, "
            f"{time.monotonic() - started:.0f} s\n\n{done.stdout}"
        )
        (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    return failed


def len_cores() -> int:
    """Return the number of cores of this machine."""
    import os

    return os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
