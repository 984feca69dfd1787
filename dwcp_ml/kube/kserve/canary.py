"""The spec of an InferenceService with ``spec.canary``: what is there, what is to be; all pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dwcp_ml.kube.kserve.capacity import (
    before_of,
    padded,
    remembered,
    remembering,
    restored,
    size_of,
)
from dwcp_ml.kube.kserve.names import deployment_name, predictor_name
from dwcp_ml.kube.kserve.predictors import AUTOSCALING, Predictor, predictor_of, serves
from dwcp_ml.kube.kserve.router import DesiredRevision

Spec = dict[str, Any]
Entry = Mapping[str, Any]


def entries_of(spec: Mapping[str, Any]) -> list[Entry]:
    """Return what stands beside the stable."""
    return list(spec.get("canary") or [])


def entry_of(spec: Mapping[str, Any], desired: DesiredRevision) -> Entry | None:
    """Return the entry that serves the desired bundle; ``None`` if none does."""
    mine = (entry for entry in entries_of(spec) if serves(entry["predictor"], desired))
    return next(mine, None)


def others_of(spec: Mapping[str, Any], desired: DesiredRevision) -> list[Entry]:
    """Return the entries that serve something else."""
    mine = entry_of(spec, desired)
    return [entry for entry in entries_of(spec) if entry is not mine]


def workload_of(service: str, predictor: Mapping[str, Any]) -> str:
    """Return the name of a predictor's Deployment and Service."""
    return deployment_name(service, str(predictor.get("name") or ""))


def workloads_of(service: str, spec: Mapping[str, Any]) -> set[str]:
    """Return the names of the Deployments that an InferenceService stands for."""
    predictors = [spec["predictor"], *(entry["predictor"] for entry in entries_of(spec))]
    return {workload_of(service, predictor) for predictor in predictors}


def beside(
    place: tuple[str, str],
    spec: Mapping[str, Any],
    desired: DesiredRevision,
    percent: int,
    running: int,
) -> Spec:
    """Return the spec with the candidate, and nothing else, beside the stable.

    Parameters
    ----------
    place
        Namespace and name of the InferenceService.
    percent
        The candidate's share.
    running
        Replicas of the stable's Deployment.
    """
    stable: Predictor = spec["predictor"]
    there = [entry["predictor"] for entry in entries_of(spec)]
    entry = entry_of(spec, desired)
    if entry is not None:
        name = str(entry["predictor"].get("name") or "")
    else:
        taken = [str(one.get("name") or "") for one in (stable, *there)]
        name = predictor_name(*place, desired.version, digest=desired.digest, taken=taken)
    known = [before for before in map(remembered, there) if before is not None]
    before = known[0] if known else before_of(stable, running)
    asked = int(entry["predictor"].get("minReplicas") or 0) if entry is not None else 0
    size = size_of(before, desired.predictor, asked, percent)
    canary = predictor_of(desired, name)
    for field in AUTOSCALING:
        canary.pop(field, None)
    made = {"predictor": remembering(canary, before, size), "trafficPercent": percent}
    return {**spec, "predictor": padded(stable, before, size), "canary": [made]}


def silent(spec: Mapping[str, Any], entries: Sequence[Entry]) -> Spec:
    """Return the spec with the traffic of these entries taken away."""
    quiet = [
        {**entry, "trafficPercent": 0} if entry in entries else entry for entry in entries_of(spec)
    ]
    return {**spec, "canary": quiet}


def alone(spec: Mapping[str, Any]) -> Spec:
    """Return the spec with nothing beside the stable, which asks for what it did before."""
    stable: Predictor = spec["predictor"]
    for entry in entries_of(spec):
        stable = restored(stable, entry["predictor"])
    return {**_without_canary(spec), "predictor": stable}


def promoted(spec: Mapping[str, Any], entry: Entry, desired: DesiredRevision) -> Spec:
    """Return the spec with the candidate in the place of the stable, under its own name.

    It is what was tried out, to the letter, so that its pods are kept; only what says how it
    scales is the template's.
    """
    kept = {key: value for key, value in entry["predictor"].items() if key != "minReplicas"}
    scaling = {
        key: desired.predictor[key]
        for key in ("minReplicas", *AUTOSCALING)
        if key in desired.predictor
    }
    return {**_without_canary(spec), "predictor": {**kept, **scaling}}


def loud(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries that are to have traffic."""
    return [entry for entry in entries if entry.get("trafficPercent")]


def _without_canary(spec: Mapping[str, Any]) -> Spec:
    return {key: value for key, value in spec.items() if key != "canary"}
