"""Parses responses of Envoy's admin interface, strictly; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dwcp_ml.http_client import HttpError
from dwcp_ml.local_rollout.envoy_config import ROUTES


@dataclass(frozen=True)
class LiveRoutes:
    """The routes that Envoy uses now.

    Parameters
    ----------
    mirrored_percent
        Share of all requests that go to the stable and are mirrored to the candidate.
    """

    percent: int
    mirrored_percent: int
    version: str


def live_routes(dump: Mapping[str, Any]) -> LiveRoutes:
    """Return the live routes in a dump of Envoy's dynamic route configurations.

    Raises
    ------
    HttpError
        If it does not hold exactly one such configuration, or the weights do not sum to 100.
    """
    try:
        ours = [each for each in dump.get("configs", []) if each["route_config"]["name"] == ROUTES]
        if len(ours) != 1:
            raise HttpError("Envoy has no routes of ours yet.")
        route = ours[0]["route_config"]["virtual_hosts"][0]["routes"][0]["route"]
        weights = {
            each["name"]: int(each.get("weight", 0))
            for each in route["weighted_clusters"]["clusters"]
        }
        policies = route.get("request_mirror_policies", [])
        mirrored = sum(
            int(each["runtime_fraction"]["default_value"].get("numerator", 0)) for each in policies
        )
        live = LiveRoutes(weights["candidate"], mirrored, str(ours[0].get("version_info", "")))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise HttpError(
            f"Envoy's routes have not the form that was written ({error!r} in its dump)."
        ) from error
    if weights.keys() != {"stable", "candidate"} or sum(weights.values()) != 100:
        raise HttpError(f"Envoy's weights are {weights}, not of stable and candidate, total 100.")
    return live


def responses_by_cluster(stats: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Return cluster -> class of the code (``2xx``) -> requests, of ``/stats?format=json``.

    Raises
    ------
    HttpError
        If a statistic is not named ``cluster.<name>.upstream_rq_<class>``.
    """
    counts: dict[str, dict[str, int]] = {}
    try:
        for each in stats["stats"]:
            _, cluster, name = each["name"].split(".")
            counts.setdefault(cluster, {})[name.removeprefix("upstream_rq_")] = int(each["value"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise HttpError(f"Envoy's counts can't be read ({error!r}).") from error
    return counts


def listening_port(listeners: Mapping[str, Any]) -> int:
    """Return the port of the first listener, of ``/listeners?format=json``.

    Raises
    ------
    HttpError
        If the response does not name it.
    """
    try:
        local = listeners["listener_statuses"][0]["local_address"]
        return int(local["socket_address"]["port_value"])
    except (KeyError, IndexError, TypeError) as error:
        raise HttpError("Envoy's response does not say where it listens.") from error
