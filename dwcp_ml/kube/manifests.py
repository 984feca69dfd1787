"""The gate's manifests of an approved model: a KServe InferenceService and a ModelRollout.

The InferenceService is applied by hand on clusters without the operator: a canary at 1 % of the
stable bundle, or else a plain first deployment. The ModelRollout is for the operator, which raises
the candidate's share step by step, or rolls it back.

In Standard mode KServe splits traffic by ``spec.canary``; in Knative mode by
``canaryTrafficPercent``, where only the candidate is named and the stable revision stays as it is.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import yaml

from dwcp_ml.contract.bundle import MANIFEST_NAME
from dwcp_ml.contract.errors import UsageError, did_you_mean
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.kube.kserve.objects import predictor_name

Mode = Literal["standard", "knative"]
MODES: Final[tuple[Mode, ...]] = ("standard", "knative")

STEPS_PERCENT: Final = (1, 5, 25, 50, 100)
"""The candidate's share of the traffic in each step, in percent."""

MODEL_FORMAT: Final = "dwcp-ml-bundle"
"""KServe's name of the format of a bundle."""

RUNTIME: Final = "dwcp-ml-server"
"""Name of the ServingRuntime of the bundles."""

RUNTIME_WITH_GRPC: Final = "dwcp-ml-server-grpc"
"""Name of the one with a second port, for predictors in Standard mode that name it."""

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
    raise UsageError(f"There is no KServe mode '{text}': {did_you_mean(text, MODES)}.")


def _predictor(storage_uri: str) -> dict[str, Any]:
    return {
        "automountServiceAccountToken": False,
        "model": {
            "modelFormat": {"name": MODEL_FORMAT},
            "runtime": RUNTIME,
            "protocolVersion": "v1",
            "storageUri": storage_uri,
        },
    }


def _labels(spec: ModelSpec) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": spec.kubernetes_name,
        "app.kubernetes.io/part-of": "dwcp-ml",
    }


def revision_name(version: str, service: str = "") -> str:
    """Return the predictor name of a version in an InferenceService, as the operator chooses it.

    It is unique for each version. If a long namespace would make KServe's names too long, the
    operator's name is shorter.

    Raises
    ------
    DwcpError
        If the service's name is too long for any predictor name.
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
    stable_uri
        The bundle that serves now; empty for a first deployment, which has no canary.
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
    """Return the ModelRollout that raises the candidate to 1, 5, 25, 50, 100 %.

    ``digest`` is the SHA-256 of the bundle's ``manifest.json``: servers reject a bundle that
    changed after its approval.
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
    """Return a Kubernetes object as YAML, with one line of comment above."""
    body = yaml.safe_dump(document, sort_keys=False, default_flow_style=False)
    return f"# {comment}\n{body}"


def storage_uri(prefix: str, artifact_uri: str, spec: ModelSpec, version: str) -> str:
    """Return where a cluster finds a bundle.

    It is in ``prefix`` if there is one, else at the artifact's own address if that is remote. A
    path of this machine can't be read by a cluster: then it is the volume ``dwcp-models``.
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
    kind = f"canary at {STEPS_PERCENT[0]} %" if stable_uri else "first deployment"
    return {
        "inferenceservice.yaml": to_yaml(
            service, f"{spec.name} {version}: {kind}; for a cluster without the operator."
        ),
        ROLLOUT_FILE: to_yaml(
            model_rollout(spec, version, uri, digest, mode),
            f"{spec.name} {version}: the operator raises its share step by step; "
            f"the digest is that of the bundle's {MANIFEST_NAME}.",
        ),
    }
