"""KServe in a cluster of ours: its own controller and webhooks, its own definitions and defaults.

The program is ``binaries/kserve``: KServe 0.20 as a library, and on top of it the one thing that is
simulated of Standard mode: the weights of HTTPRoutes as KServe 0.21 writes them (``weights.go``).
"""

import base64
import json
import shutil
from contextlib import contextmanager

from tests.cluster.control_plane import listens
from tests.cluster.processes import ClusterFailed, eventually, free_ports
from tests.cluster.rest import RequestRejected

USER = MANAGER = "kserve-manager"
"""Who it is to the API server and in the audit log, and what its process is called."""

SERVICES = "/apis/serving.kserve.io/v1beta1/inferenceservices"
_SPACE = "kserve"
_STORAGE = "/apis/serving.kserve.io/v1alpha1/clusterstoragecontainers"
_WEBHOOKS = "/apis/admissionregistration.k8s.io/v1"
_ACCESS = "/apis/rbac.authorization.k8s.io/v1"
_INGRESS = {"enableGatewayApi": True, "disableIstioVirtualHost": True}
_DEPLOY = {"defaultDeploymentMode": "Standard"}
_OURS = ("inferenceservices", "pods", "servingruntimes", "clusterservingruntimes")
_START_SECONDS = 60.0


class KServe:
    """Starts KServe's manager as a user of its own; it may do everything, as only it is real.

    Parameters
    ----------
    rest
        The administrator's requests.
    control_plane
        Where it runs.
    """

    def __init__(self, rest, control_plane):
        self.rest = rest
        self._control_plane = control_plane
        self._processes = control_plane.processes
        self._objects = control_plane.built.objects("kserve")
        (self._port,) = free_ports(1)

    @property
    def address(self):
        return f"https://127.0.0.1:{self._port}"

    def definitions(self):
        """Return the custom resource definitions: KServe's own, and that of Knative's Service."""
        return self._of_kind("CustomResourceDefinition")

    def furnish(self):
        """Create what the manager reads before it starts: rights, settings, storage."""
        binding = {
            "metadata": {"name": MANAGER},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": "cluster-admin",
            },
            "subjects": [
                {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}
            ],
        }  # fmt: skip
        self.rest.create(f"{_ACCESS}/clusterrolebindings", binding)
        self.rest.create("/api/v1/namespaces", {"metadata": {"name": _SPACE}})
        (settings,) = self._of_kind("ConfigMap")
        self.rest.create(f"/api/v1/namespaces/{_SPACE}/configmaps", _configured(settings))
        for one in self._of_kind("ClusterStorageContainer"):
            self.rest.create(_STORAGE, one)

    def start(self):
        """Start the manager and have the API server ask its webhooks; return when they answer."""
        authority = self._control_plane.authority
        pair = authority.server("kserve-webhook")
        certificates = self._control_plane.directory / "kserve"
        certificates.mkdir(mode=0o700)
        shutil.copyfile(pair.certificate, certificates / "tls.crt")
        (certificates / "tls.key").touch(mode=0o600)
        shutil.copyfile(pair.key, certificates / "tls.key")
        self._command = [
            self._control_plane.built.program(MANAGER),
            f"--kubeconfig={self._control_plane.kubeconfig(USER)}",
            "--webhook-host=127.0.0.1", f"--webhook-port={self._port}",
            f"--certificates={certificates}", "--health-probe-addr=0",
            "--zap-log-level=error", "--zap-stacktrace-level=panic",
        ]  # fmt: skip
        self._processes.start(MANAGER, self._command)
        self._until(lambda: listens(self._port))
        bundle = base64.b64encode(authority.certificate.read_bytes()).decode()
        for one in self._webhooks(bundle):
            self.rest.create(f"{_WEBHOOKS}/{one['kind'].lower()}s", one)
        self._until(self._refuses)

    def restart(self, signal_name="SIGKILL"):
        """Stop the manager and start it again; return when its webhooks answer."""
        self._processes.stop(MANAGER, signal_name)
        self._processes.again(MANAGER)
        self._until(lambda: listens(self._port))
        self._until(self._refuses)

    @contextmanager
    def route_gap(self, seconds):
        """Let this time pass between the writes of a service's two routes, within a block."""
        self._processes.stop(MANAGER)
        self._processes.start(MANAGER, [*self._command, f"--route-gap={seconds}s"])
        self._until(self._refuses)
        try:
            yield
        finally:
            self._processes.stop(MANAGER)
            self._processes.start(MANAGER, self._command)
            self._until(self._refuses)

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
        self._processes.signal(MANAGER, signal_name)
        eventually(lambda: self._said(answer) > before, 10.0, alive=self._processes.check)

    def _said(self, answer):
        lines = (self._processes.logs / f"{MANAGER}.log").read_text(errors="replace").splitlines()
        return lines.count(f"controller {answer}")

    def _until(self, question):
        try:
            eventually(question, _START_SECONDS, alive=self._processes.check)
        except ClusterFailed as error:
            raise ClusterFailed(f"{MANAGER} did not start: {error}") from error

    def _refuses(self):
        """Return whether the webhooks are asked and answer: a service with a bad name is tried."""
        predictor = {"model": {"modelFormat": {"name": "none"}, "storageUri": "pvc://none/none"}}
        wrong = {
            "apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService",
            "metadata": {"name": "0"}, "spec": {"predictor": predictor},
        }  # fmt: skip
        path = f"/apis/serving.kserve.io/v1beta1/namespaces/{_SPACE}/inferenceservices?dryRun=All"
        try:
            self.rest.create(path, wrong)
        except RequestRejected as error:
            return "validator" in str(error) and "denied the request" in str(error)
        return False

    def _of_kind(self, kind):
        return [one for one in self._objects if one["kind"] == kind]

    def _webhooks(self, bundle):
        """Yield KServe's configurations of what runs here, by address instead of by Service."""
        for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
            for one in self._of_kind(kind):
                webhooks = [
                    {
                        **hook,
                        "clientConfig": {
                            "url": self.address + hook["clientConfig"]["service"]["path"],
                            "caBundle": bundle,
                        },
                    }
                    for hook in one["webhooks"]
                    if hook["rules"][0]["resources"][0] in _OURS
                ]
                if webhooks:
                    yield {**one, "webhooks": webhooks}


def _configured(settings):
    """Return KServe's ConfigMap for Standard mode and the Gateway API, without its examples."""
    data = {name: text for name, text in settings["data"].items() if name != "_example"}
    data["ingress"] = json.dumps({**json.loads(data["ingress"]), **_INGRESS})
    data["deploy"] = json.dumps(_DEPLOY)
    return {**settings, "data": data}
