"""One HTTP connection: Uvicorn's protocol, with bounds on time and memory that it lacks.

Uvicorn reads heads and trailers of any length, waits without a timeout for the rest of a request,
and continues to read while responses are outstanding. Here a request must arrive in time, and the
size of everything but the body is limited. When a client sends requests before it has the
responses to earlier ones (pipelining), they are buffered, and no more is read from the socket.
A client that leaves before its response is noticed and counted, also while the event loop is busy.
"""

from __future__ import annotations

import asyncio
import select
from http import HTTPStatus
from typing import Any, Final

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from dwcp_ml.serving.engine import Engine
from dwcp_ml.serving.exchange import HttpRequest, HttpResponse, abandon, request_id_of
from dwcp_ml.serving.rejections import RequestRejected

ARRIVAL_SECONDS: Final = 60.0
"""Maximum time from a request's first byte to its last."""

SCOPE_KEY: Final = "dwcp_ml.connection"
"""The key of the ASGI scope that holds the connection."""

_HANG_UP: Final = getattr(select, "POLLRDHUP", 0)  # Linux

MAX_HEAD_BYTES: Final = 1 << 16
"""Maximum bytes in succession that are not part of a body: heads, trailers, chunk sizes."""


class BadRequest(RequestRejected):
    """The client sent something that is not HTTP."""


class HeadTooLarge(RequestRejected):
    """The head or the trailer of a request is too long."""

    status = 431


class TooSlow(RequestRejected):
    """A request did not arrive in time."""

    status = 408


class Connection(HttpToolsProtocol):
    """One connection, whose requests all go through Uvicorn's parser.

    Parameters
    ----------
    engine
        Its ``draining`` matters here, and its metrics count a client that leaves.
    **uvicorn
        What Uvicorn gives every protocol.
    """

    def __init__(self, engine: Engine, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._engine = engine
        self._in_message = False  # the parser is inside a request
        self._head_read = False  # and behind its head
        self._upgrading = False  # the head offers another protocol
        self._overhead = 0  # bytes parsed since the last byte of a body
        self._buffered = b""  # arrived behind requests that have no response yet
        self._resuming = False  # the buffer is about to be parsed
        self._ended = False  # the client will send no more
        self._leaving = False  # the server is shutting down
        self._rejection: HttpResponse | None = None  # the last response of this connection
        self._arrival: asyncio.TimerHandle | None = None
        self._running: RequestResponseCycle | None = None  # the request in progress
        self._awaited: HttpRequest | None = None  # whole, and without a response so far
        self._hang_up: select.poll | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timeout for a client that sends nothing."""
        super().connection_made(transport)
        stream = transport.get_extra_info("socket")
        if stream is not None and _HANG_UP:
            self._hang_up = select.poll()
            self._hang_up.register(stream.fileno(), _HANG_UP)
        self._arm_keep_alive()

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, or buffer it until the requests before it have their responses."""
        if self._resuming or self._is_busy():
            self._buffered += data
            if not self.transport.is_closing():
                self.transport.pause_reading()
            return
        self._take(data)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection open for the responses that the client may still wait for.

        Whether it has left, or will only send no more, can't be told here. Gateways do not close
        one direction only, so the request counts as abandoned.
        """
        self._ended = True
        self._abandon()
        return self._resuming or self._is_busy()

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop the buffer and the requests in progress, and count the one that was awaited."""
        self._abandon()
        self._buffered = b""
        self._disarm_arrival()
        self._unset_keepalive_if_required()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close an idle connection now, and one with a request after its response."""
        self._leaving = True
        if not self._resuming:
            super().shutdown()

    def await_response(self, request: HttpRequest) -> None:
        """Count this request as abandoned if the client leaves before ``is_client_there``.

        Parameters
        ----------
        request
            Complete; a request whose body the client did not send to its end is not counted.
        """
        self._awaited = request

    def is_client_there(self) -> bool:
        """Return whether the client waits for the response that is now ready.

        The socket itself is asked, because the event loop may not have read from it while the
        model ran.
        """
        self._awaited = None
        if self._ended or self.transport.is_closing():
            return False
        return self._hang_up is None or not self._hang_up.poll(0)

    def _abandon(self) -> None:
        request, self._awaited = self._awaited, None
        if request is not None:
            abandon(self._engine, request)

    def on_message_begin(self) -> None:
        """Record that the parser is inside a request."""
        self._in_message, self._head_read, self._overhead = True, False, 0
        self._arm_arrival()
        super().on_message_begin()
        self.scope[SCOPE_KEY] = self  # type: ignore[typeddict-unknown-key]

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header, but not one of the trailer of a chunked body."""
        if not self._head_read:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start to handle the request whose head is complete."""
        if self.parser.should_upgrade():
            self._upgrading = True
            return
        super().on_headers_complete()
        self._head_read = True

    def on_body(self, body: bytes) -> None:
        """Store a part of a body."""
        self._overhead = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Record that the parser has read the whole request."""
        if self._upgrading:
            return
        self._in_message = False
        self._disarm_arrival()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Continue with the buffer when no response is outstanding."""
        super().on_response_complete()
        if not self.transport.is_closing() and not self._is_responding():
            self._read_next()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _is_responding(self) -> bool:
        """Return whether a whole request waits for its response."""
        cycle = self._running
        waits = cycle is not None and not cycle.response_complete and not cycle.more_body
        return waits or bool(self.pipeline)

    def _is_busy(self) -> bool:
        """Return whether what arrives must be buffered."""
        return self._rejection is not None or self._is_responding()

    def _take(self, data: bytes) -> None:
        """Parse what arrived; the fast path overrides this."""
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        """Parse what arrived with Uvicorn's parser."""
        self._overhead += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except HttpParserError:
            self._reject(BadRequest("This is not an HTTP/1.1 request."))
        if self._in_message and self._overhead > MAX_HEAD_BYTES and self._rejection is None:
            self._reject(
                HeadTooLarge(f"The head of a request may have at most {MAX_HEAD_BYTES} bytes.")
            )

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Handle a request that offers an upgrade to another protocol as if it did not.

        The parser ends such a request after its head, and would parse its body as the next
        request. So the head is parsed again without the offer.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if method == b"CONNECT":
            self._reject(BadRequest("This server is not a proxy."))
            return
        head = [b"%b %b HTTP/%b" % (method, self.url, version.encode())]
        for name, value in self.headers:
            forwarded = value
            if name == b"connection":
                words = [word.strip().lower() for word in value.split(b",")]
                forwarded = b", ".join(word for word in words if word in (b"close", b"keep-alive"))
            if name != b"upgrade":
                head.append(b"%b: %b" % (name, forwarded))
        self._upgrading = False
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as Uvicorn does
        self._parse(b"\r\n".join([*head, b"", b""]) + rest)

    def _read_next(self) -> None:
        """Parse the buffer, or read the next request, now that no response is outstanding."""
        if self._rejection is not None:
            self._write_last(self._rejection)
        elif self._buffered:
            # Not from inside this callback: each pipelined request would deepen the stack.
            self._resuming = True
            self.loop.call_soon(self._take_buffered)
        elif self._ended or self._leaving:
            self.transport.close()
        else:
            self.transport.resume_reading()

    def _take_buffered(self) -> None:
        self._resuming = False
        buffered, self._buffered = self._buffered, b""
        if self.transport.is_closing():
            return
        self._take(buffered)
        if self._is_busy() or self.transport.is_closing():
            return
        if self._ended or (self._leaving and not self._in_message):
            self.transport.close()  # the rest of the request will never arrive
        else:
            self.transport.resume_reading()

    def _reject(self, rejected: RequestRejected) -> None:
        """Send a rejection after the responses that are still outstanding; then close."""
        if self.transport.is_closing() or self._rejection is not None:
            return
        self._disarm_arrival()
        rejection = HttpResponse.of_rejection(rejected)
        if self._in_message and self._head_read:  # the newest cycle is that of the broken request
            if self.pipeline:
                self.pipeline.popleft()
                self._rejection = rejection
            elif self.cycle.response_complete:
                self.transport.close()
            else:
                self._write_last(rejection)
        elif self._is_responding():
            self._rejection = rejection
        else:
            self._write_last(rejection)

    def _write_last(self, response: HttpResponse) -> None:
        self.transport.write(encoded(response, self._request_id(), last=True))
        self.transport.close()

    def _request_id(self) -> str:
        """Return the id of the request that is aborted, or a new one if it had none so far."""
        headers = self.headers if self._in_message else []
        sent = [value for name, value in headers if name == b"x-request-id"]
        return request_id_of(sent[-1].decode("latin-1") if sent else None)

    def _arm_arrival(self) -> None:
        """Start the timeout for the whole request."""
        self._disarm_arrival()
        self._arrival = self.loop.call_later(ARRIVAL_SECONDS, self._too_late)

    def _disarm_arrival(self) -> None:
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None

    def _too_late(self) -> None:
        self._arrival = None
        self._reject(TooSlow(f"The request did not arrive within {ARRIVAL_SECONDS:g} seconds."))

    def _arm_keep_alive(self) -> None:
        """Start the timeout after which an idle connection is closed."""
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )


def encoded(response: HttpResponse, request_id: str, last: bool) -> bytes:
    """Return the bytes of a response; the ``last`` one has ``Connection: close``."""
    head = (
        f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}\r\n"
        f"content-type: {response.content_type}\r\n"
        f"content-length: {len(response.body)}\r\nx-request-id: {request_id}\r\n"
    )
    for name, value in response.headers:
        head += f"{name}: {value}\r\n"
    if last:
        head += "connection: close\r\n"
    return f"{head}\r\n".encode("ascii") + response.body
