"""Metrics of the four models when the simulated network differs from the default one.

    python -m benchmarks.bench_variations
    python -m benchmarks.bench_variations --latency-episodes published

Noise, prevalence, burst rate, severity and the number of links are varied by 50 % either way, one
at a time; every model is trained again with its usual settings. Prints a table in Markdown, for
`docs/simulator.md`. About three minutes a row on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

METRICS = {
    "bandwidth_predictor": "mape_percent",
    "compression_selector": "accuracy",
    "reliability_detector": "pr_auc",
    "consensus_latency": "detection_accuracy",
}


def variations(profile: Literal["steps", "published"] = "steps") -> dict[str, dict[str, float]]:
    """Return the name of each row -> the settings that differ from the defaults of the profile."""
    from dwcp_ml.simulate import SimulatorSettings

    usual = SimulatorSettings(latency_episodes=profile)
    knobs = {
        "noise": ("throughput_noise", "gauge_noise", "codec_noise", "latency_noise"),
        "prevalence": (
            "incidents_per_node_day",
            "latency_episodes_per_node_day",
            "shared_slowdowns_per_region_day",
        ),
        "bursts": (
            "bursts_per_link_day",
            "congestion_per_link_day",
            "latency_spikes_per_node_day",
            "leader_transfers_per_node_day",
            "route_changes_per_node_day",
        ),
        "severity": ("incident_severity",),
    }
    rows: dict[str, dict[str, float]] = {"defaults": {}}
    for name, fields in knobs.items():
        for sign, factor in (("− 50 %", 0.5), ("+ 50 %", 1.5)):
            rows[f"{name} {sign}"] = {field: getattr(usual, field) * factor for field in fields}
    rows["links − 50 %"] = {"peers_per_node": max(1, usual.peers_per_node // 2)}
    rows["links + 50 %"] = {"peers_per_node": round(usual.peers_per_node * 1.5)}
    return rows


def run(settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return the report of one run on telemetry simulated with these settings."""
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [sys.executable, "-m", "dwcp_ml.cli", "train", "--seed", str(seed), *words,
             "--output-dir", scratch, "--json"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        report = Path(scratch) / "latest" / "report.json"
        if not report.exists():
            sys.exit(f"{settings}: {done.stderr.strip()}")
        return json.loads(report.read_text(encoding="utf-8"))


def cell(model: dict[str, Any], metric: str) -> str:
    """Return achieved, best baseline and ceiling of a model's primary metric, and its verdict."""
    from dwcp_ml.contract.evaluation import Evaluation
    from dwcp_ml.evaluation.reasons import best_baseline

    evaluation = Evaluation.model_validate(model["evaluation"])
    achieved = evaluation.metrics.get(metric)
    if achieved is None:
        return "not trained"
    theirs = evaluation.baselines.get(best_baseline(evaluation) or "", {}).get(metric)
    best = (evaluation.ceiling or {}).get(metric)
    digits = 2 if metric.endswith("percent") else 4
    texts = ["–" if value is None else f"{value:.{digits}f}" for value in (achieved, theirs, best)]
    mark = "" if model["verdict"] == "APPROVED" else " ✗"
    return f"**{texts[0]}**{mark} / {texts[1]} / {texts[2]}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--latency-episodes", choices=("steps", "published"), default="steps")
    options = parser.parse_args()
    print(
        "Each cell: **model** / best baseline / ceiling; ✗ is REJECTED.\n\n"
        "| simulator | bandwidth, MAPE % | compression, accuracy | reliability, PR-AUC "
        "| latency, accuracy |\n| --- | --- | --- | --- | --- |"
    )
    profile = options.latency_episodes
    for name, settings in variations(profile).items():
        models = run({"latency_episodes": profile, **settings}, options.seed)["models"]
        cells = [cell(models[model], metric) for model, metric in METRICS.items()]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
