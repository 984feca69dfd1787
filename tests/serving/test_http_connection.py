"""One HTTP connection: order, what is not HTTP, limits of time and size, and how it closes."""

import json
import socket
import time

import pytest

from tests.serving.running import TIMEOUT_SECONDS, Server, chunked, plain, receive, split
from tests.serving.wire import BODY, PATH, request

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def impatient(model_dir, tmp_path_factory):
    """A server with short times."""
    options = ("--arrival-seconds", "0.5", "--idle-seconds", "1", "--max-age-seconds", "1")
    server = Server(model_dir, tmp_path_factory.mktemp("impatient"), *options)
    try:
        yield server
        assert server.stop() == 0
        assert "Traceback" not in server.log()
    finally:
        server.kill()


def connect(server):
    return socket.create_connection(("127.0.0.1", server.http_port), TIMEOUT_SECONDS)


def is_closed(stream):
    """Wait until the server closes; return whether it sent anything before."""
    return receive(stream) == b""


def test_a_trailer_is_no_header(server):
    whole = request(1, form=chunked)[:-2] + b"X-Request-Id: other\r\nContent-Encoding: gzip\r\n\r\n"
    ((status, headers, _),) = server.responses(whole)
    assert (status, headers["x-request-id"]) == (200, "r1")


@pytest.mark.parametrize("form", [plain, chunked])
@pytest.mark.parametrize(
    "broken",
    [
        b"\0\1\2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length : 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 200_000 + b"\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    ],
)
def test_what_is_not_http_is_rejected_after_the_earlier_responses(server, form, broken):
    first = request(1, form=form) + request(2, form=form)
    received = split(server.raw(first + broken))
    assert [status for status, _, _ in received[:2]] == [200, 200]
    assert [headers["x-request-id"] for _, headers, _ in received[:2]] == ["r1", "r2"]
    assert [status for status, _, _ in received[2:]] in ([400], [431])


def test_a_length_beside_chunks_does_not_split_a_request(server):
    """The chunks decide; what would be a second request by the length is none."""
    whole = request(1, form=chunked).replace(
        b"Host: dwcp\r\n", b"Host: dwcp\r\nContent-Length: 3\r\n"
    )
    received = split(server.raw(whole + request(2), expect=1))
    assert received[0][0] in (200, 400)
    assert received[0][1].get("x-request-id", "r1") == "r1"


@pytest.mark.parametrize("hosts", ["", "Host: a\r\nHost: b\r\n", "Host: a\r\nHost: a\r\n"])
def test_a_request_has_one_host(server, hosts):
    for head in ("GET /v2", f"POST {PATH}"):
        whole = f"{head} HTTP/1.1\r\n{hosts}Content-Length: 0\r\n\r\n".encode()
        ((status, _, body),) = server.responses(whole)
        assert (status, json.loads(body)) == (400, {"error": "A request has one Host."})


def upgrading(number, body=BODY):
    headers = [("X-Request-Id", f"r{number}"), ("Connection", "Upgrade, HTTP2-Settings"),
               ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk")]  # fmt: skip
    return plain(PATH, body, headers=headers)


def test_the_offer_of_another_protocol_is_ignored_and_the_body_is_read(server):
    smuggled = request(66)
    received = server.responses(upgrading(1, smuggled) + upgrading(2) + request(3), expect=3)
    statuses = [(status, headers["x-request-id"]) for status, headers, _ in received]
    assert statuses == [(400, "r1"), (200, "r2"), (200, "r3")]


@pytest.mark.parametrize("start", [request(1)[:-20], request(1, form=chunked)[:-20]])
def test_a_body_must_arrive_in_time(impatient, start):
    with connect(impatient) as stream:
        began = time.monotonic()
        stream.sendall(start)
        ((status, headers, body),) = split(receive(stream, 1))
        assert time.monotonic() - began < 5.0
    assert (status, headers["x-request-id"]) == (408, "r1")
    assert json.loads(body) == {"error": "The request did not arrive within 0.5 seconds."}


def test_the_time_of_an_upload_is_no_latency(impatient):
    def slower():
        text = impatient.request("GET", "/metrics")[2].decode()
        lines = [line for line in text.splitlines() if "dwcp_request_seconds_bucket" in line]
        return sum(float(line.split()[-1]) * (1 if 'le="+Inf"' in line else -1)
                   for line in lines if 'le="+Inf"' in line or 'le="0.25"' in line)  # fmt: skip

    before = slower()
    with connect(impatient) as stream:
        stream.sendall(request(1)[:-20])
        assert split(receive(stream, 1))[0][0] == 408
    with connect(impatient) as stream:
        whole = request(1)
        stream.sendall(whole[:-20])
        time.sleep(0.35)
        stream.sendall(whole[-20:])
        assert split(receive(stream, 1))[0][0] == 200
    assert slower() == before


@pytest.mark.parametrize("start", [b"", b"GET /v2", request(1)[:30], request(1)])
def test_a_connection_that_starts_no_request_is_closed(impatient, start):
    with connect(impatient) as stream:
        stream.sendall(start)
        if start == request(1):
            assert split(receive(stream, 1))[0][0] == 200
        rest = receive(stream)
        assert rest == b"" or split(rest)[0][0] == 408


@pytest.mark.parametrize("form", [plain, chunked])
def test_a_connection_is_closed_when_it_is_old(impatient, form):
    with connect(impatient) as stream:
        connection = []
        while "close" not in connection:
            stream.sendall(request(1, form=form))
            ((status, headers, _),) = split(receive(stream, 1))
            assert status == 200
            connection.append(headers.get("connection"))
            time.sleep(0.2)
        assert len(connection) >= 4, "it was not closed at once"
        assert is_closed(stream)


def test_what_is_read_may_be_asked_for_without_its_body(server):
    for path in ("/v2/health/live", "/v2/health/ready", "/metrics", "/v2", "/v1/models",
                 "/openapi.json", "/v2/models/reliability_detector"):  # fmt: skip
        status, headers, body = server.request("GET", path)
        assert (status, int(headers["content-length"])) == (200, len(body))
        status, again, nothing = server.request("HEAD", path)
        assert (status, nothing) == (200, b"")
        assert again["content-type"] == headers["content-type"]
        if path != "/metrics":
            assert again["content-length"] == headers["content-length"]
    assert server.request("HEAD", "/nothing")[::2] == (404, b"")


@pytest.mark.parametrize("step", [1, 7, 100])
def test_requests_may_be_cut_anywhere(server, step):
    whole = request(1) + request(2, form=chunked) + request(3)
    with connect(server) as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(whole), step):
            stream.sendall(whole[start : start + step])
        received = split(receive(stream, 3))
    assert [headers["x-request-id"] for _, headers, _ in received] == ["r1", "r2", "r3"]
