"""The rules of the fake KServe, as functions: what its webhook rejects, which HTTPRoutes it makes.

On the cluster of the tests both are compared with KServe itself (``test_kserve_webhook``,
``test_kserve_standard``).
"""

import re

MODE = "serving.kserve.io/deploymentMode"
STANDARD = ("Standard", "RawDeployment")
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_MAX_NAME = 63
_FRAMEWORKS = (
    "model", "sklearn", "xgboost", "tensorflow", "pytorch", "triton", "onnx", "huggingface",
    "pmml", "lightgbm", "paddle",
)  # fmt: skip
_GATEWAY_GROUP = "gateway.networking.k8s.io"
_EVERYTHING = "^/.*$"
_NOT_ON_A_CANARY = ("maxReplicas", "scaleTarget", "scaleMetric", "autoScaling", "workerSpec")


def webhook(obj):
    """Return why KServe's webhook rejects an object of any kind, or None where it does not."""
    return rejection(obj) if obj["kind"] == "InferenceService" else None


def rejection(service):
    """Return why an InferenceService is rejected, or None where it is not."""
    return next(_faults(service), None)


def _faults(service):
    spec = service["spec"]
    name = service["metadata"].get("name", "")
    stable = spec["predictor"]
    if not _NAME.fullmatch(name):
        yield f"the name {name!r} of the InferenceService is not of the form {_NAME.pattern}"
    yield from _implementation(stable, "predictor")
    canaries = spec.get("canary") or []
    mode = service["metadata"].get("annotations", {}).get(MODE, STANDARD[0])
    if canaries and mode not in STANDARD:
        yield f"spec.canary needs the deployment mode Standard, not {mode}"
    names = [stable.get("name", "")]
    most = stable.get("minReplicas", 1)
    for number, canary in enumerate(canaries):
        where = f"spec.canary[{number}].predictor"
        yield from _canary(canary["predictor"], where, name, names)
        if canary["predictor"].get("minReplicas", 0) > most:
            yield f"{where}.minReplicas must not be above the stable's {most}"
        names.append(canary["predictor"].get("name", ""))
    total = sum(canary["trafficPercent"] for canary in canaries)
    if total > 100:
        yield f"the canaries' trafficPercent add up to {total}, which is more than 100"


def _canary(predictor, where, service, names):
    name = predictor.get("name", "")
    if not name:
        yield f"{where}.name is required"
    if not _NAME.fullmatch(name):
        yield f"{where}.name {name!r} is not of the form {_NAME.pattern}"
    if name in names:
        yield f"{where}.name {name!r} is that of another predictor"
    if len(f"{service}-{name}-predictor") > _MAX_NAME:
        yield f"{where}.name makes a Deployment's name of over {_MAX_NAME} letters"
    forbidden = [field for field in _NOT_ON_A_CANARY if field in predictor]
    if forbidden:
        yield f"{where} must not set {', '.join(forbidden)}"
    yield from _implementation(predictor, where)


def _implementation(predictor, where):
    found = [field for field in (*_FRAMEWORKS, "containers") if predictor.get(field)]
    if len(found) != 1:
        yield f"{where} needs exactly one implementation, it has {', '.join(found) or 'none'}"


def variant_name(found, predictor):
    """Return the name of a variant's Deployment, Service and autoscaler."""
    parts = [found["metadata"]["name"], predictor.get("name", ""), "predictor"]
    return "-".join(part for part in parts if part)


def route(found, name, ingress, stable, ready):
    """Return an HTTPRoute: all to the stable variant but the shares of the canaries.

    Parameters
    ----------
    name
        That of the route: the service's own, or with ``-predictor``.
    ingress
        ``ingress`` of KServe's ConfigMap.
    stable, ready
        The stable Deployment and those of the canaries that are ready.
    """
    space = found["metadata"]["namespace"]
    shares = {
        variant_name(found, canary["predictor"]): canary["trafficPercent"]
        for canary in found["spec"].get("canary") or []
    }
    backends = [_backend(stable, space)]
    if shares:
        taken = {one["metadata"]["name"]: shares[one["metadata"]["name"]] for one in ready}
        backends[0]["weight"] = 100 - sum(taken.values())
        backends += [
            {**_backend(one, space), "weight": taken[one["metadata"]["name"]]} for one in ready
        ]
    gateway_space, gateway = ingress["kserveIngressGateway"].split("/")
    headers = [
        {"name": "KServe-Isvc-Name", "value": found["metadata"]["name"]},
        {"name": "KServe-Isvc-Namespace", "value": space},
    ]
    return {
        "apiVersion": f"{_GATEWAY_GROUP}/v1",
        "kind": "HTTPRoute",
        "metadata": _metadata(found, name, found["metadata"].get("labels", {})),
        "spec": {
            "hostnames": [f"{name}-{space}.{ingress['ingressDomain']}"],
            "parentRefs": [
                {
                    "group": _GATEWAY_GROUP, "kind": "Gateway", "namespace": gateway_space,
                    "name": gateway,
                }
            ],
            "rules": [
                {
                    "matches": [{"path": {"type": "RegularExpression", "value": _EVERYTHING}}],
                    "filters": [
                        {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": headers}}
                    ],
                    "backendRefs": backends,
                    "timeouts": {"request": "60s"},
                }
            ],
        },
    }  # fmt: skip


def _backend(desired, space):
    return {
        "group": "", "kind": "Service", "name": desired["metadata"]["name"], "namespace": space,
        "port": 80,
    }  # fmt: skip


def _metadata(found, name, labels):
    owner = {
        "apiVersion": found["apiVersion"], "kind": found["kind"],
        "name": found["metadata"]["name"], "uid": found["metadata"]["uid"],
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip
    return {
        "name": name,
        "namespace": found["metadata"]["namespace"],
        "labels": labels,
        "ownerReferences": [owner],
    }
