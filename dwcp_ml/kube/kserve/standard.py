"""KServe's Standard mode: ``spec.canary``, and weights of Gateway API HTTPRoutes.

KServe deletes predictors that are no longer named before it changes the HTTPRoutes. So no predictor
is removed while a live HTTPRoute still sends it traffic: a candidate is first set to 0 %, and
removed once that is live. It is promoted once 100 % is live, and keeps its name, so its pods stay.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from dwcp_ml.kube.api import DEPLOYMENT, HTTP_ROUTE, Object
from dwcp_ml.kube.kserve.objects import (
    ServiceRouter,
    check_all,
    check_service,
    check_share,
    creation_failure,
    deployed_revision,
    is_available,
    is_ready,
    last_spec_writer,
    other_mode,
    predictor_name,
    replicas_of,
    serves,
    why_no_routes,
    why_unsupported,
)
from dwcp_ml.kube.kserve.pods import addresses, report_of
from dwcp_ml.kube.kserve.predictors import (
    Entry,
    entries_of,
    entries_with_traffic,
    entry_of,
    first_deployment,
    others_of,
    predictor_of,
    with_canary,
    with_promoted,
    without_canary,
    without_traffic,
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


class StandardRouter(ServiceRouter):
    """A ``Router`` of one InferenceService in Standard mode."""

    def read(self, candidate: DesiredRevision) -> ObservedTraffic:
        """Return the live traffic."""
        isvc = self._writer.get()
        unsupported = why_unsupported(isvc, candidate, MODE)
        if isvc is None:
            return no_inference_service(unsupported)
        routes = self._routes()
        if HTTP_ROUTE not in self._forbidden:
            unsupported = unsupported or why_no_routes(isvc, routes)
        spec = isvc["spec"]
        stable, entry = spec["predictor"], entry_of(spec, candidate)
        is_stable = serves(stable, candidate)
        percent, error = None, ""
        try:
            percent = None if unsupported else self._percent(isvc, routes, candidate)
        except TrafficUnknown as unknown:
            error = f"{unknown}."
        deployed = entry or next(iter(entries_of(spec)), None)
        arm = stable if is_stable else entry["predictor"] if entry else None
        pods = {app.removeprefix("isvc."): pods for app, pods in self._pods_by("app").items()}
        candidate_pods = [] if arm is None else pods.get(workload_of(self._name, arm), [])
        stable_pods = [] if is_stable else pods.get(workload_of(self._name, stable), [])
        deployment = None if arm is None else self._deployment(arm)
        candidate_ready = arm is not None and is_ready(deployment, arm)
        stable_ready = is_stable or bool(addresses(stable_pods)) or self._is_scaled_down(stable)
        candidate_report, stable_report = report_of(candidate_pods), report_of(stable_pods)
        return ObservedTraffic(
            exists=True,
            percent=percent,
            error=error,
            unsupported=unsupported,
            stable=deployed_revision(stable),
            candidate=None if deployed is None else deployed_revision(deployed["predictor"]),
            promoted=is_stable and deployed is None and percent == 100,
            candidate_ready=candidate_ready,
            restarts=candidate_report.restarts,
            stable_restarts=stable_report.restarts,
            pods={"stable": addresses(stable_pods), "candidate": addresses(candidate_pods)},
            pod_counts={"stable": stable_report.count, "candidate": candidate_report.count},
            stable_ready=stable_ready,
            problem=candidate_report.problem,
            starting=candidate_report.starting,
            resource_version=str(isvc["metadata"]["resourceVersion"]),
            forbidden=self._why_forbidden(),
            last_writer=last_spec_writer(isvc),
            other_mode=other_mode(isvc, MODE),
            creation_failure="" if candidate_ready else creation_failure(deployment),
        )

    def set(self, live: ObservedTraffic, candidate: DesiredRevision, percent: int) -> None:
        """Make the next write on the way to this share; see ``Router``."""
        check_share(percent)
        isvc = self._writer.get_unchanged(live)
        if isvc is None:
            self._create(candidate, percent)
        elif serves(isvc["spec"]["predictor"], candidate):
            self._set_stable(isvc, candidate, percent)
        else:
            self._set_canary(isvc, candidate, percent)

    def promote(self, live: ObservedTraffic, candidate: DesiredRevision) -> None:
        """Make the next write on the way to the candidate as the stable; see ``Router``."""
        isvc = self._existing(live)
        if serves(isvc["spec"]["predictor"], candidate):
            self._drop(isvc)
            return
        entry = entry_of(isvc["spec"], candidate)
        if entry is None:
            raise ChangeRejected(f"{candidate.version} is not deployed beside the stable.")
        if self._remove_traffic(isvc, others_of(isvc["spec"], candidate)):
            return
        if self._writer.replace(isvc, self._with_canary(isvc, candidate, 100)):
            return
        is_whole = self._share(isvc, entry) == 100
        deployment = self._deployment(entry["predictor"])
        if is_whole and is_available(deployment, entry["predictor"]):
            self._writer.replace(isvc, with_promoted(isvc["spec"], entry, candidate))

    def _create(self, candidate: DesiredRevision, percent: int) -> None:
        unsupported = why_unsupported(None, candidate, MODE)
        if unsupported or percent != 100:
            raise ChangeRejected(
                unsupported or "Nothing is live yet: the first deployment gets 100 %."
            )
        name = predictor_name(
            self._namespace, self._name, candidate.version,
            digest=candidate.digest, runtime=candidate.runtime,
        )  # fmt: skip
        predictor = predictor_of(candidate, name)
        self._writer.create(
            first_deployment(candidate, self._namespace, self._name, MODE, predictor)
        )

    def _set_stable(self, isvc: Object, candidate: DesiredRevision, percent: int) -> None:
        """Keep the candidate, which is already the stable, as the template says."""
        check_all(candidate, percent)
        spec = isvc["spec"]
        if entries_of(spec):
            self._drop(isvc)
        else:
            predictor = predictor_of(candidate, str(spec["predictor"].get("name") or ""))
            self._writer.replace(isvc, {**spec, "predictor": predictor})

    def _set_canary(self, isvc: Object, candidate: DesiredRevision, percent: int) -> None:
        spec = isvc["spec"]
        entry = entry_of(spec, candidate)
        leaving = others_of(spec, candidate)
        if entry is not None and not percent:
            leaving.append(entry)
        if self._remove_traffic(isvc, leaving):
            return
        unsupported = why_unsupported(isvc, candidate, MODE)
        if unsupported and (percent or entry is None):
            raise ChangeRejected(unsupported)
        self._writer.replace(isvc, self._with_canary(isvc, candidate, percent))

    def _with_canary(
        self, isvc: Object, candidate: DesiredRevision, percent: int
    ) -> dict[str, Any]:
        spec = isvc["spec"]
        running = replicas_of(self._deployment(spec["predictor"]))
        return with_canary((self._namespace, self._name), spec, candidate, percent, running)

    def _drop(self, isvc: Object) -> None:
        entries = entries_of(isvc["spec"])
        if entries and not self._remove_traffic(isvc, entries):
            self._writer.replace(isvc, without_canary(isvc["spec"]))

    def _remove_traffic(self, isvc: Object, entries: Sequence[Entry]) -> bool:
        """Set the weights of these entries to 0; return whether they may still have traffic.

        An unknown weight counts as traffic.
        """
        if entries_with_traffic(entries):
            self._writer.replace(isvc, without_traffic(isvc["spec"], entries_with_traffic(entries)))
            return True
        return any(self._share(isvc, entry) != 0 for entry in entries)

    def _share(self, isvc: Object, entry: Entry) -> int | None:
        """Return the live share of an entry; ``None`` if it is unknown."""
        routes = self._routes()
        if HTTP_ROUTE in self._forbidden:
            return None
        if not any(routes.values()):
            return 0
        try:
            shares = self._shares(isvc, routes)
        except TrafficUnknown:
            return None
        return shares.get(workload_of(self._name, entry["predictor"]), 0)

    def _percent(self, isvc: Object, routes: Routes, candidate: DesiredRevision) -> int:
        """Return the candidate's live share.

        Raises
        ------
        TrafficUnknown
            If it is unknown.
        """
        check_service(isvc)
        if HTTP_ROUTE in self._forbidden:
            raise TrafficUnknown("an HTTPRoute may not be read")
        spec = isvc["spec"]
        stable, entry = spec["predictor"], entry_of(spec, candidate)
        is_stable = serves(stable, candidate)
        if (
            is_stable
            and not any(routes.values())
            and not is_ready(self._deployment(stable), stable)
        ):
            return 0  # KServe makes no HTTPRoute before the first deployment is ready
        shares = self._shares(isvc, routes)
        if is_stable:
            return shares.get(workload_of(self._name, stable), 0)
        if entry is None:
            return 0
        backend = workload_of(self._name, entry["predictor"])
        if backend not in shares and _is_said_ready(isvc, entry):
            raise TrafficUnknown(
                f"KServe says that {backend} is ready, and no HTTPRoute leads there: it has not "
                "got so far yet, or is older than 0.21 and never does"
            )
        return shares.get(backend, 0)

    def _shares(self, isvc: Object, routes: Routes) -> Shares:
        return shares_of(routes, workloads_of(self._name, isvc["spec"]))

    def _routes(self) -> dict[str, Object | None]:
        names = (self._name, f"{self._name}-predictor")
        return {name: self._get(HTTP_ROUTE, name) for name in names}

    def _is_scaled_down(self, predictor: Mapping[str, Any]) -> bool:
        """Return whether a predictor is meant to have no pods."""
        deployment = self._deployment(predictor)
        return deployment is not None and replicas_of(deployment) == 0

    def _deployment(self, predictor: Mapping[str, Any]) -> Object | None:
        return self._get(DEPLOYMENT, workload_of(self._name, predictor))


def _is_said_ready(isvc: Object, entry: Entry) -> bool:
    statuses = (isvc.get("status") or {}).get("canaryStatuses") or []
    name = entry["predictor"].get("name")
    return any(each.get("name") == name and each.get("ready") for each in statuses)


Shares = dict[str, int]
"""Name of a backend -> its share of the traffic, percent; a backend at 0 is in it, too."""


def shares_of(routes: Mapping[str, Mapping[str, Any] | None], known: Collection[str]) -> Shares:
    """Return the shares of the predictor's traffic.

    Parameters
    ----------
    routes
        Name -> HTTPRoute, or ``None`` where there is none; all must have the same weights.
    known
        The backends that the InferenceService names.

    Raises
    ------
    TrafficUnknown
        If weights are missing or differ, or no gateway has accepted the routes.
    """
    shares_by_route: dict[str, Shares] = {}
    for name, route in routes.items():
        if route is None:
            raise TrafficUnknown(f"there is no HTTPRoute {name}")
        _check_accepted(name, route)
        shares_by_route[name] = _shares(name, route, known)
    first, *others = shares_by_route
    for other in others:
        if _nonzero(shares_by_route[other]) != _nonzero(shares_by_route[first]):
            raise TrafficUnknown(f"the HTTPRoutes {first} and {other} have different weights")
    return {key: value for each in shares_by_route.values() for key, value in each.items()}


def _nonzero(shares: Shares) -> Shares:
    return {name: share for name, share in shares.items() if share}


def _check_accepted(name: str, route: Mapping[str, Any]) -> None:
    """Check that each gateway of the route has accepted its newest version.

    Raises
    ------
    TrafficUnknown
        If one has not, or has rejected it.
    """
    parents = (route.get("status") or {}).get("parents") or []
    requested = (route.get("spec") or {}).get("parentRefs") or []
    if not parents or len(parents) < len(requested):
        raise TrafficUnknown(f"no gateway has accepted the HTTPRoute {name} yet")
    generation = route["metadata"].get("generation", 0)
    for parent in parents:
        conditions = {each.get("type"): each for each in parent.get("conditions") or []}
        accepted = conditions.get("Accepted") or {}
        if accepted.get("status") != "True":
            reason = accepted.get("message") or accepted.get("reason") or "no reason given"
            raise TrafficUnknown(f"the gateway does not accept the HTTPRoute {name} ({reason})")
        if accepted.get("observedGeneration", generation) < generation:
            raise TrafficUnknown(f"the gateway has not seen the newest HTTPRoute {name} yet")


def _shares(name: str, route: Mapping[str, Any], known: Collection[str]) -> Shares:
    """Return the shares of the rules that lead to the predictor.

    Rules that lead only elsewhere, for example to an explainer, are ignored.
    """
    result: Shares | None = None
    for rule in (route.get("spec") or {}).get("rules") or []:
        weights: dict[str, int] = {}
        for backend in rule.get("backendRefs") or []:
            target = str(backend.get("name"))
            weights[target] = weights.get(target, 0) + int(backend.get("weight", 1))
        if not any(target in known for target in weights):
            continue
        shares = _percent(name, weights, known)
        if result is not None and _nonzero(result) != _nonzero(shares):
            raise TrafficUnknown(f"the rules of the HTTPRoute {name} have different weights")
        result = shares
    if result is None:
        raise TrafficUnknown(f"no rule of the HTTPRoute {name} leads to a predictor of the service")
    return result


def _percent(name: str, weights: Mapping[str, int], known: Collection[str]) -> Shares:
    total = sum(weights.values())
    if total <= 0:
        raise TrafficUnknown(f"the HTTPRoute {name} has no weight above 0")
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
