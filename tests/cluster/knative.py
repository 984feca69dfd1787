"""Knative Serving in a cluster of ours: its own controllers, autoscaler, webhooks and definitions.

The program is ``binaries/knative/manager``: Knative as a library, in one process. Routes are given
to an ingress class of our own, whose controller is ``fake_controllers.FakeIngress``.
"""

from tests.cluster.control_plane import listens
from tests.cluster.manager import Manager

SPACE = "knative-serving"
CLASS = "fake.ingress.networking.knative.dev"
"""The class of the ingresses that ``FakeIngress`` accepts."""

_ACTIVATOR = "activator-service"
_ACTIVATOR_ADDRESS = "198.18.255.254"
_SETTINGS = {
    "config-network": {"ingress-class": CLASS},
    "config-domain": {"example.com": ""},
    # The digests of images are not looked up: there is no registry.
    "config-deployment": {
        "queue-sidecar-image": "queue-proxy:test",
        "registries-skipping-tag-resolving": "index.docker.io",
    },
    # The activator is always in the path of a revision, so that the autoscaler never has to ask it.
    "config-autoscaler": {"target-burst-capacity": "-1"},
}
_PATHS = {
    "webhook.serving.knative.dev": "/defaulting",
    "validation.webhook.serving.knative.dev": "/resource-validation",
}
_FIRST_RESOURCES = ("metrics",)


class Knative(Manager):
    """Starts Knative's controllers as a user of their own."""

    name = "knative-manager"
    modules = (name, "knative-networking", "knative-caching")

    def furnish(self):
        """Create what the controllers read before they start; KServe reads some of it too."""
        self.rest.create("/api/v1/namespaces", {"metadata": {"name": SPACE}})
        for one in self._of_kind("ConfigMap"):
            data = _SETTINGS.get(one["metadata"]["name"], {})
            self.rest.create(f"/api/v1/namespaces/{SPACE}/configmaps", {**one, "data": data})
        # A pod that is not there: the endpoints of a revision without pods are the activator's.
        metadata, ports = {"name": _ACTIVATOR}, [{"name": "http", "port": 8012}]
        service = {"metadata": metadata, "spec": {"ports": ports}}
        self.rest.create(f"/api/v1/namespaces/{SPACE}/services", service)
        subset = {"addresses": [{"ip": _ACTIVATOR_ADDRESS}], "ports": ports}
        endpoints = {"metadata": metadata, "subsets": [subset]}
        self.rest.create(f"/api/v1/namespaces/{SPACE}/endpoints", endpoints)

    def start(self):
        """Start the program; ``finish`` waits for it, so that another one may start meanwhile."""
        self._allow()
        certificates = self._certificates()
        self._run(
            f"--webhook-addr=127.0.0.1:{self._port}", f"--certificate={certificates / 'tls.crt'}",
            f"--key={certificates / 'tls.key'}",
        )  # fmt: skip

    def finish(self):
        """Have the API server ask its webhooks; return when they respond."""
        self._until(lambda: listens(self._port))
        self._register(lambda hook: _PATHS[hook["name"]], _FIRST_RESOURCES)
        self._until(self.rejects)

    def rejects(self):
        path = f"/apis/serving.knative.dev/v1/namespaces/{SPACE}/services"
        container = {"image": "none", "name": "none"}
        wrong = {
            "apiVersion": "serving.knative.dev/v1", "kind": "Service",
            "metadata": {"name": "wrong"},
            "spec": {"template": {"spec": {"containers": [container, container]}}},
        }  # fmt: skip
        message = self._rejected_by(path, wrong)
        return "validation.webhook.serving.knative.dev" in message and "denied" in message
