"""A fake of KServe's controller over a ``MemoryApi``: what a rollout sees of it, with its faults.

Written from KServe's public behaviour (v0.21), not from its code. One ``step`` is one pass over
every InferenceService; Deployments, pods and gateways do at once what they are asked to.

What is kept on purpose in Standard mode: canaries that are not ready are left out of the
HTTPRoutes; the stable gives up the replicas that ready canaries have; what is no longer named is
deleted before the HTTPRoutes change (``broken`` tells who had traffic then); no HTTPRoute is made
before the stable is ready, nor changed while it is not; ``canaryStatuses`` repeats the spec; the
predictor's HTTPRoute is written before the service's own; a single backend keeps the weight 100 if
the canary goes before it was ever ready.
"""

import copy
import math

from dwcp_ml.kube.api import DEPLOYMENT, HTTP_ROUTE, INFERENCE_SERVICE
from tests.operator.fake_knative import knative_pass
from tests.operator.fake_kserve_rules import route, variant_name
from tests.operator.fake_workloads import (
    SERVICE,
    SOURCE,
    condition,
    containers_of,
    owned,
    pods,
    write_status,
)

_MODE = "serving.kserve.io/deploymentMode"
_INGRESS = {"kserveIngressGateway": "kserve/ingress", "ingressDomain": "example.com"}
_MOST_PASSES = 20


class FakeKServe:
    """Parameters
    ----------
    splits
        False for a KServe before 0.21: ``spec.canary`` is accepted, and no HTTPRoute says so.
    gateway
        False for one with an Ingress class: there are no HTTPRoutes at all.
    accepts
        False for a gateway that takes no HTTPRoute.

    Attributes to change: ``unready``, names of Deployments or revisions whose pods do not become
    ready; ``crashes``, such a name -> restarts; ``scaled``, a Deployment -> replicas that an
    autoscaler asks for; ``conditions``, a Deployment -> further conditions; ``pod_status``, a name
    as in ``unready`` -> fields of the status of its pods; ``gap``, the seconds by the clock ``now``
    from a change of the predictor's HTTPRoute to that of the service's own.
    """

    def __init__(self, api, *, splits=True, gateway=True, accepts=True):
        self.api = api.aside()
        self.splits = splits
        self.gateway = gateway
        self.accepts = accepts
        self.unready = set()
        self.crashes = {}
        self.scaled = {}
        self.conditions = {}
        self.pod_status = {}
        self.broken = []
        self.gap, self.now = 0.0, lambda: 0.0
        self._written_at = {}
        self._version = lambda: api.version

    def step(self):
        """Make one pass."""
        for found in self.api.list(INFERENCE_SERVICE):
            if "deletionTimestamp" in found["metadata"]:
                continue
            mode = found["metadata"].get("annotations", {}).get(_MODE, "Standard")
            if mode in ("Knative", "Serverless"):
                knative_pass(self, found)
            else:
                self._standard_pass(found)

    def settle(self):
        """Make passes until nothing changes any more; return how many did."""
        for passes in range(_MOST_PASSES):
            before = self._version()
            self.step()
            if self._version() == before:
                return passes
        raise AssertionError("the fake KServe never comes to rest")

    def _standard_pass(self, found):
        stable, canaries = self._variants(found)
        workloads = [self._deployment(found, one) for one in [*canaries, stable]]
        stable_workload, canary_workloads = workloads[-1], workloads[:-1]
        self._delete_others(found, {one["metadata"]["name"] for one in workloads})
        self._note_what_is_broken(found)
        ready = [one for one in canary_workloads if is_available(one)]
        has_routes = self._has_routes(found)
        if has_routes and is_available(stable_workload):
            shown = ready if self.splits else []
            alone = {**found, "spec": {**found["spec"], "canary": []}}
            described = found if self.splits else alone
            self._routes(described, stable_workload, shown)
        routes_ready = not has_routes or (is_available(stable_workload) and self.accepts)
        self._status(found, stable_workload, routes_ready, ready)

    def _variants(self, found):
        """Return the stable predictor and the canaries, each with its replicas."""
        spec = found["spec"]
        asked = spec["predictor"].get("minReplicas")
        canaries, given = [], 0
        for canary in spec.get("canary") or []:
            share = math.ceil((1 if asked is None else asked) * canary["trafficPercent"] / 100)
            whole = overlaid(spec["predictor"], canary["predictor"])
            whole["minReplicas"] = canary["predictor"].get("minReplicas", share)
            canaries.append(whole)
            if is_available(self._live_deployment(found, whole)):
                given += whole["minReplicas"]
        stable = dict(spec["predictor"])
        if asked is not None and canaries:
            stable["minReplicas"] = max(asked - given, 1)
        return stable, canaries

    def _live_deployment(self, found, predictor):
        name = variant_name(found, predictor)
        return self.api.get(DEPLOYMENT, found["metadata"]["namespace"], name)

    def _deployment(self, found, predictor):
        """Return the Deployment of a predictor, which carries out at once what it is asked to."""
        name, space = variant_name(found, predictor), found["metadata"]["namespace"]
        replicas = max(predictor.get("minReplicas", 1), self.scaled.get(name, 0))
        annotations = {
            **predictor.get("annotations", {}),
            SOURCE: predictor.get("model", {}).get("storageUri"),
        }
        spec = {
            "replicas": replicas,
            "template": {
                "metadata": {"annotations": annotations},
                "spec": containers_of(predictor),
            },
        }
        live = self.api.get(DEPLOYMENT, space, name)
        if live is None:
            live = self.api.create({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": owned(found, name, name), "spec": spec,
            })  # fmt: skip
        elif live["spec"] != spec:
            if live["spec"]["template"] != spec["template"]:
                pods(self, found, live, {"app": f"isvc.{name}"}, 0)  # others take their place
            live = self.api.replace({**live, "spec": spec})
        pods(self, found, live, {"app": f"isvc.{name}"}, replicas)
        number = 0 if name in self.unready else replicas
        status = {
            "observedGeneration": live["metadata"]["generation"],
            "replicas": replicas, "updatedReplicas": replicas, "availableReplicas": number,
            "conditions": [
                {"type": "Available", "status": "True" if number else "False"},
                *self.conditions.get(name, []),
            ],
        }  # fmt: skip
        return self.api.replace({**live, "status": status}, status=True)

    def _delete_others(self, found, kept):
        space, name = found["metadata"]["namespace"], found["metadata"]["name"]
        for one in self.api.list(DEPLOYMENT, space, f"{SERVICE}={name}"):
            if one["metadata"]["name"] not in kept:
                self.api.delete(DEPLOYMENT, space, one["metadata"]["name"])

    def _note_what_is_broken(self, found):
        space, name = found["metadata"]["namespace"], found["metadata"]["name"]
        live = self.api.get(HTTP_ROUTE, space, name)
        for rule in (live or {"spec": {"rules": []}})["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                workload = self.api.get(DEPLOYMENT, space, backend["name"])
                if backend.get("weight", 1) and not is_available(workload):
                    self.broken.append((backend["name"], backend.get("weight", 100)))

    def _has_routes(self, found):
        labels = found["metadata"].get("labels", {})
        is_local = labels.get("networking.kserve.io/visibility") == "cluster-local"
        return self.gateway and not is_local

    def _routes(self, found, stable, shown):
        """Write the predictor's HTTPRoute, and the service's own after the gap."""
        name = found["metadata"]["name"]
        key = found["metadata"]["namespace"], name
        if self._route(route(found, f"{name}-predictor", _INGRESS, stable, shown)):
            self._written_at[key] = self.now()
        if self.now() >= self._written_at.get(key, -math.inf) + self.gap:
            self._route(route(found, name, _INGRESS, stable, shown))

    def _route(self, desired):
        """Write an HTTPRoute as the gateway accepts it; return whether its spec was changed."""
        name, space = desired["metadata"]["name"], desired["metadata"]["namespace"]
        live = self.api.get(HTTP_ROUTE, space, name)
        changes = live is None or not is_as_desired(live["spec"], desired["spec"])
        if live is None:
            live = self.api.create(desired)
        elif changes:
            live = self.api.replace({**live, "spec": desired["spec"]})
        accepted = {
            "type": "Accepted", "status": "True" if self.accepts else "False",
            "message": "" if self.accepts else "no listener has this hostname",
            "observedGeneration": live["metadata"]["generation"],
        }  # fmt: skip
        parents = [
            {"parentRef": ref, "conditions": [accepted]} for ref in live["spec"]["parentRefs"]
        ]
        self.api.replace({**live, "status": {"parents": parents}}, status=True)
        return changes

    def _status(self, found, stable, routes_ready, ready):
        names = {one["metadata"]["name"] for one in ready}
        is_ready = is_available(stable)
        write_status(self, found, {
            "deploymentMode": "Standard",
            "conditions": [
                condition("IngressReady", routes_ready and is_ready),
                condition("PredictorReady", is_ready),
                condition("Ready", routes_ready and is_ready),
            ],
            "canaryStatuses": [
                {
                    "name": canary["predictor"]["name"],
                    "ready": variant_name(found, canary["predictor"]) in names,
                    "trafficPercent": canary["trafficPercent"],
                }
                for canary in found["spec"].get("canary") or []
            ],
        })  # fmt: skip


def is_as_desired(live, desired):
    """Return whether an HTTPRoute is as desired; a weight that is not desired may be any."""
    live = copy.deepcopy(live)
    for has, wants in zip(live["rules"], desired["rules"], strict=False):
        for one, other in zip(has["backendRefs"], wants["backendRefs"], strict=False):
            if "weight" not in other:
                one.pop("weight", None)
    return live == desired


def overlaid(base, top):
    """Return a canary's predictor with what it inherits from the stable."""
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = overlaid(base[key], value) if both else value
    return merged


def is_available(deployment):
    """Return whether a Deployment has a replica that can take traffic."""
    return bool(deployment) and deployment.get("status", {}).get("availableReplicas", 0) > 0
