"""A real controller with webhooks of its own, in a cluster of ours; KServe's and Knative's are."""

import base64
import shutil

from tests.cluster.processes import ClusterFailed, eventually, free_ports
from tests.cluster.rest import RequestRejected

_WEBHOOKS = "/apis/admissionregistration.k8s.io/v1"
_ACCESS = "/apis/rbac.authorization.k8s.io/v1"
_START_SECONDS = 60.0


class Manager:
    """One program that has a user of its own and may do everything.

    Parameters
    ----------
    rest
        The administrator's requests.
    control_plane
        Where it runs.

    Attributes
    ----------
    name
        Who it is to the API server and in the audit log, and what its process is called.
    modules
        Those whose objects it needs (``tests.cluster.programs.FILES``).
    """

    name = ""
    modules = ()

    def __init__(self, rest, control_plane):
        self.rest = rest
        self._control_plane = control_plane
        self._processes = control_plane.processes
        self._objects = [
            one for module in self.modules for one in control_plane.built.objects(module)
        ]
        (self._port,) = free_ports(1)

    @property
    def address(self):
        return f"https://127.0.0.1:{self._port}"

    def definitions(self):
        """Return the custom resource definitions that it needs."""
        return self._of_kind("CustomResourceDefinition")

    def rejects(self):
        """Return whether its webhooks respond, which a request that they reject shows."""
        raise NotImplementedError

    def _allow(self):
        binding = {
            "metadata": {"name": self.name},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": "cluster-admin",
            },
            "subjects": [
                {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": self.name}
            ],
        }  # fmt: skip
        self.rest.create(f"{_ACCESS}/clusterrolebindings", binding)

    def _certificates(self):
        """Return a new directory with the webhooks' tls.crt and tls.key."""
        pair = self._control_plane.authority.server(f"{self.name}-webhook")
        directory = self._control_plane.directory / self.name
        directory.mkdir(mode=0o700)
        shutil.copyfile(pair.certificate, directory / "tls.crt")
        (directory / "tls.key").touch(mode=0o600)
        shutil.copyfile(pair.key, directory / "tls.key")
        return directory

    def _run(self, *words):
        """Start the program."""
        self._command = [
            self._control_plane.built.program(self.name),
            f"--kubeconfig={self._control_plane.kubeconfig(self.name)}", *words,
        ]  # fmt: skip
        self._processes.start(self.name, self._command)

    def _register(self, path_of, resources):
        """Have the API server ask the webhooks about resources, by address instead of by Service.

        Parameters
        ----------
        path_of
            Returns the path that a webhook is asked at, given its configuration's own.
        resources
            Webhooks whose first resource is another one are left out.
        """
        bundle = self._control_plane.authority.certificate.read_bytes()
        for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
            for one in self._of_kind(kind):
                hooks = [hook for hook in one["webhooks"] if _first_resource(hook) in resources]
                for hook in hooks:
                    hook["clientConfig"] = {
                        "url": self.address + path_of(hook),
                        "caBundle": base64.b64encode(bundle).decode(),
                    }
                if hooks:
                    path = f"{_WEBHOOKS}/{one['kind'].lower()}s"
                    self.rest.create(path, {**one, "webhooks": hooks})

    def _rejected_by(self, path, wrong):
        """Return the message with which an object is rejected, an empty one if it is not."""
        try:
            self.rest.create(f"{path}?dryRun=All", wrong)
        except RequestRejected as error:
            return str(error)
        return ""

    def _until(self, question):
        try:
            eventually(question, _START_SECONDS, alive=self._processes.check)
        except ClusterFailed as error:
            raise ClusterFailed(f"{self.name} did not start: {error}") from error

    def _of_kind(self, kind):
        return [one for one in self._objects if one["kind"] == kind]


def _first_resource(hook):
    return next(iter(hook.get("rules", [{}])[0].get("resources", [])), None)
