"""KServe in a cluster of ours: its own controller and webhooks, its own definitions and defaults.

The program is ``binaries/kserve``: KServe 0.20 as a library, and on top of it the one thing that is
simulated of Standard mode: the weights of HTTPRoutes as KServe 0.21 writes them (``weights.go``).
"""

import json
from contextlib import contextmanager

from tests.cluster.control_plane import listens
from tests.cluster.manager import Manager
from tests.cluster.processes import eventually

USER = "kserve-manager"
"""Who it is to the API server and in the audit log."""

SERVICES = "/apis/serving.kserve.io/v1beta1/inferenceservices"
_SPACE = "kserve"
_STORAGE = "/apis/serving.kserve.io/v1alpha1/clusterstoragecontainers"
_INGRESS = {"enableGatewayApi": True, "disableIstioVirtualHost": True}
_DEPLOY = {"defaultDeploymentMode": "Standard"}
_OURS = ("inferenceservices", "pods", "servingruntimes", "clusterservingruntimes")


class KServe(Manager):
    """Starts KServe's manager as a user of its own."""

    name = USER
    modules = ("kserve",)

    def furnish(self):
        """Create what the manager reads before it starts: rights, settings, storage."""
        self._allow()
        self.rest.create("/api/v1/namespaces", {"metadata": {"name": _SPACE}})
        (settings,) = self._of_kind("ConfigMap")
        self.rest.create(f"/api/v1/namespaces/{_SPACE}/configmaps", _configured(settings))
        for one in self._of_kind("ClusterStorageContainer"):
            self.rest.create(_STORAGE, one)

    def start(self):
        """Start the manager and have the API server ask its webhooks; return when they respond."""
        self._run(
            "--webhook-host=127.0.0.1", f"--webhook-port={self._port}",
            f"--certificates={self._certificates()}", "--health-probe-addr=0",
            "--zap-log-level=error", "--zap-stacktrace-level=panic",
        )  # fmt: skip
        self._until(lambda: listens(self._port))
        self._register(lambda hook: hook["clientConfig"]["service"]["path"], _OURS)
        self._until(self.rejects)

    def restart(self, signal_name="SIGKILL"):
        """Stop the manager and start it again; return when its webhooks answer."""
        self._processes.stop(self.name, signal_name)
        self._processes.again(self.name)
        self._until(lambda: listens(self._port))
        self._until(self.rejects)

    @contextmanager
    def route_gap(self, seconds):
        """Let this time pass between the writes of a service's two routes, within a block."""
        self._processes.stop(self.name)
        self._processes.start(self.name, [*self._command, f"--route-gap={seconds}s"])
        self._until(self.rejects)
        try:
            yield
        finally:
            self._processes.stop(self.name)
            self._processes.start(self.name, self._command)
            self._until(self.rejects)

    @contextmanager
    def pause(self):
        """Let the controller do nothing for the length of a block; its webhooks go on."""
        self._tell("SIGUSR1", "paused")
        try:
            yield
        finally:
            self._tell("SIGUSR2", "resumed")

    def _tell(self, signal_name, answer):
        before = self._said(answer)
        self._processes.signal(self.name, signal_name)
        eventually(lambda: self._said(answer) > before, 10.0, alive=self._processes.check)

    def _said(self, answer):
        lines = (self._processes.logs / f"{self.name}.log").read_text(errors="replace").splitlines()
        return lines.count(f"controller {answer}")

    def rejects(self):
        predictor = {"model": {"modelFormat": {"name": "none"}, "storageUri": "pvc://none/none"}}
        wrong = {
            "apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService",
            "metadata": {"name": "0"}, "spec": {"predictor": predictor},
        }  # fmt: skip
        path = f"/apis/serving.kserve.io/v1beta1/namespaces/{_SPACE}/inferenceservices"
        message = self._rejected_by(path, wrong)
        return "validator" in message and "denied the request" in message


def _configured(settings):
    """Return KServe's ConfigMap for Standard mode and the Gateway API, without its examples."""
    data = {name: text for name, text in settings["data"].items() if name != "_example"}
    data["ingress"] = json.dumps({**json.loads(data["ingress"]), **_INGRESS})
    data["deploy"] = json.dumps(_DEPLOY)
    return {**settings, "data": data}
