"""Random requests over HTTP and gRPC: mutated good ones, nonsense in good HTTP, and bytes."""

import contextlib
import json
import socket

from tests.serving.bundles import MODELS, rows_for
from tests.serving.running import TIMEOUT_SECONDS, chunked, plain, split

NAME = "reliability_detector"
PATH = f"/v1/models/{NAME}:predict"
GOOD = json.dumps({"instances": rows_for(NAME, 1).astype(float).tolist()}).encode()


def send(server, content, rng, seconds=0.1):
    """Send bytes in a few pieces, and return all responses; what is cut short has none.

    The client leaves after ``seconds`` without a byte, whether it has its response or not.
    """
    with socket.create_connection(("127.0.0.1", server.http_port), TIMEOUT_SECONDS) as stream:
        taken = b""
        cuts = sorted(rng.randrange(len(content) + 1) for _ in range(rng.randrange(3)))
        with contextlib.suppress(OSError):  # it may close while we are still sending
            for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
                stream.sendall(content[start:end])
        stream.settimeout(seconds)
        with contextlib.suppress(ConnectionError, TimeoutError):
            while part := stream.recv(1 << 16):
                taken += part
        return split(taken)


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


def random_bytes(rng):
    if rng.random() < 0.5:
        return rng.randbytes(rng.randrange(1, 400))
    return b"POST " + rng.randbytes(100) + b"\r\n\r\n"


def with_random_body(rng):
    """Well-formed HTTP around nonsense: it reaches the checks of JSON and tensors."""
    name = rng.choice(list(MODELS))
    path = rng.choice([f"/v1/models/{name}:predict", f"/v2/models/{name}/infer"])
    body = mutated_body(rng)
    headers = []
    if rng.random() < 0.3:
        length = str(rng.choice([0, 1, len(body) - 24, len(body), len(body) + 1]))
        headers = [("Inference-Header-Content-Length", length)]
    return rng.choice([plain, chunked])(path, body, headers=headers)


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


def good_message(pb):
    """Return a good ``ModelInferRequest``, as bytes."""
    good = pb.ModelInferRequest(model_name=NAME)
    good.inputs.add(name="features", datatype="FP32", shape=[1, 6])
    good.raw_input_contents.append(rows_for(NAME, 1).tobytes())
    return good.SerializeToString()


def mutated_message(whole, rng):
    """Return a message with other bytes: mostly none that can be read."""
    content = bytearray(whole)
    for _ in range(rng.randint(1, 5)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content)


def random_message(pb, rng):
    """Return a readable message with random fields."""
    request = pb.ModelInferRequest(
        model_name=rng.choice([*MODELS, NAME, "", "x" * 300]),
        model_version=rng.choice(["", "1", "ü"]), id=rng.choice(["", "r", "i" * 3000]),
    )  # fmt: skip
    for _ in range(rng.choice([0, 1, 1, 1, 1, 2])):
        tensor = request.inputs.add(
            name=rng.choice(["features", "features", "", "x"]),
            datatype=rng.choice(["FP32", "FP32", "FP64", "INT64", "BOOL", "BYTES", "", "fp32"]),
            shape=rng.choice([[1, 6], [2, 6], [1, 10, 7], [0, 6], [-1, 6], [2**62, 6], [], [6]]),
        )
        fields = {"fp32": float, "fp64": float, "int64": int, "bool": bool}
        if rng.random() < 0.5:
            name, kind = rng.choice(list(fields.items()))
            values = rng.choice([[0] * 6, [1] * 70, [1], []])
            getattr(tensor.contents, f"{name}_contents").extend(map(kind, values))
        if rng.random() < 0.2:
            tensor.parameters["binary_data_size"].int64_param = rng.choice([0, 24, -1, 2**40])
    for _ in range(rng.choice([0, 1, 1, 2])):
        request.raw_input_contents.append(rng.randbytes(rng.choice([0, 1, 24, 48, 280])))
    for _ in range(rng.choice([0, 0, 1, 3])):
        request.outputs.add(name=rng.choice(["is_anomaly", "", "x", "features"]))
    return request.SerializeToString()
