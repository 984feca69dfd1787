"""Commands as pods of the trainer's image, confined as Kubeflow confines a pipeline's steps."""

import json
import subprocess

from dwcp_ml import __version__
from tests.cluster.processes import eventually
from tests.images.steps import MOUNT
from tests.kind.live.cluster import CLAIM as BUNDLES
from tests.kind.live.cluster import SPACE, volume

USER = 65532
_STEP_SECONDS = 1200.0
_OF_A_RUN = {"pipeline/runid": "kind-test"}
"""The label by which Kubeflow marks the pods of a run; a network policy selects them by it."""

_ENDED = ("Succeeded", "Failed")


class TrainerPods:
    """Runs commands, each in a pod of its own; what they write is on one volume.

    Parameters
    ----------
    cluster
        A ``KindCluster``.
    directory
        Of the volume, one of ``cluster.volumes``; pods find it at ``MOUNT``.
    secret
        A Secret whose keys are variables of the pods; then bundles go to a store, not to a volume.
    """

    def __init__(self, cluster, directory, secret=None):
        self._cluster, self._number, self._secret = cluster, 0, secret
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o777)
        self._name = directory.name
        cluster.apply(*volume(self._name, directory.name, "ReadWriteMany"))
        self.account = None

    def start(self, command):
        """Run a command to its end; return it with its output."""
        self._number += 1
        spec = spec_of(command, {"name": "run", "persistentVolumeClaim": {"claimName": self._name}})
        spec["containers"][0]["volumeMounts"].append({"name": "run", "mountPath": MOUNT})
        spec["automountServiceAccountToken"] = self.account is not None
        if self._secret is not None:
            spec["containers"][0]["envFrom"] = [{"secretRef": {"name": self._secret}}]
        if self.account is not None:
            spec["serviceAccountName"] = self.account
        if self.account is not None and self._secret is None:  # bundles go onto the servers' volume
            source = {"persistentVolumeClaim": {"claimName": BUNDLES}}
            spec["volumes"].append({"name": "bundles", **source})
            mount = {"name": "bundles", "mountPath": f"/mnt/pvc/{BUNDLES}"}
            spec["containers"][0]["volumeMounts"].append(mount)
        return run(self._cluster, SPACE, f"{self._name}-{self._number}", spec, _OF_A_RUN)


def asked(cluster, namespace, program):
    """Run a Python program in a pod of a namespace; return its last line, read as JSON."""
    done = run(cluster, namespace, "asked", spec_of(python(program)))
    assert done.returncode == 0, done.stdout
    return last_line(done)


def run(cluster, namespace, name, spec, labels=None):
    """Run a pod to its end, and remove it; return its command with its output."""
    metadata = {"name": name, "namespace": namespace, "labels": labels or {}}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    path = f"/api/v1/namespaces/{namespace}/pods/{name}"

    def phase():
        status = cluster.rest.get(path)["status"]
        return status["phase"] if status["phase"] in _ENDED else None

    ended = eventually(phase, _STEP_SECONDS, every=0.5, alive=cluster.check)
    said = cluster.kubectl("logs", "-n", namespace, name)
    cluster.rest.delete(path)
    command = spec["containers"][0]["command"]
    return subprocess.CompletedProcess(command, 0 if ended == "Succeeded" else 1, said, "")


def spec_of(command, *volumes):
    container = {
        "name": "main", "image": f"dwcp-ml-trainer:{__version__}", "imagePullPolicy": "Never",
        "command": command,
        "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "4Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }  # fmt: skip
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [*volumes, {"name": "tmp", "emptyDir": {}}],
    }  # fmt: skip


def python(program):
    """Return the command of a Python program."""
    return ["python3", "-c", program]


def last_line(done):
    """Return the last line of a command's output, read as JSON."""
    return json.loads(done.stdout.strip().splitlines()[-1])
