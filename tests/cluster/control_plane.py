"""The cluster's real programs on 127.0.0.1: etcd, the API server and the controllers.

Pods and nodes are kwok's. Their addresses, and those of Services, are of the range that is set
aside for benchmarks (RFC 2544): nothing routes it, and nothing here ever dials it.
"""

import json
import socket
import time
from pathlib import Path

import yaml

from tests.cluster.certificates import LOOPBACK, Authority
from tests.cluster.processes import ClusterFailed, eventually, free_ports

POD_NETWORK = "198.18.0.0/16"
_LOG_MEGABYTES = 16_384
SERVICE_NETWORK = "198.19.0.0/16"
NODE = "fake-node"

FAKE_PODS = "description"
"""Annotation of a pod: ``crash-looping`` or ``pending``; any other pod becomes ready.

It is one that a ModelRollout's template may have, so that it reaches the pods through the operator.
"""

API_SERVER, ETCD = "kube-apiserver", "etcd"

_START_SECONDS = 60.0
_CRASH_LOOPING = Path(__file__).with_name("crash_looping.yaml")
_KWOK_MAY = [
    ([""], ["events"], ["create", "patch", "update"]),
    ([""], ["nodes", "pods"], ["get", "list", "watch", "patch", "update", "delete"]),
    ([""], ["nodes/status", "pods/status"], ["patch", "update"]),
    (["coordination.k8s.io"], ["leases"], ["create", "get", "list", "patch", "update", "watch"]),
]


class ControlPlane:
    """Starts the programs one after the other, each as soon as what it needs answers.

    Parameters
    ----------
    built
        The programs (``tests.cluster.build``).
    processes
        Where they run; its directory takes certificates, data and logs.
    """

    addresses = (LOOPBACK,)
    """Of the API server."""

    def __init__(self, built, processes):
        self.built = built
        self.processes = processes
        self.directory = processes.directory
        self.authority = Authority(self.directory / "pki", self.addresses)
        self.audit_log = self.directory / "audit.log"
        self.etcd_port, self._etcd_peers, self.port = free_ports(3)
        self.seconds = {}

    @property
    def address(self):
        return f"https://127.0.0.1:{self.port}"

    def start(self):
        """Start everything but kwok's node; ``seconds`` then says what took how long."""
        start = time.monotonic()
        self.run(ETCD, *self._etcd())
        self._until(ETCD, lambda: listens(self.etcd_port))
        self.seconds["etcd"] = time.monotonic() - start
        self.admin = self.kubeconfig("admin", ["system:masters"])
        self.run(API_SERVER, *self._api_server())
        self._until(API_SERVER, lambda: listens(self.port))
        self.seconds["API server listens"] = time.monotonic() - start

    def start_controllers(self):
        """Start the controllers of Kubernetes; they know the kinds that are there by now."""
        kubeconfig = self.kubeconfig("system:kube-controller-manager")
        self.run("kube-controller-manager", *self._controller_manager(kubeconfig))

    def start_nodes(self):
        """Start who places pods and who plays them."""
        self.start_scheduler()
        kwok = self.kubeconfig("kwok")
        self.run(
            "kwok", f"--kubeconfig={kwok}", f"--config={self._stages()}", "--manage-all-nodes=true",
            f"--cidr={POD_NETWORK}", "--node-ip=127.0.0.1", "--node-lease-duration-seconds=40",
        )  # fmt: skip

    def start_scheduler(self):
        """Start who places pods; its own pages are deployed to nobody: its log tells enough."""
        kubeconfig = self.kubeconfig("system:kube-scheduler")
        self.run(
            "kube-scheduler", f"--kubeconfig={kubeconfig}", "--leader-elect=false",
            "--secure-port=0", "--bind-address=127.0.0.1", "--kube-api-qps=200",
            "--kube-api-burst=400",
        )  # fmt: skip

    def kubeconfig(self, user, groups=(), token=None):
        """Write a kubeconfig of a user, by certificate or by token; return its path."""
        target = self.directory / "kubeconfigs" / f"{user.replace(':', '-')}.yaml"
        target.parent.mkdir(exist_ok=True, mode=0o700)
        if token is None:
            pair = self.authority.client(user, groups)
            credentials = {
                "client-certificate": str(pair.certificate),
                "client-key": str(pair.key),
            }
        else:
            credentials = {"token": token}
        server = {"server": self.address, "certificate-authority": str(self.authority.certificate)}
        target.touch(mode=0o600)
        target.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "tests",
                    "clusters": [{"name": "tests", "cluster": server}],
                    "users": [{"name": user, "user": credentials}],
                    "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": user}}],
                }
            )
        )
        return target

    def calls(self, user=None):
        """Return what the API server was asked, from its audit log, finished requests only.

        Parameters
        ----------
        user
            Only this user's requests, ``system:serviceaccount:<namespace>:<name>`` for example.
        """
        found = []
        for line in self.audit_log.read_text().splitlines():
            try:
                event = json.loads(line)
            except ValueError:  # the line that is being written
                continue
            if user is None or event["user"]["username"] == user:
                found.append(event)
        return found

    def run(self, name, *words):
        """Start one of the programs."""
        self.processes.start(name, [self.built.program(name), *words])

    def _until(self, name, question):
        try:
            eventually(question, _START_SECONDS, alive=self.processes.check)
        except ClusterFailed as error:
            raise ClusterFailed(f"{name} did not start: {error}") from error

    def _etcd(self):
        client = f"http://127.0.0.1:{self.etcd_port}"
        peer = f"http://127.0.0.1:{self._etcd_peers}"
        return (
            "--name=tests", f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=tests={peer}", "--unsafe-no-fsync", "--log-level=warn",
        )  # fmt: skip

    def _api_server(self):
        serving = self.authority.server("kube-apiserver")
        self._signing, verifying = self.authority.signing_key("service-accounts")
        policy = self.directory / "audit-policy.yaml"
        policy.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "audit.k8s.io/v1",
                    "kind": "Policy",
                    "omitStages": ["RequestReceived"],
                    "rules": [{"level": "Metadata"}],
                }
            )
        )
        return (
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}", f"--secure-port={self.port}",
            *self.where(),
            f"--tls-cert-file={serving.certificate}", f"--tls-private-key-file={serving.key}",
            f"--client-ca-file={self.authority.certificate}",
            f"--service-account-issuer={self.address}",
            f"--service-account-key-file={verifying}",
            f"--service-account-signing-key-file={self._signing}",
            f"--service-cluster-ip-range={SERVICE_NETWORK}", "--profiling=false",
            f"--audit-policy-file={policy}", f"--audit-log-path={self.audit_log}",
            f"--audit-log-maxsize={_LOG_MEGABYTES}",  # one file: `calls` reads no others
            "--shutdown-delay-duration=0s", "--shutdown-watch-termination-grace-period=1s",
        )  # fmt: skip

    def where(self):
        """Return what the API server is told of its addresses, and of who may do what."""
        return (
            f"--bind-address={LOOPBACK}", f"--advertise-address={LOOPBACK}",
            # A Service named kubernetes with a loopback address would be refused.
            "--endpoint-reconciler-type=none", "--authorization-mode=RBAC",
        )  # fmt: skip

    def _controller_manager(self, kubeconfig):
        return (
            f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0",
            "--use-service-account-credentials=true", "--bind-address=127.0.0.1",
            f"--service-account-private-key-file={self._signing}",
            f"--root-ca-file={self.authority.certificate}", "--kube-api-qps=200",
            "--kube-api-burst=400", "--concurrent-deployment-syncs=20",
        )  # fmt: skip

    def _stages(self):
        """Write kwok's own stages and ours into one file; return its path."""
        stages = self.built.objects("kwok")
        not_faked = {
            "key": f'.metadata.annotations["{FAKE_PODS}"]', "operator": "NotIn",
            "values": ["crash-looping", "pending"],
        }  # fmt: skip
        for stage in stages:
            if stage["metadata"]["name"] == "pod-ready":
                stage["spec"]["selector"]["matchExpressions"].append(not_faked)
        stages += yaml.safe_load_all(_CRASH_LOOPING.read_text())
        target = self.directory / "stages.yaml"
        target.write_text(yaml.safe_dump_all(stages))
        return target


def rights_of_kwok():
    """Return the ClusterRole and its binding that the user ``kwok`` needs."""
    kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "kwok"}}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "kwok"}
    user = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "kwok"}
    rules = [
        {"apiGroups": groups, "resources": resources, "verbs": verbs}
        for groups, resources, verbs in _KWOK_MAY
    ]
    return (
        {**kind, "kind": "ClusterRole", "rules": rules},
        {**kind, "kind": "ClusterRoleBinding", "roleRef": role, "subjects": [user]},
    )


def listens(port):
    """Return whether somebody listens on a port of 127.0.0.1."""
    with socket.socket() as client:
        client.settimeout(0.5)
        return client.connect_ex(("127.0.0.1", port)) == 0
