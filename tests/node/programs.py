"""The real programs of the node beside the control plane: containerd, kubelet, kube-proxy."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import yaml

from tests.cluster.certificates import LOOPBACK
from tests.cluster.control_plane import POD_NETWORK, ControlPlane
from tests.cluster.processes import eventually
from tests.node import groups
from tests.node.images import PAUSE
from tests.node.inside import NODE_ADDRESS
from tests.node.needs import PLUGINS

NODE = "dwcp-node"
API_ADDRESS = "198.19.0.1"
"""Of the Service ``kubernetes``: the first of ``SERVICE_NETWORK``."""

CONTAINERD, KUBELET, PROXY = "containerd", "kubelet", "kube-proxy"

_IMPORT_SECONDS = 600


class NodeControlPlane(ControlPlane):
    """The control plane, reached by pods too, and the programs of its one node."""

    addresses = (LOOPBACK, NODE_ADDRESS, API_ADDRESS)

    def where(self):
        pair = self.authority.client("kube-apiserver-kubelet-client", ["system:masters"])
        return (
            "--bind-address=0.0.0.0", f"--advertise-address={NODE_ADDRESS}",
            "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
            f"--kubelet-client-certificate={pair.certificate}",
            f"--kubelet-client-key={pair.key}",
            "--kubelet-preferred-address-types=InternalIP",
        )  # fmt: skip

    def start_nodes(self):
        self.start_scheduler()
        self.socket = self.directory / "containerd.sock"
        self._start_containerd()
        self._import_images()
        self._start_kubelet()
        self._start_proxy()

    def ctr(self, *words, seconds=60.0):
        """Run containerd's own client in the namespace of Kubernetes; return what it said."""
        command = ["ctr", "--address", str(self.socket), "--namespace", "k8s.io", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _start_containerd(self):
        network = self.directory / "cni"
        network.mkdir()
        (network / "pods.conflist").write_text(json.dumps(_pod_network(self.directory)))
        settings = self.directory / "containerd.toml"
        settings.write_text(
            _CONTAINERD.format(
                store=os.environ["DWCP_NODE_STORE"], state=self.directory / "containerd",
                socket=self.socket, pause=PAUSE, plugins=PLUGINS, network=network,
            )
        )  # fmt: skip
        self.processes.start(CONTAINERD, [shutil.which("containerd"), "--config", settings])
        eventually(self._containerd_responds, 60.0, every=0.2, alive=self.processes.check)

    def _containerd_responds(self):
        try:
            return "Server:" in self.ctr("version")
        except AssertionError:
            return False

    def _import_images(self):
        """Bring the images into containerd's store, unless they are those that it has."""
        names = os.environ["DWCP_NODE_NAMES"]
        stored = Path(os.environ["DWCP_NODE_STORE"]) / "dwcp-names.json"
        if stored.exists() and stored.read_text() == names:
            there = self.ctr("images", "list", "--quiet")
            if all(f"/{name}" in there for name in json.loads(names)):
                return
        stored.unlink(missing_ok=True)
        saved = os.environ["DWCP_NODE_IMAGES"]
        self.ctr("images", "import", saved, seconds=_IMPORT_SECONDS)
        stored.write_text(names)

    def _start_kubelet(self):
        group = os.environ["DWCP_NODE_CGROUP"]
        groups.make(group)
        (self.directory / "resolv.conf").write_text("")
        settings = self.directory / "kubelet.yaml"
        settings.write_text(yaml.safe_dump(self._kubelet_settings(f"/{group}")))
        kubeconfig = self.kubeconfig(f"system:node:{NODE}", ["system:nodes"])
        self.run(
            KUBELET, f"--config={settings}", f"--kubeconfig={kubeconfig}",
            f"--root-dir={self.directory / 'kubelet'}", f"--hostname-override={NODE}",
            f"--node-ip={NODE_ADDRESS}", f"--cert-dir={self.directory / 'kubelet-pki'}",
        )  # fmt: skip

    def _kubelet_settings(self, group):
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "x509": {"clientCAFile": str(self.authority.certificate)},
            },
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": group,
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            "resolvConf": str(self.directory / "resolv.conf"),
            "makeIPTablesUtilChains": False,
            # Images can't be pulled again, so none is collected, and a full disk evicts no pod.
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "evictionHard": {
                "memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%",
            },
            "syncFrequency": "10s",
            "nodeStatusUpdateFrequency": "5s",
        }  # fmt: skip

    def _start_proxy(self):
        settings = self.directory / "kube-proxy.yaml"
        settings.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
                    "kind": "KubeProxyConfiguration",
                    "mode": "iptables",
                    "clusterCIDR": POD_NETWORK,
                    "hostnameOverride": NODE,
                    "clientConnection": {"kubeconfig": str(self.kubeconfig("system:kube-proxy"))},
                    "conntrack": {"maxPerCore": 0, "min": 0},
                    "metricsBindAddress": f"{LOOPBACK}:10249",
                    "healthzBindAddress": f"{LOOPBACK}:10256",
                }
            )
        )
        self.run(PROXY, f"--config={settings}")


def _pod_network(directory):
    """Return CNI's plan: one bridge, which is the pods' gateway, and no way beyond the node."""
    addresses = {
        "type": "host-local", "ranges": [[{"subnet": POD_NETWORK}]],
        "routes": [{"dst": "0.0.0.0/0"}], "dataDir": str(directory / "addresses"),
    }  # fmt: skip
    bridge = {
        "type": "bridge", "bridge": "pods0", "isGateway": True, "hairpinMode": True,
        "ipMasq": False, "ipam": addresses,
    }  # fmt: skip
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]}


_CONTAINERD = """version = 2
root = "{store}"
state = "{state}"
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/library/{pause}"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{network}"
"""
