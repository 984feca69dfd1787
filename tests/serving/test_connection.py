"""One HTTP connection on either path: order, rejections, and how it closes."""

import json

import pytest

from tests.serving.running import chunked, plain
from tests.serving.wire import BODY, PATH, request, turns, until


@pytest.mark.parametrize("form", [plain, chunked])
def test_pipelined_requests_get_their_responses_in_order(connect, run, form):
    async def go():
        made, transport = connect()
        made.data_received(b"".join(request(n, form=form) for n in range(50)))
        await until(lambda: len(transport.responses) == 50)
        assert [headers["x-request-id"] for _, headers, _ in transport.responses] == [
            f"r{n}" for n in range(50)
        ]
        assert {(status, body) for status, _, body in transport.responses} == {
            (200, transport.responses[0][2])
        }
        assert not transport.paused
        assert not transport.closed

    run(go())


def test_both_paths_may_alternate(connect, run):
    async def go():
        made, transport = connect()
        forms = [plain, chunked, chunked, plain, plain, chunked] * 3
        made.data_received(b"".join(request(n, form=form) for n, form in enumerate(forms)))
        await until(lambda: len(transport.responses) == len(forms))
        ids = [headers["x-request-id"] for _, headers, _ in transport.responses]
        assert ids == [f"r{n}" for n in range(len(forms))]

    run(go())


def test_a_trailer_is_no_header(connect, run):
    async def go():
        made, transport = connect()
        whole = (
            request(1, form=chunked)[:-2] + b"X-Request-Id: other\r\nContent-Encoding: gzip\r\n\r\n"
        )
        made.data_received(whole)
        await until(lambda: transport.responses)
        ((status, headers, _),) = transport.responses
        assert (status, headers["x-request-id"]) == (200, "r1")

    run(go())


@pytest.mark.parametrize("form", [plain, chunked])
@pytest.mark.parametrize(
    "broken",
    [
        b"\0\1\2",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length : 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nX: a\nY: b\r\n\r\n",
        chunked(PATH, BODY).replace(b"\r\n7\r\n", b"\r\nzz\r\n"),
    ],
)
def test_what_is_not_http_is_rejected_after_the_earlier_responses(connect, run, form, broken):
    async def go():
        made, transport = connect()
        made.data_received(request(1, form=form) + request(2, form=form) + broken + request(3))
        await until(lambda: transport.closed)
        received = transport.responses
        assert [status for status, _, _ in received] == [200, 200, 400]
        assert [headers["x-request-id"] for _, headers, _ in received][:2] == ["r1", "r2"]
        assert json.loads(received[-1][2])["error"].endswith(".")
        assert received[-1][1]["connection"] == "close"

    run(go())


def upgrading(number, body=BODY):
    headers = [("X-Request-Id", f"r{number}"), ("Connection", "Upgrade, HTTP2-Settings"),
               ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk")]  # fmt: skip
    return plain(PATH, body, headers=headers)


@pytest.mark.parametrize("step", [1, 7, 100, 10_000])
def test_the_offer_of_another_protocol_is_ignored_and_the_body_is_read(connect, run, step):
    """Uvicorn would take the body for the next request."""
    smuggled = request(66)
    whole = upgrading(1, smuggled) + upgrading(2) + request(3)

    async def go():
        made, transport = connect()
        for start in range(0, len(whole), step):
            made.data_received(whole[start : start + step])
            await turns(1)
        await until(lambda: len(transport.responses) == 3)
        await turns()
        received = [(status, headers["x-request-id"]) for status, headers, _ in transport.responses]
        assert received == [(400, "r1"), (200, "r2"), (200, "r3")]

    run(go())


@pytest.mark.parametrize("form", [plain, chunked])
def test_a_client_that_closes_its_side_gets_its_responses(connect, run, form):
    async def go():
        made, transport = connect()
        made.data_received(request(1, form=form) + request(2, form=form))
        assert made.eof_received()
        await until(lambda: transport.closed)
        assert [status for status, _, _ in transport.responses] == [200, 200]

    run(go())


@pytest.mark.parametrize("start", [b"", request(1)[:20], request(1)[:-3]])
def test_half_a_request_is_not_waited_for(connect, run, start):
    async def go():
        made, transport = connect()
        if start:
            made.data_received(start)
        assert not made.eof_received(), "the transport closes itself"
        assert not transport.responses

    run(go())


@pytest.mark.parametrize("form", [plain, chunked])
def test_a_connection_that_was_lost_is_not_written_to(connect, run, form, caplog):
    async def go():
        made, transport = connect()
        made.data_received(request(1, form=form) * 5)
        transport.closed = True
        made.connection_lost(ConnectionResetError())
        await turns(100)
        assert not transport.responses
        assert made.timeout_keep_alive_task is None

    run(go())
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("form", [plain, chunked])
@pytest.mark.parametrize("behind", [b"", request(2)[:30]])
def test_the_response_in_progress_is_the_last_when_the_server_shuts_down(
    connect, run, form, behind
):
    async def go():
        made, transport = connect()
        made.data_received(request(1, form=form) + behind)
        made.shutdown()
        await until(lambda: transport.closed)
        assert [status for status, _, _ in transport.responses] == [200]

    run(go())


def test_an_idle_connection_is_closed_when_the_server_shuts_down(connect, run):
    async def go():
        made, transport = connect()
        made.data_received(request(1))
        await until(lambda: transport.responses)
        await turns()
        assert not transport.closed
        made.shutdown()
        assert transport.closed

    run(go())
