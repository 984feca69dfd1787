"""What Envoy's admin interface says, read strictly; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dwcp_ml.http_client import HttpError
from dwcp_ml.local_rollout.envoy_config import ROUTES


@dataclass(frozen=True)
class Live:
    """What Envoy does now.

    Parameters
    ----------
    percent
        The candidate's share of the requests.
    mirrored_percent
        Share of all requests that are mirrored to the candidate; they are requests to stable.
    version
        Of the routes.
    """

    percent: int
    mirrored_percent: int
    version: str


def live_routes(dump: Mapping[str, Any]) -> Live:
    """Return what a dump of Envoy's dynamic route configurations says.

    Raises
    ------
    HttpError
        If it holds none of ours, or weights that do not sum to 100.
    """
    try:
        found = [each for each in dump.get("configs", []) if each["route_config"]["name"] == ROUTES]
        if len(found) != 1:
            raise HttpError("Envoy has no routes of ours yet.")
        route = found[0]["route_config"]["virtual_hosts"][0]["routes"][0]["route"]
        weights = {
            each["name"]: int(each.get("weight", 0))
            for each in route["weighted_clusters"]["clusters"]
        }
        policies = route.get("request_mirror_policies", [])
        mirrored = sum(
            int(each["runtime_fraction"]["default_value"].get("numerator", 0)) for each in policies
        )
        live = Live(weights["candidate"], mirrored, str(found[0].get("version_info", "")))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise HttpError(f"Envoy's routes are none of ours ({error!r} in its dump).") from error
    if weights.keys() != {"stable", "candidate"} or sum(weights.values()) != 100:
        raise HttpError(f"Envoy's weights are {weights}, not of stable and candidate, total 100.")
    return live


def answers_by_cluster(stats: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Return cluster -> class of the code (``2xx``) -> requests, of ``/stats?format=json``.

    Raises
    ------
    HttpError
        If there is something else in it than ``cluster.<name>.upstream_rq_<class>``.
    """
    counts: dict[str, dict[str, int]] = {}
    try:
        for each in stats["stats"]:
            _, cluster, name = each["name"].split(".")
            counts.setdefault(cluster, {})[name.removeprefix("upstream_rq_")] = int(each["value"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise HttpError(f"Envoy's counts can't be read ({error!r}).") from error
    return counts


def listening_port(found: Mapping[str, Any]) -> int:
    """Return the port of the first listener, of ``/listeners?format=json``.

    Raises
    ------
    HttpError
        If it is not in it.
    """
    try:
        local = found["listener_statuses"][0]["local_address"]
        return int(local["socket_address"]["port_value"])
    except (KeyError, IndexError, TypeError) as error:
        raise HttpError("Envoy does not say where it listens.") from error
