"""A cluster as the tests see it, and one that they are pointed at; one of our own: ``own``."""

import uuid
from contextlib import contextmanager
from pathlib import Path

import yaml
from kubernetes import client, config

from tests.cluster.processes import ClusterFailed, eventually
from tests.cluster.rest import RequestRejected, Rest

_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_TOKEN_SECONDS = 3600
_NAMESPACE_SECONDS = 60.0
_GOING_SECONDS = 90.0
_CONNECTIONS = 40  # of the tests and the fake controllers' watches


class Cluster:
    """What a test sees of a cluster.

    Parameters
    ----------
    kubeconfig
        The path of an administrator's kubeconfig.

    Attributes
    ----------
    api
        A ``kubernetes.client.ApiClient`` of the administrator.
    rest
        The same, for JSON (``tests.cluster.rest``).
    is_local
        Whether the tests started it: nodes, pods and both gateways' controllers are fake there.
    """

    is_local = False

    def __init__(self, kubeconfig):
        self.kubeconfig = Path(kubeconfig)
        settings = client.Configuration()
        settings.connection_pool_maxsize = _CONNECTIONS
        config.load_kube_config(config_file=str(kubeconfig), client_configuration=settings)
        self.api = client.ApiClient(settings)
        self.rest = Rest(self.api)

    @contextmanager
    def namespace(self, prefix="dwcp", labels=None):
        """Yield the name of a new namespace that is deleted, with all it holds, at the end."""
        name = self.create_namespace(prefix, labels)
        try:
            yield name
        finally:
            self.rest.delete(f"/api/v1/namespaces/{name}")

    def create_namespace(self, prefix="dwcp", labels=None):
        """Return the name of a new namespace that pods can be made in."""
        name = f"{prefix}-{uuid.uuid4().hex[:8]}"
        body = {"metadata": {"name": name, "labels": labels or {}}}
        self.rest.create("/api/v1/namespaces", body)
        eventually(
            lambda: self.rest.find(f"/api/v1/namespaces/{name}/serviceaccounts/default"),
            _NAMESPACE_SECONDS,
        )
        return name

    def kubeconfig_of(self, namespace, service_account, directory):
        """Write a kubeconfig of a service account into a directory; return its path.

        What runs with it has that account's rights and no others.
        """
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
        asked = {"spec": {"expirationSeconds": _TOKEN_SECONDS}}
        token = self.rest.create(path, asked)["status"]["token"]
        document = yaml.safe_load(self.kubeconfig.read_text())
        current = document["current-context"]
        context = next(one for one in document["contexts"] if one["name"] == current)["context"]
        document["users"] = [{"name": service_account, "user": {"token": token}}]
        context["user"] = service_account
        target = Path(directory) / f"{namespace}-{service_account}.yaml"
        target.touch(mode=0o600)
        target.write_text(yaml.safe_dump(document))
        return target

    def define(self, kinds):
        """Create the custom resource definitions that are not there, and wait until all are known.

        Returns
        -------
        list of str
            The paths of those that were created.
        """
        made = []
        for one in kinds:
            path = f"{_DEFINITIONS}/{one['metadata']['name']}"
            eventually(lambda path=path: not self._is_going(path), _GOING_SECONDS, alive=self.check)
            if self.rest.find(path) is None:
                self.rest.create(_DEFINITIONS, one)
                made.append(path)
        for one in kinds:
            eventually(lambda one=one: self._is_known(one), 30.0, alive=self.check)
        return made

    def undefine(self, paths):
        """Delete definitions, and wait until they are gone: they are served until then."""
        for path in paths:
            self.rest.delete(path)
        for path in paths:
            gone = lambda path=path: self.rest.find(path) is None  # noqa: E731
            eventually(gone, _GOING_SECONDS, alive=self.check)

    def _is_going(self, path):
        found = self.rest.find(path)
        return found is not None and "deletionTimestamp" in found["metadata"]

    def _is_known(self, kind):
        """Return whether a kind is served, and listed: the second comes a little later."""
        known = self._is_served(kind) and self._is_told(kind)
        assert known, f"{kind['metadata']['name']} is not served"
        return known

    def _is_served(self, kind):
        plural = kind["spec"]["names"]["plural"]
        try:
            return self.rest.get(f"{_group(kind)}/{plural}")["items"] is not None
        except RequestRejected:  # 404 and then 429, while a new definition settles
            return False

    def _is_told(self, kind):
        told = self.rest.find(_group(kind)) or {"resources": []}
        return any(one["name"] == kind["spec"]["names"]["plural"] for one in told["resources"])

    def check(self):
        """Raise ``ClusterFailed`` where something of the cluster has ended or gone wrong."""

    def end(self):
        self.api.close()


class ExistingCluster(Cluster):
    """A cluster that somebody else runs: a real KServe, a real gateway, real pods."""

    def __init__(self, kubeconfig):
        super().__init__(kubeconfig)
        name = "inferenceservices.serving.kserve.io"
        try:
            found = self.rest.get(f"{_DEFINITIONS}/{name}")
        except RequestRejected as error:
            raise ClusterFailed(f"{kubeconfig}: KServe is not installed there ({error})") from error
        schema = found["spec"]["versions"][-1]["schema"]["openAPIV3Schema"]
        if "canary" not in schema["properties"]["spec"]["properties"]:
            raise ClusterFailed(f"{kubeconfig}: its KServe has no spec.canary; 0.21 or newer does")


def _group(kind):
    """Return the path of a definition's group, at the version that is stored."""
    version = next(one["name"] for one in kind["spec"]["versions"] if one["storage"])
    return f"/apis/{kind['spec']['group']}/{version}"
