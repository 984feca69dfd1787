"""The hot path over HTTP: an inference request in one piece, answered without a framework.

Uvicorn, Starlette and FastAPI together cost about ten times what a model costs. So this protocol
looks at what arrives on an idle connection: if it is the whole head of an inference request in the
plainest form that clients send, the body is read by its Content-Length and answered here.
Everything else, and anything in doubt, goes to Uvicorn's own parser untouched: chunked bodies,
``Expect``, upgrades, folded or repeated headers, other paths, HTTP/1.0. The two never read from the
same message.
"""

from __future__ import annotations

import re
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dwcp_ml.serving.engine import Engine
from dwcp_ml.serving.exchange import JSON_LENGTH, Answer, Ask, Target, answer, request_id_of

_HEAD: Final = re.compile(
    rb"POST (/v[12]/models/[a-z0-9_.:/-]{1,300}) HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e]*\r\n)+)\r\n"
)
_MOST_HEADERS: Final = 64

# A header of one of these asks for something that the full parser knows and this one does not.
_FOR_THE_FULL_PARSER: Final = frozenset(
    {"transfer-encoding", "expect", "upgrade", "content-encoding", "te", "trailer"}
)
_PHRASES: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    413: "Content Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class FastLane(HttpToolsProtocol):
    """One connection.

    Parameters
    ----------
    engine
        Where questions go.
    **uvicorn
        What Uvicorn gives every protocol.
    """

    def __init__(self, engine: Engine, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._engine = engine
        self._targets: dict[str, Target | None] = {}
        self._in_message = False  # the full parser is inside a request
        self._ask: Ask | None = None  # its body is still arriving
        self._missing = 0
        self._waiting = False  # asked, and not answered yet
        self._behind = b""  # arrived behind the request that is waiting
        self._stalled = False  # answers are not being read
        self._keep_alive = True

    def data_received(self, data: bytes) -> None:
        """Take what arrived on the connection."""
        if self._waiting:
            # Pipelined: it waits for its turn, and the client waits with it.
            self._behind += data
            self.transport.pause_reading()
            return
        if self._ask is not None:
            self._continue_body(data)
            return
        if not self._is_idle() or not self._begin(data):
            super().data_received(data)

    def on_message_begin(self) -> None:
        """Note that the full parser has begun a request."""
        self._in_message = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """Note that the full parser has read all of a request."""
        self._in_message = False
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a half-read request."""
        self._ask = None
        self._behind = b""
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close an idle connection now, and one with a request after its answer."""
        if self._waiting or self._ask is not None:
            self._keep_alive = False
        else:
            super().shutdown()

    def _is_idle(self) -> bool:
        return not self._in_message and (self.cycle is None or self.cycle.response_complete)

    def _begin(self, data: bytes) -> bool:
        """Read the head of a request; return False if it is for the full parser."""
        match = _HEAD.match(data)
        if match is None:
            return False
        headers = _headers(match[2])
        if headers is None:
            return False
        path = match[1].decode("ascii")
        target = self._target(path)
        length = headers.get("content-length", "")
        if target is None or not length.isdigit() or len(length) > 9:
            return False
        size = int(length)
        json_length = headers.get(JSON_LENGTH)
        if size > self._engine.limits.body_bytes or not (json_length or "1").isdigit():
            return False
        self._unset_keepalive_if_required()
        self._keep_alive = headers.get("connection", "keep-alive").lower() == "keep-alive"
        end = match.end() + size
        self._ask = Ask(
            target=target,
            body=data[match.end() : end],
            request_id=request_id_of(headers.get("x-request-id")),
            link=headers.get("x-dwcp-link"),
            observed_at=headers.get("x-dwcp-observed-at"),
            json_length=int(json_length) if json_length else None,
        )
        self._missing = end - len(data)
        self._behind = data[end:]
        if self._missing <= 0:
            self._answer()
        else:
            self._ask.body = bytearray(self._ask.body)
            self._arm_timeout()
        return True

    def _target(self, path: str) -> Target | None:
        if path not in self._targets:
            if len(self._targets) >= 16:  # a client that walks through paths
                self._targets.clear()
            self._targets[path] = Target.of(path)
        return self._targets[path]

    def _continue_body(self, data: bytes) -> None:
        ask = self._ask
        assert ask is not None
        assert isinstance(ask.body, bytearray)
        ask.body += data[: self._missing]
        self._behind = data[self._missing :]
        self._missing -= len(data)
        if self._missing <= 0:
            self._answer()

    def _answer(self) -> None:
        ask, self._ask = self._ask, None
        assert ask is not None
        self._unset_keepalive_if_required()
        self._waiting = True

        def reply(told: Answer) -> None:
            self._reply(told, ask.request_id)

        answer(self._engine, ask, reply)

    def _reply(self, told: Answer, request_id: str) -> None:
        self._waiting = False
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        last = not self._keep_alive or self._engine.draining
        self.transport.write(_response(told, request_id, last))
        if last:
            self.transport.close()
        elif self.flow.write_paused:
            # The client does not read its answers: no further request until it does.
            self._waiting = self._stalled = True
            self.transport.pause_reading()
        else:
            self._next()

    def resume_writing(self) -> None:
        """Go on when the client has read its answers."""
        super().resume_writing()
        if self._stalled:
            self._waiting = self._stalled = False
            self._next()

    def _next(self) -> None:
        behind, self._behind = self._behind, b""
        self.transport.resume_reading()
        if behind:
            # Not from inside this answer: a client that pipelines would deepen the stack.
            self._waiting = True
            self.loop.call_soon(self._take_behind, behind)
        else:
            self._arm_timeout()

    def _arm_timeout(self) -> None:
        """Close the connection if nothing, or not the rest of a body, arrives for long."""
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def _take_behind(self, behind: bytes) -> None:
        self._waiting = False
        later, self._behind = self._behind, b""
        if not self.transport.is_closing():
            self.data_received(behind + later)


def _headers(lines: bytes) -> dict[str, str] | None:
    """Return the headers by lower-case name; ``None`` if they are for the full parser."""
    parts = lines.decode("ascii").split("\r\n")
    parts.pop()
    if len(parts) > _MOST_HEADERS:
        return None
    headers: dict[str, str] = {}
    for part in parts:
        name, _, value = part.partition(":")
        name = name.lower()
        if name in headers or name in _FOR_THE_FULL_PARSER:
            return None
        headers[name] = value.strip(" \t")
    if "host" not in headers:
        return None
    if headers.get("connection", "close").lower() not in ("close", "keep-alive"):
        return None
    return headers


def _response(told: Answer, request_id: str, last: bool) -> bytes:
    head = (
        f"HTTP/1.1 {told.status} {_PHRASES[told.status]}\r\ncontent-type: {told.kind}\r\n"
        f"content-length: {len(told.body)}\r\nx-request-id: {request_id}\r\n"
    )
    for name, value in told.headers:
        head += f"{name}: {value}\r\n"
    if last:
        head += "connection: close\r\n"
    return f"{head}\r\n".encode("ascii") + told.body
