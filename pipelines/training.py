"""The pipeline: validate; train, evaluate and export each model; check the interfaces; the gate.

    validate_data ─┬─ train_bandwidth_predictor ── evaluate ── export ─┬─ check_api ── gate
                   ├─ train_compression_selector ─ evaluate ── export ─┤
                   ├─ train_reliability_detector ─ evaluate ── export ─┤
                   └─ train_consensus_latency ──── evaluate ── export ─┘

The four chains are independent: on a cluster they run side by side.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kfp import compiler, dsl

from components import (
    train_bandwidth_predictor,
    train_compression_selector,
    train_consensus_latency,
    train_reliability_detector,
)
from components.check_api import check_api as check_interfaces
from components.dataset import validate_data
from components.evaluate import evaluate
from components.export import export
from components.gate import gate
from dwcp_ml.contract.models import MODELS, model_spec

NAME = "dwcp-ml-training"

COMPILED = Path(__file__).with_name("training.yaml")
"""The compiled pipeline of all four models, committed and compared in the tests."""

TRAINERS = {
    "bandwidth_predictor": train_bandwidth_predictor.train_bandwidth_predictor,
    "compression_selector": train_compression_selector.train_compression_selector,
    "reliability_detector": train_reliability_detector.train_reliability_detector,
    "consensus_latency": train_consensus_latency.train_consensus_latency,
}


def build(models: Sequence[str] = tuple(MODELS)) -> Any:
    """Return the pipeline for the given models, by full name."""

    @dsl.pipeline(
        name=NAME,
        description="Telemetry in; four proved, exported and judged models and manifests out.",
    )
    def training(
        data_path: str = "",
        incidents_path: str = "",
        seed: int = 42,
        version: str = "",
        model_options: dict = {},  # noqa: B006 - a pipeline's default is a constant of its YAML
        packet_loss_unit: str = "fraction",
        congestion_window_unit: str = "bytes",
        export_formats: str = "keras,onnx,savedmodel",
        kserve_mode: str = "standard",
        stable_uri: str = "",
        storage_prefix: str = "",
        strict: bool = False,
        check_api: bool = True,
        requests_per_second: float = 100.0,
    ) -> str:
        data = validate_data(
            data_path=data_path,
            incidents_path=incidents_path,
            models=",".join(models),
            simulator_seed=seed,
            packet_loss_unit=packet_loss_unit,
            congestion_window_unit=congestion_window_unit,
            version=version,
        )
        dataset = data.outputs["dataset"]
        bundles = {}
        for name in models:
            short = model_spec(name).short_name
            trained = TRAINERS[name](
                dataset=dataset,
                version=data.outputs["Output"],
                seed=seed,
                model_options=model_options,
            ).set_display_name(f"train {short}")
            evaluated = evaluate(
                dataset=dataset, model=trained.outputs["model"], model_name=name
            ).set_display_name(f"evaluate {short}")
            exported = export(
                dataset=dataset,
                model=trained.outputs["model"],
                evaluation=evaluated.outputs["evaluation"],
                model_name=name,
                export_formats=export_formats,
            ).set_display_name(f"export {short}")
            bundles[name] = exported.outputs["bundle"]
        checked = check_interfaces(
            version=data.outputs["Output"],
            enabled=check_api,
            stable_uri=stable_uri,
            requests_per_second=requests_per_second,
            **bundles,
        ).set_display_name("check api")
        answer = gate(
            dataset=dataset,
            checks=checked.outputs["checks"],
            version=data.outputs["Output"],
            kserve_mode=kserve_mode,
            stable_uri=stable_uri,
            storage_prefix=storage_prefix,
            strict=strict,
            **bundles,
        )
        return answer.outputs["Output"]

    return training


def compile_to(path: Path, models: Sequence[str] = tuple(MODELS)) -> None:
    """Write the compiled pipeline as YAML."""
    compiler.Compiler().compile(build(models), str(path))
