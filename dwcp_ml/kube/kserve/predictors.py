"""Predictors of an InferenceService: what they serve, and what is written there; all pure."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from dwcp_ml.kube.api import INFERENCE_SERVICE
from dwcp_ml.kube.kserve.names import DIGEST, MODE, SOURCE, STABLE, TEMPLATE, VERSION, bare
from dwcp_ml.kube.kserve.router import DeployedRevision, DesiredRevision, TrafficUnknown

AUTOSCALING: Final = ("maxReplicas", "scaleTarget", "scaleMetric", "autoScaling")
"""What KServe refuses in a canary."""

Predictor = dict[str, Any]


def served_of(predictor: Mapping[str, Any]) -> DeployedRevision | None:
    """Return what a predictor serves; ``None`` if it names no bundle."""
    model = predictor.get("model") or {}
    uri = str(model.get("storageUri") or "")
    said = predictor.get("annotations") or {}
    version = str(said.get(VERSION) or uri.rstrip("/").rsplit("/", 1)[-1])
    digest = bare(str(said.get(DIGEST) or ""))
    return DeployedRevision(uri, version, digest) if uri or digest else None


def serves(predictor: Mapping[str, Any], desired: DesiredRevision) -> bool:
    """Return whether a predictor serves the desired bundle: by digest, else by address."""
    found = served_of(predictor)
    if found is None:
        return False
    if found.digest:
        return found.digest == bare(desired.digest)
    return found.uri == desired.storage_uri


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
        DIGEST: f"sha256:{bare(desired.digest)}",
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
        "annotations": {**desired.annotations, MODE: mode},
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


def is_made_of(template: Mapping[str, Any], predictor: Mapping[str, Any]) -> bool:
    """Return whether a pod template was made of a predictor as it stands now.

    KServe hands a predictor's annotations on, and adds the bundle's address.
    """
    there = (template.get("metadata") or {}).get("annotations") or {}
    desired = predictor.get("annotations") or {}
    uri = (predictor.get("model") or {}).get("storageUri")
    said = (key for key in (VERSION, DIGEST, TEMPLATE) if key in desired)
    is_same = all(there.get(key) == desired[key] for key in said)
    return is_same and there.get(SOURCE, uri) == uri


def covers(live: Any, desired: Any) -> bool:
    """Return whether everything desired is there; what the server added is no difference."""
    if isinstance(desired, Mapping):
        return isinstance(live, Mapping) and all(
            key in live and covers(live[key], value) for key, value in desired.items()
        )
    if isinstance(desired, list):
        return (
            isinstance(live, list) and len(live) == len(desired) and all(map(covers, live, desired))
        )
    return bool(live == desired)
