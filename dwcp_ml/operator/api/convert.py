"""From a custom resource to the rollout's spec and the pipeline's arguments; pure."""

from __future__ import annotations

from typing import Final

from pydantic import ValidationError

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.operator.api.model_rollout import AnalysisSettings, ModelRollout
from dwcp_ml.operator.api.training_run import SHARED_OPTIONS, TrainingRun, TrainingRunSpec
from dwcp_ml.rollout.spec import TESTS, Analysis, Revision, RolloutSpec, Skip, Step
from dwcp_ml.training_run.options import ModelOptions, RunOptions, run_options

_DIGEST_PREFIX: Final = "sha256:"


def bare_digest(digest: str) -> str:
    """Return a digest as servers and bundles write it: 64 hexadecimal digits."""
    return digest.removeprefix(_DIGEST_PREFIX)


def marked_digest(digest: str) -> str:
    """Return a digest as resources write it, with the name of its algorithm."""
    return digest if digest.startswith(_DIGEST_PREFIX) else _DIGEST_PREFIX + digest


def to_rollout_spec(resource: ModelRollout, stable: Revision | None) -> RolloutSpec:
    """Return the rollout that a resource asks for.

    Parameters
    ----------
    stable
        What is live, its digest without ``sha256:``; ``None`` for a first deployment.

    Raises
    ------
    UsageError
        If the resource asks for what no rollout can be; the API server refuses such a resource,
        unless it was stored before its rules.
    """
    spec, candidate = resource.spec, resource.spec.candidate
    skip = None
    if spec.skip is not None and spec.skip.version == candidate.version:
        skip = Skip(traffic_percent=spec.skip.traffic_percent, reason=spec.skip.reason)
    try:
        return RolloutSpec(
            model=spec.model_name,
            candidate=Revision(
                version=candidate.version,
                digest=bare_digest(candidate.digest),
                uri=candidate.storage_uri,
            ),
            stable=stable,
            steps=tuple(Step(**step.model_dump()) for step in spec.steps),
            analysis=_analysis(spec.analysis),
            watch_seconds=spec.watch_seconds,
            paused=spec.paused,
            abort=spec.abort,
            skip=skip,
            generation=resource.metadata.generation,
        )
    except ValidationError as error:
        what = error.errors()[0]["msg"].removeprefix("Value error, ").rstrip(".")
        raise UsageError(f"ModelRollout {resource.metadata.name} is invalid: {what}.") from error


def _analysis(settings: AnalysisSettings) -> Analysis:
    """Return the analysis with the tests that are off taken out."""
    fields = settings.model_dump()
    for test in TESTS:
        options = fields[test]
        if options is not None and not options.pop("enabled"):
            fields[test] = None
    return Analysis(**fields)


def version_of(resource: TrainingRun) -> str:
    """Return the version of the bundles of a run: its creation time and part of its uid.

    It is known before the run is submitted, so the ModelRollouts of its bundles can be found later.
    """
    metadata = resource.metadata
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
