"""The images of the node: built here, without any registry, and kept as one archive.

The base is Debian by debootstrap (``images/local_base.sh``), the libraries are the wheels of the
lock files, and everything is built without a network. If no container engine runs, one is started
for the build.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from dwcp_ml import __version__
from dwcp_ml.contract.errors import DwcpError, UsageError
from dwcp_ml.files import atomic_directory
from dwcp_ml.local_rollout.envoy_binary import find_envoy
from dwcp_ml.processes import ChildProcess
from tests.cluster.build import ROOT, cache
from tests.cluster.processes import ClusterFailed

BASE = "dwcp-ml-base:local"
PAUSE = f"dwcp-ml-pause:{__version__}"
ENVOY_GATEWAY, ENVOY = "dwcp-ml-node-envoy-gateway:local", "dwcp-ml-node-envoy:local"
OURS = tuple(f"dwcp-ml-{name}:{__version__}" for name in ("trainer", "server", "operator"))

_NEEDS_BUILDX = 23
_NOTHING_ELSE = ("ARGS=", "REGISTRY=", "PIP_CONF=")
"""Variables of make's command line are for the tests, not for the images."""

_START_SECONDS = 60.0
_KEPT = "10GB"
"""Of what was built before, in an engine of ours."""

_BUILD_SECONDS = 2400
_FILES = {
    PAUSE: 'FROM scratch\nCOPY pause /pause\nUSER 65535:65535\nENTRYPOINT ["/pause"]\n',
    ENVOY_GATEWAY: (
        "FROM scratch\nCOPY envoy-gateway /bin/envoy-gateway\nENV PATH=/bin\nUSER 65532:65532\n"
        'ENTRYPOINT ["envoy-gateway"]\n'
    ),
    ENVOY: f"FROM {BASE}\nCOPY envoy /usr/local/bin/envoy\nUSER 65532:65532\n",
}
"""Image -> how it is made of one program, which it is named after."""


def place():
    """Return where a node keeps what outlives it: the archive, the engine's and its own store."""
    return cache().parent / "node"


def archive(built, say):
    """Return the archive of all images, and what is in it: name -> id.

    Parameters
    ----------
    built
        The programs (``tests.cluster.build``); the pause container is one of them.
    say
        Called with a line of progress.

    Raises
    ------
    ClusterFailed
        If an image can't be built.
    """
    target = place() / "images"
    names_file = target / "names.json"
    with _engine(say) as environment:
        _build(built, environment, say)
        names = {one: _id(one, environment) for one in (*OURS, *_FILES)}
        if not names_file.exists() or json.loads(names_file.read_text()) != names:
            say("saving the images for the node")
            with atomic_directory(target) as staging:
                words = [
                    environment["ENGINE"],
                    "save",
                    "--output",
                    str(staging / "images.tar"),
                    *names,
                ]
                _run(words, environment)
                (staging / names_file.name).write_text(json.dumps(names))
    return target / "images.tar", names


def _envoy():
    try:
        return find_envoy()
    except UsageError as error:
        raise ClusterFailed(str(error)) from error


def _build(built, environment, say):
    envoy = _envoy()
    if not _id(BASE, environment):
        say("the base image: Debian by debootstrap, a minute")
        _run(["sh", "images/local_base.sh", BASE], environment)  # which reads ENGINE
    locks = b"".join(one.read_bytes() for one in sorted((ROOT / "images").glob("*.lock")))
    stamp, digest = ROOT / "images/wheels/.complete", hashlib.sha256(locks).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        say("the libraries of the images: 520 MB of wheels, a minute")
        _make("wheels", environment)
        stamp.write_text(digest)
    say("the images: minutes the first time, seconds when only our own code changed")
    engine = environment["ENGINE"]
    _make("images", environment, f"BASE={BASE}", f"ENGINE={engine}")
    programs = {
        PAUSE: built.program("pause"), ENVOY_GATEWAY: built.program("envoy-gateway"),
        ENVOY: envoy,
    }  # fmt: skip
    for image, program in programs.items():
        with tempfile.TemporaryDirectory() as directory:
            shutil.copy(program, directory)
            file = Path(directory) / "Containerfile"
            file.write_text(_FILES[image])
            words = ["build", "--quiet", "--tag", image, "--file", str(file), directory]
            _run([engine, *words], environment)


@contextlib.contextmanager
def _engine(say):
    """Yield the environment in which ``docker`` finds an engine."""
    environment = {**os.environ, "DOCKER_BUILDKIT": "1", "ENGINE": _client()}
    if _runs(environment):
        yield environment
        return
    say("no container engine runs: starting one")
    with tempfile.TemporaryDirectory(prefix="dwcp-engine-") as directory:
        socket, log = f"unix://{directory}/docker.sock", Path(directory) / "dockerd.log"
        # It makes no network: what is built here is built without one.
        settings = Path(directory) / "daemon.json"
        settings.write_text("{}")
        command = [
            str(shutil.which("dockerd")), "--config-file", str(settings), "--host", socket,
            "--data-root", str(place() / "docker"),
            "--exec-root", f"{directory}/exec", "--pidfile", f"{directory}/pid",
            "--bridge=none", "--iptables=false", "--ip-masq=false", "--ip-forward=false",
        ]  # fmt: skip
        environment["DOCKER_HOST"] = socket
        with ChildProcess("dockerd", command, log) as engine:
            try:
                engine.wait_until(lambda: _runs(environment), _START_SECONDS)
            except DwcpError as error:
                raise ClusterFailed(f"{error} {_tail(log.read_text())}") from error
            yield environment
            _prune(environment, say)


def _prune(environment, say):
    """Have an engine of ours forget what earlier commits left: it would fill the disk."""
    keep = f"--keep-storage={_KEPT}"
    for words in (["image", "prune", "--force"], ["builder", "prune", "--force", "--all", keep]):
        try:
            _run([environment["ENGINE"], *words], environment)
        except ClusterFailed as error:
            say(f"{error} Nothing else depends on it.")


def _client():
    """Return the first docker of the path that can build: from 23 on that takes buildx."""
    found = [Path(one) / "docker" for one in os.get_exec_path()]
    for one in (str(one) for one in found if os.access(one, os.X_OK)):
        version = subprocess.run([one, "--version"], capture_output=True, text=True, check=False)
        number = re.search(r"version (\d+)\.", version.stdout)
        buildx = subprocess.run([one, "buildx", "version"], capture_output=True, check=False)
        if buildx.returncode == 0 or (number and int(number[1]) < _NEEDS_BUILDX):
            return one
    raise ClusterFailed("no docker here can build: from version 23 on it needs its plugin buildx.")


def _runs(environment):
    command = [environment["ENGINE"], "info"]
    return (
        subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0
    )


def _id(image, environment):
    done = subprocess.run(
        [environment["ENGINE"], "image", "inspect", "--format", "{{.Id}}", image],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() if done.returncode == 0 else ""


def _make(target, environment, *words):
    _run(["make", "--no-print-directory", target, *_NOTHING_ELSE, *words], environment)


def _run(command, environment):
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, errors="replace",
        timeout=_BUILD_SECONDS, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        said = _tail(done.stderr or done.stdout)
        raise ClusterFailed(f"'{' '.join(command[:4])}' failed: {said}")


def _tail(text):
    return " ".join(text.split())[-800:]
