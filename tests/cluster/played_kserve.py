"""KServe's controller in Standard mode, played: what a rollout sees of it, with its known faults.

Written from KServe's public behaviour (v0.21), not from its code. It makes real Deployments,
Services and HTTPRoutes, which the real controllers of Kubernetes then carry out.

What is kept on purpose, because a rollout must live with it:

- ``canaryStatuses[].trafficPercent`` repeats the spec, whatever the HTTPRoute says;
- canaries that are not ready are left out of the HTTPRoute, and their share goes to the stable;
- no HTTPRoute is touched while the stable predictor is not ready, none is made for a service that
  is visible in the cluster only or where the Gateway API is off: no split, and no warning;
- Deployments and Services of variants that are gone are deleted before the HTTPRoutes change, and
  with them everything that carries the two labels; a removed variant's autoscaler stays;
- ``status.observedGeneration`` is the Deployment's;
- a canary that can't be built stops the stable from being looked at.
"""

import json
import math

from tests.cluster.desired import (
    INFERENCE_SERVICE,
    RuntimeMissing,
    autoscaler,
    deployment,
    route,
    service,
    status,
)
from tests.cluster.played_webhook import MODE, STANDARD
from tests.cluster.players import ROUTES, Player

SERVICES = "/apis/serving.kserve.io/v1beta1/inferenceservices"
_OWN = f"{INFERENCE_SERVICE},component=predictor"
_LOCAL = ("networking.kserve.io/visibility", "cluster-local")
_CONFIG = ("kserve", "inferenceservice-config")


class PlayedKServe(Player):
    """Keeps Deployments, Services, HTTPRoutes and the status as the InferenceServices ask."""

    name = "played KServe"

    def __init__(self, rest):
        super().__init__(rest)
        self.services = self.watch(SERVICES)
        self.deployments = self.watch("/apis/apps/v1/deployments", self._owners, _OWN)
        self.kubernetes_services = self.watch("/api/v1/services", self._owners, _OWN)
        self.routes = self.watch(ROUTES, self._owners)
        self.autoscalers = self.watch(
            "/apis/autoscaling/v2/horizontalpodautoscalers", self._owners, _OWN
        )
        self.runtimes = self.watch("/apis/serving.kserve.io/v1alpha1/servingruntimes", self._all)
        self.cluster_runtimes = self.watch(
            "/apis/serving.kserve.io/v1alpha1/clusterservingruntimes", self._all
        )
        self.config = self.watch("/api/v1/namespaces/kserve/configmaps", self._all)

    def look(self, key):
        found = self.services.objects.get(key)
        if found is None or "deletionTimestamp" in found["metadata"]:
            return  # what it owns is collected by the garbage collector
        if found["metadata"].get("annotations", {}).get(MODE, STANDARD[0]) not in STANDARD:
            return
        try:
            variants = self._variants(found)
            wanted = [deployment(found, one, self._runtime(found, one)) for one in variants]
        except RuntimeMissing as error:
            self._write_status(found, status(found, [], [], str(error)))
            return
        self._keep_workloads(found, wanted)
        routes = self._keep_routes(found, wanted)
        self._write_status(found, status(found, [self._live(one) for one in wanted], routes))

    def _variants(self, found):
        """Return the predictors, stable first, each whole and with its number of replicas."""
        spec = found["spec"]
        stable = dict(spec["predictor"])
        asked = stable.get("minReplicas", 1)
        canaries = []
        ready = 0
        for canary in spec.get("canary") or []:
            share = canary["trafficPercent"]
            inherited = {name: value for name, value in stable.items() if name != "minReplicas"}
            whole = _overlaid(inherited, canary["predictor"])
            whole["minReplicas"] = whole.get("minReplicas", math.ceil(asked * share / 100))
            canaries.append(whole)
            name = f"{found['metadata']['name']}-{whole['name']}-predictor"
            if _is_available(self.deployments.objects.get((found["metadata"]["namespace"], name))):
                ready += whole["minReplicas"]
        stable["minReplicas"] = max(min(asked, 1), asked - ready)
        return [stable, *canaries]

    def _runtime(self, found, predictor):
        name = predictor.get("model", {}).get("runtime")
        runtime = self.runtimes.objects.get(
            (found["metadata"]["namespace"], name)
        ) or self.cluster_runtimes.objects.get(("", name))
        if runtime is None:
            raise RuntimeMissing(f"the serving runtime {name!r} is not there")
        return runtime

    def _keep_workloads(self, found, wanted):
        space = found["metadata"]["namespace"]
        apps = f"/apis/apps/v1/namespaces/{space}/deployments"
        core = f"/api/v1/namespaces/{space}/services"
        for one in [*wanted[1:], wanted[0]]:  # canaries first: the stable shrinks for ready ones
            self._ensure(self.deployments, apps, one)
            self._ensure(self.kubernetes_services, core, service(found, one))
        scaler = autoscaler(found, wanted[0])
        if scaler and (space, scaler["metadata"]["name"]) not in self.autoscalers.objects:
            path = f"/apis/autoscaling/v2/namespaces/{space}/horizontalpodautoscalers"
            self.rest.create(path, scaler)
        kept = {one["metadata"]["name"] for one in wanted}
        owner = found["metadata"]["name"]
        for informer, path in ((self.deployments, apps), (self.kubernetes_services, core)):
            for (where, name), one in list(informer.objects.items()):
                is_own = where == space and one["metadata"]["labels"][INFERENCE_SERVICE] == owner
                if is_own and name not in kept:
                    self.rest.delete(f"{path}/{name}")

    def _keep_routes(self, found, wanted):
        """Return the live HTTPRoutes, or None where this service has none by design."""
        config = self.config.objects.get(_CONFIG, {"data": {}})
        ingress = json.loads(config["data"].get("ingress", "{}"))
        label, local = _LOCAL
        is_local = found["metadata"].get("labels", {}).get(label) == local
        if not ingress.get("enableGatewayApi") or is_local:
            return None
        space, name = found["metadata"]["namespace"], found["metadata"]["name"]
        names = (name, f"{name}-predictor")
        if _is_available(self._live(wanted[0])):
            ready = [one for one in wanted[1:] if _is_available(self._live(one))]
            path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{space}/httproutes"
            for one in names:
                self._ensure(self.routes, path, route(found, one, ingress, wanted[0], ready))
        return [self.routes.objects.get((space, one)) for one in names]

    def _ensure(self, informer, path, wanted):
        name = wanted["metadata"]["name"]
        live = informer.objects.get((wanted["metadata"]["namespace"], name))
        if live is None:
            self.rest.create(path, wanted)
        elif not covers(live, wanted):
            self.rest.merge(f"{path}/{name}", wanted)

    def _live(self, wanted):
        metadata = wanted["metadata"]
        return self.deployments.objects.get((metadata["namespace"], metadata["name"]))

    def _write_status(self, found, wanted):
        if covers(found.get("status", {}), {k: v for k, v in wanted.items() if v is not None}) and (
            all(found.get("status", {}).get(name) is None for name in _absent(wanted))
        ):
            return
        space, name = found["metadata"]["namespace"], found["metadata"]["name"]
        path = f"/apis/serving.kserve.io/v1beta1/namespaces/{space}/inferenceservices/{name}/status"
        self.rest.merge(path, {"status": wanted})

    def _owners(self, key):
        space, name = key
        return [
            one
            for one in list(self.services.objects)
            if one[0] == space and (name == one[1] or name.startswith(f"{one[1]}-"))
        ]

    def _all(self, _):
        return list(self.services.objects)


def covers(live, wanted):
    """Return whether everything that is wanted is live; what the server added does not count."""
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(
            name in live and covers(live[name], value) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(live, list) and len(live) == len(wanted) and all(map(covers, live, wanted))
        )
    return live == wanted


def _absent(wanted):
    return [name for name, value in wanted.items() if value is None]


def _overlaid(base, top):
    merged = dict(base)
    for name, value in top.items():
        both = isinstance(value, dict) and isinstance(base.get(name), dict)
        merged[name] = _overlaid(base[name], value) if both else value
    return merged


def _is_available(live):
    if live is None:
        return False
    conditions = live.get("status", {}).get("conditions", [])
    seen = live.get("status", {}).get("observedGeneration", 0) >= live["metadata"]["generation"]
    return seen and any(
        one["type"] == "Available" and one["status"] == "True" for one in conditions
    )
