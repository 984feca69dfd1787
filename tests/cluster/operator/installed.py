"""The operator as ``manifests/base`` installs it, run as a process with its account's rights."""

import sys
from concurrent.futures import ThreadPoolExecutor

import yaml

from dwcp_ml.kube.api import INFERENCE_SERVICE, MODEL_ROLLOUT
from dwcp_ml.kube.client import KubeApi
from dwcp_ml.kube.manifests import RUNTIME
from tests.cluster.build import ROOT
from tests.cluster.control_plane import FAKE_PODS
from tests.cluster.operator.servers import RealTime, Servers
from tests.cluster.processes import eventually, free_ports
from tests.operator.fake_servers import NAME
from tests.operator.scenario import _service, rollout

MANIFESTS = ROOT / "manifests"
SYSTEM = "dwcp-ml"
ACCOUNT = "dwcp-ml-operator"
_AT_ONCE = 4
USER = f"system:serviceaccount:{SYSTEM}:{ACCOUNT}"

MODEL = {
    "modelFormat": {"name": "dwcp-ml-bundle"}, "runtime": RUNTIME, "protocolVersion": "v1",
}  # fmt: skip

_PATHS = {
    "Namespace": "/api/v1/namespaces",
    "ServiceAccount": f"/api/v1/namespaces/{SYSTEM}/serviceaccounts",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "Role": f"/apis/rbac.authorization.k8s.io/v1/namespaces/{SYSTEM}/roles",
    "RoleBinding": f"/apis/rbac.authorization.k8s.io/v1/namespaces/{SYSTEM}/rolebindings",
}
_CRDS = ("crds/ml.dwcp.io_modelrollouts.yaml", "crds/ml.dwcp.io_trainingruns.yaml")
_INSTALLED = ("base/namespace.yaml", "base/operator.yaml", "base/rbac.yaml")


def documents(*paths):
    """Return the objects of manifests, as they are committed."""
    for path in paths:
        yield from filter(None, yaml.safe_load_all((MANIFESTS / path).read_text()))


def path_of(kind, namespace, name=""):
    where = f"/apis/{kind.api_version}/namespaces/{namespace}/{kind.plural}"
    return f"{where}/{name}" if name else where


class Installed:
    """Definitions, account and rights on a cluster; ``start`` runs an operator with them."""

    def __init__(self, cluster, directory):
        self.cluster, self.rest, self.directory = cluster, cluster.rest, directory
        cluster.define(list(documents(*_CRDS)))
        for one in documents(*_INSTALLED):
            path = _PATHS.get(one["kind"])
            if path:  # no Deployment: the process is ours
                self.rest.apply(f"{path}/{one['metadata']['name']}", one)
        self.kubeconfig = cluster.kubeconfig_of(SYSTEM, ACCOUNT, directory)

    def start(self, name, prometheus, *words, reconcile_seconds=1.0):
        """Start an operator and return its name; ``cluster.processes`` stops and pauses it."""
        (port,) = free_ports(1)
        command = [
            sys.executable, "-m", "dwcp_ml.cli", "operator", "run",
            f"--kubeconfig={self.kubeconfig}", f"--identity={name}",
            f"--prometheus={prometheus}", f"--port={port}",
            f"--reconcile-interval={reconcile_seconds}", *words,
        ]  # fmt: skip
        self.cluster.processes.start(name, command)
        return name, port

    def stop(self, name, signal_name="SIGTERM"):
        """End an operator for good; return its exit code."""
        code = self.cluster.processes.stop(name, signal_name)
        self.cluster.processes.forget(name)
        return code


class Story:
    """One rollout of version 2 over version 1, in a namespace of its own.

    ``servers`` counts the requests; ``spec`` overrides the ModelRollout's.
    """

    def __init__(
        self, cluster, namespace, prometheus, api, *, mode="Standard", first=False, **spec
    ):
        self.cluster, self.rest, self.namespace = cluster, cluster.rest, namespace
        self.mode = mode
        furnish(self.rest, namespace)
        if not first:
            self.rest.create(path_of(INFERENCE_SERVICE, namespace), service(namespace, 1, mode))
        self.servers = prometheus.add(namespace, Servers(api, RealTime(), namespace))
        self._resource = resource(namespace, mode, **spec)

    def begin(self):
        """Create the ModelRollout, once version 1 is ready."""
        if self.rest.find(path_of(INFERENCE_SERVICE, self.namespace, NAME)) is not None:
            eventually(self._is_ready, 60.0, alive=self.cluster.check)
        self.rest.create(path_of(MODEL_ROLLOUT, self.namespace), self._resource)

    def edit(self, **spec):
        self.rest.merge(path_of(MODEL_ROLLOUT, self.namespace, NAME), {"spec": spec})

    def until(self, *phases, seconds=120.0):
        """Wait for a phase; return the status."""

        def there():
            found = self.status
            assert found.get("phase") in phases, f"{self.namespace}: {found}"
            return found

        return eventually(there, seconds, every=0.2, alive=self.cluster.check)

    def until_reason(self, reason, seconds=120.0):
        """Wait for a reason; return the status."""

        def there():
            found = self.status
            assert found.get("reason") == reason, f"{self.namespace}: {found}"
            return found

        return eventually(there, seconds, every=0.2, alive=self.cluster.check)

    @property
    def resource(self):
        return self.rest.find(path_of(MODEL_ROLLOUT, self.namespace, NAME))

    @property
    def status(self):
        return (self.resource or {}).get("status") or {}

    @property
    def service(self):
        return self.rest.find(path_of(INFERENCE_SERVICE, self.namespace, NAME))

    def _is_ready(self):
        conditions = (self.service.get("status") or {}).get("conditions") or []
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def begin(stories, cluster, prometheus, stack=None, routes=None):
    """Begin stories, all at the same time; return name -> ``Story``.

    Parameters
    ----------
    stories
        Name -> what ``Story`` takes, ``bad_at`` and ``when`` (see ``Servers``).
    stack
        An ``ExitStack`` that deletes their namespaces; without one they stay.
    routes
        ``Routes``; without it what routes traffic is read each time.
    """
    api = routes or KubeApi(cluster.api)

    def story(how):
        settings = dict(how)
        bad_at, when = settings.pop("bad_at", None), settings.pop("when", None)
        space = stack.enter_context(cluster.namespace()) if stack else cluster.create_namespace()
        found = Story(cluster, space, prometheus, api, **settings)
        found.servers.bad_at = bad_at
        if when is not None:
            share, do = when
            found.servers.when = [(share, lambda: do(found))]
        return found

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = dict(zip(stories, pool.map(story, stories.values()), strict=True))
        list(pool.map(Story.begin, found.values()))
    return found


def furnish(rest, namespace):
    """Create the ServingRuntime of ``manifests/base`` in a namespace."""
    (runtime,) = documents("base/serving-runtime.yaml")
    rest.create(f"/apis/serving.kserve.io/v1alpha1/namespaces/{namespace}/servingruntimes", runtime)


def service(namespace, number, mode="Standard"):
    """Return an InferenceService that serves version ``number``."""
    found = _service(number, mode)
    found["metadata"]["namespace"] = namespace
    found["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] = "none"
    found["spec"]["predictor"]["model"] |= MODEL
    return found


def resource(namespace, mode="Standard", pods="", **spec):
    """Return a ModelRollout of version 2; ``pods`` says what its pods do, see the README."""
    spec = {"requests": 20, "dwell": 0, "watchSeconds": 1, **spec}
    found = rollout(**spec)
    found["metadata"]["namespace"] = namespace
    template = found["spec"]["template"]
    template["predictor"]["model"] = MODEL
    template["annotations"] = {"serving.kserve.io/autoscalerClass": "none"}
    if mode != "Standard":
        template["deploymentMode"] = mode
    if pods:
        template["predictor"]["annotations"] = {FAKE_PODS: pods}
    return found
