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

from dwcp_ml.serving.connection import Connection, response
from dwcp_ml.serving.engine import Engine
from dwcp_ml.serving.exchange import JSON_LENGTH, Answer, Ask, Target, answer, request_id_of

_HEAD: Final = re.compile(
    rb"POST (/v[12]/models/[a-z0-9_.:/-]{1,300}) HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e]*\r\n)+)\r\n"
)
_MOST_HEADERS: Final = 64
_LENGTH: Final = re.compile(r"[0-9]{1,9}")

# A header of one of these asks for something that the full parser knows and this one does not.
_FOR_THE_FULL_PARSER: Final = frozenset(
    {"transfer-encoding", "expect", "upgrade", "content-encoding", "te", "trailer"}
)


class FastLane(Connection):
    """One connection.

    Parameters
    ----------
    engine
        Where questions go.
    **uvicorn
        What Uvicorn gives every protocol.
    """

    def __init__(self, engine: Engine, **uvicorn: Any) -> None:
        super().__init__(engine, **uvicorn)
        self._targets: dict[str, Target | None] = {}
        self._ask: Ask | None = None  # its body is still arriving
        self._body = bytearray()
        self._missing = 0
        self._waiting = False  # asked, and not answered yet
        self._stalled = False  # answers are not being read
        self._keep_alive = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a half-read request."""
        self._ask = None
        self._body = bytearray()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close an idle connection now, and one with a request after its answer."""
        if self._waiting or self._ask is not None:
            self._leaving = True
        else:
            super().shutdown()

    def resume_writing(self) -> None:
        """Go on when the client has read its answers."""
        super().resume_writing()
        if self._stalled and not self.transport.is_closing():
            self._waiting = self._stalled = False
            self._arm_keep_alive()
            self._go_on()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that is not used, whether or not its last answers were read."""
        if self._stalled:
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _is_busy(self) -> bool:
        return self._waiting or super()._is_busy()

    def _request_id(self) -> str:
        return super()._request_id() if self._ask is None else self._ask.request_id

    def _take(self, data: bytes) -> None:
        if self._ask is not None:
            self._continue_body(self._ask, data)
        elif self._in_message or not self._begin(data):
            self._parse(data)

    def _begin(self, data: bytes) -> bool:
        """Read the head of a request; return False if it is for the full parser."""
        match = _HEAD.match(data)
        if match is None:
            return False
        headers = _headers(match[2])
        if headers is None:
            return False
        target = self._target(match[1].decode("ascii"))
        length = headers.get("content-length", "")
        json_length = headers.get(JSON_LENGTH)
        if (
            target is None
            or not _LENGTH.fullmatch(length)
            or int(length) > self._engine.limits.body_bytes
            or (json_length is not None and not _LENGTH.fullmatch(json_length))
        ):
            return False
        self._unset_keepalive_if_required()
        self._keep_alive = headers.get("connection", "keep-alive").lower() == "keep-alive"
        end = match.end() + int(length)
        ask = Ask(
            target=target,
            body=data[match.end() : end],
            request_id=request_id_of(headers.get("x-request-id")),
            link=headers.get("x-dwcp-link"),
            observed_at=headers.get("x-dwcp-observed-at"),
            mirrored="x-dwcp-mirrored" in headers,
            json_length=None if json_length is None else int(json_length),
        )
        if len(data) >= end:
            self._held = data[end:]
            self._answer(ask)
        else:
            self._ask, self._body, self._missing = ask, bytearray(ask.body), end - len(data)
            self._arm_arrival()
        return True

    def _target(self, path: str) -> Target | None:
        if path not in self._targets:
            if len(self._targets) >= 16:  # a client that walks through paths
                self._targets.clear()
            self._targets[path] = Target.of(path)
        return self._targets[path]

    def _continue_body(self, ask: Ask, data: bytes) -> None:
        self._body += data[: self._missing]
        self._held = data[self._missing :]
        self._missing -= len(data)
        if self._missing > 0:
            return
        ask.body, self._body, self._ask = self._body, bytearray(), None
        self._disarm_arrival()
        self._answer(ask)

    def _answer(self, ask: Ask) -> None:
        self._waiting = True

        def reply(told: Answer) -> None:
            self._reply(told, ask.request_id)

        answer(self._engine, ask, reply)

    def _reply(self, told: Answer, request_id: str) -> None:
        self._waiting = False
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        last = not self._keep_alive or self._leaving or self._engine.draining
        self.transport.write(response(told, request_id, last))
        if last:
            self.transport.close()
            return
        self._arm_keep_alive()
        if self.flow.write_paused:
            # The client does not read its answers: no further request until it does.
            self._waiting = self._stalled = True
            self.transport.pause_reading()
        else:
            self._go_on()


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
