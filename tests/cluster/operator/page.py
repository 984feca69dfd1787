"""A page's kubectl blocks, pasted: kubectl on the path, counters of its versions, an operator."""

import hashlib
import os
import sys

from dwcp_ml.contract.models import BANDWIDTH
from dwcp_ml.kube.client import KubeApi
from dwcp_ml.kube.manifests import manifests
from tests.cluster.operator.installed import ACCOUNT, SYSTEM
from tests.cluster.operator.servers import FakePrometheus, RealTime, Servers
from tests.cluster.processes import free_ports


def kubectl_on_path(local_cluster, directory):
    """Return a PATH on which kubectl is that of the cluster, with an administrator's rights."""
    place = directory / "bin"
    place.mkdir()
    program = local_cluster.control_plane.built.program("kubectl")
    script = place / "kubectl"
    words = f"--kubeconfig={local_cluster.kubeconfig} --cache-dir={directory / 'cache'}"
    script.write_text(f'#!/bin/sh\nexec {program} {words} "$@"\n')
    script.chmod(0o755)
    return f"{place}:{os.environ['PATH']}"


def write_runs(directory, versions, store):
    """Write what three runs leave of the bandwidth predictor; return version -> digest.

    The manifests are the gate's own. No server opens the bundle here: its manifest.json is a name.
    """
    digests = {}
    for version in versions:
        content = f'{{"version": "{version}"}}\n'.encode()
        digests[version] = hashlib.sha256(content).hexdigest()
        bundle = directory / "runs" / version / "models" / BANDWIDTH.name / version
        bundle.mkdir(parents=True)
        (bundle / "manifest.json").write_bytes(content)
        written = directory / "runs" / version / "manifests" / BANDWIDTH.name
        written.mkdir(parents=True)
        uri = f"{store}/{BANDWIDTH.name}/{version}"
        for name, text in manifests(BANDWIDTH, version, uri, digests[version]).items():
            (written / name).write_text(text)
    return digests


class Counters(FakePrometheus):
    """What the servers of a page's versions would count of the requests that the routes bring.

    Parameters
    ----------
    digests
        Version -> digest.
    """

    def __init__(self, api, namespace, digests):
        super().__init__()
        self._digests = digests
        self.add(namespace, Servers(KubeApi(api), RealTime(), namespace))

    def digest_of(self, version):
        """Return the digest of a version of the page."""
        return self._digests[version]


class Operator:
    """The operator of a page, as a process: it takes the place of pods that nothing runs in.

    Parameters
    ----------
    local_cluster
        The cluster.
    directory
        Where its key and its kubeconfig go.
    prometheus
        Address of who tells what is counted.
    """

    NAME = "page-operator"

    def __init__(self, local_cluster, directory, prometheus):
        self.cluster, self._directory, self._prometheus = local_cluster, directory, prometheus
        self._runs = False

    def start(self):
        """Start it with the rights of its account."""
        kubeconfig = self.cluster.kubeconfig_of(SYSTEM, ACCOUNT, self._directory)
        (port,) = free_ports(1)
        command = [
            sys.executable, "-m", "dwcp_ml.cli", "operator", "run",
            f"--kubeconfig={kubeconfig}", f"--namespace={SYSTEM}", f"--identity={self.NAME}",
            f"--prometheus={self._prometheus}", f"--port={port}", "--reconcile-interval=1",
        ]  # fmt: skip
        self.cluster.processes.start(self.NAME, command)
        self._runs = True

    def stop(self, signal_name="SIGTERM"):
        """End it, if it runs."""
        if self._runs:
            self.cluster.processes.stop(self.NAME, signal_name)
            self.cluster.processes.forget(self.NAME)
            self._runs = False
