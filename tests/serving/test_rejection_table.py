"""Bad requests over every protocol: a 4xx with one sentence, and the server continues."""

import gzip
import json
import math
import socket

import pytest

from tests.serving.bundles import VERSION
from tests.serving.running import TIMEOUT_SECONDS, receive, split

pytestmark = pytest.mark.server

NAME = "reliability_detector"
V1 = f"/v1/models/{NAME}:predict"
V2 = f"/v2/models/{NAME}/infer"
ROW = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
GOOD = json.dumps({"instances": [ROW]}).encode()
LIMIT = 8 << 20


def v1(instances):
    return json.dumps({"instances": instances})


def v2(**changes):
    tensor = {"name": "features", "datatype": "FP32", "shape": [1, 6], "data": ROW, **changes}
    return json.dumps({"inputs": [tensor]})


def both(v1_body, v2_body, status=400):
    return [(V1, v1_body, status), (V2, v2_body, status)]


def same(body, status=400):
    return both(body, body, status)


TABLE = {
    "wrong shape": both(v1([ROW[:5]]), v2(shape=[1, 5], data=ROW[:5])),
    "too deep": both(v1([[ROW]]), v2(data=[[ROW]])),
    "no batch": both(v1(ROW), v2(shape=[6])),
    "ragged": both(v1([ROW, ROW[:5]]), v2(shape=[2, 6], data=[ROW, ROW[:5]])),
    "string": both(v1([["1", *ROW[1:]]]), v2(data=["1", *ROW[1:]])),
    "text": both(v1([["x" * 3_000_000, *ROW[1:]]]), v2(data=["x" * 3_000_000, *ROW[1:]])),
    "bool": both(v1([[True, *ROW[1:]]]), v2(data=[True, *ROW[1:]])),
    "null": both(v1([[None, *ROW[1:]]]), v2(data=[None, *ROW[1:]])),
    "object": both(v1([[{}, *ROW[1:]]]), v2(data=[{}, *ROW[1:]])),
    "wrong datatype": [(V2, v2(datatype="BYTES"), 400), (V2, v2(datatype=["FP32"]), 400)],
    "NaN": both(v1([[math.nan, *ROW[1:]]]), v2(data=[math.nan, *ROW[1:]])),
    "Infinity": both(v1([[math.inf, *ROW[1:]]]), v2(data=[-math.inf, *ROW[1:]])),
    "1e300": both(v1([[1e300, *ROW[1:]]]), v2(data=[1e300, *ROW[1:]])),
    "1e999": same('{"instances": [[1e999]]}'),
    "empty body": same(""),
    "empty list": both(v1([]), v2(shape=[0, 6], data=[])),
    "no rows": both("{}", '{"inputs": []}'),
    "5000 rows": both(v1([ROW] * 5000), v2(shape=[5000, 6], data=ROW * 5000), 413),
    "1e6 rows": both(v1([[]] * 1_000_000), v2(shape=[1_000_000, 6]), 413),
    "nested 20,000 deep": same("[" * 20_000 + "]" * 20_000),
    "nested 100,000 deep": same("[" * 100_000 + "]" * 100_000, 413),
    "objects 20,000 deep": same('{"a":' * 20_000 + "1" + "}" * 20_000),
    "objects 100,000 deep": same('{"a":' * 100_000 + "1" + "}" * 100_000, 413),
    "a million values": same('{"a": [' + "1," * 1_000_000 + "1]}", 413),
    "deep shape": [(V2, v2(shape=json.loads("[" * 900 + "]" * 900)), 400)],
    "deep output": [
        (V2, json.dumps({"inputs": [json.loads(v2())["inputs"][0]],
                         "outputs": [{"name": json.loads("[" * 900 + "]" * 900)}]}), 400)
    ],
    "bad JSON": same('{"instances": [[1,2'),
    "not JSON": same("instances=1"),
    "not UTF-8": same(b'{"instances": "\xff\xfe"}'),
    "UTF-16": same('{"instances": []}'.encode("utf-16")),
    "lone surrogate": same('{"\\ud800": 1}'),
    "unknown model": [
        ("/v1/models/unknown:predict", GOOD, 404), ("/v2/models/unknown/infer", GOOD, 404),
    ],
    "short name": [("/v1/models/reliability:predict", GOOD, 404)],
    "wrong version": [
        (f"/v1/models/{NAME}/versions/1:predict", GOOD, 404),
        (f"/v2/models/{NAME}/versions/1/infer", GOOD, 404),
        (f"/v1/models/{NAME}/versions/{VERSION}x:predict", GOOD, 404),
    ],
    "unknown output": [
        (V2, json.dumps({**json.loads(v2()), "outputs": [{"name": "x"}]}), 400)
    ],
    "loading": [
        (f"/v2/repository/models/{NAME}/load", "{}", 403),
        (f"/v2/repository/models/{NAME}/unload", "{}", 403),
        ("/v2/repository/index", "{}", 403),
    ],
    "other paths": [
        ("/", "{}", 405), ("/metrics", "{}", 405), ("/v2/health/ready", "{}", 405),
        ("/nothing", "{}", 404), (f"/v1/models/{NAME}:explain", GOOD, 404),
        ("/v1/models/../../etc/passwd:predict", GOOD, 404), ("//", "", 404),
    ],
}  # fmt: skip


def one_sentence(headers, content):
    assert headers["content-type"] == "application/json"
    (key, text), = json.loads(content).items()  # fmt: skip
    assert key == "error"
    assert text.endswith(".")
    assert text.isprintable()
    assert len(text) < 400
    assert "Traceback" not in text
    return text


def assert_serves(server):
    status, _, content = server.post(V1, GOOD)
    assert status == 200
    assert b"anomaly_score" in content


@pytest.mark.parametrize("case", TABLE)
def test_over_http(server, case):
    for path, body, expected in TABLE[case]:
        content = body.encode() if isinstance(body, str) else body
        status, headers, received = server.post(path, content, {"X-Request-Id": "client-id"})
        assert status == expected, received
        assert headers["x-request-id"] == "client-id"
        one_sentence(headers, received)
    assert_serves(server)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", V1, 405), ("PUT", V2, 405), ("DELETE", "/v1/models", 405), ("HEAD", V1, 405),
        ("OPTIONS", V1, 405), ("GET", "/v1/models/unknown", 404), ("GET", "/docs", 404),
        ("GET", f"/v2/models/{NAME}/versions/1", 404),
        ("GET", f"/v2/models/{NAME}/versions/1/ready", 404),
        ("GET", f"/v1/models/{NAME}/ready", 404), ("GET", "/v2/models/unknown/ready", 404),
    ],
)  # fmt: skip
def test_methods_and_paths(server, method, path, expected):
    status, headers, received = server.request(method, path)
    assert status == expected
    assert len(headers["x-request-id"]) == 32
    if method != "HEAD":
        one_sentence(headers, received)
    assert ("allow" in headers) == (expected == 405)
    assert_serves(server)


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
@pytest.mark.parametrize("length", [LIMIT + 1, 100_000_000, 10**15])
def test_a_body_that_is_declared_too_large_is_not_read(server, length, expect):
    head = f"POST {V1} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n".encode()
    ((status, headers, received),) = server.responses(head + expect + b"\r\n")
    assert status == 413
    one_sentence(headers, received)
    assert ("connection" in headers) == bool(expect), (
        "the client may or may not send the body that was rejected"
    )
    assert_serves(server)


@pytest.mark.parametrize("declared", [True, False])
def test_a_hundred_megabytes_take_no_memory(server, declared):
    """The response comes at once; if the client still sends the body, it can go on."""
    before = server.memory()
    part = b"x" * (1 << 20)
    how = f"Content-Length: {100 << 20}" if declared else "Transfer-Encoding: chunked"
    head = f"POST {V1} HTTP/1.1\r\nHost: x\r\n{how}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", server.http_port), TIMEOUT_SECONDS) as stream:
        stream.sendall(head)
        for _ in range(100):
            stream.sendall(part if declared else b"%x\r\n%b\r\n" % (len(part), part))
        stream.sendall(b"" if declared else b"0\r\n\r\n")
        stream.sendall(f"POST {V1} HTTP/1.1\r\nHost: x\r\n".encode())
        stream.sendall(b"Content-Length: %d\r\n\r\n%b" % (len(GOOD), GOOD))
        received = split(receive(stream, 2))
    assert [status for status, _, _ in received] == [413, 200]
    assert server.memory() - before < 40e6


@pytest.mark.parametrize(
    ("header", "value", "body"),
    [
        ("Content-Encoding", "br", GOOD),
        ("Content-Encoding", "gzip", GOOD),
        ("Inference-Header-Content-Length", "x", GOOD),
        ("Inference-Header-Content-Length", "", GOOD),
        ("Inference-Header-Content-Length", "-1", GOOD),
        ("Inference-Header-Content-Length", "²", GOOD),
        ("Inference-Header-Content-Length", "9" * 5000, GOOD),
        ("Inference-Header-Content-Length", "99999", GOOD),
        ("Inference-Header-Content-Length", "0", GOOD),
    ],
)
def test_invalid_headers_are_rejected(server, header, value, body):
    status, headers, received = server.post(V2, body, {header: value})
    assert status == 400
    one_sentence(headers, received)
    assert_serves(server)


@pytest.mark.parametrize(
    ("packed", "expected"),
    [
        (gzip.compress(b" " * (LIMIT + 1), mtime=0), 413),
        (gzip.compress(GOOD, mtime=0)[:-4], 400),
        (gzip.compress(GOOD, mtime=0) + gzip.compress(b" ", mtime=0), 400),
        (gzip.compress(GOOD, mtime=0) + b"\0" * 100_000, 400),
        (b"", 400),
    ],
)
def test_packed_bodies_that_are_refused(server, packed, expected):
    status, headers, received = server.post(V1, packed, {"Content-Encoding": "gzip"})
    assert status == expected
    one_sentence(headers, received)
    assert_serves(server)


def test_what_follows_a_packed_body_takes_no_memory(server):
    before = server.memory()
    head = f"POST {V1} HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\n"
    part = b"\0" * (1 << 20)
    with socket.create_connection(("127.0.0.1", server.http_port), TIMEOUT_SECONDS) as stream:
        stream.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        for content in (gzip.compress(GOOD, mtime=0), *[part] * 60):
            stream.sendall(b"%x\r\n%b\r\n" % (len(content), content))
        stream.sendall(b"0\r\n\r\n")
        ((status, _, _),) = split(receive(stream, 1))
    assert status == 413
    assert server.memory() - before < 30e6
