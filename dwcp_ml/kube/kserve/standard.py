"""KServe's Standard mode: ``spec.canary``, and weights of Gateway API HTTPRoutes.

KServe deletes what is no longer named before it changes the HTTPRoutes. So nothing loses its name
here while a live HTTPRoute still sends it traffic: a candidate is first brought to 0 %, and dropped
once that is live; it is promoted once 100 % is live, and keeps its name and so its pods.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from dwcp_ml.kube.api import DEPLOYMENT, HTTP_ROUTE, POD, Api, Object
from dwcp_ml.kube.kserve.objects import (
    SERVICE_LABEL,
    Writer,
    addresses,
    check_service,
    check_share,
    is_available,
    is_ready,
    no_routes,
    predictor_name,
    refusal,
    replicas_of,
    restarts,
    served_of,
    serves,
)
from dwcp_ml.kube.kserve.predictors import (
    Entry,
    alone,
    beside,
    entries_of,
    entry_of,
    first_deployment,
    loud,
    others_of,
    predictor_of,
    promoted,
    silent,
    workload_of,
    workloads_of,
)
from dwcp_ml.kube.kserve.router import (
    ChangeRejected,
    DesiredRevision,
    ObservedTraffic,
    TrafficUnknown,
    no_inference_service,
)

MODE: Final = "Standard"

Routes = Mapping[str, Object | None]


class StandardRouter:
    """A ``Router`` of one InferenceService in Standard mode."""

    def __init__(self, api: Api, namespace: str, name: str) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._writer = Writer(api, namespace, name)

    def read(self, candidate: DesiredRevision) -> ObservedTraffic:
        """Return what is live."""
        found = self._writer.get()
        unsupported = refusal(found, candidate, MODE)
        if found is None:
            return no_inference_service(unsupported)
        routes = self._routes()
        unsupported = unsupported or no_routes(found, routes)
        spec = found["spec"]
        stable, entry = spec["predictor"], entry_of(spec, candidate)
        is_stable = serves(stable, candidate)
        percent, error = None, ""
        try:
            percent = None if unsupported else self._percent(found, routes, candidate)
        except TrafficUnknown as unclear:
            error = f"{unclear}."
        standing = entry or next(iter(entries_of(spec)), None)
        arm = stable if is_stable else entry["predictor"] if entry else None
        pods = self._pods()
        mine = [] if arm is None else pods.get(workload_of(self._name, arm), [])
        others = [] if is_stable else pods.get(workload_of(self._name, stable), [])
        return ObservedTraffic(
            exists=True,
            percent=percent,
            error=error,
            unsupported=unsupported,
            stable=served_of(stable),
            candidate=None if standing is None else served_of(standing["predictor"]),
            promoted=is_stable and standing is None and percent == 100,
            candidate_ready=arm is not None and is_ready(self._deployment(arm), arm),
            restarts=restarts(mine),
            pods={"stable": addresses(others), "candidate": addresses(mine)},
            resource_version=str(found["metadata"]["resourceVersion"]),
        )

    def set(self, live: ObservedTraffic, candidate: DesiredRevision, percent: int) -> None:
        """Make the next write on the way to this share; see ``Router``."""
        check_share(percent)
        found = self._writer.unchanged(live)
        if found is None:
            self._create(candidate, percent)
        elif serves(found["spec"]["predictor"], candidate):
            self._set_alone(found, candidate, percent)
        else:
            self._set_beside(found, candidate, percent)

    def promote(self, live: ObservedTraffic, candidate: DesiredRevision) -> None:
        """Make the next write on the way to the candidate as the stable; see ``Router``."""
        found = self._writer.unchanged(live)
        if found is None:
            raise ChangeRejected(f"There is no InferenceService {self._name}.")
        if serves(found["spec"]["predictor"], candidate):
            self._drop(found)
            return
        entry = entry_of(found["spec"], candidate)
        if entry is None:
            raise ChangeRejected(f"{candidate.version} does not stand beside the stable.")
        if self._silence(found, others_of(found["spec"], candidate)):
            return
        if self._writer.replace(found, self._beside(found, candidate, 100)):
            return
        is_whole = self._share(found, entry) == 100
        deployment = self._deployment(entry["predictor"])
        if is_whole and is_available(deployment, entry["predictor"]):
            self._writer.replace(found, promoted(found["spec"], entry, candidate))

    def drop(self, live: ObservedTraffic) -> None:
        """Make the next write on the way to nothing beside the stable; see ``Router``."""
        found = self._writer.unchanged(live)
        if found is not None:
            self._drop(found)

    def _create(self, candidate: DesiredRevision, percent: int) -> None:
        unsupported = refusal(None, candidate, MODE)
        if unsupported or percent != 100:
            raise ChangeRejected(
                unsupported or "nothing is live yet: the first deployment gets 100 %."
            )
        predictor = predictor_of(
            candidate, predictor_name(self._namespace, self._name, candidate.version)
        )
        self._writer.create(
            first_deployment(candidate, self._namespace, self._name, MODE, predictor)
        )

    def _set_alone(self, found: Object, candidate: DesiredRevision, percent: int) -> None:
        """Keep the candidate, which is the stable already, as it is asked for."""
        if percent != 100:
            raise ChangeRejected(
                f"{candidate.version} is the stable: there is nothing that could take its traffic."
            )
        spec = found["spec"]
        if entries_of(spec):
            self._drop(found)
        else:
            predictor = predictor_of(candidate, str(spec["predictor"].get("name") or ""))
            self._writer.replace(found, {**spec, "predictor": predictor})

    def _set_beside(self, found: Object, candidate: DesiredRevision, percent: int) -> None:
        spec = found["spec"]
        mine = entry_of(spec, candidate)
        going = others_of(spec, candidate)
        if mine is not None and not percent:
            going.append(mine)
        if self._silence(found, going):
            return
        unsupported = refusal(found, candidate, MODE)
        if unsupported and (percent or mine is None):
            raise ChangeRejected(unsupported)
        self._writer.replace(found, self._beside(found, candidate, percent))

    def _beside(self, found: Object, candidate: DesiredRevision, percent: int) -> dict[str, Any]:
        spec = found["spec"]
        running = replicas_of(self._deployment(spec["predictor"]))
        return beside((self._namespace, self._name), spec, candidate, percent, running)

    def _drop(self, found: Object) -> None:
        entries = entries_of(found["spec"])
        if entries and not self._silence(found, entries):
            self._writer.replace(found, alone(found["spec"]))

    def _silence(self, found: Object, entries: Sequence[Entry]) -> bool:
        """Take the traffic of these entries away; return whether they may still have some.

        What the HTTPRoutes do not tell counts as traffic.
        """
        if loud(entries):
            self._writer.replace(found, silent(found["spec"], loud(entries)))
            return True
        return any(self._share(found, entry) != 0 for entry in entries)

    def _share(self, found: Object, entry: Entry) -> int | None:
        """Return the live share of an entry; ``None`` if that can't be told."""
        routes = self._routes()
        if not any(routes.values()):
            return 0
        try:
            shares = self._shares(found, routes)
        except TrafficUnknown:
            return None
        return shares.get(workload_of(self._name, entry["predictor"]), 0)

    def _percent(self, found: Object, routes: Routes, candidate: DesiredRevision) -> int:
        """Return the candidate's live share.

        Raises
        ------
        TrafficUnknown
            If that can't be told.
        """
        check_service(found)
        spec = found["spec"]
        stable, entry = spec["predictor"], entry_of(spec, candidate)
        is_stable = serves(stable, candidate)
        if (
            is_stable
            and not any(routes.values())
            and not is_ready(self._deployment(stable), stable)
        ):
            return 0  # KServe makes no HTTPRoute before the first deployment is ready
        shares = self._shares(found, routes)
        if is_stable:
            return shares.get(workload_of(self._name, stable), 0)
        if entry is None:
            return 0
        backend = workload_of(self._name, entry["predictor"])
        if backend not in shares and _is_said_ready(found, entry):
            raise TrafficUnknown(
                f"KServe says that {backend} is ready, and no HTTPRoute leads there: it has not "
                "got so far yet, or is older than 0.21 and never does"
            )
        return shares.get(backend, 0)

    def _shares(self, found: Object, routes: Routes) -> Shares:
        return shares_of(routes, workloads_of(self._name, found["spec"]))

    def _routes(self) -> dict[str, Object | None]:
        names = (self._name, f"{self._name}-predictor")
        return {name: self._api.get(HTTP_ROUTE, self._namespace, name) for name in names}

    def _deployment(self, predictor: Mapping[str, Any]) -> Object | None:
        return self._api.get(DEPLOYMENT, self._namespace, workload_of(self._name, predictor))

    def _pods(self) -> dict[str, list[Object]]:
        """Return name of a Deployment -> its pods."""
        pods: dict[str, list[Object]] = {}
        for pod in self._api.list(POD, self._namespace, f"{SERVICE_LABEL}={self._name}"):
            app = str((pod["metadata"].get("labels") or {}).get("app"))
            pods.setdefault(app.removeprefix("isvc."), []).append(pod)
        return pods


def _is_said_ready(found: Object, entry: Entry) -> bool:
    said = (found.get("status") or {}).get("canaryStatuses") or []
    name = entry["predictor"].get("name")
    return any(one.get("name") == name and one.get("ready") for one in said)


Shares = dict[str, int]
"""Name of a backend -> its share of the traffic, percent; a backend at 0 is in it, too."""


def shares_of(routes: Mapping[str, Mapping[str, Any] | None], known: Collection[str]) -> Shares:
    """Return how the predictor's traffic is shared out.

    Parameters
    ----------
    routes
        Name -> HTTPRoute, or ``None`` where there is none; all of them must say the same.
    known
        The backends that the InferenceService names.

    Raises
    ------
    TrafficUnknown
        If they do not say, or different things, or no gateway has taken them.
    """
    found: dict[str, Shares] = {}
    for name, route in routes.items():
        if route is None:
            raise TrafficUnknown(f"there is no HTTPRoute {name}")
        _check_taken(name, route)
        found[name] = _shares(name, route, known)
    first, *others = found
    for other in others:
        if _nonzero(found[other]) != _nonzero(found[first]):
            raise TrafficUnknown(f"the HTTPRoutes {first} and {other} have different weights")
    return {key: value for each in found.values() for key, value in each.items()}


def _nonzero(shares: Shares) -> Shares:
    return {name: share for name, share in shares.items() if share}


def _check_taken(name: str, route: Mapping[str, Any]) -> None:
    """Check that each gateway that the route names has taken it as it is now.

    Raises
    ------
    TrafficUnknown
        If one has not, or has refused it.
    """
    parents = (route.get("status") or {}).get("parents") or []
    asked = (route.get("spec") or {}).get("parentRefs") or []
    if not parents or len(parents) < len(asked):
        raise TrafficUnknown(f"no gateway has taken the HTTPRoute {name} yet")
    generation = route["metadata"].get("generation", 0)
    for parent in parents:
        said = {each.get("type"): each for each in parent.get("conditions") or []}
        accepted = said.get("Accepted") or {}
        if accepted.get("status") != "True":
            reason = accepted.get("message") or accepted.get("reason") or "it does not say why"
            raise TrafficUnknown(f"the gateway does not take the HTTPRoute {name} ({reason})")
        if accepted.get("observedGeneration", generation) < generation:
            raise TrafficUnknown(f"the gateway has not seen the newest HTTPRoute {name} yet")


def _shares(name: str, route: Mapping[str, Any], known: Collection[str]) -> Shares:
    """Return the shares of the rules that lead to the predictor.

    Rules that lead elsewhere only, to an explainer, are not the predictor's.
    """
    found: Shares | None = None
    for rule in (route.get("spec") or {}).get("rules") or []:
        weights: dict[str, int] = {}
        for backend in rule.get("backendRefs") or []:
            target = str(backend.get("name"))
            weights[target] = weights.get(target, 0) + int(backend.get("weight", 1))
        if not any(target in known for target in weights):
            continue
        shares = _percent(name, weights, known)
        if found is not None and _nonzero(found) != _nonzero(shares):
            raise TrafficUnknown(f"the rules of the HTTPRoute {name} have different weights")
        found = shares
    if found is None:
        raise TrafficUnknown(f"no rule of the HTTPRoute {name} leads to a predictor of the service")
    return found


def _percent(name: str, weights: Mapping[str, int], known: Collection[str]) -> Shares:
    total = sum(weights.values())
    if total <= 0:
        raise TrafficUnknown(f"the HTTPRoute {name} gives nobody any traffic")
    shares: Shares = {}
    for target, weight in weights.items():
        if weight and target not in known:
            raise TrafficUnknown(
                f"the HTTPRoute {name} names the backend {target}, which is no predictor"
            )
        if weight * 100 % total:
            raise TrafficUnknown(f"the HTTPRoute {name} has a share of {weight} in {total}")
        shares[target] = weight * 100 // total
    return shares
