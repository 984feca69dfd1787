"""The HTTPRoute that KServe makes of an InferenceService, as a function.

For tests that have no cluster. On the cluster of the tests it is compared with what KServe's own
controller writes (``test_kserve_standard``).
"""

_GATEWAY_GROUP = "gateway.networking.k8s.io"
_EVERYTHING = "^/.*$"


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
