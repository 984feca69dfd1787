"""Whether a whole run is APPROVED on simulated data of seeds that were not used for tuning.

    python -m benchmarks.bench_seeds --reports DIR                   the five named seeds
    python -m benchmarks.bench_seeds --reports DIR --unseen 20       and twenty further ones
    python -m benchmarks.bench_seeds --reports DIR --unseen 20 --models reliability,compression

The report of each run is kept in DIR, and a run whose report is there is not made again, so that it
can be stopped, and the models trained one after another. Prints Markdown of what is in DIR: the
share of approved runs, why the others were rejected, the bandwidth predictor against ridge
regression over all unseen seeds, and target, achieved, best baseline, ceiling and verdict of each
model and seed. Trains for real, with every baseline and the ONNX export, without the checks of a
running server and the second training on a temporal split, neither of which a verdict on a seed
needs. About a minute a seed on two idle cores; --table makes no run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dwcp_ml.contract.models import MODELS
from dwcp_ml.contract.records import ModelReport, ReferenceKind
from dwcp_ml.evaluation.report.tables import numbers_of, verdict
from dwcp_ml.files import write_text

NAMED = (1, 7, 42, 123, 2025)
FIRST_UNSEEN = 1001

CONFIG = "compression_selector:\n  data:\n    temporal_check: false\n"

Reports = dict[int, dict[str, ModelReport]]
"""Seed -> name of the model -> its report."""


def run(seed: int, models: str, path: Path) -> None:
    """Write the report of one run with this seed, of training and simulator alike, to a file."""
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "config.yaml"
        config.write_text(CONFIG, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "dwcp_ml.cli", "train", "--seed", str(seed), "--models", models,
             "--config", str(config), "--export-format", "onnx", "--no-check-api",
             "--output-dir", scratch, "--json"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        report = Path(scratch) / "latest" / "report.json"
        if not report.exists():
            sys.exit(f"seed {seed}: no report; {done.stderr.strip()}")
        write_text(path, report.read_text(encoding="utf-8"))


def read(directory: Path, seeds: Iterable[int]) -> Reports:
    """Return the newest report of each model and seed."""
    found: Reports = {}
    for seed in seeds:
        paths = sorted(directory.glob(f"{seed}-*.json"), key=lambda path: path.stat().st_mtime)
        models = [json.loads(path.read_text(encoding="utf-8"))["models"] for path in paths]
        merged: dict[str, Any] = {name: each for part in models for name, each in part.items()}
        if merged:
            found[seed] = {
                name: ModelReport.model_validate(merged[name]) for name in MODELS if name in merged
            }
    return found


def summary(reports: Reports, named: Iterable[int]) -> list[str]:
    """Return how many runs and models are approved, and why the others are not."""
    lines = []
    for kind, chosen in (
        ("named", {seed: each for seed, each in reports.items() if seed in named}),
        ("unseen", {seed: each for seed, each in reports.items() if seed not in named}),
    ):
        whole = [each for each in chosen.values() if len(each) == len(MODELS)]
        good = sum(all(model.deployment_ready for model in each.values()) for each in whole)
        lines.append(f"- whole runs on {kind} seeds: {good} of {len(whole)} approved")
        for name in MODELS:
            of_model = [each[name] for each in chosen.values() if name in each]
            good = sum(model.deployment_ready for model in of_model)
            lines.append(f"  - {name}: {good} of {len(of_model)}")
    for seed, models in reports.items():
        lines += [
            f"- seed {seed}, {name} REJECTED: {' '.join(model.reasons)}"
            for name, model in models.items()
            if not model.deployment_ready
        ]
    return lines


def against_ridge(reports: Reports) -> str:
    """Return the mean difference of the MAPE from ridge regression's, each seed being one block."""
    from scipy import stats

    compared = [
        found.improvement
        for models in reports.values()
        if "bandwidth_predictor" in models
        and (found := models["bandwidth_predictor"].evaluation.comparison_with(
            "ridge_on_all_inputs")) is not None
        and found.improvement is not None
    ]  # fmt: skip
    if len(compared) < 2:
        return "- bandwidth_predictor against ridge_on_all_inputs: fewer than two seeds"
    mean, error = statistics.mean(compared), statistics.stdev(compared) / len(compared) ** 0.5
    half = float(stats.t.ppf(0.975, len(compared) - 1)) * error
    better = sum(each > 0 for each in compared)
    return (
        f"- bandwidth_predictor against ridge_on_all_inputs, {len(compared)} unseen seeds: the "
        f"MAPE is lower by {mean:.3f} percentage points, 95 % interval {mean - half:.3f} to "
        f"{mean + half:.3f} (t-test, a seed is one block); lower on {better} seeds"
    )


def operating_points(reports: Reports) -> str:
    """Return recall, precision and false alarms of the reliability detector over all seeds."""
    found = [
        models["reliability_detector"].evaluation.metrics
        for models in reports.values()
        if "reliability_detector" in models
    ]
    if not found:
        return "- reliability_detector: no run"
    recall, precision, alarms, area = (
        [metrics[name] or 0.0 for metrics in found]
        for name in ("recall", "precision", "false_alarms_per_day", "pr_auc")
    )
    return (
        f"- reliability_detector on {len(found)} seeds: recall at least {min(recall):.4f}, "
        f"precision {statistics.mean(precision):.3f} on average, "
        f"{statistics.mean(alarms):.1f} false alarms a day on average and at most "
        f"{max(alarms):.1f}, PR-AUC {statistics.mean(area):.4f} on average and at least "
        f"{min(area):.4f}"
    )


def oracles(reports: Reports) -> str:
    """Return on how many comparisons a model was significantly better than the oracle."""
    found = [
        each
        for models in reports.values()
        for model in models.values()
        for each in model.evaluation.comparisons
        if each.kind is ReferenceKind.ORACLE
    ]
    better = sum(not each.passed for each in found)
    return f"- better than the oracle: {better} of {len(found)} comparisons"


def print_rows(reports: Reports) -> None:
    """Print a row for each target of each model and seed; its verdict names the findings."""
    header = ["seed", "model", "metric", "target", "achieved", "best baseline", "ceiling", ""]
    print("\n| " + " | ".join(header) + " |")
    print("|" + " --- |" * len(header))
    for seed, models in reports.items():
        for name, model in models.items():
            for place, target in enumerate(model.evaluation.targets):
                cells = numbers_of(model.evaluation, target.metric)
                last = "" if place else verdict(model)
                print("| " + " | ".join([str(seed), name, target.metric, *cells, last]) + " |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--reports", type=Path, required=True, help="directory of the reports")
    parser.add_argument("--seeds", type=int, nargs="*", default=list(NAMED))
    parser.add_argument("--unseen", type=int, default=0, help="number of further seeds, from 1001")
    parser.add_argument("--models", default="bandwidth,compression,reliability,latency")
    parser.add_argument("--table", action="store_true", help="print what is there, and run nothing")
    options = parser.parse_args()
    unseen = range(FIRST_UNSEEN, FIRST_UNSEEN + options.unseen)
    options.reports.mkdir(parents=True, exist_ok=True)
    for seed in () if options.table else (*options.seeds, *unseen):
        path = options.reports / f"{seed}-{options.models}.json"
        if not path.exists():
            run(seed, options.models, path)
            print(f"seed {seed}: {options.models}", file=sys.stderr, flush=True)
    reports = read(options.reports, (*options.seeds, *unseen))
    print("\n".join(summary(reports, options.seeds)))
    print(operating_points(reports))
    print(against_ridge({seed: each for seed, each in reports.items() if seed in unseen}))
    print(oracles(reports))
    print_rows(reports)


if __name__ == "__main__":
    main()
