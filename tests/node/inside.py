"""The first process of the node's namespaces: makes the network, runs pytest, and ends with it.

Nothing leads out of here: the only interfaces are the loopback, one pair for the node's address,
and the pods' bridge. What the programs write below /etc, /opt, /run, /usr and /var stays in here,
and so does what a kubelet wants of the kernel. When this process ends, the kernel ends every other
one in here.
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

GATEWAY_ADDRESS = "198.19.0.80"
"""Of the gateway's Service, within ``SERVICE_NETWORK``."""

COVERED = ("/etc", "/opt", "/usr", "/var")
_COVER = Path("/run/covered")

_NETWORK = (
    "ip link set lo up",
    "ip link add node0 type veth peer name node1",
    f"ip address add {NODE_ADDRESS}/32 dev node0",
    "ip link set node0 up",
    "ip link set node1 up",
    # Packets to an address that kube-proxy has not programmed yet are dropped here.
    f"ip route add {SERVICE_NETWORK} dev node0",
    "sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1",
)

_FILES = {
    # The users of a model find the gateway by the model's name.
    "/etc/hosts": f"127.0.0.1 localhost\n{GATEWAY_ADDRESS} {HOST}\n",
    "/etc/resolv.conf": "",
    # A kubelet changes these for the whole machine, unless it reads that they are as it likes them.
    "/proc/sys/kernel/keys/root_maxbytes": "25000000\n",
    "/proc/sys/kernel/keys/root_maxkeys": "1000000\n",
    "/proc/sys/kernel/panic": "10\n",
    "/proc/sys/kernel/panic_on_oops": "1\n",
    "/proc/sys/vm/overcommit_memory": "1\n",
    "/proc/sys/vm/panic_on_oom": "0\n",
}


def main(words):
    furnish()
    os.environ["DWCP_NODE_INSIDE"] = "yes"
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "node", "tests/node", *words]
    child = subprocess.Popen(command, start_new_session=True)

    def interrupt(number, frame):
        os.kill(child.pid, signal.SIGINT)  # which pytest tidies up after

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    # The first process of a namespace is the parent of every orphan: all are waited for.
    while True:
        ended, status = os.wait()
        if ended == child.pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return child.returncode


def furnish():
    """Cover what is the machine's, and make the network; nothing of it is seen outside."""
    _run("mount --make-rshared /")
    _run("mount -t tmpfs -o mode=0755 tmpfs /run")
    for place in COVERED:
        upper, work = _COVER / f"upper{place}", _COVER / f"work{place}"
        upper.mkdir(parents=True)
        work.mkdir(parents=True)
        layers = f"lowerdir={place},upperdir={upper},workdir={work}"
        _run(f"mount -t overlay -o {layers} overlay {place}")
    for number, (file, content) in enumerate(_FILES.items()):
        if Path(file).exists():
            here = Path("/run") / f"covered-{number}"
            here.write_text(content)
            _run(f"mount --bind {here} {file}")
    for step in _NETWORK:
        _run(step)
    used = {line.split()[1] for line in _output_of("ip -oneline address show").splitlines()}
    assert used <= {"lo", "node0", "node1"}, used
    assert "default" not in _output_of("ip route show")


def _run(step):
    subprocess.run(step.split(), check=True)


def _output_of(step):
    return subprocess.run(step.split(), check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    assert Path("/proc/self").resolve().name == "1", "this is for unshare; see tests.node"
    sys.exit(main(sys.argv[1:]))
