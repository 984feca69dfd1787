"""The first process of the node's namespaces: makes the network, runs pytest, and ends with it.

Nothing leads out of here: the only interfaces are the loopback, one pair for the node's address,
and the pods' bridge. When this process ends, the kernel ends every other one in here.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.cluster.control_plane import SERVICE_NETWORK

HOST = "bandwidth-predictor-dwcp-ml.example.com"
NODE_ADDRESS = "192.0.2.10"
"""Of TEST-NET-1 (RFC 5737)."""

_STEPS = (
    "mount --make-rshared /",
    "mount -t tmpfs -o mode=0755 tmpfs /run",
    "ip link set lo up",
    "ip link add node0 type veth peer name node1",
    f"ip address add {NODE_ADDRESS}/32 dev node0",
    "ip link set node0 up",
    "ip link set node1 up",
    # An address that nobody has programmed yet ends here.
    f"ip route add {SERVICE_NETWORK} dev node0",
    "sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1",
)

_FILES = {
    # The users of a model find the gateway by the model's name.
    "/etc/hosts": f"127.0.0.1 localhost {HOST}\n",
    "/etc/resolv.conf": "",
}


def main(words):
    for step in _STEPS:
        subprocess.run(step.split(), check=True)
    for file, content in _FILES.items():
        here = Path("/run") / Path(file).name
        here.write_text(content)
        subprocess.run(["mount", "--bind", str(here), file], check=True)
    os.environ["DWCP_NODE_INSIDE"] = "yes"
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "node", "tests/node", *words]
    child = subprocess.Popen(command)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda one, _: child.send_signal(one))
    # The first process of a namespace is the parent of every orphan: all are waited for.
    while True:
        ended, status = os.wait()
        if ended == child.pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return child.returncode


if __name__ == "__main__":
    assert Path("/proc/self").resolve().name == "1", "this is for unshare; see tests.node"
    sys.exit(main(sys.argv[1:]))
