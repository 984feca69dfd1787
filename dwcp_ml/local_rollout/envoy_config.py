"""Envoy's configuration as plain JSON: the bootstrap, and the routes for each change of a share.

Shares are weights of two clusters, total 100. Envoy draws one random number a request: modulo 100
it decides the arm, and modulo the denominator of a fraction whether the request is mirrored. With
the denominator 100 and stable listed first, the mirrored requests are the first among those of
stable: a request that goes to the candidate anyway is never mirrored to it as well.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dwcp_ml.contract.errors import UsageError

ROUTES: Final = "dwcp"
"""Name of the route configuration."""

ARM_HEADER: Final = "x-dwcp-arm"
"""On every response: ``stable`` or ``candidate``."""

MIRRORED_HEADER: Final = "x-dwcp-mirrored"
"""On a mirrored request: ``true``. Envoy removes it from what clients send."""

MIRROR: Final = "mirror"
"""A second cluster of the candidate's servers: mirrored requests have their own limits."""

IDLE_SECONDS: Final = 30
"""An idle connection to a server is closed; well before the server would, after 65 s."""

MAX_MIRRORED: Final = 200
"""Mirrored requests in flight; more are not sent, so that none pile up at a slow candidate."""

_UNBOUNDED: Final = 1_000_000
"""Envoy's default is 1,024 of everything, and 503 beyond."""

_MAX_CLIENTS: Final = 20_000
"""Connections of clients; more are closed at once."""

_TYPES: Final = "type.googleapis.com/envoy"

_CLIENT_LIMIT: Final = {
    "name": "envoy.resource_monitors.global_downstream_max_connections",
    "typed_config": {
        "@type": f"{_TYPES}.extensions.resource_monitors.downstream_connections.v3"
        ".DownstreamConnectionsConfig",
        "max_active_downstream_connections": _MAX_CLIENTS,
    },
}


@dataclass(frozen=True)
class Upstreams:
    """The servers of both arms.

    Parameters
    ----------
    stable, candidate
        ``host:port`` of each replica, at least one.
    request_timeout_seconds
        Envoy responds 504 when a server takes longer.
    """

    stable: Sequence[str]
    candidate: Sequence[str]
    request_timeout_seconds: float = 15.0


def bootstrap(upstreams: Upstreams, *, port: int, admin: Path, routes: Path) -> dict[str, Any]:
    """Return the bootstrap: one listener on the loopback interface, three clusters.

    Parameters
    ----------
    port
        0 takes a free one.
    admin
        The Unix socket of the admin interface; no other user may open it.
    routes
        The file that holds ``routes()``; Envoy follows it when it is replaced.

    Raises
    ------
    UsageError
        If an address is not ``host:port``.
    """
    listener = {
        "name": "http",
        "address": _socket_address("127.0.0.1", port),
        "filter_chains": [
            {"filters": [{"name": "http", "typed_config": _connection_manager(routes)}]}
        ],
    }
    return {
        "node": {"id": "dwcp-ml", "cluster": "dwcp-ml"},
        "admin": {"address": {"pipe": {"path": str(admin), "mode": 0o600}}},
        "overload_manager": {"resource_monitors": [_CLIENT_LIMIT]},
        "static_resources": {
            "listeners": [listener],
            "clusters": [
                _cluster("stable", upstreams.stable, _UNBOUNDED),
                _cluster("candidate", upstreams.candidate, _UNBOUNDED),
                _cluster(MIRROR, upstreams.candidate, MAX_MIRRORED),
            ],
        },
    }


def routes(
    percent: int, mirror_percent: int, version: str, request_timeout_seconds: float
) -> dict[str, Any]:
    """Return the content of the routes' file.

    Parameters
    ----------
    percent
        The candidate's share of the requests, 0 to 100.
    mirror_percent
        Share of the stable's requests that the candidate gets a copy of, 0 to 100.
    version
        Comes back from the admin interface when the routes are live.

    Raises
    ------
    UsageError
        If a share is not a whole number from 0 to 100.
    """
    mirrored = mirrored_hundredths(percent, mirror_percent)
    route: dict[str, Any] = {
        "timeout": f"{request_timeout_seconds:g}s",
        "weighted_clusters": {
            "clusters": [_weighted("stable", 100 - percent), _weighted("candidate", percent)]
        },
        # A 5xx is the arm's own response and must be counted: only a request that never reached
        # the server is retried, and at the same arm.
        "retry_policy": {"retry_on": "connect-failure,refused-stream", "num_retries": 1},
    }
    if mirrored:
        route["request_mirror_policies"] = [_mirror_policy(mirrored)]
    configuration = {
        "@type": f"{_TYPES}.config.route.v3.RouteConfiguration",
        "name": ROUTES,
        "request_headers_to_remove": [MIRRORED_HEADER],
        "virtual_hosts": [
            {
                "name": "all",
                "domains": ["*"],
                # Envoy applies a new version only if the routes differ: the name makes them differ.
                "routes": [{"name": version, "match": {"prefix": "/"}, "route": route}],
            }
        ],
    }
    return {"version_info": version, "resources": [configuration]}


def mirrored_hundredths(percent: int, mirror_percent: int) -> int:
    """Return how many in a hundred of all requests are mirrored; at least 1 if any shall be.

    Raises
    ------
    UsageError
        If a share is not a whole number from 0 to 100.
    """
    for name, share in (("candidate's", percent), ("mirrored", mirror_percent)):
        if isinstance(share, bool) or not isinstance(share, int) or not 0 <= share <= 100:
            raise UsageError(
                f"the {name} share must be a whole number from 0 to 100, not {share!r}."
            )
    stable = 100 - percent
    if mirror_percent == 0 or stable == 0:
        return 0
    return max(1, round(mirror_percent * stable / 100))


def address(text: str) -> tuple[str, int]:
    """Return host and port of ``host:port``.

    Raises
    ------
    UsageError
        If it is not of this form.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"{text!r} is not the address of a server: write host:port.")
    return host, int(port)


def _weighted(arm: str, weight: int) -> dict[str, Any]:
    return {
        "name": arm,
        "weight": weight,
        "response_headers_to_add": [_header(ARM_HEADER, arm)],
    }


def _mirror_policy(hundredths: int) -> dict[str, Any]:
    return {
        "cluster": MIRROR,
        "runtime_fraction": {"default_value": {"numerator": hundredths, "denominator": "HUNDRED"}},
        "request_headers_mutations": [{"append": _header(MIRRORED_HEADER, "true")}],
        "disable_shadow_host_suffix_append": True,
    }


def _header(name: str, value: str) -> dict[str, Any]:
    return {
        "header": {"key": name, "value": value},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }


def _connection_manager(routes: Path) -> dict[str, Any]:
    return {
        "@type": f"{_TYPES}.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "in",
        "codec_type": "AUTO",
        # So Envoy does not trust its clients, and their x-envoy-* headers, which could ask for
        # retries, are removed. An internal_address_config would undo it for the loopback interface.
        "use_remote_address": True,
        "skip_xff_append": True,
        "generate_request_id": True,
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        "request_id_extension": {
            "typed_config": {
                "@type": f"{_TYPES}.extensions.request_id.uuid.v3.UuidRequestIdConfig",
                # Otherwise Envoy writes into a client's UUID.
                "pack_trace_reason": False,
            }
        },
        "server_header_transformation": "PASS_THROUGH",
        "rds": {
            "route_config_name": ROUTES,
            "config_source": {
                "resource_api_version": "V3",
                "path_config_source": {"path": str(routes)},
            },
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": f"{_TYPES}.extensions.filters.http.router.v3.Router",
                    "suppress_envoy_headers": True,
                },
            }
        ],
    }


def _cluster(name: str, servers: Sequence[str], max_requests: int) -> dict[str, Any]:
    addresses = [address(server) for server in servers]
    if not addresses:
        raise UsageError(f"{name} has no server: name at least one host:port.")
    endpoints = [{"endpoint": {"address": _socket_address(*each)}} for each in addresses]
    thresholds = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    return {
        "name": name,
        "type": "STATIC" if all(_is_ip(host) for host, _ in addresses) else "STRICT_DNS",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [dict.fromkeys(thresholds, max_requests)]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_TYPES}.extensions.upstreams.http.v3.HttpProtocolOptions",
                "common_http_protocol_options": {"idle_timeout": f"{IDLE_SECONDS}s"},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": endpoints}],
        },
    }


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _socket_address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
