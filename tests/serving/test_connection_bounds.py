"""Timeouts and buffer limits of one HTTP connection on either path."""

import asyncio

import pytest

from dwcp_ml.serving import connection as module
from dwcp_ml.serving.connection import MAX_HEAD_BYTES
from dwcp_ml.serving.fast_path import FastPath
from tests.serving.running import chunked, plain
from tests.serving.wire import BODY, PATH, request, turns, until

pytestmark = pytest.mark.server


@pytest.mark.parametrize("form", [plain, chunked])
def test_a_client_that_pipelines_without_end_is_throttled(connect, run, form):
    portion = b"".join(request(n, form=form) for n in range(100))

    async def go():
        made, transport = connect()
        sent = most = 0
        while sent < 20:
            if not transport.paused:
                made.data_received(portion)
                sent += 1
            most = max(most, len(made._buffered) + len(made.pipeline) * len(portion) // 100)
            await asyncio.sleep(0)
        await until(lambda: transport.written.count(b"HTTP/1.1 200") == 2000)
        assert most <= 3 * len(portion)

    run(go())


@pytest.mark.parametrize(
    "start",
    [
        request(1)[:20],
        request(1)[:-20],
        request(1, form=chunked)[:-20],
        b"GET / HTTP/1.1\r\nX-Request-Id: r1",
    ],
)
def test_a_request_must_arrive_in_time(connect, run, monkeypatch, start):
    monkeypatch.setattr(module, "ARRIVAL_SECONDS", 0.03)

    async def go():
        made, transport = connect()
        for byte in start:  # a byte from time to time does not extend the timeout
            if transport.closed:
                break
            made.data_received(bytes([byte]))
        await until(lambda: transport.closed)
        ((status, headers, body),) = transport.responses
        assert status == 408
        assert headers["connection"] == "close"
        assert b"did not arrive" in body

    run(go())


def test_a_request_in_time_is_not_cut_off(connect, run, monkeypatch):
    monkeypatch.setattr(module, "ARRIVAL_SECONDS", 0.03)

    async def go():
        made, transport = connect()
        for form in (plain, chunked):
            whole = request(1, form=form)
            made.data_received(whole[:30])
            made.data_received(whole[30:])
        await until(lambda: len(transport.responses) == 2)
        await asyncio.sleep(0.06)
        assert not transport.closed

    run(go())


@pytest.mark.parametrize("first", [b"", request(1), request(1, form=chunked)])
def test_a_connection_that_says_nothing_is_closed(connect, run, first):
    async def go():
        made, transport = connect(keep_alive=0.02)
        if first:
            made.data_received(first)
            await until(lambda: transport.responses)
        await until(lambda: transport.closed)
        assert len(transport.responses) == (1 if first else 0)

    run(go())


@pytest.mark.parametrize(
    "endless",
    [
        b"GET / HTTP/1.1\r\nX-Long: ",
        b"GET /",
        chunked(PATH, BODY)[:-2] + b"X-Trailer: ",
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;".encode(),
    ],
)
def test_what_is_no_body_is_bounded(connect, run, endless):
    async def go():
        made, transport = connect()
        made.data_received(endless)
        for _ in range(MAX_HEAD_BYTES // 4096 + 2):
            await turns(3)
            if transport.closed:
                break
            made.data_received(b"x" * 4096)
        await until(lambda: transport.closed)
        assert [status for status, _, _ in transport.responses] in ([431], [400])

    run(go())


@pytest.mark.parametrize("http_path", [FastPath], indirect=True)
def test_requests_of_a_client_that_reads_no_responses_wait(connect, run):
    async def go():
        made, transport = connect(keep_alive=0.05)
        made.pause_writing()
        made.data_received(request(1) + request(2))
        await until(lambda: transport.responses)
        await turns()
        assert transport.paused
        assert len(transport.responses) == 1
        made.resume_writing()
        await until(lambda: len(transport.responses) == 2)
        made.pause_writing()
        made.data_received(request(3))
        await until(lambda: transport.aborted)

    run(go())
