"""The kind cluster that ``run.sh`` has made and furnished, as the tests see it."""

import contextlib
import json
import os
import subprocess
from pathlib import Path

import yaml
from urllib3.exceptions import HTTPError

from tests.cluster.cluster import ExistingCluster
from tests.cluster.processes import ClusterFailed, eventually
from tests.cluster.rest import RequestRejected
from tests.kind.live.gateway import ServiceOfPods

SPACE = "dwcp-ml"
CLAIM = "dwcp-models"
IN_NODE = "/volumes"
"""Where the node finds the directory of the volumes (``cluster.yaml``)."""

_SOON = "--request-timeout=10s"
_ABOUT_PODS = (("get", "pods", "-o", "wide"), ("describe", "pods"), ("get", "events"))
_KILLED_SECONDS = 90.0


class KindCluster(ExistingCluster):
    """A cluster of one node, with KServe, the gateway, and the operator.

    Parameters
    ----------
    kubeconfig
        The administrator's.
    node
        The name of the container that is the node.
    volumes
        The directory of this machine that the node has as ``IN_NODE``.
    """

    def __init__(self, kubeconfig, node, volumes):
        super().__init__(kubeconfig)
        self._node, self.volumes = node, Path(volumes)
        self.service_of_pods = ServiceOfPods(self.rest)
        self.service_of_pods.start()

    def end(self):
        self.service_of_pods.stop()
        super().end()

    def check(self):
        if self.service_of_pods.errors:
            raise ClusterFailed(f"the watch of the pods: {self.service_of_pods.errors.popleft()}")

    def kubectl(self, *words, given=None):
        """Run kubectl as the administrator; return what it printed."""
        command = ["kubectl", f"--kubeconfig={self.kubeconfig}", *words]
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr or done.stdout}"
        return done.stdout

    def apply(self, *documents):
        together = {"apiVersion": "v1", "kind": "List", "items": documents}
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-",
                     given=json.dumps(together))  # fmt: skip

    def description_of_pods(self, namespace):
        """Return what kubectl prints about the pods of a namespace."""
        said = []
        for words in _ABOUT_PODS:
            try:
                said.append(self.kubectl(*words, "-n", namespace, _SOON))
            except AssertionError as error:  # must not hide the error that is reported
                said.append(str(error))
        return "\n".join(said)

    def pods(self, selector, namespace=SPACE):
        """Return the pods that labels select, including those that are terminating."""
        path = f"/api/v1/namespaces/{namespace}/pods?labelSelector={selector.replace('=', '%3D')}"
        return self.rest.get(path)["items"]

    def remove_models(self):
        """Delete every model in the namespace; return when its pods no longer request CPU."""
        kinds = "modelrollouts.ml.dwcp.io,inferenceservices.serving.kserve.io"
        self.kubectl("delete", kinds, "--all", "-n", SPACE)
        eventually(lambda: not self.pods("serving.kserve.io/inferenceservice"), 120.0, every=1.0)

    def kill(self, selector, namespace=SPACE):
        """Kill the first process of each container, as a crash would; return when all run again."""
        before = self._containers(selector, namespace)
        assert before, f"no container of {selector} runs in {namespace}"
        for identity in before:
            self._ctr("tasks", "kill", "--signal", "SIGKILL", identity)

        def replaced():
            try:
                now = self._containers(selector, namespace)
            except (HTTPError, RequestRejected):  # the API server itself was killed
                return False
            return len(now) >= len(before) and not set(now) & set(before)

        eventually(replaced, _KILLED_SECONDS, every=0.5)

    def await_api_server(self):
        """Return when the API server responds, and has read the rights of everybody."""
        for _ in range(5):
            eventually(self._is_ready, _KILLED_SECONDS, every=0.5)

    def _is_ready(self):
        with contextlib.suppress(HTTPError, RequestRejected):
            return self.rest.get("/readyz") == "ok" and bool(self.pods("", "kube-system"))
        return False

    def _containers(self, selector, namespace):
        """Return the containers that run, by containerd's name."""
        states = [
            one
            for pod in self.pods(selector, namespace)
            for one in pod["status"].get("containerStatuses", [])
            if "running" in one["state"]
        ]
        return [one["containerID"].removeprefix("containerd://") for one in states]

    def _ctr(self, *words):
        command = ["docker", "exec", self._node, "ctr", "--namespace", "k8s.io", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr


def of_environment():
    """Return the cluster that ``run.sh`` names in the environment.

    Raises
    ------
    ClusterFailed
        If it names none, or KServe is not installed there.
    """
    try:
        kubeconfig, volumes = os.environ["KIND_TEST_KUBECONFIG"], os.environ["KIND_TEST_VOLUMES"]
    except KeyError as error:
        raise ClusterFailed(f"{error} is not set: run `make kind-test`.") from None
    context = yaml.safe_load(Path(kubeconfig).read_text())["current-context"]
    return KindCluster(kubeconfig, f"{context.removeprefix('kind-')}-control-plane", volumes)


def volume(name, directory, mode):
    """Yield a volume that is a directory of the node, and the claim that is bound to it."""
    size = {"storage": "1Gi"}
    modes = {"accessModes": [mode], "storageClassName": ""}
    claim = {"kind": "PersistentVolumeClaim", "namespace": SPACE, "name": name}
    yield {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {
            **modes, "capacity": size, "claimRef": claim,
            "hostPath": {"path": f"{IN_NODE}/{directory}", "type": "Directory"},
        },
    }  # fmt: skip
    yield {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": SPACE},
        "spec": {**modes, "volumeName": name, "resources": {"requests": size}},
    }  # fmt: skip
