"""Whether models are APPROVED on simulated data of seeds that were not used for tuning.

    python -m benchmarks.bench_seeds                                the five named seeds
    python -m benchmarks.bench_seeds --output DIR --unseen 20       and twenty further ones
    python -m benchmarks.bench_seeds --output DIR --unseen 20 --models reliability

Simulates, validates, trains and evaluates with the steps of a run, with every baseline and the
search for leaks. Nothing is exported: parity, size and latency do not depend on the seed. DIR keeps
what is done and it is not done again, so that a run can be stopped, and the models trained one
after another. Prints Markdown of what is in DIR: the share of approved models, why the others were
rejected, the bandwidth predictor against ridge regression over all unseen seeds, and target,
achieved, best baseline, ceiling and verdict of each model and seed. About a minute a seed on two
idle cores; --table trains nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from dwcp_ml.contract.comparison import ReferenceKind
from dwcp_ml.contract.evaluation import Evaluation
from dwcp_ml.contract.models import MODELS, ModelSpec, model_spec
from dwcp_ml.contract.records import DataReport, ExportRecord, TrainingRecord
from dwcp_ml.evaluation.reasons import Severity, rejection_reasons
from dwcp_ml.evaluation.report.tables import findings_label, numbers_of
from dwcp_ml.training_run import evaluation_step, training_step
from dwcp_ml.training_run.dataset import REPORT_NAME, make_dataset
from dwcp_ml.training_run.options import ModelOptions, RunOptions

NAMED = (1, 7, 42, 123, 2025)
FIRST_UNSEEN = 1001


@dataclass(frozen=True)
class Result:
    """The evaluation of one model on one seed, and the reasons to reject it before the export."""

    evaluation: Evaluation
    reasons: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """The verdict with the findings in a few words."""
        if self.reasons:
            return "REJECTED"
        found = findings_label(self.evaluation.findings)
        return f"APPROVED, {found}" if found else "APPROVED"


Results = dict[int, dict[str, Result]]
"""Seed -> name of the model -> its result."""


def run(seed: int, spec: ModelSpec, directory: Path) -> None:
    """Train and evaluate one model on simulated data of this seed, unless that was done."""
    dataset = directory / "dataset"
    if not (dataset / REPORT_NAME).exists():
        make_dataset(RunOptions(seed=seed), dataset)
    trained, evaluated = (directory / f"{spec.name}-{each}" for each in ("trained", "evaluated"))
    if not (trained / training_step.RECORD_NAME).exists():
        training_step.train_model(
            dataset, trained, spec, ModelOptions(), version=f"seed-{seed}", seed=seed
        )
    if not (evaluated / evaluation_step.RECORD_NAME).exists():
        evaluation_step.evaluate_model(dataset, trained, evaluated, spec)
        print(f"seed {seed}: {spec.name}", file=sys.stderr, flush=True)


def read(directory: Path, spec: ModelSpec) -> Result | None:
    """Return the result of one model of one seed; None if it was not evaluated yet."""
    path = directory / f"{spec.name}-evaluated" / evaluation_step.RECORD_NAME
    if not path.exists():
        return None
    evaluation = Evaluation.read(path)
    training = TrainingRecord.read(directory / f"{spec.name}-trained" / training_step.RECORD_NAME)
    data = DataReport.read(directory / "dataset" / REPORT_NAME)
    nothing = ExportRecord(model_name=spec.name, version=training.version, success=False)
    reasons = rejection_reasons(training, evaluation, nothing, data)
    return Result(evaluation, tuple(text for each, text in reasons if each < Severity.PARITY))


def summary(results: Results, named: Collection[int]) -> list[str]:
    """Return how many models are approved, and why the others are not."""
    lines = []
    for kind, chosen in (
        ("named", {seed: each for seed, each in results.items() if seed in named}),
        ("unseen", {seed: each for seed, each in results.items() if seed not in named}),
    ):
        whole = [each.values() for each in chosen.values() if len(each) == len(MODELS)]
        good = sum(not any(model.reasons for model in each) for each in whole)
        lines.append(f"- all four models on {kind} seeds: {good} of {len(whole)} approved")
        for name in MODELS:
            of_model = [each[name] for each in chosen.values() if name in each]
            good = sum(not model.reasons for model in of_model)
            lines.append(f"  - {name}: {good} of {len(of_model)}")
    for seed, models in results.items():
        lines += [
            f"- seed {seed}, {name} REJECTED: {' '.join(result.reasons)}"
            for name, result in models.items()
            if result.reasons
        ]
    return lines


def of(results: Results, model: str) -> list[Evaluation]:
    """Return the evaluations of one model."""
    return [models[model].evaluation for models in results.values() if model in models]


def against_ridge(results: Results) -> str:
    """Return the mean difference of the MAPE from ridge regression's, each seed being one block."""
    from scipy import stats

    lower = [
        each.improvement
        for evaluation in of(results, "bandwidth_predictor")
        for each in evaluation.comparisons
        if each.reference == "ridge_on_all_inputs" and each.improvement is not None
    ]
    if len(lower) < 2:
        return "- bandwidth_predictor against ridge_on_all_inputs: fewer than two seeds"
    mean, error = statistics.mean(lower), statistics.stdev(lower) / len(lower) ** 0.5
    half = float(stats.t.ppf(0.975, len(lower) - 1)) * error
    return (
        f"- bandwidth_predictor against ridge_on_all_inputs, {len(lower)} unseen seeds: the MAPE "
        f"is lower by {mean:.3f} percentage points, 95 % interval {mean - half:.3f} to "
        f"{mean + half:.3f} (t-test, a seed is one block); it is lower on "
        f"{sum(each > 0 for each in lower)} seeds"
    )


def operating_points(results: Results) -> str:
    """Return recall, precision and false alarms of the reliability detector over all seeds."""
    found = [each.metrics for each in of(results, "reliability_detector")]
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


def oracles(results: Results) -> str:
    """Return on how many comparisons a model was significantly better than the oracle."""
    found = [
        each
        for model in MODELS
        for evaluation in of(results, model)
        for each in evaluation.comparisons
        if each.kind is ReferenceKind.ORACLE
    ]
    better = sum(not each.passed for each in found)
    return f"- better than the oracle: {better} of {len(found)} comparisons"


def print_rows(results: Results) -> None:
    """Print a row for each target of each model and seed; its verdict names the findings."""
    header = ["seed", "model", "metric", "target", "achieved", "best baseline", "ceiling", ""]
    print("\n| " + " | ".join(header) + " |")
    print("|" + " --- |" * len(header))
    for seed, models in results.items():
        for name, result in models.items():
            for place, target in enumerate(result.evaluation.targets):
                cells = numbers_of(result.evaluation, target.metric)
                last = "" if place else result.verdict
                print("| " + " | ".join([str(seed), name, target.metric, *cells, last]) + " |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output", type=Path, help="directory that keeps what is done")
    parser.add_argument("--seeds", type=int, nargs="*", default=list(NAMED))
    parser.add_argument("--unseen", type=int, default=0, help="number of further seeds, from 1001")
    parser.add_argument("--models", default="bandwidth,compression,reliability,latency")
    parser.add_argument("--table", action="store_true", help="print what is there, train nothing")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measure(options, options.output or Path(scratch))


def measure(options: argparse.Namespace, output: Path) -> None:
    """Train what is not in the directory ``output`` yet, and print what is."""
    unseen = range(FIRST_UNSEEN, FIRST_UNSEEN + options.unseen)
    results: Results = {}
    for seed in (*options.seeds, *unseen):
        directory = output / str(seed)
        for name in () if options.table else options.models.split(","):
            run(seed, model_spec(name), directory)
        found = {name: read(directory, spec) for name, spec in MODELS.items()}
        results[seed] = {name: each for name, each in found.items() if each is not None}
    print("\n".join(summary(results, options.seeds)))
    print(operating_points(results))
    print(against_ridge({seed: results[seed] for seed in unseen}))
    print(oracles(results))
    print_rows(results)


if __name__ == "__main__":
    main()
