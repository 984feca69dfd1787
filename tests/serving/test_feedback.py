"""Reports of outcomes over HTTP, to a server in a process of its own."""

import json

import pytest

from tests.serving.bundles import MODELS, VERSION, rows_for

pytestmark = pytest.mark.server

BANDWIDTH = "bandwidth_predictor"
PATH = f"/v1/models/{BANDWIDTH}:feedback"


def report(*outcomes):
    return json.dumps({"outcomes": outcomes})


def metric(server, name, version):
    _, _, page = server.request("GET", "/metrics")
    start = f'{name}{{model="{BANDWIDTH}",version="{version}"}} '
    return next(
        (float(line.removeprefix(start)) for line in page.decode().splitlines()
         if line.startswith(start)),
        0.0,
    )  # fmt: skip


def test_what_a_response_says_of_its_model_is_what_a_report_needs(server):
    body = json.dumps({"instances": rows_for(BANDWIDTH, 1).tolist()})
    status, headers, content = server.request("POST", f"/v1/models/{BANDWIDTH}:predict", body)
    assert (status, headers["x-dwcp-model-version"]) == (200, VERSION)
    assert len(headers["x-dwcp-model-digest"]) == 64
    prediction = json.loads(content)["predictions"][0]["next_throughput_mbps"]
    before = metric(server, "dwcp_reported_loss_count", VERSION)
    item = {"version": headers["x-dwcp-model-version"], "prediction": prediction, "id": "here-1",
            "outcome": max(prediction, 1.0)}  # fmt: skip
    status, _, content = server.request("POST", PATH, report(item))
    assert (status, json.loads(content)) == (200, {"counted": 1, "duplicates": 0, "undefined": 0})
    status, _, content = server.request("POST", PATH, report(item))
    assert json.loads(content) == {"counted": 0, "duplicates": 1, "undefined": 0}
    assert metric(server, "dwcp_reported_loss_count", VERSION) == before + 1


def test_every_replica_counts_for_another_version(server):
    other = "20300101-000000"
    before = metric(server, "dwcp_reported_loss_count", other)
    item = {"version": other, "prediction": 5.0, "outcome": 10.0}
    assert server.request("POST", PATH, report(item, item))[0] == 200
    assert metric(server, "dwcp_reported_loss_count", other) == before + 2


@pytest.mark.parametrize("name", MODELS)
def test_the_versions_of_all_models_are_in_v2_and_its_headers(server, name):
    tensor = {"name": "features", "datatype": "FP32", "shape": list(rows_for(name, 1).shape),
              "data": rows_for(name, 1).ravel().tolist()}  # fmt: skip
    body = json.dumps({"inputs": [tensor]})
    _, headers, content = server.request("POST", f"/v2/models/{name}/infer", body)
    assert headers["x-dwcp-model-version"] == json.loads(content)["model_version"] == VERSION


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", PATH, None, 405),
        ("POST", "/v1/models/nothing:feedback", report(), 404),
        ("POST", PATH, "{", 400),
        ("POST", PATH, report({"version": "x", "prediction": -1.0, "outcome": 1.0}), 400),
        ("POST", PATH, " " * 300_000, 413),
    ],
)
def test_what_is_wrong_is_refused_in_one_sentence(server, method, path, body, status):
    found, _, content = server.request(method, path, body)
    assert found == status
    assert json.loads(content)["error"]


def test_a_body_that_ends_early_is_counted_nowhere(server):
    import socket

    before = metric(server, "dwcp_reported_loss_count", VERSION)
    with socket.create_connection(("127.0.0.1", server.http_port), 5.0) as client:
        head = f'POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{{"outcomes":'
        client.sendall(head.encode())
    assert metric(server, "dwcp_reported_loss_count", VERSION) == before
    assert server.request("GET", "/v2/health/live")[0] == 200
