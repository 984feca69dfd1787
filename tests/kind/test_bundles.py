"""Bundles out of an object store, and the rollout of one: all but the cluster."""

import datetime
import threading
import urllib.parse
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from dwcp_ml.contract.models import BANDWIDTH
from dwcp_ml.export.verify import open_bundle
from dwcp_ml.operator.api.model_rollout import ModelRollout
from tests.kind import bundles, s3
from tests.kind.without_gateway_api import without_gateway_api
from tests.serving.bundles import make_bundle

pytestmark = pytest.mark.server

KEYS = ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
ROOT = "v2/artifacts/dwcp-ml-training/run-1/export-bandwidth-predictor/17/bundle"


@contextmanager
def serving(handler):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10.0)


def store_of(objects):
    """Return a handler that lists two objects a page, and lets in who signs with ``KEYS``."""

    class Store(BaseHTTPRequestHandler):
        def do_GET(self):
            url = f"http://{self.headers['Host']}{self.path}"
            when = datetime.datetime.strptime(self.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ")
            if self.headers["Authorization"] != s3.signed(url, *KEYS, when)["Authorization"]:
                return self._answer(403, b"")
            parts = urllib.parse.urlsplit(self.path)
            key = urllib.parse.unquote(parts.path).removeprefix("/mlpipeline/")
            if parts.query:
                return self._answer(200, self._page(urllib.parse.parse_qs(parts.query)))
            return self._answer(200, objects[key]) if key in objects else self._answer(404, b"")

        def _page(self, query):
            names = sorted(name for name in objects if name.startswith(query["prefix"][0]))
            start = int(query.get("continuation-token", ["0"])[0])
            body = "".join(f"<Contents><Key>{name}</Key></Contents>" for name in names[start:][:2])
            if start + 2 < len(names):
                body += f"<NextContinuationToken>{start + 2}</NextContinuationToken>"
            space = "http://s3.amazonaws.com/doc/2006-03-01/"
            return f'<ListBucketResult xmlns="{space}">{body}</ListBucketResult>'.encode()

        def _answer(self, status, content):
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *words):
            pass

    return Store


def test_the_signature_is_that_of_amazons_examples():
    """The two GETs of Amazon's own page, to the letter."""
    when = datetime.datetime(2013, 5, 24)
    host = "https://examplebucket.s3.amazonaws.com"
    found = s3.signed(f"{host}/test.txt", *KEYS, when, {"Range": "bytes=0-9"})["Authorization"]
    assert found.endswith("f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41")
    found = s3.signed(f"{host}/?max-keys=2&prefix=J", *KEYS, when)["Authorization"]
    assert found.endswith("34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7")


@pytest.fixture
def bundle(tmp_path):
    return make_bundle(tmp_path / "made", BANDWIDTH.name, reports=True)


@pytest.fixture
def objects(bundle):
    files = [path for path in bundle.rglob("*") if path.is_file()]
    inside = f"{ROOT}/{BANDWIDTH.name}/{bundle.name}"
    found = {f"{inside}/{path.relative_to(bundle).as_posix()}": path.read_bytes() for path in files}
    return found | {f"v2/artifacts/another/{BANDWIDTH.name}/1/manifest.json": b"{}"}


@pytest.fixture
def keys(monkeypatch):
    monkeypatch.setenv("S3_ACCESS_KEY", KEYS[0])
    monkeypatch.setenv("S3_SECRET_KEY", KEYS[1])


def fetch(objects, version, output):
    with serving(store_of(objects)) as address:
        words = ["--endpoint", f"http://{address}", "--version", version, "--output", str(output)]
        return bundles.main(words)


def test_a_bundle_comes_whole_out_of_the_store(objects, bundle, keys, tmp_path, capsys):
    assert fetch(objects, bundle.name, tmp_path / "out") == 0
    path = tmp_path / "out" / BANDWIDTH.name / bundle.name
    assert capsys.readouterr().out == f"{path}\n"
    assert open_bundle(path).digest == open_bundle(bundle).digest


def test_a_version_that_is_not_there_is_a_sentence(objects, keys, tmp_path, capsys):
    assert fetch(objects, "20990101-000000", tmp_path) == 1
    assert "no bundle of version 20990101-000000" in capsys.readouterr().err


def test_a_version_that_is_there_twice_is_refused(objects, bundle, keys, tmp_path, capsys):
    twice = {key.replace("/17/", "/18/"): content for key, content in objects.items()}
    assert fetch(objects | twice, bundle.name, tmp_path) == 1
    assert "is in the store 2 times" in capsys.readouterr().err


def test_a_name_that_leads_outside_is_refused(objects, bundle, keys, tmp_path, capsys):
    outside = {f"{ROOT}/{BANDWIDTH.name}/{bundle.name}/../../../../../evil": b""}
    assert fetch(objects | outside, bundle.name, tmp_path / "out") == 1
    assert "leads out of its bundle" in capsys.readouterr().err
    assert not list(tmp_path.rglob("evil"))


def test_a_changed_bundle_is_refused(objects, bundle, keys, tmp_path, capsys):
    (graph,) = [key for key in objects if key.endswith("model.onnx")]
    assert fetch(objects | {graph: b"another"}, bundle.name, tmp_path / "out") == 1
    assert "model.onnx" in capsys.readouterr().err


def test_wrong_keys_and_a_silent_store_are_sentences(objects, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("S3_ACCESS_KEY", "someone")
    monkeypatch.setenv("S3_SECRET_KEY", "else")
    assert fetch(objects, "1", tmp_path) == 1
    assert "rejects" in capsys.readouterr().err
    words = ["--endpoint", "http://127.0.0.1:1", "--version", "1", "--output", str(tmp_path)]
    assert bundles.main(words) == 1
    assert "does not respond" in capsys.readouterr().err


def test_the_rollout_is_the_gates_own_with_wide_margins(bundle):
    document = bundles.rollout(bundle)
    candidate = document["spec"]["candidate"]
    assert candidate["storageUri"] == f"pvc://dwcp-models/{BANDWIDTH.name}/{bundle.name}"
    assert candidate["digest"] == f"sha256:{open_bundle(bundle).digest}"
    ModelRollout.model_validate(document)


def test_the_copy_of_the_gateway_api_is_left_out():
    kept = [
        {"kind": "CustomResourceDefinition", "metadata": {"name": "x.gateway.envoyproxy.io"}},
        {"kind": "Deployment", "metadata": {"name": "envoy-gateway"}},
    ]
    theirs = [
        {"kind": "CustomResourceDefinition",
         "metadata": {"name": "gateways.gateway.networking.k8s.io"}},
        {"kind": "CustomResourceDefinition",
         "metadata": {"name": "xmeshes.gateway.networking.x-k8s.io"}},
        {"kind": "ValidatingAdmissionPolicy",
         "metadata": {"name": "safe-upgrades.gateway.networking.k8s.io"}},
        {"kind": "ValidatingAdmissionPolicyBinding",
         "metadata": {"name": "safe-upgrades.gateway.networking.k8s.io"}},
    ]  # fmt: skip
    assert without_gateway_api(yaml.safe_dump_all([*theirs, *kept])) == kept
