"""A cluster of our own, started in seconds: real programs, and nodes that are real or simulated."""

import shutil
import tempfile
import time
from datetime import UTC, datetime, timedelta

from tests.cluster.cluster import Cluster
from tests.cluster.control_plane import API_SERVER, NODE, ControlPlane, rights_of_kwok
from tests.cluster.fake_controllers import FakeGateway, FakeIngress
from tests.cluster.knative import Knative
from tests.cluster.kserve import KServe
from tests.cluster.processes import ClusterFailed, Processes, eventually

_ACCESS = "/apis/rbac.authorization.k8s.io/v1"
_START_TRIES = 3
_RIGHTS_ARE_READ = timedelta(seconds=5)


class OwnCluster(Cluster):
    """Real API server, etcd, controllers, Knative and KServe; a subclass chooses the nodes.

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
    knative
        Knative's controllers, autoscaler and webhooks.
    controllers
        Threads that stand for the programs that do not run here.
    restarts
        (from, to) of each restart of the API server; it rejects every request until it has
        read the RBAC objects.
    seconds
        What took how long to start.
    """

    programs = ControlPlane
    keeps_directory = False
    node = ""

    def __init__(self, built):
        start = time.monotonic()
        self.controllers = []
        self.restarts = []
        self._start_programs(built)
        try:
            super().__init__(self.control_plane.admin)
            self.kserve = KServe(self.rest, self.control_plane)
            self.knative = Knative(self.rest, self.control_plane)
            eventually(self._is_ready, 60.0, alive=self.processes.check)
            self.seconds["API server ready"] = time.monotonic() - start
            self.furnish()
            self.control_plane.start_nodes()
            # That of Knative's Service is in KServe's module too: Knative's own comes first.
            kinds = [*self.knative.definitions(), *self.kserve.definitions()]
            self.define([*kinds, *built.objects("gateway")])
            self.seconds["kinds defined"] = time.monotonic() - start
            # From here on: the garbage collector takes half a minute to notice a new kind.
            self.control_plane.start_controllers()
            self.knative.start()
            self.kserve.furnish()
            self.kserve.start()
            self.seconds["KServe"] = time.monotonic() - start
            self.knative.finish()
            self.seconds["Knative"] = time.monotonic() - start
            for controller in self.start_fake_controllers():
                self.controllers.append(controller)
                controller.start()
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
        """Create what the programs and the fake controllers expect to find, before nodes."""
        self.knative.furnish()

    def furnish_node(self):
        """Create what is to be there from the beginning, once pods can run."""

    def start_fake_controllers(self):
        """Yield the fake controllers, to be started."""
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
        for controller in self.controllers:
            if controller.errors:
                raise ClusterFailed(f"{controller.name}: {controller.errors.popleft()}")

    def keep_logs(self, directory):
        """Copy the logs of all programs, before they go with the cluster's directory."""
        shutil.copytree(self.processes.logs, directory, dirs_exist_ok=True)

    def end(self):
        super().end()
        self._stop()

    def _stop(self):
        for controller in self.controllers:
            controller.stop()
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


class KwokCluster(OwnCluster):
    """All on 127.0.0.1, without root: nodes, pods, the gateway and Knative's ingress are fake.

    Attributes
    ----------
    gateway, ingress
        The fake controllers; they can be paused too.
    """

    is_local = True
    node = NODE

    def furnish(self):
        super().furnish()
        role, binding = rights_of_kwok()
        self.rest.create(f"{_ACCESS}/clusterroles", role)
        self.rest.create(f"{_ACCESS}/clusterrolebindings", binding)
        self.rest.create("/api/v1/nodes", {"metadata": {"name": self.node}})
        eventually(self._nodes_may_be_fake, 30.0, alive=self.processes.check)

    def start_fake_controllers(self):
        self.gateway, self.ingress = FakeGateway(self.rest), FakeIngress(self.rest)
        return self.gateway, self.ingress

    def _nodes_may_be_fake(self):
        """Return whether kwok's first request will succeed; it waits for long after a refusal."""
        asked = {"verb": "create", "group": "coordination.k8s.io", "resource": "leases"}
        where = {"namespace": "kube-node-lease"}
        review = {"spec": {"user": "kwok", "resourceAttributes": {**asked, **where}}}
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        is_allowed = self.rest.create(path, review)["status"]["allowed"]
        return is_allowed and self.rest.find(f"/api/v1/namespaces/{where['namespace']}")
