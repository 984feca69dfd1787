"""Whether a whole run is APPROVED on simulated data of seeds that were not used for tuning.

    python -m benchmarks.bench_seeds                 the five named seeds
    python -m benchmarks.bench_seeds --unseen 20     and twenty further ones

Prints a table in Markdown: target, achieved, best baseline, ceiling and verdict for each model and
seed, and the share of approved runs. Trains for real: about four minutes a seed on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

NAMED = (1, 7, 42, 123, 2025)
FIRST_UNSEEN = 1001


def run(seed: int, models: str) -> dict[str, Any]:
    """Return the report of one whole run with this seed, training and simulator alike."""
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [sys.executable, "-m", "dwcp_ml.cli", "train", "--seed", str(seed), "--models", models,
             "--output-dir", scratch, "--json"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        report = Path(scratch) / "latest" / "report.json"
        if not report.exists():
            sys.exit(f"seed {seed}: no report; {done.stderr.strip()}")
        return json.loads(report.read_text(encoding="utf-8"))


def rows_of(seed: int, report: dict[str, Any]) -> list[list[str]]:
    """Return a row of the table for each target of each model; its verdict names the findings."""
    from dwcp_ml.contract.records import SessionReport
    from dwcp_ml.evaluation import summary_table
    from dwcp_ml.evaluation.report.tables import verdict

    session = SessionReport.model_validate(report)
    verdicts = {name: verdict(model) for name, model in session.models.items()}
    rows = summary_table(session).rows
    return [[str(seed), *row[:-1], verdicts.get(row[0], "")] for row in rows]


def main() -> None:
    """Measure and print."""
    from dwcp_ml.contract.records import SessionReport
    from dwcp_ml.evaluation import summary_table

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="*", default=list(NAMED))
    parser.add_argument("--unseen", type=int, default=0, help="number of further seeds, from 1001")
    parser.add_argument("--models", default="bandwidth,compression,reliability,latency")
    options = parser.parse_args()
    unseen = list(range(FIRST_UNSEEN, FIRST_UNSEEN + options.unseen))
    approved: dict[str, list[int]] = {}
    header_printed = False
    for seed in [*options.seeds, *unseen]:
        report = run(seed, options.models)
        if not header_printed:
            header = ["seed", *summary_table(SessionReport.model_validate(report)).header]
            print("| " + " | ".join(header) + " |")
            print("|" + " --- |" * len(header))
            header_printed = True
        for row in rows_of(seed, report):
            print("| " + " | ".join(cell.replace("\n", "<br>") for cell in row) + " |", flush=True)
        for name, model in report["models"].items():
            if model["verdict"] == "APPROVED":
                approved.setdefault(name, []).append(seed)
        if report["overall_success"]:
            approved.setdefault("whole runs", []).append(seed)
    for name, seeds in approved.items():
        named = sum(seed in options.seeds for seed in seeds)
        others = sum(seed in unseen for seed in seeds)
        text = f"- {name}: approved {named} of {len(options.seeds)} named seeds"
        print(text + (f", {others} of {len(unseen)} unseen ones" if unseen else ""))


if __name__ == "__main__":
    main()
