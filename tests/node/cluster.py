"""The one-node cluster, installed as a user would: kubectl, the manifests, a volume of bundles."""

import contextlib
import json
import os
import subprocess
from pathlib import Path

from tests.cluster.build import ROOT
from tests.cluster.own import OwnCluster
from tests.cluster.processes import ClusterFailed, eventually
from tests.node import gateway
from tests.node.programs import NODE, NodeControlPlane

SPACE = "dwcp-ml"
CLAIM = "dwcp-models"
_OVERLAY = ROOT / "manifests/overlays/kind"

_SOON = "--request-timeout=10s"
_ABOUT_PODS = (("get", "pods", "-o", "wide"), ("describe", "pods"), ("get", "events"))


class NodeCluster(OwnCluster):
    """Real nodes and pods; traffic through Envoy Gateway's Envoy."""

    programs = NodeControlPlane
    keeps_directory = True  # volumes of pods are mounted in there until the last process has ended
    node = NODE

    def furnish_node(self):
        try:
            gateway.install(self)
        except (AssertionError, subprocess.SubprocessError) as error:
            pods = self.description_of_pods(gateway.SPACE)
            raise ClusterFailed(f"Envoy Gateway was not installed: {error}\n{pods}") from error

    def give_up(self):
        self.keep_logs(os.environ["DWCP_NODE_LOGS"])
        super().give_up()

    def start_fake_controllers(self):
        self.service_of_pods = gateway.ServiceOfPods(self.rest)
        return (self.service_of_pods,)

    def keep_logs(self, directory):
        """Copy the logs of all programs and, where the API server responds, of all pods."""
        super().keep_logs(directory)
        with contextlib.suppress(Exception):
            for one in self.rest.get("/api/v1/pods")["items"]:
                space, name = one["metadata"]["namespace"], one["metadata"]["name"]
                words = ("logs", "-n", space, name, "--all-containers", "--prefix", _SOON)
                said = ""
                with contextlib.suppress(AssertionError):  # it has not started yet
                    said = self.kubectl(*words)
                log = Path(directory) / f"pod-{space}-{name}.log"
                log.write_text(f"{said}\n{one['status']}\n")

    def kubectl(self, *words, given=None):
        """Run kubectl as the administrator; return what it printed."""
        command = [str(self.control_plane.built.program("kubectl")),
                   f"--kubeconfig={self.kubeconfig}", *words]  # fmt: skip
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr or done.stdout}"
        return done.stdout

    def apply(self, *documents):
        together = {"apiVersion": "v1", "kind": "List", "items": documents}
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-",
                     given=json.dumps(together))  # fmt: skip

    def install(self, models):
        """Install operator and runtime; bundles are read from the directory ``models``."""
        # Definitions are served a moment after they are there.
        eventually(self._applied, 60.0, every=1.0, alive=self.check)
        self.apply(*volume(CLAIM, models, "ReadOnlyMany"))
        try:
            self.kubectl("rollout", "status", "-n", SPACE, "deployment/dwcp-ml-operator",
                         "--timeout=180s")  # fmt: skip
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.description_of_pods(SPACE)}") from None

    def description_of_pods(self, namespace):
        """Return what kubectl prints about the pods of a namespace."""
        said = []
        for words in _ABOUT_PODS:
            try:
                said.append(self.kubectl(*words, "-n", namespace, _SOON))
            except AssertionError as error:  # must not hide the error that is reported
                said.append(str(error))
        return "\n".join(said)

    def _applied(self):
        self.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(_OVERLAY))
        return True

    def pods(self, selector, namespace=SPACE):
        """Return the pods that labels select, including those that are terminating."""
        path = f"/api/v1/namespaces/{namespace}/pods?labelSelector={selector.replace('=', '%3D')}"
        return self.rest.get(path)["items"]


def volume(name, directory, mode):
    """Yield a volume that is a directory of this machine, and the claim that is bound to it."""
    size = {"storage": "1Gi"}
    modes = {"accessModes": [mode], "storageClassName": ""}
    claim = {"kind": "PersistentVolumeClaim", "namespace": SPACE, "name": name}
    where = {"path": str(Path(directory).resolve()), "type": "Directory"}
    yield {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {**modes, "capacity": size, "claimRef": claim, "hostPath": where},
    }  # fmt: skip
    yield {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": SPACE},
        "spec": {**modes, "volumeName": name, "resources": {"requests": size}},
    }  # fmt: skip
