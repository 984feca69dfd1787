"""The pipeline: validate; train, evaluate and export each model; check the interfaces; the gate.

    validate_data ─┬─ train_bandwidth_predictor ── evaluate ── export ─┬─ check_api ── gate
                   ├─ train_compression_selector ─ evaluate ── export ─┤
                   ├─ train_reliability_detector ─ evaluate ── export ─┤
                   └─ train_consensus_latency ──── evaluate ── export ─┘

With ``partitions`` the telemetry is a data set of several files, and three tasks make the dataset:

    list_partitions ── validate_partitions (for each group) ── validate_data (merges them) ── …

``find_champions`` finds the live bundle of each model, which its evaluation compares it with.
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

from components import partitions as partition_components
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
from components.find_champions import find_champions
from components.gate import gate
from components.publish_candidate import publish_candidate
from components.verdict import approved, rejected
from dwcp_ml.contract.models import MODELS, model_spec
from pipelines.resources import FILE, FIND_CHAMPIONS, PUBLISH_CANDIDATE, VERDICT, Resources

NAME = "dwcp-ml-training"

VALIDATE_DATA = "validate-data"

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


def build(
    models: Sequence[str] = tuple(MODELS),
    resources: Resources | None = None,
    partitions: int = 0,
) -> Any:
    """Return the pipeline for the given models, by full name.

    Parameters
    ----------
    resources
        Of each task on a cluster; ``None`` for Kubeflow's local runner, which would apply the
        retries and ignore the rest.
    partitions
        In how many tasks, at most, the partitions of the telemetry are validated; 0 for one task,
        which takes files and simulates telemetry as well.
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
        data_start: str = "",
        data_end: str = "",
        seed: int = 42,
        version: str = "",
        model_options: dict = {},  # noqa: B006 - a pipeline's default is a constant of its YAML
        packet_loss_unit: str = "fraction",
        congestion_window_unit: str = "bytes",
        accept_leak: str = "",
        export_formats: str = "keras,onnx,savedmodel",
        kserve_mode: str = "standard",
        stable_uri: str = "",
        champion_rule: str = "not_worse",
        trigger: str = "manual",
        storage_prefix: str = "",
        rollout_namespace: str = "",
        strict: bool = False,
        check_api: bool = True,
        requests_per_second: float = 100.0,
    ) -> str:
        source = {
            "data_path": data_path,
            "data_start": data_start,
            "data_end": data_end,
            "models": ",".join(models),
            "packet_loss_unit": packet_loss_unit,
            "congestion_window_unit": congestion_window_unit,
        }
        named = {"incidents_path": incidents_path, "version": version}
        if partitions:
            data = validated_in_groups(partitions, source, named, apply)
        else:
            data = apply(validate_data(seed=seed, **source, **named), VALIDATE_DATA)
        found = find_champions(
            stable_uri=stable_uri, models=source["models"], rollout_namespace=rollout_namespace
        )
        options = {
            "seed": seed,
            "model_options": model_options,
            "accept_leak": accept_leak,
            "champions": apply(found, FIND_CHAMPIONS).output,
            "champion_rule": champion_rule,
            "export_formats": export_formats,
            "trigger": trigger,
        }
        bundles = {name: _chain(name, data.outputs, options, apply) for name in models}
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


def validated_in_groups(
    groups: int, source: dict[str, Any], named: dict[str, Any], apply: ApplyResources
) -> Any:
    """Add the validation of a data set in several tasks; return the task that merges them.

    All of them read the telemetry, so they get the settings of ``validate-data``.

    Parameters
    ----------
    groups
        How many tasks validate partitions, at most.
    source
        The telemetry, its window and units, and the models.
    named
        The incidents, and the version of the run.
    """
    listed = partition_components.list_partitions(
        data_path=source["data_path"],
        data_start=source["data_start"],
        data_end=source["data_end"],
        groups=groups,
    )
    apply(listed, VALIDATE_DATA)
    with dsl.ParallelFor(listed.output, name="partitions") as group:
        validated = partition_components.validate_partitions(group=group, **source)
        apply(validated, VALIDATE_DATA)
    collected = dsl.Collected(validated.outputs["partitions"])
    merged = partition_components.validate_data(
        partitions=collected, groups=listed.output, **source, **named
    )
    return apply(merged, VALIDATE_DATA)


def _chain(name: str, data: Any, options: dict[str, Any], apply: ApplyResources) -> Any:
    """Add training, evaluation and export of one model; return its bundle."""
    short, digest = model_spec(name).short_name, data["data_digest"]
    trained = TRAINERS[name](
        dataset=data["dataset"],
        version=data["version"],
        data_digest=digest,
        seed=options["seed"],
        model_options=options["model_options"],
    ).set_display_name(f"train {short}")
    apply(trained, f"train-{name.replace('_', '-')}")
    evaluated = evaluate(
        dataset=data["dataset"],
        model=trained.outputs["model"],
        model_name=name,
        data_digest=digest,
        accept_leak=options["accept_leak"],
        champions=options["champions"],
        champion_rule=options["champion_rule"],
    ).set_display_name(f"evaluate {short}")
    apply(evaluated, "evaluate")
    exported = export(
        dataset=data["dataset"],
        model=trained.outputs["model"],
        evaluation=evaluated.outputs["evaluation"],
        model_name=name,
        data_digest=digest,
        export_formats=options["export_formats"],
        trigger=options["trigger"],
    ).set_display_name(f"export {short}")
    return apply(exported, "export").outputs["bundle"]


def compile_to(
    path: Path,
    models: Sequence[str] = tuple(MODELS),
    resources: Path = FILE,
    partitions: int = 0,
) -> None:
    """Write the compiled pipeline as YAML: the pipeline, and what it gets on Kubernetes.

    ``partitions`` as in :func:`build`.

    Raises
    ------
    UsageError
        If the resources are invalid.
    """
    compiler.Compiler().compile(build(models, Resources.read(resources), partitions), str(path))
