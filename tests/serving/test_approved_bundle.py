"""A server process with a pod's arguments: it serves the approved bundle, or does not start."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from onnx import numpy_helper

from dwcp_ml.export.keys import make_key_pair
from dwcp_ml.export.signing import sign_bundle
from dwcp_ml.export.verify import open_bundle
from dwcp_ml.kube.kserve.objects import server_arguments
from tests.serving.bundles import MODELS, graph, make_bundle
from tests.serving.running import Server

pytestmark = pytest.mark.server

NAME = "bandwidth_predictor"
REFUSED = 1
"""Exit code, as docs/serving.md has it."""
MANIFESTS = Path(__file__).parents[2] / "manifests"
TIMEOUT_SECONDS = 60.0


def runtime_args():
    """Return the arguments of the ServingRuntime, without the command."""
    runtime = yaml.safe_load((MANIFESTS / "base/serving-runtime.yaml").read_text())
    command, *args = runtime["spec"]["containers"][0]["args"]
    assert command == "serve"
    return args


def key_args(public_key):
    """Return the argument that the component for signed bundles adds, with the key of a test."""
    path = MANIFESTS / "components/signed-bundles/kustomization.yaml"
    (patch,) = yaml.safe_load(path.read_text())["patches"]
    (added,) = [
        each["value"]
        for each in yaml.safe_load(patch["patch"])
        if each["path"] == "/spec/containers/0/args/-"
    ]
    name, _, _ = added.partition("=")
    return [f"{name}={public_key}"]


def scaled(factor):
    """Return the graph with all weights times a factor."""
    model = graph(MODELS[NAME])
    for tensor in model.graph.initializer:
        if tensor.name == "weights":
            values = numpy_helper.to_array(tensor) * np.float32(factor)
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    return model


@pytest.fixture(scope="module")
def approved(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("approved"), NAME)


@pytest.fixture(scope="module")
def resealed(tmp_path_factory):
    """Same name and version, weights times 1.3, a manifest that fits: valid, and not approved."""
    bundle = make_bundle(tmp_path_factory.mktemp("resealed"), NAME, model=scaled(1.3))
    open_bundle(bundle)
    return bundle


def mounted(bundle, tmp_path):
    """Return a copy where KServe mounts a bundle: a directory without the model's name."""
    place = tmp_path / "mnt" / "models"
    shutil.copytree(bundle, place)
    return place


def pod_args(digest, *more):
    """Return what KServe makes of both: the runtime's arguments, then those of the predictor."""
    return [*runtime_args(), *more, *server_arguments(NAME, f"sha256:{digest}")]


def on_this_machine(place, tmp_path):
    """Return arguments that come last, and so win: where the test has its bundle and its port."""
    ports = tmp_path / "ports.json"
    return [
        f"--model_dir={place}", "--host=127.0.0.1", "--http_port=0", f"--port-file={ports}",
        "--drain-seconds=0",
    ]  # fmt: skip


def refusal(bundle, tmp_path, args):
    """Assert that the server ends at once, and serves nothing; return its only sentence."""
    place = mounted(bundle, tmp_path)
    words = [*args, *on_this_machine(place, tmp_path)]
    ended = subprocess.run(
        [sys.executable, "-m", "dwcp_ml.cli", "serve", *words],
        capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False,
    )  # fmt: skip
    assert ended.returncode == REFUSED, ended.stderr
    assert not (tmp_path / "ports.json").exists()
    lines = [line for line in ended.stderr.splitlines() if line.startswith("dwcp-ml: ")]
    assert len(lines) == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert lines[0].endswith(".")
    return lines[0]


def starts(bundle, tmp_path, args):
    place = mounted(bundle, tmp_path)
    words = [*args, *on_this_machine(place, tmp_path)]
    server = Server(place, tmp_path, *[word for word in words if "port-file" not in word])
    try:
        status, _, _ = server.request("GET", "/v2/health/ready")
        return status == 200
    finally:
        server.terminate()
        assert server.wait() == 0


def test_the_approved_bundle_is_served(approved, tmp_path):
    assert starts(approved, tmp_path, pod_args(open_bundle(approved).digest))


def test_a_resealed_bundle_with_other_weights_is_refused(approved, resealed, tmp_path):
    digest, other = open_bundle(approved).digest, open_bundle(resealed).digest
    assert digest != other
    sentence = refusal(resealed, tmp_path, pod_args(digest))
    assert digest in sentence
    assert other in sentence


def test_without_the_argument_the_resealed_bundle_would_be_served(resealed, tmp_path):
    """So the argument is what protects: the bundle itself is in order."""
    assert starts(resealed, tmp_path, runtime_args())


def test_with_a_key_an_unsigned_bundle_is_refused(approved, tmp_path):
    _, public = make_key_pair(tmp_path / "keys")
    digest = open_bundle(approved).digest
    sentence = refusal(approved, tmp_path, pod_args(digest, *key_args(public)))
    assert "sign" in sentence


def test_with_a_key_a_bundle_of_another_key_is_refused(approved, tmp_path):
    private, _ = make_key_pair(tmp_path / "others")
    _, public = make_key_pair(tmp_path / "keys")
    bundle = tmp_path / "signed"
    shutil.copytree(approved, bundle)
    sign_bundle(bundle, private)
    digest = open_bundle(bundle).digest
    refusal(bundle, tmp_path, pod_args(digest, *key_args(public)))


def test_with_a_key_the_approved_bundle_is_served_that_is_signed_with_it(approved, tmp_path):
    private, public = make_key_pair(tmp_path / "keys")
    bundle = tmp_path / "signed"
    shutil.copytree(approved, bundle)
    sign_bundle(bundle, private)
    digest = open_bundle(bundle).digest
    assert digest == open_bundle(approved).digest
    assert starts(bundle, tmp_path, pod_args(digest, *key_args(public)))
