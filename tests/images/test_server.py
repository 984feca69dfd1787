"""The server's image: a bundle at /mnt/models, called from inside, started as in the manifests."""

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.images.engine import shared
from tests.serving.bundles import make_bundle, rows_for
from tests.serving.running import Server

pytestmark = [pytest.mark.image, pytest.mark.filterwarnings("default")]

ROOT = Path(__file__).parents[2]
RUNTIME = yaml.safe_load((ROOT / "manifests/base/serving-runtime.yaml").read_text())
CONTAINER = RUNTIME["spec"]["containers"][0]
MODEL = "compression_selector"
MEMORY = CONTAINER["resources"]["limits"]["memory"].replace("Mi", "m")

READY = """
import urllib.request
urllib.request.urlopen("http://127.0.0.1:8080/v2/health/ready", timeout=5)
"""

CALL = """
import sys, urllib.request
url, body = sys.argv[1:]
print(urllib.request.urlopen(url, body.encode(), timeout=5).read().decode())
"""

LISTENS = """
for line in open("/proc/net/tcp").readlines()[1:]:
    words = line.split()
    if words[3] == "0A":
        print(words[1])
"""

IMPORTS = """
import importlib.util
print(*(name for name in ("tensorflow", "keras", "kfp", "sklearn", "tf2onnx", "matplotlib",
                          "pyarrow", "scipy") if importlib.util.find_spec(name)))
"""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """``<model>/<version>/`` of one model."""
    place = tmp_path_factory.mktemp("bundles")
    make_bundle(place, MODEL)
    return place


@pytest.fixture
def bundle(bundles):
    (version,) = (bundles / MODEL).iterdir()
    return version


@pytest.fixture
def body():
    return {"instances": rows_for(MODEL, 3).tolist()}


def test_the_manifests_start_it_and_it_answers_as_outside(server, bundle, bundles, body, tmp_path):
    outside = Server(bundles, tmp_path)
    try:
        _, _, wanted = outside.post(f"/v1/models/{MODEL}:predict", body)
    finally:
        outside.stop()
    options = (*shared(bundle, "/mnt/models"), f"--memory={MEMORY}")
    with server.running(*CONTAINER["args"], options=options) as container:
        container.await_success(READY)
        url = f"http://127.0.0.1:8080/v1/models/{MODEL}:predict"
        response = container.python(CALL, url, json.dumps(body))
        assert response.returncode == 0, response.stderr
        assert json.loads(response.stdout) == json.loads(wanted)
        assert container.stop() == 0


def test_the_kubelet_and_the_gateway_reach_it(server, bundle):
    options = shared(bundle, "/mnt/models")
    with server.running(*CONTAINER["args"], options=options) as container:
        container.await_success(READY)
        addresses = container.python(LISTENS).stdout.split()
        assert addresses == ["00000000:1F90"], "it listens on loopback only: --host=0.0.0.0"


def test_without_arguments_it_serves_http_and_grpc_on_every_address(server, bundle):
    options = shared(bundle, "/mnt/models")
    with server.running(options=options) as container:
        container.await_success(READY.replace("8080", "8501"))
        assert "ready on 0.0.0.0" in container.logs()


def test_a_bundle_that_was_changed_is_refused_with_a_sentence(server, tmp_path):
    changed = make_bundle(tmp_path, MODEL)
    with (changed / "model.onnx").open("ab") as file:
        file.write(b"\0")
    done = server.run(*CONTAINER["args"], options=shared(changed, "/mnt/models"))
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert re.match(r"dwcp-ml: .*model\.onnx", last), done.stderr


def test_it_can_import_nothing_that_trains(server):
    assert server.python(IMPORTS).strip() == ""
