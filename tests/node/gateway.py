"""A small stand-in for Envoy Gateway: a real Envoy, told what the HTTPRoutes say.

It reads of a route its hostnames, its path matches and its backends' weights, of a backend its
ready endpoints, and nothing else: no filters, no timeouts, no policies. Envoy follows the files.
"""

import json

from dwcp_ml.adapters.envoy_binary import find_envoy
from dwcp_ml.stages.local_rollout.replay import ARM_HEADER
from tests.cluster.control_plane import listens
from tests.cluster.players import ROUTES, PlayedGateway
from tests.cluster.processes import eventually

PORT = 80
GATEWAY = "gateway"
"""Who answered, where it was Envoy itself."""

ENVOY = "envoy"

_SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
_SERVICES = "/api/v1/services"
_ALL = ("", "envoy")
"""The key of what Envoy is told, beside those of the routes."""

_TYPES = "type.googleapis.com/envoy"
_TIMEOUT = "15s"
_IDLE = "30s"  # shorter than a server keeps a connection


class EnvoyGateway(PlayedGateway):
    """Accepts every HTTPRoute, and has Envoy do what it says.

    Parameters
    ----------
    processes
        Where Envoy runs; its directory takes the files.
    """

    name = "stand-in for Envoy Gateway"

    def __init__(self, rest, processes):
        super().__init__(rest)
        self._processes = processes
        self._directory = processes.directory / "envoy"
        self._directory.mkdir()
        self._told, self._clusters = {}, []
        self.informers.clear()
        self.routes = self.watch(ROUTES, lambda key: [key, _ALL])
        self._services = self.watch(_SERVICES, lambda key: [_ALL])
        self._slices = self.watch(_SLICES, lambda key: [_ALL])

    def start(self):
        self._tell({}, {})
        bootstrap = self._directory / "bootstrap.json"
        bootstrap.write_text(json.dumps(_bootstrap(self._directory)))
        command = [
            str(find_envoy()), "--config-path", str(bootstrap), "--concurrency", "1",
            "--disable-hot-restart", "--log-level", "warning",
        ]  # fmt: skip
        self._processes.start(ENVOY, command)
        eventually(lambda: listens(PORT), 30.0, alive=self._processes.check)
        super().start()

    def look(self, key):
        if key != _ALL:
            super().look(key)
            return
        hosts, clusters = {}, {}
        for (namespace, _), route in sorted(self.routes.objects.items()):
            if "deletionTimestamp" in route["metadata"]:
                continue
            rules = [self._rule(namespace, rule, clusters) for rule in route["spec"]["rules"]]
            for host in route["spec"].get("hostnames", []):
                hosts.setdefault(host, [one for rule in rules for one in rule])
        self._tell(hosts, clusters)

    def _rule(self, namespace, rule, clusters):
        """Return Envoy's routes of a rule, and add the clusters that they lead to."""
        weighted = []
        for backend in rule.get("backendRefs", []):
            name = f"{namespace}/{backend['name']}/{backend.get('port', 80)}"
            clusters[name] = self._endpoints(namespace, backend)
            weighted.append((name, backend["name"], backend.get("weight", 1)))
        action = _action(weighted)
        matches = [_match(one) for one in rule.get("matches", [{}])]
        return [{"match": match, **action} for match in matches]

    def _endpoints(self, namespace, backend):
        """Return (address, port) of every ready endpoint."""
        service = self._services.objects.get((namespace, backend["name"]))
        if service is None:
            return []
        ports = service["spec"].get("ports", [])
        names = {one.get("name", "") for one in ports if one["port"] == backend.get("port", 80)}
        found = set()
        for (space, _), one in self._slices.objects.items():
            labels = one["metadata"].get("labels", {})
            if space != namespace or labels.get("kubernetes.io/service-name") != backend["name"]:
                continue
            for port in one.get("ports") or []:
                if (port.get("name") or "") in names:
                    found |= {
                        (address, port["port"])
                        for endpoint in one.get("endpoints") or []
                        if (endpoint.get("conditions") or {}).get("ready")
                        for address in endpoint["addresses"]
                    }
        return sorted(found)

    def _tell(self, hosts, clusters):
        """Write what changed: endpoints and clusters first, then the routes that lead to them."""
        for name, endpoints in clusters.items():
            self._write(_file(name), _assignment(name, endpoints))
        # What is on its way out stays until no route leads to it any more.
        for names in (dict.fromkeys([*self._clusters, *clusters]), clusters):
            self._write("clusters.json", *[_cluster(name, self._directory) for name in names])
            self._write("routes.json", _routes(hosts))
        self._clusters = list(clusters)

    def _write(self, name, *resources):
        text = json.dumps({"resources": resources}, sort_keys=True)
        if self._told.get(name) == text:
            return
        staging = self._directory / f".{name}"
        staging.write_text(text)
        staging.replace(self._directory / name)  # Envoy looks at what is moved here
        self._told[name] = text


def _action(weighted):
    total = sum(weight for _, _, weight in weighted)
    if not total:
        return {"direct_response": {"status": 500}}
    clusters = [
        {
            "name": name, "weight": weight,
            "response_headers_to_add": [{"header": {"key": ARM_HEADER, "value": service}}],
        }
        for name, service, weight in weighted
    ]  # fmt: skip
    return {"route": {"weighted_clusters": {"clusters": clusters}, "timeout": _TIMEOUT}}


def _match(match):
    path = match.get("path", {})
    value = path.get("value", "/")
    if path.get("type") == "RegularExpression":
        return {"safe_regex": {"regex": value}}
    return {"path": value} if path.get("type") == "Exact" else {"prefix": value}


def _routes(hosts):
    return {
        "@type": f"{_TYPES}.config.route.v3.RouteConfiguration",
        "name": "routes",
        "virtual_hosts": [
            {"name": host, "domains": [host, f"{host}:*"], "routes": routes}
            for host, routes in sorted(hosts.items())
        ],
    }


def _file(name):
    return f"{name.replace('/', '_')}.json"


def _cluster(name, directory):
    return {
        "@type": f"{_TYPES}.config.cluster.v3.Cluster",
        "name": name,
        "type": "EDS",
        "connect_timeout": "2s",
        "eds_cluster_config": {"eds_config": _source(directory / _file(name))},
        # A share is a share: with one endpoint out of two gone, the other gets all of it.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_TYPES}.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http_protocol_options": {}},
                "common_http_protocol_options": {"idle_timeout": _IDLE},
            }
        },
    }


def _assignment(name, endpoints):
    addresses = [{"endpoint": {"address": _address(host, port)}} for host, port in endpoints]
    return {
        "@type": f"{_TYPES}.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": name,
        "endpoints": [{"lb_endpoints": addresses}],
    }


def _bootstrap(directory):
    manager = {
        "@type": f"{_TYPES}.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "gateway",
        # What no server has answered is told apart, whoever it was for.
        "local_reply_config": {
            "mappers": [
                {
                    "filter": {
                        "status_code_filter": {
                            "comparison": {
                                "op": "GE",
                                "value": {"default_value": 400, "runtime_key": "gateway.least"},
                            }
                        }
                    },
                    "headers_to_add": [
                        {
                            "header": {"key": ARM_HEADER, "value": GATEWAY},
                            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                        }
                    ],
                }
            ]
        },
        "rds": {"route_config_name": "routes", "config_source": _source(directory / "routes.json")},
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": f"{_TYPES}.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "name": "http",
        "address": _address("127.0.0.1", PORT),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {
        "node": {"id": "gateway", "cluster": "gateway"},
        "admin": {"address": {"pipe": {"path": str(directory / "admin.sock"), "mode": 0o600}}},
        "dynamic_resources": {"cds_config": _source(directory / "clusters.json")},
        "static_resources": {"listeners": [listener]},
    }


def _source(path):
    return {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}


def _address(host, port):
    return {"socket_address": {"address": host, "port_value": port}}
