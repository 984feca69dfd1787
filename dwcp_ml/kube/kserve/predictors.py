"""The spec of an InferenceService with a stable, a candidate and their replicas; all pure."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from dwcp_ml.kube.api import INFERENCE_SERVICE
from dwcp_ml.kube.kserve.objects import (
    DIGEST,
    MODE_ANNOTATION,
    STABLE,
    TEMPLATE,
    VERSION,
    Predictor,
    bare_digest,
    deployment_name,
    predictor_name,
    served_of,
    serves,
)
from dwcp_ml.kube.kserve.router import DesiredRevision, TrafficUnknown

AUTOSCALING: Final = ("maxReplicas", "scaleTarget", "scaleMetric", "autoScaling")
"""What KServe refuses in a canary."""


def predictor_of(desired: DesiredRevision, name: str = "") -> Predictor:
    """Return the predictor that serves the desired bundle, as its template says."""
    predictor: Predictor = copy.deepcopy(dict(desired.predictor))
    for field in ("name", "canaryTrafficPercent"):
        predictor.pop(field, None)
    if name:
        predictor["name"] = name
    predictor["model"] = {**(predictor.get("model") or {}), "storageUri": desired.storage_uri}
    predictor["annotations"] = {
        **(predictor.get("annotations") or {}),
        VERSION: desired.version,
        DIGEST: f"sha256:{bare_digest(desired.digest)}",
        TEMPLATE: _hash(desired.predictor),
    }
    return predictor


def is_of_template(predictor: Mapping[str, Any], desired: DesiredRevision) -> bool:
    """Return whether a predictor was made of the template as it is now, as far as it says."""
    said = (predictor.get("annotations") or {}).get(TEMPLATE)
    return said is None or said == _hash(desired.predictor)


def _hash(template: Mapping[str, Any]) -> str:
    text = json.dumps(template, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def first_deployment(
    desired: DesiredRevision, namespace: str, name: str, mode: str, predictor: Predictor
) -> dict[str, Any]:
    """Return an InferenceService that gives everything to the desired bundle."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "labels": dict(desired.labels),
        "annotations": {**desired.annotations, MODE_ANNOTATION: mode},
    }
    if desired.owner_references:
        metadata["ownerReferences"] = [dict(each) for each in desired.owner_references]
    return {
        "apiVersion": INFERENCE_SERVICE.api_version,
        "kind": INFERENCE_SERVICE.kind,
        "metadata": metadata,
        "spec": {"predictor": predictor},
    }


def with_stable(predictor: Predictor, stable: Mapping[str, Any]) -> Predictor:
    """Return a predictor that remembers what the stable was."""
    kept = copy.deepcopy(dict(stable))
    kept.pop("canaryTrafficPercent", None)
    annotations = {**(kept.get("annotations") or {})}
    annotations.pop(STABLE, None)  # or each stable would hold all that were before it
    if annotations:
        kept["annotations"] = annotations
    else:
        kept.pop("annotations", None)
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    said = {**(predictor.get("annotations") or {}), STABLE: text}
    return {**predictor, "annotations": said}


def stable_of(predictor: Mapping[str, Any]) -> Predictor:
    """Return what a predictor remembers of the stable.

    Raises
    ------
    TrafficUnknown
        If it remembers nothing that can be read.
    """
    text = (predictor.get("annotations") or {}).get(STABLE)
    try:
        found = json.loads(text) if text else None
    except ValueError:
        found = None
    if not isinstance(found, dict) or served_of(found) is None:
        raise TrafficUnknown(
            f"the predictor has a canaryTrafficPercent, and no annotation {STABLE} says what its "
            "stable is: take canaryTrafficPercent away once what is live is what you want."
        )
    return found


BEFORE: Final = "ml.dwcp.io/stable-replicas"
_BOUNDS: Final = ("minReplicas", "maxReplicas")


@dataclass(frozen=True)
class Before:
    """The stable's replicas before a candidate came.

    Parameters
    ----------
    replicas
        As many as there were, or as it asked for if that is more.
    minReplicas, maxReplicas
        What it asked for; ``None`` for nothing.
    """

    replicas: int
    minReplicas: int | None = None  # noqa: N815 - KServe's name
    maxReplicas: int | None = None  # noqa: N815


def before_of(stable: Mapping[str, Any], running: int) -> Before:
    """Return what a stable without anything beside it asks for.

    Parameters
    ----------
    running
        Replicas of its Deployment; more than it asks for where it was scaled up.
    """
    asked = {key: int(stable[key]) for key in _BOUNDS if stable.get(key) is not None}
    return Before(max(1, running, asked.get("minReplicas", 1)), **asked)


def remembered(canary: Mapping[str, Any]) -> Before | None:
    """Return what the stable asked for before this canary came; ``None`` if it does not say."""
    text = (canary.get("annotations") or {}).get(BEFORE)
    try:
        return Before(**json.loads(text)) if text else None
    except (ValueError, TypeError):
        return None


def size_of(before: Before, desired: Mapping[str, Any], there: int, percent: int) -> int:
    """Return how many replicas a candidate gets.

    Parameters
    ----------
    desired
        Its template.
    there
        What it asks for already; it never gets less.
    percent
        Its share.
    """
    full = max(before.replicas, int(desired.get("minReplicas") or 0))
    return max(there, full if percent else 1)


def padded(stable: Predictor, before: Before, size: int) -> Predictor:
    """Return the stable predictor with as many more replicas as KServe takes off again.

    KServe leaves a stable its last replica, and refuses a canary that asks for more than it.
    """
    if before.replicas == size == 1 and before.minReplicas != 0:
        return stable
    most = before.replicas + size
    changed = {**stable, "minReplicas": most}
    if before.maxReplicas:
        changed["maxReplicas"] = max(before.maxReplicas, most)
    return changed


def remembering(canary: Predictor, before: Before, size: int) -> Predictor:
    """Return the canary with its replicas, and with what the stable asked for.

    Always, though it matters only above one replica: KServe gives a canary each annotation of its
    stable that it has not itself, and would restart its pods when it loses one on promotion.
    """
    text = json.dumps({key: value for key, value in asdict(before).items() if value is not None})
    annotations = {**(canary.get("annotations") or {}), BEFORE: text}
    return {**canary, "minReplicas": size, "annotations": annotations}


def restored(stable: Predictor, canary: Mapping[str, Any]) -> Predictor:
    """Return the stable predictor with what it asked for before this canary came."""
    before = remembered(canary)
    if before is None:
        return stable
    kept = {key: value for key, value in stable.items() if key not in _BOUNDS}
    bounds = {"minReplicas": before.minReplicas, "maxReplicas": before.maxReplicas}
    return {**kept, **{key: value for key, value in bounds.items() if value is not None}}


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
