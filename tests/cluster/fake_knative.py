"""Fake controllers of Knative: what KServe sees of a Knative Service.

KServe's own reconciler writes the Knative Service; this reconciles it. Each change of the
template becomes a revision, numbered as Knative numbers them, with a Deployment whose pods are
kwok's; traffic to "the latest revision" goes to the latest one that has been ready. Left out:
scaling (each revision keeps its pods), queue-proxy, tags' own addresses, failing for good.

Held against Knative Serving 1.21.1 on kind, over the Gateway API and Envoy Gateway, on 2026-11-30:
a share that changes, a new template at 0 % and at 1 %, one that crashes, a promotion, a roll-back.
Names, generations, targets and conditions are the same, in the same order. There a revision
that no target names loses its pods after a minute (``tests/kind/live/test_knative.py``).
"""

import hashlib
import json
import time

from tests.cluster.fake_controllers import FakeController

KNATIVE_SERVICES = "/apis/serving.knative.dev/v1/services"
REVISION = "serving.knative.dev/revision"
_SERVICE = "serving.knative.dev/service"
_TEMPLATE = "ml.dwcp.io/fake-knative-template"
_OF_KNATIVE = (
    "containerConcurrency", "idleTimeoutSeconds", "responseStartTimeoutSeconds", "timeoutSeconds",
)  # fmt: skip
_DOMAIN = "example.com"


class FakeKnative(FakeController):
    """Makes revisions and keeps the status of every Knative Service."""

    name = "fake Knative"

    def __init__(self, rest):
        super().__init__(rest)
        self.services = self.watch(KNATIVE_SERVICES)
        self.deployments = self.watch("/apis/apps/v1/deployments", self._service_of, _SERVICE)

    def reconcile(self, key):
        found = self.services.objects.get(key)
        if found is None or "deletionTimestamp" in found["metadata"]:
            return  # its Deployments are collected by the garbage collector
        revisions = self._revisions(key)
        newest = max(revisions, default=None)
        if newest is None or _seen(revisions[newest]) != digest(found["spec"]["template"]):
            space, name = key
            number = 1 + (int(newest.rpartition("-")[2]) if newest else 0)
            path = f"/apis/apps/v1/namespaces/{space}/deployments"
            self.rest.create(path, deployment(found, f"{name}-{number:05d}"))
            return  # the watch tells when it is there
        ready = {name for name, one in revisions.items() if _is_available(one)}
        desired = status(found, newest, ready)
        if desired != found.get("status"):
            space, name = key
            path = f"/apis/serving.knative.dev/v1/namespaces/{space}/services/{name}/status"
            self.rest.put(path, {**found, "status": desired})

    def _revisions(self, key):
        """Return name -> Deployment of a service's revisions."""
        return {
            one["metadata"]["labels"][REVISION]: one
            for (space, _), one in list(self.deployments.objects.items())
            if (space, one["metadata"]["labels"][_SERVICE]) == key
        }

    def _service_of(self, key):
        one = self.deployments.objects.get(key)
        if one is None:
            return [known for known in list(self.services.objects) if known[0] == key[0]]
        return [(key[0], one["metadata"]["labels"][_SERVICE])]


def digest(template):
    """Return a SHA-256 that changes with a template."""
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()


def deployment(found, revision):
    """Return the Deployment of a new revision of a Knative Service.

    Parameters
    ----------
    found
        The Knative Service.
    revision
        The revision's name.
    """
    template = found["spec"]["template"]
    labels = {_SERVICE: found["metadata"]["name"], REVISION: revision}
    metadata = template.get("metadata", {})
    owner = {
        "apiVersion": found["apiVersion"], "kind": found["kind"],
        "name": found["metadata"]["name"], "uid": found["metadata"]["uid"],
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip
    pod = {name: value for name, value in template["spec"].items() if name not in _OF_KNATIVE}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": f"{revision}-deployment",
            "namespace": found["metadata"]["namespace"],
            "labels": labels,
            "annotations": {_TEMPLATE: digest(template)},
            "ownerReferences": [owner],
        },
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {
                    "labels": {**metadata.get("labels", {}), **labels},
                    "annotations": metadata.get("annotations", {}),
                },
                "spec": pod,
            },
        },
    }


def status(found, created, ready):
    """Return the status of a Knative Service.

    Parameters
    ----------
    found
        The Knative Service, with its status of before.
    created
        Name of the newest revision.
    ready
        Names of the revisions that are ready now; one that was ready once stays the latest ready
        one until a newer one is.
    """
    before = found.get("status", {})
    latest = max({*ready, before.get("latestReadyRevisionName", "")})
    name, space = found["metadata"]["name"], found["metadata"]["namespace"]
    traffic = [_target(one, latest) for one in found["spec"].get("traffic", [])] if latest else []
    # The route is ready once the gateway has the traffic, which takes it a moment.
    routed = bool(traffic) and traffic == before.get("traffic")
    routed = routed and all(one["revisionName"] <= latest for one in traffic)
    conditions = {
        "ConfigurationsReady": "True" if created == latest else "Unknown",
        "RoutesReady": "True" if routed else "Unknown",
    }
    every = all(one == "True" for one in conditions.values())
    conditions["Ready"] = "True" if every else "Unknown"
    desired = {
        "observedGeneration": found["metadata"]["generation"],
        "conditions": _conditions(conditions, before.get("conditions", [])),
        "latestCreatedRevisionName": created,
        "traffic": traffic,
        "url": f"http://{name}.{space}.{_DOMAIN}",
        "address": {"url": f"http://{name}.{space}.svc.cluster.local"},
    }
    return {**desired, "latestReadyRevisionName": latest} if latest else desired


def _target(asked, latest):
    is_latest = asked.get("latestRevision", False)
    return {
        **{name: asked[name] for name in ("percent", "tag") if name in asked},
        "latestRevision": is_latest,
        "revisionName": latest if is_latest else asked["revisionName"],
    }


def _conditions(desired, before):
    known = {(one["type"], one["status"]): one.get("lastTransitionTime") for one in before}
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return [
        {"type": kind, "status": one, "lastTransitionTime": known.get((kind, one)) or now}
        for kind, one in sorted(desired.items())
    ]


def _seen(one):
    return one["metadata"]["annotations"][_TEMPLATE]


def _is_available(one):
    conditions = one.get("status", {}).get("conditions", [])
    return any(it["type"] == "Available" and it["status"] == "True" for it in conditions)
