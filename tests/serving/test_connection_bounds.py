"""One HTTP connection, either lane: how long and how much it waits for."""

import asyncio

import pytest

from dwcp_ml.serving import connection as module
from dwcp_ml.serving.connection import LARGEST_HEAD_BYTES
from dwcp_ml.serving.fast_path import FastLane
from tests.serving.running import chunked, plain
from tests.serving.wire import BODY, PATH, ask, turns, until

pytestmark = pytest.mark.server


@pytest.mark.parametrize("form", [plain, chunked])
def test_a_client_that_never_waits_is_held_back(connect, run, form):
    portion = b"".join(ask(n, form=form) for n in range(100))

    async def go():
        made, transport = connect()
        sent = most = 0
        while sent < 20:
            if not transport.paused:
                made.data_received(portion)
                sent += 1
            most = max(most, len(made._held) + len(made.pipeline) * len(portion) // 100)
            await asyncio.sleep(0)
        await until(lambda: len(transport.answers) == 2000)
        assert most <= 3 * len(portion)

    run(go())


@pytest.mark.parametrize(
    "begun",
    [ask(1)[:20], ask(1)[:-20], ask(1, form=chunked)[:-20], b"GET / HTTP/1.1\r\nX-Request-Id: r1"],
)
def test_a_request_must_arrive_in_time(connect, run, monkeypatch, begun):
    monkeypatch.setattr(module, "ARRIVAL_SECONDS", 0.03)

    async def go():
        made, transport = connect()
        for byte in begun:  # a byte now and then does not prolong it
            if transport.closed:
                break
            made.data_received(bytes([byte]))
        await until(lambda: transport.closed)
        ((status, headers, body),) = transport.answers
        assert status == 408
        assert headers["connection"] == "close"
        assert b"did not arrive" in body

    run(go())


def test_a_request_in_time_is_not_cut_off(connect, run, monkeypatch):
    monkeypatch.setattr(module, "ARRIVAL_SECONDS", 0.03)

    async def go():
        made, transport = connect()
        for form in (plain, chunked):
            whole = ask(1, form=form)
            made.data_received(whole[:30])
            made.data_received(whole[30:])
        await until(lambda: len(transport.answers) == 2)
        await asyncio.sleep(0.06)
        assert not transport.closed

    run(go())


@pytest.mark.parametrize("first", [b"", ask(1), ask(1, form=chunked)])
def test_a_connection_that_says_nothing_is_closed(connect, run, first):
    async def go():
        made, transport = connect(keep_alive=0.02)
        if first:
            made.data_received(first)
            await until(lambda: transport.answers)
        await until(lambda: transport.closed)
        assert len(transport.answers) == (1 if first else 0)

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
        for _ in range(LARGEST_HEAD_BYTES // 4096 + 2):
            await turns(3)
            if transport.closed:
                break
            made.data_received(b"x" * 4096)
        await until(lambda: transport.closed)
        assert [status for status, _, _ in transport.answers] in ([431], [400])

    run(go())


@pytest.mark.parametrize("lane", [FastLane], indirect=True)
def test_a_client_that_reads_no_answers_is_asked_for_nothing(connect, run):
    async def go():
        made, transport = connect(keep_alive=0.05)
        made.pause_writing()
        made.data_received(ask(1) + ask(2))
        await until(lambda: transport.answers)
        await turns()
        assert transport.paused
        assert len(transport.answers) == 1
        made.resume_writing()
        await until(lambda: len(transport.answers) == 2)
        made.pause_writing()
        made.data_received(ask(3))
        await until(lambda: transport.aborted)

    run(go())
