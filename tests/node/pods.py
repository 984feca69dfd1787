"""Steps of the pipeline as pods of the trainer's image, confined as Kubeflow confines them."""

import json
import subprocess

from dwcp_ml import __version__
from tests.cluster.processes import eventually
from tests.images.steps import MOUNT
from tests.node.cluster import SPACE, volume

CLAIM = "pipeline-run"
USER = 65532
_STEP_SECONDS = 1200.0
_ENDED = ("Succeeded", "Failed")


class TrainerPods:
    """Runs commands, each in a pod of its own; what they write is on one volume.

    Parameters
    ----------
    cluster
        A ``NodeCluster``.
    directory
        Of the volume; pods find it at ``MOUNT``.
    """

    def __init__(self, cluster, directory):
        self._cluster, self._number = cluster, 0
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o777)
        cluster.apply(*volume(CLAIM, directory, "ReadWriteMany"))
        self.account = None

    def start(self, command):
        """Run a command to its end; return it with its output."""
        self._number += 1
        name = f"step-{self._number}"
        self._cluster.apply(self._pod(name, command))
        path = f"/api/v1/namespaces/{SPACE}/pods/{name}"

        def phase():
            status = self._cluster.rest.get(path)["status"]
            return status["phase"] if status["phase"] in _ENDED else None

        ended = eventually(phase, _STEP_SECONDS, every=0.5, alive=self._cluster.check)
        said = self._cluster.kubectl("logs", "-n", SPACE, name)
        self._cluster.rest.delete(path)
        return subprocess.CompletedProcess(command, 0 if ended == "Succeeded" else 1, said, "")

    def _pod(self, name, command):
        container = {
            "name": "main", "image": f"dwcp-ml-trainer:{__version__}", "imagePullPolicy": "Never",
            "command": command,
            "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "4Gi"}},
            "securityContext": {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [
                {"name": "run", "mountPath": MOUNT}, {"name": "tmp", "mountPath": "/tmp"},
            ],
        }  # fmt: skip
        spec = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": self.account is not None,
            "securityContext": {
                "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [
                {"name": "run", "persistentVolumeClaim": {"claimName": CLAIM}},
                {"name": "tmp", "emptyDir": {}},
            ],
        }  # fmt: skip
        if self.account is not None:
            spec["serviceAccountName"] = self.account
        metadata = {"name": name, "namespace": SPACE}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def python(program):
    """Return the command of a Python program."""
    return ["python3", "-c", program]


def last_line(done):
    """Return the last line of a command's output, read as JSON."""
    return json.loads(done.stdout.strip().splitlines()[-1])
