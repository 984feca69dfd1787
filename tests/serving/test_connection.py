"""One HTTP connection, either lane: order, refusals, and how it ends."""

import json

import pytest

from tests.serving.running import chunked, plain
from tests.serving.wire import BODY, PATH, ask, turns, until


@pytest.mark.parametrize("form", [plain, chunked])
def test_pipelined_requests_are_answered_in_their_order(connect, run, form):
    async def go():
        made, transport = connect()
        made.data_received(b"".join(ask(n, form=form) for n in range(50)))
        await until(lambda: len(transport.answers) == 50)
        assert [headers["x-request-id"] for _, headers, _ in transport.answers] == [
            f"r{n}" for n in range(50)
        ]
        assert {(status, body) for status, _, body in transport.answers} == {
            (200, transport.answers[0][2])
        }
        assert not transport.paused
        assert not transport.closed

    run(go())


def test_both_lanes_may_take_turns(connect, run):
    async def go():
        made, transport = connect()
        forms = [plain, chunked, chunked, plain, plain, chunked] * 3
        made.data_received(b"".join(ask(n, form=form) for n, form in enumerate(forms)))
        await until(lambda: len(transport.answers) == len(forms))
        ids = [headers["x-request-id"] for _, headers, _ in transport.answers]
        assert ids == [f"r{n}" for n in range(len(forms))]

    run(go())


def test_a_trailer_is_no_header(connect, run):
    async def go():
        made, transport = connect()
        whole = ask(1, form=chunked)[:-2] + b"X-Request-Id: other\r\nContent-Encoding: gzip\r\n\r\n"
        made.data_received(whole)
        await until(lambda: transport.answers)
        ((status, headers, _),) = transport.answers
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
def test_what_is_not_http_is_refused_after_the_answers_before_it(connect, run, form, broken):
    async def go():
        made, transport = connect()
        made.data_received(ask(1, form=form) + ask(2, form=form) + broken + ask(3))
        await until(lambda: transport.closed)
        told = transport.answers
        assert [status for status, _, _ in told] == [200, 200, 400]
        assert [headers["x-request-id"] for _, headers, _ in told][:2] == ["r1", "r2"]
        assert json.loads(told[-1][2])["error"].endswith(".")
        assert told[-1][1]["connection"] == "close"

    run(go())


def upgrading(number, body=BODY):
    headers = [("X-Request-Id", f"r{number}"), ("Connection", "Upgrade, HTTP2-Settings"),
               ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk")]  # fmt: skip
    return plain(PATH, body, headers=headers)


@pytest.mark.parametrize("step", [1, 7, 100, 10_000])
def test_the_offer_of_another_protocol_is_ignored_and_the_body_is_read(connect, run, step):
    """Uvicorn would take the body for the next request."""
    smuggled = ask(66)
    whole = upgrading(1, smuggled) + upgrading(2) + ask(3)

    async def go():
        made, transport = connect()
        for start in range(0, len(whole), step):
            made.data_received(whole[start : start + step])
            await turns(1)
        await until(lambda: len(transport.answers) == 3)
        await turns()
        told = [(status, headers["x-request-id"]) for status, headers, _ in transport.answers]
        assert told == [(400, "r1"), (200, "r2"), (200, "r3")]

    run(go())


@pytest.mark.parametrize("form", [plain, chunked])
def test_a_client_that_closes_its_side_gets_its_answers(connect, run, form):
    async def go():
        made, transport = connect()
        made.data_received(ask(1, form=form) + ask(2, form=form))
        assert made.eof_received()
        await until(lambda: transport.closed)
        assert [status for status, _, _ in transport.answers] == [200, 200]

    run(go())


@pytest.mark.parametrize("begun", [b"", ask(1)[:20], ask(1)[:-3]])
def test_half_a_request_is_not_waited_for(connect, run, begun):
    async def go():
        made, transport = connect()
        if begun:
            made.data_received(begun)
        assert not made.eof_received(), "the transport closes itself"
        assert not transport.answers

    run(go())


@pytest.mark.parametrize("form", [plain, chunked])
def test_a_connection_that_was_lost_is_not_written_to(connect, run, form, caplog):
    async def go():
        made, transport = connect()
        made.data_received(ask(1, form=form) * 5)
        transport.closed = True
        made.connection_lost(ConnectionResetError())
        await turns(100)
        assert not transport.answers
        assert made.timeout_keep_alive_task is None

    run(go())
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("form", [plain, chunked])
@pytest.mark.parametrize("behind", [b"", ask(2)[:30]])
def test_the_answer_under_way_is_the_last_when_the_server_goes_down(connect, run, form, behind):
    async def go():
        made, transport = connect()
        made.data_received(ask(1, form=form) + behind)
        made.shutdown()
        await until(lambda: transport.closed)
        assert [status for status, _, _ in transport.answers] == [200]

    run(go())


def test_an_idle_connection_is_closed_when_the_server_goes_down(connect, run):
    async def go():
        made, transport = connect()
        made.data_received(ask(1))
        await until(lambda: transport.answers)
        await turns()
        assert not transport.closed
        made.shutdown()
        assert transport.closed

    run(go())
