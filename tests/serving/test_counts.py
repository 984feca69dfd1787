"""Every inference is counted once, under its model and its code, whatever way it took."""

import gzip
import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.serving.bundles import VERSION
from tests.serving.running import chunked, plain

pytestmark = pytest.mark.server

NAME = "consensus_latency"
PATH = f"/v1/models/{NAME}:predict"
GOOD = json.dumps({"instances": [list(range(20))]}).encode()
LARGE = json.dumps({"instances": [list(range(20))] * 100}).encode()


def counts(server):
    status, headers, text = server.request("GET", "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name.startswith("dwcp_") and not sample.name.endswith("_created")
    }


def requests(after, before, **labels):
    key = ("dwcp_requests_total", *sorted(labels.items()))
    return after.get(key, 0) - before.get(key, 0)


@pytest.mark.parametrize(
    ("content", "model", "code"),
    [
        (plain(PATH, GOOD), NAME, 200),
        (chunked(PATH, GOOD), NAME, 200),
        (plain(PATH, LARGE), NAME, 200),
        (plain(PATH, gzip.compress(GOOD, mtime=0), [("Content-Encoding", "gzip")]), NAME, 200),
        (plain(PATH, b"{}"), NAME, 400),
        (chunked(PATH, b"{}"), NAME, 400),
        (plain(PATH, GOOD, [("Content-Encoding", "br")]), NAME, 400),
        (plain(PATH, json.dumps({"instances": [[1]] * 5000}).encode()), NAME, 413),
        (
            f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n".encode(),
            NAME,
            413,
        ),
        (f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), NAME, 405),
        (plain("/v1/models/x:predict", GOOD), "unknown", 404),
        (plain(f"/v1/models/{NAME}/versions/1:predict", GOOD), "unknown", 404),
    ],
)
def test_an_inference_is_counted_once(server, content, model, code):
    version = VERSION if model == NAME else model
    before = counts(server)
    ((status, _, _),) = server.responses(content)
    assert status == code
    after = counts(server)
    assert requests(after, before, model=model, version=version, code=str(code)) == 1
    changed = [
        key for key in after if key[0] == "dwcp_requests_total" and after[key] != before.get(key, 0)
    ]
    assert len(changed) == 1
    seconds = ("dwcp_request_seconds_count", ("model", model), ("version", version))
    assert after[seconds] - before.get(seconds, 0) == 1


@pytest.mark.parametrize(("body", "code"), [(GOOD, "200"), (b"{}", "400")])
def test_a_routers_copy_is_counted_apart(server, body, code):
    before = counts(server)
    server.responses(plain(PATH, body, [("X-DWCP-Mirrored", "true")]))
    after = counts(server)
    labels = (("code", code), ("model", NAME), ("version", VERSION))
    copies = ("dwcp_mirrored_requests_total", *labels)
    assert after[copies] - before.get(copies, 0) == 1
    for name in ("dwcp_requests_total", "dwcp_request_seconds_count"):
        same = [key for key in after if key[0] == name]
        assert all(after[key] == before.get(key, 0) for key in same)


def test_a_rejection_behind_a_trailer_is_counted(server):
    before = counts(server)
    whole = chunked(PATH, b"{}", headers=[("Trailer", "X-Sum")])[:-2] + b"X-Sum: 1\r\n\r\n"
    assert server.responses(whole)[0][0] == 400
    after = counts(server)
    assert requests(after, before, model=NAME, version=VERSION, code="400") == 1


def test_what_is_no_inference_is_not_counted(server):
    before = counts(server)
    for path in ("/nothing", "/v2/health/ready", "/v1/models", "/v2/repository/index"):
        server.request("GET", path)
    server.responses(b"\0\0\r\n\r\n")
    after = counts(server)
    totals = [key for key in after if key[0] == "dwcp_requests_total"]
    assert all(after[key] == before.get(key, 0) for key in totals)


def test_grpc_is_counted_in_the_codes_of_http(server, stub, pb):
    import grpc

    before = counts(server)
    request = pb.ModelInferRequest(model_name=NAME)
    request.inputs.add(name="features", datatype="FP32", shape=[1, 20])
    with pytest.raises(grpc.RpcError):
        stub.ModelInfer(request, timeout=10.0)
    request.inputs[0].contents.fp32_contents.extend(range(20))
    stub.ModelInfer(request, timeout=10.0)
    with pytest.raises(grpc.RpcError):
        stub.ModelInfer(pb.ModelInferRequest(model_name="x"), timeout=10.0)
    after = counts(server)
    assert requests(after, before, model=NAME, version=VERSION, code="400") == 1
    assert requests(after, before, model=NAME, version=VERSION, code="200") == 1
    assert requests(after, before, model="unknown", version="unknown", code="404") == 1


def test_answers_and_features_are_sketched(server):
    before = counts(server)
    server.post(PATH, GOOD)
    after = counts(server)
    model = (("model", NAME), ("output", "reconstruction_error"), ("version", VERSION))
    for key in (
        ("dwcp_prediction_count", *model),
        ("dwcp_feature_count", ("feature", "consensus_latency_ms"), model[0], model[2]),
    ):
        assert after[key] - before.get(key, 0) == 1
