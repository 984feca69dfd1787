"""The fast lane and the full parser give the same answer to the same request, to the byte."""

import gzip
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.serving.bundles import MODELS, VERSION, rows_for
from tests.serving.running import LONGEST, chunked, plain, receive, split

pytestmark = pytest.mark.server

NAME = "compression_selector"
PATH = f"/v1/models/{NAME}:predict"
GOOD = json.dumps({"instances": rows_for(NAME, 2).astype(float).tolist()}).encode()


def v2(name, rows=1):
    asked = rows_for(name, rows)
    tensor = {"name": "features", "datatype": "FP32", "shape": list(asked.shape),
              "data": asked.astype(float).ravel().tolist()}  # fmt: skip
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


def essence(answer):
    """What of an answer must not depend on its way: all but the date and the connection."""
    status, headers, body = answer
    kept = {key: value for key, value in headers.items() if key not in ("date", "connection")}
    return status, kept, body


def test_every_form_of_a_request_has_one_answer(server, full_server, case):
    path, body = case
    same = [("X-Request-Id", "mine")]
    expect = [*same, ("Expect", "100-continue")]
    packed = gzip.compress(body)
    forms = [
        plain(path, body, same),
        plain(path, body, [*same, ("Connection", "close")]),
        plain(path, body, [*same, ("Content-Type", "application/json"), ("Accept", "*/*")]),
        plain(f"{path}?a=b", body, same),
        plain(path.replace("models", "%6dodels"), body, same),
        plain(path, body, expect),
        chunked(path, body, headers=same),
        plain(path, packed, [*same, ("Content-Encoding", "gzip")]),
        chunked(path, packed, headers=[*same, ("Content-Encoding", "gzip")]),
        plain(path, body, same).replace(b"HTTP/1.1", b"HTTP/1.0"),
    ]
    answers = [essence(*one.answers(form)) for one in (server, full_server) for form in forms]
    assert answers[0][1]["x-request-id"] == "mine"
    for place, answer in enumerate(answers):
        assert answer == answers[0], forms[place % len(forms)][:200]


@pytest.mark.parametrize("name", MODELS)
def test_large_bodies_have_one_answer(server, full_server, name):
    body = v2(name, 2000)
    path = f"/v2/models/{name}/infer"
    same = [("X-Request-Id", "mine")]
    answers = [
        essence(*one.answers(form))
        for one in (server, full_server)
        for form in (plain(path, body, same), chunked(path, body, (50_000,), same))
    ]
    assert answers[0][0] == 200
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize("form", [plain, chunked])
def test_a_request_may_be_cut_anywhere(server, form):
    whole = form(PATH, GOOD, headers=[("X-Request-Id", "mine")])
    (expected,) = server.answers(whole)
    assert expected[0] == 200

    def cut(place):
        with socket.create_connection(("127.0.0.1", server.http_port), LONGEST) as stream:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream.sendall(whole[:place])
            # Another connection's whole request goes by in between: the first part was read.
            server.answers(plain(PATH, b"{}"))
            stream.sendall(whole[place:])
            return split(receive(stream, 1))

    with ThreadPoolExecutor(4) as pool:
        for place, told in enumerate(pool.map(cut, range(1, len(whole))), 1):
            assert [essence(one) for one in told] == [essence(expected)], place


def test_a_request_may_come_byte_by_byte(server):
    for form in (plain, chunked):
        whole = form(PATH, GOOD)
        (answer,) = server.answers(*(bytes([byte]) for byte in whole))
        assert answer[0] == 200


FORMS = [
    plain,
    chunked,
    lambda path, body, headers: plain(path, body, [*headers, ("Expect", "100-continue")]),
    lambda path, body, headers: plain(
        path, body, [*headers, ("Connection", "Upgrade"), ("Upgrade", "h2c")]
    ),
]


@pytest.mark.parametrize("which", [[0], [1], [0, 1], [1, 0, 0, 2, 3]])
def test_fifty_pipelined_requests_are_answered_in_order(server, full_server, which):
    whole = b""
    for number in range(50):
        name = list(MODELS)[number % 4]
        form = FORMS[which[number % len(which)]]
        body = json.dumps({"instances": rows_for(name, 1, number).astype(float).tolist()})
        path = f"/v1/models/{name}:predict"
        whole += form(path, body.encode(), headers=[("X-Request-Id", f"r{number}")])
    answers = []
    for one in (server, full_server):
        told = one.answers(whole, expect=50)
        assert [headers["x-request-id"] for _, headers, _ in told] == [f"r{n}" for n in range(50)]
        assert {status for status, _, _ in told} == {200}
        answers.append([body for _, _, body in told])
    assert answers[0] == answers[1]
    assert len(set(answers[0])) == 50


def test_many_connections_get_their_own_answers(server):
    """Requests of one turn of the loop are answered by one run; nobody gets another's row."""
    name = "reliability_detector"
    path = f"/v1/models/{name}:predict"
    alone = {}
    for number in range(32):
        body = json.dumps({"instances": rows_for(name, 1, number).astype(float).tolist()}).encode()
        (answer,) = server.answers(plain(path, body))
        alone[number] = (body, json.loads(answer[2])["predictions"][0]["anomaly_score"])
    start = threading.Barrier(8)

    def client(first):
        start.wait(LONGEST)
        with socket.create_connection(("127.0.0.1", server.http_port), LONGEST) as stream:
            for number in [*range(first, 32, 8)] * 10:
                body, score = alone[number]
                stream.sendall(plain(path, body))
                ((_, _, told),) = split(receive(stream, 1))
                got = json.loads(told)["predictions"][0]["anomaly_score"]
                assert got == pytest.approx(score, rel=1e-5)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(client, range(8)))
