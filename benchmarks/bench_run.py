"""How long the whole run takes once everything is installed, and where the time goes.

python -m benchmarks.bench_run
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Run the pipeline as `make run` does, and the orchestrator on one and on two models a time."""
    commands = {
        "`make run` (Kubeflow's local runner)": ["pipeline", "run"],
        "`dwcp-ml train --parallel 2`": ["train", "--parallel", "2"],
        "`dwcp-ml train --parallel 1`": ["train", "--parallel", "1"],
    }
    print("| command | whole run, s | of it training, s | verdict |\n| --- | --- | --- | --- |")
    for name, words in commands.items():
        with tempfile.TemporaryDirectory() as scratch:
            started = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "dwcp_ml.cli", *words, "--output-dir", scratch, "--json"],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            seconds = time.perf_counter() - started
            path = Path(scratch) / "latest" / "report.json"
            if not path.exists():
                sys.exit(f"{name}: {done.stderr}")
            report = json.loads(path.read_text(encoding="utf-8"))
        verdict = report["production_readiness"]["deployment_recommendation"]
        training = report["total_training_time_seconds"]
        print(f"| {name} | {seconds:.0f} | {training:.0f} | {verdict} |", flush=True)


if __name__ == "__main__":
    main()
