"""The pipeline: validate; train, evaluate and export each model; check the interfaces; the gate.

    validate_data ─┬─ train_bandwidth_predictor ── evaluate ── export ─┬─ check_api ── gate
                   ├─ train_compression_selector ─ evaluate ── export ─┤
                   ├─ train_reliability_detector ─ evaluate ── export ─┤
                   └─ train_consensus_latency ──── evaluate ── export ─┘

The four chains are independent and run in parallel on a cluster. After the gate, ``approved`` or
``rejected`` runs, which Kubeflow's API shows. If ``rollout_namespace`` is set, then
``publish-candidate`` copies the bundle of every approved model to ``storage_prefix``, verifies it
there, and makes it the candidate of its ModelRollout: also in a run that was rejected because of
another model. It runs last, so that the verdict can be read even if it fails.
"""

from collections.abc import Callable, Sequence
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
from components.publish_candidate import publish_candidate
from components.verdict import approved, rejected
from dwcp_ml.contract.models import MODELS, model_spec
from pipelines.resources import FILE, PUBLISH_CANDIDATE, VERDICT, Resources

NAME = "dwcp-ml-training"

COMPILED = Path(__file__).with_name("training.yaml")
"""The compiled pipeline of all four models, committed and compared in the tests."""

TRAINERS = {
    "bandwidth_predictor": train_bandwidth_predictor.train_bandwidth_predictor,
    "compression_selector": train_compression_selector.train_compression_selector,
    "reliability_detector": train_reliability_detector.train_reliability_detector,
    "consensus_latency": train_consensus_latency.train_consensus_latency,
}


ApplyResources = Callable[[Any, str], Any]
"""A task and its name in the resources -> the task, with its resources."""


def build(models: Sequence[str] = tuple(MODELS), resources: Resources | None = None) -> Any:
    """Return the pipeline for the given models, by full name.

    Parameters
    ----------
    resources
        Of each task on a cluster; ``None`` for Kubeflow's local runner, which would apply the
        retries and ignore the rest.
    """

    def apply(task: Any, name: str) -> Any:
        if resources is not None:
            resources.apply(task, name)
        return task

    @dsl.pipeline(
        name=NAME,
        description="Trains, evaluates and exports four models, and gates them for deployment.",
    )
    def training(
        data_path: str = "",
        incidents_path: str = "",
        seed: int = 42,
        version: str = "",
        model_options: dict = {},  # noqa: B006 - a pipeline's default is a constant of its YAML
        packet_loss_unit: str = "fraction",
        congestion_window_unit: str = "bytes",
        accept_leak: str = "",
        export_formats: str = "keras,onnx,savedmodel",
        kserve_mode: str = "standard",
        stable_uri: str = "",
        storage_prefix: str = "",
        rollout_namespace: str = "",
        strict: bool = False,
        check_api: bool = True,
        requests_per_second: float = 100.0,
    ) -> str:
        data = validate_data(
            data_path=data_path,
            incidents_path=incidents_path,
            models=",".join(models),
            seed=seed,
            packet_loss_unit=packet_loss_unit,
            congestion_window_unit=congestion_window_unit,
            version=version,
        )
        apply(data, "validate-data")
        bundles = {
            name: _chain(
                name, data.outputs, seed, model_options, accept_leak, export_formats, apply
            )
            for name in models
        }
        checked = check_interfaces(
            version=data.outputs["version"],
            enabled=check_api,
            stable_uri=stable_uri,
            requests_per_second=requests_per_second,
            **bundles,
        ).set_display_name("check api")
        gated = gate(
            dataset=data.outputs["dataset"],
            checks=apply(checked, "check-api").outputs["checks"],
            version=data.outputs["version"],
            kserve_mode=kserve_mode,
            stable_uri=stable_uri,
            storage_prefix=storage_prefix,
            strict=strict,
            **bundles,
        )
        decision = apply(gated, "gate").outputs["Output"]

        def show(verdict: Any) -> None:
            shown = apply(verdict(version=data.outputs["version"]), VERDICT)
            with dsl.If(rollout_namespace != "", "rollouts"):
                published = publish_candidate(
                    manifests=gated.outputs["manifests"],
                    verdict=shown.output,
                    version=data.outputs["version"],
                    rollout_namespace=rollout_namespace,
                    storage_prefix=storage_prefix,
                    **bundles,
                ).set_display_name("publish-candidate")
                apply(published, PUBLISH_CANDIDATE)

        with dsl.If(decision == "APPROVED", "approved"):
            show(approved)
        with dsl.Else("rejected"):
            show(rejected)
        return decision

    return training


def _chain(
    name: str,
    data: Any,
    seed: Any,
    model_options: Any,
    accept_leak: Any,
    export_formats: Any,
    apply: ApplyResources,
) -> Any:
    """Add training, evaluation and export of one model; return its bundle."""
    short, digest = model_spec(name).short_name, data["data_digest"]
    trained = TRAINERS[name](
        dataset=data["dataset"],
        version=data["version"],
        data_digest=digest,
        seed=seed,
        model_options=model_options,
    ).set_display_name(f"train {short}")
    apply(trained, f"train-{name.replace('_', '-')}")
    evaluated = evaluate(
        dataset=data["dataset"],
        model=trained.outputs["model"],
        model_name=name,
        data_digest=digest,
        accept_leak=accept_leak,
    ).set_display_name(f"evaluate {short}")
    apply(evaluated, "evaluate")
    exported = export(
        dataset=data["dataset"],
        model=trained.outputs["model"],
        evaluation=evaluated.outputs["evaluation"],
        model_name=name,
        data_digest=digest,
        export_formats=export_formats,
    ).set_display_name(f"export {short}")
    return apply(exported, "export").outputs["bundle"]


def compile_to(path: Path, models: Sequence[str] = tuple(MODELS), resources: Path = FILE) -> None:
    """Write the compiled pipeline as YAML: the pipeline, and what it gets on Kubernetes.

    Raises
    ------
    UsageError
        If the resources are invalid.
    """
    compiler.Compiler().compile(build(models, Resources.read(resources)), str(path))
