"""From a TrainingRun to the options of its run; pure."""

from __future__ import annotations

from dwcp_ml.operator.api.parts import ObjectMeta
from dwcp_ml.operator.api.training_run import SHARED_OPTIONS, TrainingRun, TrainingRunSpec
from dwcp_ml.training_run.options import ModelOptions, RunOptions, run_options


def version_of(metadata: ObjectMeta) -> str:
    """Return the version of the bundles of a run: its creation time and part of its uid.

    It is known before the run is submitted, so the ModelRollouts of its bundles can be found later.
    """
    date, _, time = metadata.creation_timestamp.rstrip("Z").partition("T")
    return f"{date.replace('-', '')}-{time.replace(':', '')}-{metadata.uid[:4]}"


def to_run_options(resource: TrainingRun, version: str = "") -> RunOptions:
    """Return the options of the run that a resource describes.

    ``experiment``, ``pipelineRoot``, ``serviceAccountName``, ``suspend`` and ``cancel`` are about
    Kubeflow. If the bundles have an address that a cluster can read, approved models are published
    in the resource's namespace.

    Parameters
    ----------
    version
        The version of the bundles; empty for one made of the time.

    Raises
    ------
    UsageError
        If an option is invalid; the API server rejects such a resource, unless it was stored before
        its rules.
    """
    spec = resource.spec
    same = {name: getattr(spec, name) for name in SHARED_OPTIONS}
    return run_options(
        **same,
        version=version,
        data_path=spec.data.uri or "",
        incidents_path=spec.data.incidents_uri or "",
        data_start=spec.data.start_time or "",
        data_end=spec.data.end_time or "",
        packet_loss_unit=spec.data.packet_loss_unit,
        congestion_window_unit=spec.data.congestion_window_unit,
        model_options=_model_options(spec),
        kserve_mode=spec.deployment_mode.lower(),
        stable_uri=",".join(f"{stable.model}={stable.storage_uri}" for stable in spec.stable),
        storage_prefix=spec.storage_prefix or "",
        rollout_namespace=resource.metadata.namespace if spec.storage_prefix else "",
    )


def _model_options(spec: TrainingRunSpec) -> dict[str, ModelOptions]:
    """Return the options of each model that has any."""
    chosen = {
        overrides.name: overrides.model_dump(exclude={"name"}, exclude_defaults=True)
        for overrides in spec.model_options
    }
    for target in spec.targets:
        chosen.setdefault(target.model, {}).setdefault("targets", {})[target.metric] = target.value
    return {str(name): ModelOptions(**options) for name, options in chosen.items() if options}
