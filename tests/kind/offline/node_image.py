"""The image of kind's node, built by ``kind build node-image`` of programs that were built here.

kind pulls every image that it does not find among the archives of its tarball; all others are
therefore in ``kube-proxy.tar``. Their names are asked of kubeadm and of kind's own sources.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from dwcp_ml.files import atomic_directory
from tests.cluster.build import pinned, release_source
from tests.cluster.processes import ClusterFailed
from tests.cluster.programs import KUBERNETES_VERSION, RELEASES
from tests.kind.offline.archives import archive, image, layer

NAME = "kindest/node:local"
_BASE = "kindest-base:local"
HERE = Path(__file__).parent
_OF_NODE = ("containerd", "containerd-shim-runc-v2", "ctr", "crictl")
_SERVERS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
_CALL_PROGRAMS = ("kube-proxy", "kube-router")
_MODULES = (
    "kubernetes", "node", "etcd", "kind", "containerd", "crictl", "coredns", "local-path",
    "kube-router",
)  # fmt: skip
_FILES = (
    "archives.py", "base.sh", "kernel-settings.sh", "node_image.py", "pods.sh", "rootfs.sh",
    "small.sh",
)  # fmt: skip
_SECONDS = 900
_CONTAINERFILE = """FROM {base}
ENV container=docker
ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]
STOPSIGNAL SIGRTMIN+3
LABEL key={key}
"""


def key():
    """Return what decides the image: the programs' pins and the files of this directory."""
    digest = hashlib.sha256(json.dumps([pinned(one) for one in _MODULES]).encode())
    for name in _FILES:
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()[:16]


def root_file_system(place, say):
    """Return the root file system of Debian; the one step that needs a network.

    Raises
    ------
    ClusterFailed
        If the Debian archive can't be read.
    """
    target = place / f"rootfs-{hashlib.sha256((HERE / 'rootfs.sh').read_bytes()).hexdigest()[:16]}"
    if not target.exists():
        say("the root file system of the node: Debian by debootstrap, a minute or two")
        with atomic_directory(target) as staging:
            _run(["bash", HERE / "rootfs.sh", staging / "root"])
    return target / "root"


def build(space, built, root, say):
    """Build the image in the engine of the namespaces, unless it is there.

    Parameters
    ----------
    space
        ``Namespaces``, started.
    built
        The programs (``tests.cluster.build``).
    root
        Of ``root_file_system``.
    """
    labelled = space.run("docker", "image", "inspect", "--format", "{{.Config.Labels.key}}", _BASE)
    there = space.run("docker", "image", "inspect", NAME).returncode == 0
    if there and labelled.stdout.strip() == key():
        return
    say("the node's image: kind builds it, two minutes")
    with tempfile.TemporaryDirectory(prefix="dwcp-kind-") as directory:
        work = Path(directory)
        small = work / "small"
        _run(["bash", HERE / "small.sh", root, small])
        sources = release_source(RELEASES["kind"])
        _base(space, built, root, sources, work)
        target = _tarball(built, small, sources, root, work)
        space.output(
            "kind", "build", "node-image", "--type", "file", target, "--base-image", _BASE,
            "--image", NAME, seconds=_SECONDS,
        )  # fmt: skip
    space.output("docker", "image", "prune", "--force")  # an older one is 1 GB


def kube_router():
    """Return the name of the image of kube-router, which is in the node's image."""
    return f"localhost/kube-router:{RELEASES['kube-router'].version}"


def _base(space, built, root, sources, work):
    target, programs = work / "base", work / "bin"
    _run(["cp", "-a", root, target])
    programs.mkdir()
    for name in _OF_NODE:
        shutil.copy(built.program(name), programs)
    _run(["bash", HERE / "base.sh", target, sources, programs])
    packed = work / "base.tar"
    _run(["tar", "-C", target, "--numeric-owner", "-cf", packed, "."])
    space.output("docker", "import", packed, f"{_BASE}-raw", seconds=_SECONDS)
    lines = _CONTAINERFILE.format(base=f"{_BASE}-raw", key=key())
    space.output("env", "DOCKER_BUILDKIT=0", "docker", "build", "-q", "-t", _BASE, "-", given=lines)


def _tarball(built, small, sources, root, work):
    """Return the tarball of Kubernetes as ``kind build node-image --type file`` takes it."""
    server = work / "kubernetes/server/bin"
    server.mkdir(parents=True)
    (work / "kubernetes/version").write_text(f"{KUBERNETES_VERSION}\n")
    lowest = layer(work / "small.tar", [("", small)])
    images = {
        name: _image(name, tagged, built, lowest, work)
        for name, tagged in _names(built, sources, root).items()
    }
    for name in _SERVERS:
        archive(server / f"{name}.tar", [images.pop(name)])
    archive(server / "kube-proxy.tar", list(images.values()))
    for name in ("kubeadm", "kubelet", "kubectl"):
        shutil.copy(built.program(name), server)
    target = work / "kubernetes-server-linux-amd64.tar.gz"
    _run(["tar", "-C", work, "-I", "gzip -1", "-cf", target, "kubernetes"])
    return target


def _names(built, sources, root):
    """Return what kubeadm and this kind ask for, and kube-router: program -> image."""
    asked = [built.program("kubeadm"), "config", "images", "list"]
    found = _run([*asked, "--kubernetes-version", KUBERNETES_VERSION]).split()
    constants = (sources / "pkg/build/nodeimage").glob("const_*.go")
    text = "".join(one.read_text() for one in constants)
    found += re.findall(r'Image = "([^"/]+/kindest/[^"]+)"', text)
    names = {one.rpartition(":")[0].rpartition("/")[2]: one for one in found}
    # kind puts the pause image of containerd's settings in place of kubeadm's.
    settings = (sources / "images/base/files/etc/containerd/config.toml").read_text()
    names["pause"] = re.search(r'sandbox_image = "([^"]+)"', settings)[1]
    return {**names, "kube-router": kube_router()}


def _image(name, tagged, built, lowest, work):
    if name == "kindnetd":  # its module is not to be had
        script = layer(work / "pods.tar", [("pods.sh", HERE / "pods.sh")])
        return image(tagged, [lowest, script], ["/bin/sh", "/pods.sh"])
    if name == "local-path-helper":
        return image(tagged, [lowest], ["/bin/sh"])
    layers = [layer(work / f"{name}.tar", [(f"usr/local/bin/{name}", built.program(name))])]
    if name in _CALL_PROGRAMS:
        layers.insert(0, lowest)
    user = "65535:65535" if name == "pause" else ""
    return image(tagged, layers, [f"/usr/local/bin/{name}"], user)


def _run(command):
    environment = {**os.environ, "PATH": f"/usr/sbin:/sbin:{os.environ['PATH']}"}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, errors="replace",
        timeout=_SECONDS, check=False, env=environment,
    )  # fmt: skip
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())[-600:]
        raise ClusterFailed(f"'{' '.join(map(str, command[:3]))}' failed: {said}")
    return done.stdout
