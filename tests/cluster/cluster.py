"""A cluster for the tests: one of our own, started in seconds, or one that is pointed at."""

import shutil
import tempfile
import time
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from kubernetes import client, config

from tests.cluster.control_plane import API_SERVER, NODE, ControlPlane, rights_of_kwok
from tests.cluster.kserve import KServe
from tests.cluster.played_knative import PlayedKnative
from tests.cluster.players import PlayedGateway
from tests.cluster.processes import ClusterFailed, Processes, eventually
from tests.cluster.rest import Refused, Rest

_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_ACCESS = "/apis/rbac.authorization.k8s.io/v1"
_TOKEN_SECONDS = 3600
_NAMESPACE_SECONDS = 60.0
_GOING_SECONDS = 90.0
_START_TRIES = 3
_RIGHTS_ARE_READ = timedelta(seconds=5)
_CONNECTIONS = 40  # of the tests and the players' watches


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
    is_played
        Whether nodes, pods, Knative and the gateway are played here.
    """

    is_played = False

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
        """Return whether a kind is served, and told of: the second comes a little later."""
        known = self._is_served(kind) and self._is_told(kind)
        assert known, f"{kind['metadata']['name']} is not served"
        return known

    def _is_served(self, kind):
        plural = kind["spec"]["names"]["plural"]
        try:
            return self.rest.get(f"{_group(kind)}/{plural}")["items"] is not None
        except Refused:  # 404 and then 429, while a new definition settles
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
        except Refused as error:
            raise ClusterFailed(f"{kubeconfig}: KServe is not installed there ({error})") from error
        schema = found["spec"]["versions"][-1]["schema"]["openAPIV3Schema"]
        if "canary" not in schema["properties"]["spec"]["properties"]:
            raise ClusterFailed(f"{kubeconfig}: its KServe has no spec.canary; 0.21 or newer does")


class OwnCluster(Cluster):
    """Real API server, etcd, controllers and KServe; whose the nodes are, a subclass says.

    Parameters
    ----------
    built
        The programs (``tests.cluster.build``).

    Attributes
    ----------
    control_plane
        The real programs; ``control_plane.processes`` stops, pauses and restarts them.
    kserve
        KServe's manager; ``with kserve.pause():`` lets its controller do nothing for a while.
    players
        Threads of ours that do what no program does here.
    restarts
        (from, to) of each restart of the API server; it refuses everybody until it has read who
        has which rights.
    seconds
        What took how long to start.
    """

    programs = ControlPlane
    keeps_directory = False
    node = ""

    def __init__(self, built):
        start = time.monotonic()
        self.players = []
        self.restarts = []
        self._start_programs(built)
        try:
            super().__init__(self.control_plane.admin)
            self.kserve = KServe(self.rest, self.control_plane)
            eventually(self._is_ready, 60.0, alive=self.processes.check)
            self.seconds["API server ready"] = time.monotonic() - start
            self.furnish()
            self.control_plane.start_nodes()
            self.define([*self.kserve.definitions(), *built.objects("gateway")])
            self.seconds["kinds defined"] = time.monotonic() - start
            # From here on: the garbage collector takes half a minute to notice a new kind.
            self.control_plane.start_controllers()
            self.kserve.furnish()
            self.kserve.start()
            self.seconds["KServe"] = time.monotonic() - start
            for player in self.start_players():
                self.players.append(player)
                player.start()
            eventually(self._node_is_ready, 60.0, alive=self.processes.check)
            self.furnish_node()
            self.seconds["all"] = time.monotonic() - start
        except ClusterFailed as error:
            said = [f"--- {name}\n{self.processes.log(name, 5)}" for name in self.processes.ids()]
            self.give_up()
            raise ClusterFailed("\n".join([str(error), *said])) from error
        except BaseException:
            self.give_up()
            raise

    def _start_programs(self, built):
        for left in reversed(range(_START_TRIES)):
            directory = tempfile.mkdtemp(prefix="dwcp-cluster-")
            self.processes = Processes(directory, self.keeps_directory)
            self.control_plane = self.programs(built, self.processes)
            self.seconds = self.control_plane.seconds
            try:
                self.control_plane.start()
            except ClusterFailed:  # somebody may have taken a port that was free a moment ago
                self.processes.end()
                if not left:
                    raise
            except BaseException:
                self.processes.end()
                raise
            else:
                return

    def furnish(self):
        """Create what the programs and the players expect to find, before nodes are there."""
        # KServe looks for Knative's settings before it makes a Knative Service.
        space, name = "knative-serving", "config-autoscaler"
        self.rest.create("/api/v1/namespaces", {"metadata": {"name": space}})
        self.rest.create(f"/api/v1/namespaces/{space}/configmaps", {"metadata": {"name": name}})

    def furnish_node(self):
        """Create what is to be there from the beginning, once pods can run."""

    def start_players(self):
        """Yield what is played, to be started."""
        raise NotImplementedError

    def give_up(self):
        """Stop what was started of a cluster that does not come about."""
        self._stop()

    def restart_api_server(self, signal_name="SIGKILL"):
        """Stop the API server, start it again on the same port, wait until it is ready."""
        began = datetime.now(UTC)
        self.processes.stop(API_SERVER, signal_name)
        self.processes.again(API_SERVER)
        eventually(self._is_ready, 60.0, alive=self.processes.check)
        self.restarts.append((began, datetime.now(UTC) + _RIGHTS_ARE_READ))

    def calls(self, user=None):
        """Return the audit log's entries, of one user or of all; see ``ControlPlane.calls``."""
        return self.control_plane.calls(user)

    def check(self):
        self.processes.check()
        for player in self.players:
            if player.errors:
                raise ClusterFailed(f"{player.name}: {player.errors.popleft()}")

    def keep_logs(self, directory):
        """Copy the logs of all programs, before they go with the cluster's directory."""
        shutil.copytree(self.processes.logs, directory, dirs_exist_ok=True)

    def end(self):
        super().end()
        self._stop()

    def _stop(self):
        for player in self.players:
            player.stop()
        self.processes.end()

    def _is_ready(self):
        try:
            return self.rest.get("/readyz") == "ok"
        except Exception:  # refused, or not there yet
            return False

    def _node_is_ready(self):
        found = self.rest.find(f"/api/v1/nodes/{self.node}") or {"status": {}}
        conditions = found["status"].get("conditions", [])
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


class PlayedCluster(OwnCluster):
    """All on 127.0.0.1, without root: nodes and pods, Knative and the gateway are played.

    Attributes
    ----------
    gateway, knative
        The players; they can be paused too.
    """

    is_played = True
    node = NODE

    def furnish(self):
        super().furnish()
        role, binding = rights_of_kwok()
        self.rest.create(f"{_ACCESS}/clusterroles", role)
        self.rest.create(f"{_ACCESS}/clusterrolebindings", binding)
        self.rest.create("/api/v1/nodes", {"metadata": {"name": self.node}})
        eventually(self._nodes_may_be_played, 30.0, alive=self.processes.check)

    def start_players(self):
        self.gateway, self.knative = PlayedGateway(self.rest), PlayedKnative(self.rest)
        return self.gateway, self.knative

    def _nodes_may_be_played(self):
        """Return whether kwok's first request will succeed; it waits for long after a refusal."""
        asked = {"verb": "create", "group": "coordination.k8s.io", "resource": "leases"}
        where = {"namespace": "kube-node-lease"}
        review = {"spec": {"user": "kwok", "resourceAttributes": {**asked, **where}}}
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        is_allowed = self.rest.create(path, review)["status"]["allowed"]
        return is_allowed and self.rest.find(f"/api/v1/namespaces/{where['namespace']}")


def _group(kind):
    """Return the path of a definition's group, at the version that is stored."""
    version = next(one["name"] for one in kind["spec"]["versions"] if one["storage"])
    return f"/apis/{kind['spec']['group']}/{version}"
