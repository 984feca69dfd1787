"""What the gate writes for an approved model: a KServe InferenceService and a ModelRollout.

The InferenceService is for a cluster without the operator, to apply by hand: with something live
already it holds a canary at 1 %, otherwise it is a plain first deployment. The ModelRollout is what
the operator reads; it raises the candidate step by step, or takes it back.

KServe in Standard mode splits traffic by ``spec.canary``; in Knative mode by
``canaryTrafficPercent``, where the live revision stays what it was and only the candidate is named.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import yaml

from dwcp_ml.contract.bundle import MANIFEST_NAME
from dwcp_ml.contract.errors import UsageError, did_you_mean
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.kube.kserve.names import predictor_name

Mode = Literal["standard", "knative"]
MODES: Final[tuple[Mode, ...]] = ("standard", "knative")

STEPS_PERCENT: Final = (1, 5, 25, 50, 100)
"""Shares of the live traffic, in percent, that a candidate passes through."""

RUNTIME: Final = "dwcp-ml-server"
"""Name of the ServingRuntime that serves a bundle."""

ROLLOUT_FILE: Final = "modelrollout.yaml"

_ANNOTATION = "serving.kserve.io/deploymentMode"


def parse_mode(text: str) -> Mode:
    """Return the KServe mode called ``text``.

    Raises
    ------
    UsageError
        If there is no such mode.
    """
    for mode in MODES:
        if text.lower() == mode:
            return mode
    raise UsageError(f"there is no KServe mode '{text}': {did_you_mean(text, MODES)}.")


def _predictor(storage_uri: str) -> dict[str, Any]:
    return {
        "model": {
            "modelFormat": {"name": "dwcp-ml-bundle"},
            "runtime": RUNTIME,
            "protocolVersion": "v1",
            "storageUri": storage_uri,
        }
    }


def _labels(spec: ModelSpec) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": spec.kubernetes_name,
        "app.kubernetes.io/part-of": "dwcp-ml",
    }


def revision_name(version: str, service: str = "") -> str:
    """Return the predictor name of a version in an InferenceService: that of the operator.

    Two versions never get the same. In a namespace of so many letters that KServe's names would be
    too long, the operator's is shorter.

    Raises
    ------
    DwcpError
        If the service's name leaves no room.
    """
    return predictor_name("", service, version)


def _revision_at(uri: str, service: str) -> str:
    return revision_name(uri.rstrip("/").rsplit("/", 1)[-1], service)


def inference_service(
    spec: ModelSpec, version: str, storage_uri: str, stable_uri: str = "", mode: Mode = "standard"
) -> dict[str, Any]:
    """Return the InferenceService of one model.

    Parameters
    ----------
    storage_uri
        The bundle of the candidate.
    stable_uri
        The bundle that is live now; empty for a first deployment, which has no canary.
    """
    service: dict[str, Any] = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": spec.kubernetes_name,
            "labels": _labels(spec),
            "annotations": {_ANNOTATION: "Standard" if mode == "standard" else "Knative"},
        },
    }
    name = spec.kubernetes_name
    candidate = {"name": revision_name(version, name), **_predictor(storage_uri)}
    if not stable_uri:
        service["spec"] = {
            "predictor": candidate if mode == "standard" else _predictor(storage_uri)
        }
    elif mode == "standard":
        service["spec"] = {
            "predictor": {"name": _revision_at(stable_uri, name), **_predictor(stable_uri)},
            "canary": [{"predictor": candidate, "trafficPercent": STEPS_PERCENT[0]}],
        }
    else:
        service["spec"] = {
            "predictor": {"canaryTrafficPercent": STEPS_PERCENT[0], **_predictor(storage_uri)}
        }
    return service


def model_rollout(
    spec: ModelSpec, version: str, storage_uri: str, digest: str, mode: Mode = "standard"
) -> dict[str, Any]:
    """Return the ModelRollout that raises the candidate 1, 5, 25, 50, 100 %.

    ``digest`` is the SHA-256 of the bundle's ``manifest.json``: a bundle that changed after
    approval is refused.
    """
    return {
        "apiVersion": "ml.dwcp.io/v1alpha1",
        "kind": "ModelRollout",
        "metadata": {"name": spec.kubernetes_name, "labels": _labels(spec)},
        "spec": {
            "inferenceService": spec.kubernetes_name,
            "model": spec.name,
            "template": {
                "deploymentMode": mode.capitalize(),
                "predictor": {"model": _without_uri(_predictor(storage_uri)["model"])},
            },
            "candidate": {
                "storageUri": storage_uri,
                "version": version,
                "digest": f"sha256:{digest}",
            },
            "steps": [{"trafficPercent": percent} for percent in STEPS_PERCENT],
        },
    }


def _without_uri(model: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in model.items() if key != "storageUri"}


def to_yaml(document: dict[str, Any], comment: str) -> str:
    """Return a Kubernetes object as YAML below one line of comment."""
    body = yaml.safe_dump(document, sort_keys=False, default_flow_style=False)
    return f"# {comment}\n{body}"


def storage_uri(prefix: str, artifact_uri: str, spec: ModelSpec, version: str) -> str:
    """Return where a cluster finds a bundle.

    A ``prefix`` of the caller's wins; then the artifact's own address, if it is a remote one; a
    path of this machine means nothing to a cluster and becomes the volume ``dwcp-models``.
    """
    if prefix:
        base = prefix.rstrip("/")
    elif "://" in artifact_uri and not artifact_uri.startswith("file://"):
        base = artifact_uri.rstrip("/")
    else:
        base = "pvc://dwcp-models"
    return f"{base}/{spec.name}/{version}"


def manifests(
    spec: ModelSpec,
    version: str,
    uri: str,
    digest: str,
    stable_uri: str = "",
    mode: Mode = "standard",
) -> dict[str, str]:
    """Return file name -> YAML of the two manifests of one approved model."""
    service = inference_service(spec, version, uri, stable_uri, mode)
    how = (
        f"a canary at {STEPS_PERCENT[0]} % beside what is live"
        if stable_uri
        else "a first deployment"
    )
    return {
        "inferenceservice.yaml": to_yaml(
            service, f"{spec.name} {version}: {how}; for a cluster without the operator."
        ),
        ROLLOUT_FILE: to_yaml(
            model_rollout(spec, version, uri, digest, mode),
            f"{spec.name} {version}: the operator raises it step by step; "
            f"the digest is that of the bundle's {MANIFEST_NAME}.",
        ),
    }
