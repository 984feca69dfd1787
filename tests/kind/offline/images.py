"""The images of other projects, built here under the names that the cluster knows them by."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.files import atomic_directory
from dwcp_ml.local_rollout.envoy_binary import find_envoy
from tests.cluster.build import ROOT
from tests.cluster.processes import ClusterFailed
from tests.kind.offline import knative, site

BASE = "dwcp-ml-base:local"
ENVOY_GATEWAY, ENVOY = "dwcp-ml-test-envoy-gateway:local", "dwcp-ml-test-envoy:local"
STORE = "dwcp-ml-test-object-store:local"

_SECONDS = 1800
_LOCK = Path(__file__).with_name("requirements-storage.lock")
_NEEDS_BUILDX = 23
_KEPT = "10GB"
"""Of what was built before, in the engine."""

_STATIC = 'FROM scratch\nCOPY {0} /{0}\nENV PATH=/\nUSER 65532:65532\nENTRYPOINT ["/{0}"]\n'
_STORAGE = f"""FROM {BASE} AS builder
RUN --mount=type=bind,target=/source python3 -m venv /opt/storage && \\
    /opt/storage/bin/pip install --quiet --no-index --no-deps /source/wheels/*.whl
FROM {BASE}
COPY --from=builder /opt/storage /opt/storage
COPY --chmod=755 entrypoint /storage-initializer/scripts/initializer-entrypoint
ENV PATH=/opt/storage/bin:/usr/bin:/bin
WORKDIR /work
RUN chown 1000:1000 /mnt
USER 1000:1000
ENTRYPOINT ["/storage-initializer/scripts/initializer-entrypoint"]
"""
"""KServe's storage initializer: its own program and its own package from the Python archive."""

_ON_BASE = f"FROM {BASE}\nCOPY {{0}} /usr/local/bin/{{0}}\nUSER 65532:65532\n"


def download(place, say):
    """Download the libraries of the images, which are then built without a network.

    Raises
    ------
    ClusterFailed
        If they can't be had.
    """
    wheels = _storage_wheels(place)
    if not wheels.exists():
        say("the libraries of KServe's storage initializer: 70 MB of wheels")
        with atomic_directory(wheels) as staging:
            python = f"{sys.base_prefix}/bin/python3"  # that of the environment has no pip
            words = ["--quiet", "--require-hashes", "--no-deps", "--disable-pip-version-check"]
            target = ["--dest", str(staging), "--requirement", str(_LOCK)]
            _run([python, "-m", "pip", "download", *words, *target], os.environ)
    locks = b"".join(one.read_bytes() for one in sorted((ROOT / "images").glob("*.lock")))
    stamp, digest = ROOT / "images/wheels/.complete", hashlib.sha256(locks).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        say("the libraries of the images: 520 MB of wheels, a minute")
        _run(["make", "--no-print-directory", "wheels"], os.environ)
        stamp.write_text(digest)


def _storage_wheels(place):
    return place / f"storage-{hashlib.sha256(_LOCK.read_bytes()).hexdigest()[:16]}"


def build(space, built, place, say):
    """Build the images in the engine of the namespaces; return role -> image.

    Raises
    ------
    ClusterFailed
        If one can't be built.
    """
    if space.run("docker", "image", "inspect", BASE).returncode != 0:
        say("the base image: Debian by debootstrap, a minute")
        # The script reads the Debian archive out here, and the engine takes the result in there.
        engine = space.work / "docker"
        engine.write_text(
            f'#!/bin/sh\nexec {" ".join(space.words("docker", directory="/"))} "$@"\n'
        )
        engine.chmod(0o755)
        environment = {**space.environment(), "ENGINE": str(engine)}
        _run(["sh", "images/local_base.sh", BASE], environment)
    names = {
        "envoy-gateway": ENVOY_GATEWAY, "envoy": ENVOY, "versitygw": STORE,
        **site.images_of_kserve(), **knative.images(),
    }  # fmt: skip
    files = {
        "envoy-gateway": (built.program("envoy-gateway"), _STATIC),
        "envoy": (_envoy(), _ON_BASE),
        "manager": (built.program("kserve-manager"), _STATIC),
        "versitygw": (built.program("versitygw"), _STATIC),
        "kube-rbac-proxy": (built.program("kube-rbac-proxy"), _STATIC),
        **{name: (built.program(name), _STATIC) for name in knative.images()},
    }
    for role, (program, form) in files.items():
        with tempfile.TemporaryDirectory(dir=space.work) as directory:
            shutil.copy(program, Path(directory, role))
            file = Path(directory, "Containerfile")
            file.write_text(form.format(role))
            words = ["docker", "build", "--quiet", "--tag", names[role], "--file", file, directory]
            space.output("env", "DOCKER_BUILDKIT=1", *words, seconds=_SECONDS)
    _build_storage(space, names["storage-initializer"], _storage_wheels(place))
    return names


def _build_storage(space, name, wheels):
    with tempfile.TemporaryDirectory(dir=space.work) as directory:
        context = Path(directory)
        shutil.copytree(wheels, context / "wheels")
        shutil.copyfile(site.storage_program(), context / "entrypoint")
        (context / "Containerfile").write_text(_STORAGE)
        words = ["docker", "build", "--quiet", "--network=none", "--tag", name]
        words += ["--file", context / "Containerfile", context]
        space.output("env", "DOCKER_BUILDKIT=1", *words, seconds=_SECONDS)


def client():
    """Return the first docker of the path that can build: from 23 on that takes buildx.

    Raises
    ------
    ClusterFailed
        If there is none.
    """
    found = [Path(one) / "docker" for one in os.get_exec_path()]
    for one in (str(one) for one in found if os.access(one, os.X_OK)):
        version = subprocess.run([one, "--version"], capture_output=True, text=True, check=False)
        number = re.search(r"version (\d+)\.", version.stdout)
        buildx = subprocess.run([one, "buildx", "version"], capture_output=True, check=False)
        if buildx.returncode == 0 or (number and int(number[1]) < _NEEDS_BUILDX):
            return one
    raise ClusterFailed("no docker here can build: from version 23 on it needs its plugin buildx.")


def prune(space):
    """Have the engine forget what earlier commits left: it would fill the disk."""
    space.run("docker", "image", "prune", "--force")
    space.run("docker", "builder", "prune", "--force", "--all", f"--keep-storage={_KEPT}")


def _envoy():
    try:
        return find_envoy()
    except UsageError as error:
        raise ClusterFailed(str(error)) from error


def _run(command, environment):
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, errors="replace",
        timeout=_SECONDS, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())[-600:]
        raise ClusterFailed(f"'{' '.join(command[:3])}' failed: {said}")
