"""The objects that the played KServe makes of one InferenceService: pure functions."""

import time

INFERENCE_SERVICE = "serving.kserve.io/inferenceservice"
_AUTOSCALER = "serving.kserve.io/autoscalerClass"
_SOURCE = "internal.serving.kserve.io/storage-initializer-sourceuri"
_CONTAINER = "kserve-container"
_GATEWAY_GROUP = "gateway.networking.k8s.io"
_EVERYTHING = "^/.*$"
_OF_A_POD = (
    "affinity", "automountServiceAccountToken", "imagePullSecrets", "nodeSelector",
    "securityContext", "serviceAccountName", "terminationGracePeriodSeconds", "tolerations",
    "topologySpreadConstraints", "volumes",
)  # fmt: skip
_OF_A_CONTAINER = (
    "args", "command", "env", "envFrom", "image", "imagePullPolicy", "lifecycle", "livenessProbe",
    "ports", "readinessProbe", "resources", "securityContext", "startupProbe", "volumeMounts",
)  # fmt: skip


class RuntimeMissing(Exception):
    """No ServingRuntime of that name; the message names it."""


def variant_name(found, predictor):
    """Return the name of a variant's Deployment, Service and autoscaler."""
    parts = [found["metadata"]["name"], predictor.get("name", ""), "predictor"]
    return "-".join(part for part in parts if part)


def deployment(found, predictor, runtime):
    """Return the Deployment of one variant.

    Parameters
    ----------
    found
        The InferenceService.
    predictor
        The variant, whole, with ``minReplicas``.
    runtime
        Its ServingRuntime or ClusterServingRuntime.
    """
    name = variant_name(found, predictor)
    labels = _labels(found, name)
    model = predictor.get("model", {})
    annotations = {
        key: value
        for key, value in found["metadata"].get("annotations", {}).items()
        if not key.startswith("kubectl.kubernetes.io/")
    }
    if "storageUri" in model:
        annotations[_SOURCE] = model["storageUri"]
    container, *others = runtime["spec"]["containers"]
    served = {
        **container,
        **{key: model[key] for key in _OF_A_CONTAINER if key in model},
        "name": _CONTAINER,
    }
    pod = {
        **{key: runtime["spec"][key] for key in _OF_A_POD if key in runtime["spec"]},
        **{key: predictor[key] for key in _OF_A_POD if key in predictor},
        "containers": [served, *others],
    }
    template = {
        "metadata": {
            "labels": {**labels, **predictor.get("labels", {})},
            "annotations": {**annotations, **predictor.get("annotations", {})},
        },
        "spec": pod,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(found, name, labels),
        "spec": {
            "replicas": predictor["minReplicas"],
            "selector": {"matchLabels": {"app": labels["app"]}},
            "template": template,
        },
    }


def service(found, wanted):
    """Return the Service in front of a variant's Deployment."""
    name = wanted["metadata"]["name"]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(found, name, wanted["metadata"]["labels"]),
        "spec": {
            "selector": {"app": wanted["metadata"]["labels"]["app"]},
            "ports": [{"name": name[:63], "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    }


def autoscaler(found, wanted):
    """Return the stable variant's autoscaler, or None where the service asks for none."""
    if found["metadata"].get("annotations", {}).get(_AUTOSCALER, "hpa") != "hpa":
        return None
    predictor = found["spec"]["predictor"]
    smallest = max(1, predictor.get("minReplicas", 1))
    name = wanted["metadata"]["name"]
    target = {"type": "Utilization", "averageUtilization": predictor.get("scaleTarget", 80)}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": _metadata(found, name, wanted["metadata"]["labels"]),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": smallest,
            "maxReplicas": max(smallest, predictor.get("maxReplicas", 0)),
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        },
    }


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


def status(found, live, routes, missing=""):
    """Return the status of an InferenceService; None where a field is to go.

    Parameters
    ----------
    live
        The Deployment of each variant, stable first; None for one that is not there yet.
    routes
        The HTTPRoutes, None for one that is not there; None where there are none by design.
    missing
        Why the service can't be built; empty where it can.
    """
    name, space = found["metadata"]["name"], found["metadata"]["namespace"]
    ready = [_has(one, "Available") for one in live]
    stable_ready = bool(ready and ready[0])
    ingress_ready = routes is None or (bool(routes) and all(map(_accepted, routes)))
    conditions = [
        _condition("PredictorReady", stable_ready, missing or "the Deployment is not available"),
        _condition("IngressReady", ingress_ready and stable_ready, "no parent accepted the routes"),
        _condition("Ready", stable_ready and ingress_ready, missing or "not everything is ready"),
    ]
    canaries = found["spec"].get("canary") or []
    shown = None
    if canaries:
        readiness = [*ready[1:], *[False] * len(canaries)][: len(canaries)]
        every = all(readiness)
        aggregate = _condition("CanaryPredictorReady", every, missing or "a canary is not ready")
        reason = "AllCanariesReady" if every else "CanariesNotReady"
        conditions.append({**aggregate, "reason": reason, "severity": "Info"})
        shown = [
            {
                "name": canary["predictor"]["name"],
                "ready": is_ready,
                "trafficPercent": canary["trafficPercent"],  # the spec's, not the route's
            }
            for canary, is_ready in zip(canaries, readiness, strict=True)
        ]
    stable = live[0] if live else None
    host = f"{name}-{space}.example.com"
    return {
        "observedGeneration": (stable or {}).get("status", {}).get("observedGeneration"),
        "deploymentMode": "Standard",
        "url": f"http://{host}" if stable_ready else None,
        "address": {"url": f"http://{name}-predictor.{space}.svc.cluster.local"},
        "canaryStatuses": shown,
        "conditions": _with_times(conditions, found.get("status", {}).get("conditions", [])),
    }


def _with_times(conditions, before):
    known = {(one["type"], one["status"]): one.get("lastTransitionTime") for one in before}
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return [
        {**one, "lastTransitionTime": known.get((one["type"], one["status"])) or now}
        for one in sorted(conditions, key=lambda one: one["type"])
    ]


def _condition(kind, is_true, otherwise):
    if is_true:
        return {"type": kind, "status": "True"}
    return {"type": kind, "status": "False", "reason": "NotReady", "message": otherwise}


def _has(live, kind):
    conditions = (live or {}).get("status", {}).get("conditions", [])
    return any(one["type"] == kind and one["status"] == "True" for one in conditions)


def _accepted(live):
    parents = (live or {}).get("status", {}).get("parents", [])
    refused = [
        one
        for parent in parents
        for one in parent.get("conditions", [])
        if one["status"] == "False"
    ]
    return bool(parents) and not refused


def _backend(wanted, space):
    return {
        "group": "", "kind": "Service", "name": wanted["metadata"]["name"], "namespace": space,
        "port": 80,
    }  # fmt: skip


def _labels(found, name):
    return {
        "app": f"isvc.{name}",
        INFERENCE_SERVICE: found["metadata"]["name"],
        "component": "predictor",
    }


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
