"""One HTTP connection: Uvicorn's protocol, with bounds on time and memory that it lacks.

Uvicorn reads heads and trailers of any length, waits for the rest of a request for ever, and
reads on while answers are outstanding. Here a request must arrive in time, what is not a body is
bounded, and a client that sends requests ahead of their answers (pipelining) waits for its turn:
what it sent is held, and no more is read.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, Final

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from dwcp_ml.serving.engine import Engine
from dwcp_ml.serving.exchange import Answer, request_id_of
from dwcp_ml.serving.refusals import Refused

ARRIVAL_SECONDS: Final = 60.0
"""How long a request may take to arrive, from its first byte to its last."""

LARGEST_HEAD_BYTES: Final = 1 << 16
"""How much may arrive in one go without a byte of a body in it: heads, trailers, chunk sizes."""


class BadRequest(Refused):
    """What arrived is not HTTP."""


class HeadTooLarge(Refused):
    """The head of a request, or what follows its body, is too long."""

    status = 431


class TooSlow(Refused):
    """A request did not arrive in time."""

    status = 408


class Connection(HttpToolsProtocol):
    """One connection, all of whose requests take Uvicorn's parser.

    Parameters
    ----------
    engine
        What answers; only whether it drains matters here.
    **uvicorn
        What Uvicorn gives every protocol.
    """

    def __init__(self, engine: Engine, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._engine = engine
        self._in_message = False  # the parser is inside a request
        self._head_read = False  # and behind its head
        self._upgrading = False  # the head offers another protocol
        self._silent = 0  # bytes that the parser took since the last byte of a body
        self._held = b""  # arrived behind requests that are not answered yet
        self._resuming = False  # what is held is about to be taken
        self._ended = False  # the client will send no more
        self._leaving = False  # the server goes down
        self._refusal: Answer | None = None  # the last answer of this connection
        self._arrival: asyncio.TimerHandle | None = None
        self._running: RequestResponseCycle | None = None  # what is being answered

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; a client that says nothing is not waited for."""
        super().connection_made(transport)
        self._arm_keep_alive()

    def data_received(self, data: bytes) -> None:
        """Take what arrived, or hold it until its turn comes."""
        if self._resuming or self._is_busy():
            self._held += data
            if not self.transport.is_closing():
                self.transport.pause_reading()
            return
        self._take(data)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer what was asked before the client closed its side of the connection."""
        self._ended = True
        return self._resuming or self._is_busy()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything that was still to come."""
        self._held = b""
        self._disarm_arrival()
        self._unset_keepalive_if_required()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close an idle connection now, and one with a request after its answer."""
        self._leaving = True
        if not self._resuming:
            super().shutdown()

    def on_message_begin(self) -> None:
        """Note that the parser has begun a request."""
        self._in_message, self._head_read, self._silent = True, False, 0
        self._arm_arrival()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; what follows a chunked body under the same name is none."""
        if not self._head_read:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Note that the head is complete, and begin to answer."""
        if self.parser.should_upgrade():
            self._upgrading = True
            return
        super().on_headers_complete()
        self._head_read = True

    def on_body(self, body: bytes) -> None:
        """Keep a part of a body."""
        self._silent = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the parser has read all of a request."""
        if self._upgrading:
            return
        self._in_message = False
        self._disarm_arrival()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Turn to what is held when nothing is left to answer."""
        super().on_response_complete()
        if not self.transport.is_closing() and not self._is_answering():
            self._go_on()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _is_answering(self) -> bool:
        """Return whether a whole request waits for its answer."""
        cycle = self._running
        waits = cycle is not None and not cycle.response_complete and not cycle.more_body
        return waits or bool(self.pipeline)

    def _is_busy(self) -> bool:
        """Return whether what arrives must be held."""
        return self._refusal is not None or self._is_answering()

    def _take(self, data: bytes) -> None:
        """Give what arrived to whoever reads it."""
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        """Give what arrived to Uvicorn's parser."""
        self._silent += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except HttpParserError:
            self._refuse(BadRequest("this is not a request of HTTP/1.1."))
        if self._in_message and self._silent > LARGEST_HEAD_BYTES and self._refusal is None:
            self._refuse(
                HeadTooLarge(f"the head of a request may have {LARGEST_HEAD_BYTES} bytes.")
            )

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Take a request that offers another protocol as if it did not.

        The parser ends such a request with its head, and would take its body for the next request.
        So it is told the head again, without the offer.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if method == b"CONNECT":
            self._refuse(BadRequest("this server is no proxy."))
            return
        head = [b"%b %b HTTP/%b" % (method, self.url, version.encode())]
        for name, value in self.headers:
            kept = value
            if name == b"connection":
                words = [word.strip().lower() for word in value.split(b",")]
                kept = b", ".join(word for word in words if word in (b"close", b"keep-alive"))
            if name != b"upgrade":
                head.append(b"%b: %b" % (name, kept))
        self._upgrading = False
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as Uvicorn does
        self._parse(b"\r\n".join([*head, b"", b""]) + rest)

    def _go_on(self) -> None:
        """Turn to what is held, or to the next request, now that nothing waits for an answer."""
        if self._refusal is not None:
            self._last(self._refusal)
        elif self._held:
            # Not from inside this answer: a client that pipelines would deepen the stack.
            self._resuming = True
            self.loop.call_soon(self._take_held)
        elif self._ended or self._leaving:
            self.transport.close()
        else:
            self.transport.resume_reading()

    def _take_held(self) -> None:
        self._resuming = False
        held, self._held = self._held, b""
        if self.transport.is_closing():
            return
        self._take(held)
        if self._is_busy() or self.transport.is_closing():
            return
        if self._ended or (self._leaving and not self._in_message):
            self.transport.close()  # the rest of a request that will never come
        else:
            self.transport.resume_reading()

    def _refuse(self, refused: Refused) -> None:
        """Say what is wrong with what arrived, after the answers that come before; then close."""
        if self.transport.is_closing() or self._refusal is not None:
            return
        self._disarm_arrival()
        refusal = Answer.refusal(refused)
        if self._in_message and self._head_read:  # the newest cycle is that of the broken request
            if self.pipeline:
                self.pipeline.popleft()
                self._refusal = refusal
            elif self.cycle.response_complete:
                self.transport.close()
            else:
                self._last(refusal)
        elif self._is_answering():
            self._refusal = refusal
        else:
            self._last(refusal)

    def _last(self, answer: Answer) -> None:
        self.transport.write(response(answer, self._request_id(), last=True))
        self.transport.close()

    def _request_id(self) -> str:
        """Return the id of the request that is broken off, if it had one so far."""
        headers = self.headers if self._in_message else []
        sent = [value for name, value in headers if name == b"x-request-id"]
        return request_id_of(sent[-1].decode("latin-1") if sent else None)

    def _arm_arrival(self) -> None:
        """Expect the whole request in time."""
        self._disarm_arrival()
        self._arrival = self.loop.call_later(ARRIVAL_SECONDS, self._too_late)

    def _disarm_arrival(self) -> None:
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None

    def _too_late(self) -> None:
        self._arrival = None
        self._refuse(TooSlow(f"the request did not arrive within {ARRIVAL_SECONDS:g} seconds."))

    def _arm_keep_alive(self) -> None:
        """Close the connection if nothing arrives for long."""
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )


def response(told: Answer, request_id: str, last: bool) -> bytes:
    """Return an answer as it goes over the wire; the ``last`` one says that it is."""
    head = (
        f"HTTP/1.1 {told.status} {HTTPStatus(told.status).phrase}\r\ncontent-type: {told.kind}\r\n"
        f"content-length: {len(told.body)}\r\nx-request-id: {request_id}\r\n"
    )
    for name, value in told.headers:
        head += f"{name}: {value}\r\n"
    if last:
        head += "connection: close\r\n"
    return f"{head}\r\n".encode("ascii") + told.body
