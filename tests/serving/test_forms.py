"""The same request has the same response in whatever form of HTTP it comes, byte for byte."""

import gzip
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.serving.bundles import MODELS, VERSION, rows_for
from tests.serving.running import TIMEOUT_SECONDS, chunked, plain, receive, split

pytestmark = pytest.mark.server

NAME = "compression_selector"
PATH = f"/v1/models/{NAME}:predict"
GOOD = json.dumps({"instances": rows_for(NAME, 2).astype(float).tolist()}).encode()


def v2(name, rows=1):
    inputs = rows_for(name, rows)
    tensor = {"name": "features", "datatype": "FP32", "shape": list(inputs.shape),
              "data": inputs.astype(float).ravel().tolist()}  # fmt: skip
    return json.dumps({"inputs": [tensor]}).encode()


CASES = {
    "good": (PATH, GOOD),
    "version": (f"/v1/models/{NAME}/versions/{VERSION}:predict", GOOD),
    "other version": (f"/v1/models/{NAME}/versions/1:predict", GOOD),
    "unknown": ("/v1/models/unknown:predict", GOOD),
    "shape": (PATH, b'{"instances": [[1, 2]]}'),
    "broken": (PATH, b'{"instances": ['),
    "empty": (PATH, b""),
    "v2": (f"/v2/models/{NAME}/infer", v2(NAME)),
    "v2 of v1": (f"/v2/models/{NAME}/infer", GOOD),
    "large": (PATH, json.dumps({"instances": [[1, 2, 3, 4, 5, 6]] * 500}).encode()),
    "rows": (PATH, json.dumps({"instances": [[1]] * 5000}).encode()),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def comparable(response):
    """What of an response must not depend on its way: all but the date and the connection."""
    status, headers, body = response
    kept = {key: value for key, value in headers.items() if key not in ("date", "connection")}
    return status, kept, body


def test_every_form_of_a_request_gets_the_same_response(server, case):
    path, body = case
    same = [("X-Request-Id", "client-id")]
    expect = [*same, ("Expect", "100-continue")]
    compressed = gzip.compress(body)
    forms = [
        plain(path, body, same),
        plain(path, body, [*same, ("Connection", "close")]),
        plain(path, body, [*same, ("Content-Type", "application/json"), ("Accept", "*/*")]),
        plain(f"{path}?a=b", body, same),
        plain(path.replace("models", "%6dodels"), body, same),
        plain(path, body, expect),
        chunked(path, body, headers=same),
        plain(path, compressed, [*same, ("Content-Encoding", "gzip")]),
        chunked(path, compressed, headers=[*same, ("Content-Encoding", "gzip")]),
        plain(path, body, same).replace(b"HTTP/1.1", b"HTTP/1.0"),
    ]
    responses = [comparable(*server.responses(form)) for form in forms]
    assert responses[0][1]["x-request-id"] == "client-id"
    for place, response in enumerate(responses):
        assert response == responses[0], forms[place % len(forms)][:200]


@pytest.mark.parametrize("name", MODELS)
def test_large_bodies_get_the_same_response(server, name):
    body = v2(name, 2000)
    path = f"/v2/models/{name}/infer"
    same = [("X-Request-Id", "client-id")]
    responses = [
        comparable(*server.responses(form))
        for form in (plain(path, body, same), chunked(path, body, (50_000,), same))
    ]
    assert responses[0][0] == 200
    assert all(response == responses[0] for response in responses)


@pytest.mark.parametrize("form", [plain, chunked])
def test_a_request_may_be_cut_anywhere(server, form):
    whole = form(PATH, GOOD, headers=[("X-Request-Id", "client-id")])
    (expected,) = server.responses(whole)
    assert expected[0] == 200

    def cut(place):
        with socket.create_connection(("127.0.0.1", server.http_port), TIMEOUT_SECONDS) as stream:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream.sendall(whole[:place])
            # Another connection's whole request goes by in between: the first part was read.
            server.responses(plain(PATH, b"{}"))
            stream.sendall(whole[place:])
            return split(receive(stream, 1))

    with ThreadPoolExecutor(4) as pool:
        for place, received in enumerate(pool.map(cut, range(1, len(whole))), 1):
            assert [comparable(response) for response in received] == [comparable(expected)], place


def test_a_request_may_come_byte_by_byte(server):
    for form in (plain, chunked):
        whole = form(PATH, GOOD)
        (response,) = server.responses(*(bytes([byte]) for byte in whole))
        assert response[0] == 200


FORMS = [
    plain,
    chunked,
    lambda path, body, headers: plain(path, body, [*headers, ("Expect", "100-continue")]),
    lambda path, body, headers: plain(
        path, body, [*headers, ("Connection", "Upgrade"), ("Upgrade", "h2c")]
    ),
]


@pytest.mark.parametrize("which", [[0], [1], [0, 1], [1, 0, 0, 2, 3]])
def test_fifty_pipelined_requests_get_their_responses_in_order(server, which):
    whole = b""
    for number in range(50):
        name = list(MODELS)[number % 4]
        form = FORMS[which[number % len(which)]]
        body = json.dumps({"instances": rows_for(name, 1, number).astype(float).tolist()})
        path = f"/v1/models/{name}:predict"
        whole += form(path, body.encode(), headers=[("X-Request-Id", f"r{number}")])
    received = server.responses(whole, expect=50)
    assert [headers["x-request-id"] for _, headers, _ in received] == [f"r{n}" for n in range(50)]
    assert {status for status, _, _ in received} == {200}
    assert len({body for _, _, body in received}) == 50


def test_many_connections_get_their_own_predictions(server):
    """Requests of one iteration of the event loop share a run; each gets its own rows."""
    name = "reliability_detector"
    path = f"/v1/models/{name}:predict"
    expected = {}
    for number in range(32):
        body = json.dumps({"instances": rows_for(name, 1, number).astype(float).tolist()}).encode()
        (response,) = server.responses(plain(path, body))
        expected[number] = (body, json.loads(response[2])["predictions"][0]["anomaly_score"])
    start = threading.Barrier(8)

    def client(first):
        start.wait(TIMEOUT_SECONDS)
        with socket.create_connection(("127.0.0.1", server.http_port), TIMEOUT_SECONDS) as stream:
            for number in [*range(first, 32, 8)] * 10:
                body, score = expected[number]
                stream.sendall(plain(path, body))
                ((_, _, received),) = split(receive(stream, 1))
                got = json.loads(received)["predictions"][0]["anomaly_score"]
                assert got == pytest.approx(score, rel=1e-5)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(client, range(8)))
