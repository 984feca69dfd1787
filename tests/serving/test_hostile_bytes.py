"""Random and mutated bytes over raw sockets: never a 5xx, a traceback, or memory that stays."""

import contextlib
import json
import random
import socket

import grpc
import pytest

from tests.serving.bundles import MODELS, rows_for
from tests.serving.running import TIMEOUT_SECONDS, chunked, plain, split

pytestmark = pytest.mark.server

NAME = "reliability_detector"
PATH = f"/v1/models/{NAME}:predict"
GOOD = json.dumps({"instances": rows_for(NAME, 1).astype(float).tolist()}).encode()
SEEDS = range(6)
TRIES = 60


def send(server, content, rng):
    """Send bytes in a few pieces, and return all responses; what is cut short has none."""
    with socket.create_connection(("127.0.0.1", server.http_port), TIMEOUT_SECONDS) as stream:
        taken = b""
        cuts = sorted(rng.randrange(len(content) + 1) for _ in range(rng.randrange(3)))
        with contextlib.suppress(OSError):  # it may close while we are still sending
            for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
                stream.sendall(content[start:end])
        stream.settimeout(0.1)
        with contextlib.suppress(ConnectionError, TimeoutError):
            while part := stream.recv(1 << 16):
                taken += part
        return split(taken)


def check(server, contents, seed):
    rng = random.Random(seed)
    before = server.memory()
    statuses = set()
    for content in contents:
        for status, headers, _ in send(server, content, rng):
            assert status < 500, content
            assert "content-type" not in headers or headers["x-request-id"]
            statuses.add(status)
    ((status, _, _),) = server.responses(plain(PATH, GOOD))
    assert status == 200
    assert server.memory() - before < 30e6
    assert "Traceback" not in server.log()
    return statuses


def requests():
    """Good requests of every form, as seeds for mutation."""
    tensor = {"name": "features", "datatype": "FP32", "shape": [1, 6]}
    v2 = {"inputs": [tensor | {"data": [1, 2, 3, 4, 5, 6]}], "outputs": [{"name": "is_anomaly"}]}
    packed = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": 24}}]}).encode()
    length = ("Inference-Header-Content-Length", str(len(packed)))
    infer = f"/v2/models/{NAME}/infer"
    raw = rows_for(NAME, 1).tobytes()
    return [
        plain(PATH, GOOD, [("X-Request-Id", "r"), ("X-DWCP-Link", "a/b")]),
        chunked(PATH, GOOD),
        plain(infer, json.dumps(v2).encode(), [("Connection", "close")]),
        plain(infer, packed + raw, [length]),
        plain(PATH, GOOD, [("Expect", "100-continue")]),
        plain(PATH, GOOD, [("Connection", "Upgrade"), ("Upgrade", "h2c")]),
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text\r\n\r\n",
        b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n",
        f"GET /v2/models/{NAME} HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    ]


PIECES = [
    b"\r\n", b"\n", b"\0", b"\xff", b"%00", b"%2f", b"..", b"//", b"?", b"#", b":", b" ", b"\t",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: x\r\n",
    b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\n", b"Connection: close\r\n",
    b"Content-Encoding: gzip\r\n", b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"HTTP/1.0", b"HTTP/2",
    b"9" * 40, b"-1", b"1e308", b"null", b"true", b"[", b"]", b"{", b"}", b'"', b"\\ud800",
    b"A" * 5000,
]  # fmt: skip


def mutated(rng):
    content = bytearray(rng.choice(requests()))
    for _ in range(rng.randint(0, 3)):
        place = rng.randrange(len(content) + 1)
        kind = rng.randrange(5)
        if kind == 0:
            content[place:place] = rng.choice(PIECES)
        elif kind == 1:
            del content[place : place + rng.randint(1, 30)]
        elif kind == 2 and place < len(content):
            content[place] = rng.randrange(256)
        elif kind == 3:
            content[place : place + 10] = rng.choice(PIECES)
        else:
            other = rng.choice(requests())
            content[place:] = other[rng.randrange(len(other)) :]
    return bytes(content)


@pytest.mark.parametrize("seed", SEEDS)
def test_mutated_requests(server, seed):
    rng = random.Random(seed)
    statuses = check(server, [mutated(rng) for _ in range(TRIES)], seed)
    assert {200, 400} <= statuses, "the mutations reach both sides"


@pytest.mark.parametrize("seed", SEEDS)
def test_random_bytes(server, seed):
    rng = random.Random(seed)
    contents = [rng.randbytes(rng.randrange(1, 400)) for _ in range(TRIES // 2)]
    contents += [b"POST " + rng.randbytes(100) + b"\r\n\r\n" for _ in range(TRIES // 2)]
    assert check(server, contents, seed) <= {400}


@pytest.mark.parametrize("seed", SEEDS)
def test_random_bodies(server, seed):
    """Well-formed HTTP around nonsense: it all reaches the checks of JSON and tensors."""
    rng = random.Random(seed)
    paths = [f"/v1/models/{name}:predict" for name in MODELS]
    paths += [f"/v2/models/{name}/infer" for name in MODELS]
    contents = []
    for _ in range(TRIES):
        body = mutated_body(rng)
        headers = []
        if rng.random() < 0.3:
            length = str(rng.choice([0, 1, len(body) - 24, len(body), len(body) + 1]))
            headers = [("Inference-Header-Content-Length", length)]
        contents.append(rng.choice([plain, chunked])(rng.choice(paths), body, headers=headers))
    assert check(server, contents, seed) <= {200, 400, 413}


def value(rng, depth=0):
    kind = rng.randrange(10 if depth < 4 else 7)
    if kind < 7:
        return rng.choice(
            [0, -1, 2**63, 1.5, 1e38, 3e38, -0.0, True, None, "", "features", "FP32", "\0", "ü"]
        )
    if kind == 9:
        keys = ["name", "shape", "data", "datatype", "inputs", "instances", "parameters", "outputs",
                "binary_data_size", "binary_data", "id"]  # fmt: skip
        return {rng.choice(keys): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return [value(rng, depth + 1) for _ in range(rng.randrange(8))]


def mutated_body(rng):
    tensor = {"name": "features", "datatype": "FP32", "shape": [1, 6], "data": [1, 2, 3, 4, 5, 6]}
    body = rng.choice([{"instances": [[1, 2, 3, 4, 5, 6]]}, {"inputs": [tensor]}])
    holder = rng.choice([body, tensor])
    holder[rng.choice([*holder, "parameters", "outputs", "id"])] = value(rng)
    return json.dumps(body).encode() + rng.choice([b"", rng.randbytes(24)])


def test_random_messages_over_grpc(server, pb):
    """Bytes that are no message, and messages with random fields."""
    rng = random.Random(0)
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        good = pb.ModelInferRequest(model_name=NAME)
        good.inputs.add(name="features", datatype="FP32", shape=[1, 6])
        good.raw_input_contents.append(rows_for(NAME, 1).tobytes())
        whole = good.SerializeToString()
        codes = set()
        for _ in range(200):
            content = bytearray(whole)
            for _ in range(rng.randint(1, 5)):
                content[rng.randrange(len(content))] = rng.randrange(256)
            try:
                call(bytes(content), timeout=TIMEOUT_SECONDS)
                codes.add(grpc.StatusCode.OK)
            except grpc.RpcError as error:
                codes.add(error.code())
        assert (
            pb.ModelInferResponse.FromString(call(whole, timeout=TIMEOUT_SECONDS)).model_name
            == NAME
        )
    assert {code.name for code in codes} == {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}
    assert "Traceback" not in server.log()
