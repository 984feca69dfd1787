"""The spec of an InferenceService with a stable, a candidate and their replicas; all pure.

KServe does not scale a canary, and subtracts a ready canary's replicas from the stable's
``minReplicas``: a stable of ten could have one replica left when the candidate has all traffic, too
few to roll back to. So while there is a candidate,

- it has one replica without traffic, and otherwise as many as the stable had: no step waits for
  pods, and its promotion needs no more of them;
- the stable's ``minReplicas`` is higher by what KServe subtracts.

The stable's former replicas are recorded in an annotation of the candidate; in the stable it would
restart the stable's pods.
"""

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
    RUNTIME,
    STABLE,
    TEMPLATE,
    TEMPLATE_RUNTIME,
    VERSION,
    Predictor,
    bare_digest,
    deployed_revision,
    deployment_name,
    predictor_name,
    server_arguments,
    serves,
)
from dwcp_ml.kube.kserve.router import DesiredRevision, TrafficUnknown

AUTOSCALING: Final = ("maxReplicas", "scaleTarget", "scaleMetric", "autoScaling")
"""Fields that KServe rejects in a canary."""


def predictor_of(desired: DesiredRevision, name: str = "") -> Predictor:
    """Return the predictor of the desired bundle, made from its template.

    Its servers are told the digest, so that none of them ever serves another bundle from the same
    address. A model server makes no request to the API server, so its pods get no token for it.
    """
    predictor: Predictor = copy.deepcopy(dict(desired.predictor))
    for field in ("name", "canaryTrafficPercent"):
        predictor.pop(field, None)
    if name:
        predictor["name"] = name
    predictor["automountServiceAccountToken"] = False
    predictor["model"] = {**_model_of(desired), "storageUri": desired.storage_uri}
    predictor["annotations"] = {
        **(predictor.get("annotations") or {}),
        VERSION: desired.version,
        DIGEST: f"sha256:{bare_digest(desired.digest)}",
        TEMPLATE: _hash(desired),
        RUNTIME: desired.runtime or TEMPLATE_RUNTIME,
    }
    return predictor


def _model_of(desired: DesiredRevision) -> dict[str, Any]:
    """Return the template's model with what is the revision's own, but for its address."""
    model = {**(desired.predictor.get("model") or {})}
    if desired.runtime:
        model["runtime"] = desired.runtime
    return {**model, "args": server_arguments(desired.model, desired.digest)}


def is_of_template(predictor: Mapping[str, Any], desired: DesiredRevision) -> bool:
    """Return whether a predictor was made from the present template; true if unknown."""
    recorded = (predictor.get("annotations") or {}).get(TEMPLATE)
    return recorded is None or recorded == _hash(desired)


def _hash(desired: DesiredRevision) -> str:
    """Return a hash of the template and of the arguments, which an older operator did not write."""
    text = json.dumps({**desired.predictor, "model": _model_of(desired)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def first_deployment(
    desired: DesiredRevision, namespace: str, name: str, mode: str, predictor: Predictor
) -> dict[str, Any]:
    """Return an InferenceService that gives all traffic to the desired bundle."""
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


def with_recorded_stable(predictor: Predictor, stable: Mapping[str, Any]) -> Predictor:
    """Return a predictor with the stable recorded in an annotation."""
    record = copy.deepcopy(dict(stable))
    record.pop("canaryTrafficPercent", None)
    annotations = {**(record.get("annotations") or {})}
    annotations.pop(STABLE, None)  # Or each record would contain all earlier ones.
    if annotations:
        record["annotations"] = annotations
    else:
        record.pop("annotations", None)
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return {**predictor, "annotations": {**(predictor.get("annotations") or {}), STABLE: text}}


def recorded_stable(predictor: Mapping[str, Any]) -> Predictor:
    """Return the stable that is recorded in a predictor.

    Raises
    ------
    TrafficUnknown
        If there is no readable record.
    """
    text = (predictor.get("annotations") or {}).get(STABLE)
    try:
        stable = json.loads(text) if text else None
    except ValueError:
        stable = None
    if not isinstance(stable, dict) or deployed_revision(stable) is None:
        raise TrafficUnknown(
            f"the predictor has a canaryTrafficPercent, and no annotation {STABLE} names its "
            "stable: remove canaryTrafficPercent once the live bundle is the one that you want."
        )
    return stable


BEFORE: Final = "ml.dwcp.io/stable-replicas"
_BOUNDS: Final = ("minReplicas", "maxReplicas")


@dataclass(frozen=True)
class StableReplicas:
    """The stable's replicas before the candidate was deployed.

    Parameters
    ----------
    replicas
        Running replicas, or ``minReplicas`` if that is more.
    minReplicas, maxReplicas
        Of its predictor; ``None`` if absent.
    """

    replicas: int
    minReplicas: int | None = None  # noqa: N815 - KServe's name
    maxReplicas: int | None = None  # noqa: N815


def replicas_before(stable: Mapping[str, Any], running: int) -> StableReplicas:
    """Return the replicas of a stable without a candidate.

    Parameters
    ----------
    running
        Replicas of its Deployment; more than ``minReplicas`` if it was scaled up.
    """
    bounds = {key: int(stable[key]) for key in _BOUNDS if stable.get(key) is not None}
    return StableReplicas(max(1, running, bounds.get("minReplicas", 1)), **bounds)


def recorded_replicas(canary: Mapping[str, Any]) -> StableReplicas | None:
    """Return the stable's replicas as recorded in a canary; ``None`` without a record."""
    text = (canary.get("annotations") or {}).get(BEFORE)
    try:
        return StableReplicas(**json.loads(text)) if text else None
    except (ValueError, TypeError):
        return None


def candidate_replicas(
    before: StableReplicas, desired: Mapping[str, Any], present: int, percent: int
) -> int:
    """Return the replicas of a candidate.

    Parameters
    ----------
    present
        Its present ``minReplicas``; the result is never smaller.
    """
    full = max(before.replicas, int(desired.get("minReplicas") or 0))
    return max(present, full if percent else 1)


def with_extra_replicas(stable: Predictor, before: StableReplicas, size: int) -> Predictor:
    """Return the stable predictor with the replicas added that KServe subtracts.

    KServe never removes the last replica of a stable, and rejects a canary with more replicas.
    """
    if before.replicas == size == 1 and before.minReplicas != 0:
        return stable
    total = before.replicas + size
    changed = {**stable, "minReplicas": total}
    if before.maxReplicas:
        changed["maxReplicas"] = max(before.maxReplicas, total)
    return changed


def with_recorded_replicas(canary: Predictor, before: StableReplicas, size: int) -> Predictor:
    """Return the canary with its replicas, and with those of the stable recorded.

    Always, though it matters only above one replica: KServe copies missing annotations from the
    stable to a canary, and would restart its pods when it loses one on promotion.
    """
    text = json.dumps({key: value for key, value in asdict(before).items() if value is not None})
    annotations = {**(canary.get("annotations") or {}), BEFORE: text}
    return {**canary, "minReplicas": size, "annotations": annotations}


def with_former_replicas(stable: Predictor, canary: Mapping[str, Any]) -> Predictor:
    """Return the stable predictor with the replicas that are recorded in this canary."""
    before = recorded_replicas(canary)
    if before is None:
        return stable
    others = {key: value for key, value in stable.items() if key not in _BOUNDS}
    bounds = {"minReplicas": before.minReplicas, "maxReplicas": before.maxReplicas}
    return {**others, **{key: value for key, value in bounds.items() if value is not None}}


Spec = dict[str, Any]
Entry = Mapping[str, Any]


def entries_of(spec: Mapping[str, Any]) -> list[Entry]:
    """Return the canary entries of a spec."""
    return list(spec.get("canary") or [])


def entry_of(spec: Mapping[str, Any], desired: DesiredRevision) -> Entry | None:
    """Return the entry that serves the desired bundle; ``None`` if none does."""
    matching = (entry for entry in entries_of(spec) if serves(entry["predictor"], desired))
    return next(matching, None)


def others_of(spec: Mapping[str, Any], desired: DesiredRevision) -> list[Entry]:
    """Return the entries that serve something else."""
    own = entry_of(spec, desired)
    return [entry for entry in entries_of(spec) if entry is not own]


def workload_of(service: str, predictor: Mapping[str, Any]) -> str:
    """Return the name of a predictor's Deployment and Service."""
    return deployment_name(service, str(predictor.get("name") or ""))


def workloads_of(service: str, spec: Mapping[str, Any]) -> set[str]:
    """Return the names of the Deployments of an InferenceService."""
    predictors = [spec["predictor"], *(entry["predictor"] for entry in entries_of(spec))]
    return {workload_of(service, predictor) for predictor in predictors}


def with_canary(
    place: tuple[str, str],
    spec: Mapping[str, Any],
    desired: DesiredRevision,
    percent: int,
    running: int,
) -> Spec:
    """Return the spec with the candidate as the only canary.

    Parameters
    ----------
    running
        Replicas of the stable's Deployment.
    """
    stable: Predictor = spec["predictor"]
    canaries = [entry["predictor"] for entry in entries_of(spec)]
    entry = entry_of(spec, desired)
    if entry is not None:
        name = str(entry["predictor"].get("name") or "")
    else:
        taken = [str(each.get("name") or "") for each in (stable, *canaries)]
        name = predictor_name(
            *place, desired.version, digest=desired.digest, runtime=desired.runtime, taken=taken
        )
    known = [before for before in map(recorded_replicas, canaries) if before is not None]
    before = known[0] if known else replicas_before(stable, running)
    present = int(entry["predictor"].get("minReplicas") or 0) if entry is not None else 0
    size = candidate_replicas(before, desired.predictor, present, percent)
    canary = predictor_of(desired, name)
    for field in AUTOSCALING:
        canary.pop(field, None)
    new_entry = {
        "predictor": with_recorded_replicas(canary, before, size),
        "trafficPercent": percent,
    }
    return {**spec, "predictor": with_extra_replicas(stable, before, size), "canary": [new_entry]}


def without_traffic(spec: Mapping[str, Any], entries: Sequence[Entry]) -> Spec:
    """Return the spec with the weight of these entries set to 0."""
    canary = [
        {**entry, "trafficPercent": 0} if entry in entries else entry for entry in entries_of(spec)
    ]
    return {**spec, "canary": canary}


def without_canary(spec: Mapping[str, Any]) -> Spec:
    """Return the spec without a canary; the stable has its former replicas."""
    stable: Predictor = spec["predictor"]
    for entry in entries_of(spec):
        stable = with_former_replicas(stable, entry["predictor"])
    return {**_without_entries(spec), "predictor": stable}


def with_promoted(spec: Mapping[str, Any], entry: Entry, desired: DesiredRevision) -> Spec:
    """Return the spec with the candidate as the stable, under its own name.

    Its predictor stays as it was tested, so that its pods stay; only the scaling fields are set
    from the template.
    """
    tested = {key: value for key, value in entry["predictor"].items() if key != "minReplicas"}
    scaling = {
        key: desired.predictor[key]
        for key in ("minReplicas", *AUTOSCALING)
        if key in desired.predictor
    }
    return {**_without_entries(spec), "predictor": {**tested, **scaling}}


def entries_with_traffic(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries whose weight is above 0."""
    return [entry for entry in entries if entry.get("trafficPercent")]


def _without_entries(spec: Mapping[str, Any]) -> Spec:
    return {key: value for key, value in spec.items() if key != "canary"}
