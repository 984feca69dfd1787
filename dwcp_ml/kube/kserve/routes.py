"""HTTPRoutes -> the share of each backend; all pure, and nothing is guessed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from dwcp_ml.kube.kserve.router import TrafficUnknown

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
