"""The fast path over HTTP: plain inference requests are handled without a web framework.

Uvicorn, Starlette and FastAPI together take about ten times as long as a model. So this protocol
inspects what arrives on an idle connection: if it is the whole head of an inference request in the
simplest form, it reads the body by its Content-Length and responds. Everything else, and anything
in doubt, goes to Uvicorn's own parser unchanged: chunked bodies, ``Expect``, upgrades, folded or
repeated headers, other paths, HTTP/1.0. The two parsers never read parts of the same message.
"""

from __future__ import annotations

import re
from typing import Any, Final

from dwcp_ml.serving.connection import Connection, encoded
from dwcp_ml.serving.engine import Engine
from dwcp_ml.serving.exchange import (
    JSON_LENGTH,
    HttpRequest,
    HttpResponse,
    RequestTarget,
    request_id_of,
    respond,
)

_HEAD: Final = re.compile(
    rb"POST (/v[12]/models/[a-z0-9_.:/-]{1,300}) HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e]*\r\n)+)\r\n"
)
_MAX_HEADERS: Final = 64
_LENGTH: Final = re.compile(r"[0-9]{1,9}")

# Headers with a meaning that only the full parser implements.
_FOR_THE_FULL_PARSER: Final = frozenset(
    {"transfer-encoding", "expect", "upgrade", "content-encoding", "te", "trailer"}
)


class FastPath(Connection):
    """One connection.

    Parameters
    ----------
    engine
        Where requests go.
    **uvicorn
        What Uvicorn gives every protocol.
    """

    def __init__(self, engine: Engine, **uvicorn: Any) -> None:
        super().__init__(engine, **uvicorn)
        self._targets: dict[str, RequestTarget | None] = {}
        self._request: HttpRequest | None = None  # its body is still arriving
        self._body = bytearray()
        self._missing = 0
        self._waiting = False  # a request has no response yet
        self._stalled = False  # the client does not read its responses
        self._keep_alive = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop a request whose body is incomplete."""
        self._request = None
        self._body = bytearray()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close an idle connection now, and one with a request after its response."""
        if self._waiting or self._request is not None:
            self._leaving = True
        else:
            super().shutdown()

    def resume_writing(self) -> None:
        """Continue when the client has read its responses."""
        super().resume_writing()
        if self._stalled and not self.transport.is_closing():
            self._waiting = self._stalled = False
            self._arm_keep_alive()
            self._read_next()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, even if its last responses were not read."""
        if self._stalled:
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _is_busy(self) -> bool:
        return self._waiting or super()._is_busy()

    def _request_id(self) -> str:
        return super()._request_id() if self._request is None else self._request.request_id

    def _take(self, data: bytes) -> None:
        if self._request is not None:
            self._continue_body(self._request, data)
        elif self._in_message or not self._begin(data):
            self._parse(data)

    def _begin(self, data: bytes) -> bool:
        """Read the head of a request; return False if the full parser must read it."""
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
        request = HttpRequest(
            target=target,
            body=data[match.end() : end],
            request_id=request_id_of(headers.get("x-request-id")),
            link=headers.get("x-dwcp-link"),
            observed_at=headers.get("x-dwcp-observed-at"),
            mirrored="x-dwcp-mirrored" in headers,
            json_length=None if json_length is None else int(json_length),
        )
        if len(data) >= end:
            self._buffered = data[end:]
            self._respond(request)
        else:
            self._request, self._body = request, bytearray(request.body)
            self._missing = end - len(data)
            self._arm_arrival()
        return True

    def _target(self, path: str) -> RequestTarget | None:
        if path not in self._targets:
            if len(self._targets) >= 16:  # bounds the cache for a client that tries many paths
                self._targets.clear()
            self._targets[path] = RequestTarget.of(path)
        return self._targets[path]

    def _continue_body(self, request: HttpRequest, data: bytes) -> None:
        self._body += data[: self._missing]
        self._buffered = data[self._missing :]
        self._missing -= len(data)
        if self._missing > 0:
            return
        request.body, self._body, self._request = self._body, bytearray(), None
        self._disarm_arrival()
        self._respond(request)

    def _respond(self, request: HttpRequest) -> None:
        self._waiting = True
        self.await_response(request)

        def reply(response: HttpResponse) -> bool:
            is_there = self.is_client_there()
            self._write(response, request.request_id)
            return is_there

        respond(self._engine, request, reply)

    def _write(self, response: HttpResponse, request_id: str) -> None:
        self._waiting = False
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        last = not self._keep_alive or self._leaving or self._engine.draining
        self.transport.write(encoded(response, request_id, last))
        if last:
            self.transport.close()
            return
        self._arm_keep_alive()
        if self.flow.write_paused:
            # The client does not read its responses: take no further request until it does.
            self._waiting = self._stalled = True
            self.transport.pause_reading()
        else:
            self._read_next()


def _headers(lines: bytes) -> dict[str, str] | None:
    """Return the headers by lower-case name; ``None`` if the full parser must read them."""
    parts = lines.decode("ascii").split("\r\n")
    parts.pop()
    if len(parts) > _MAX_HEADERS:
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
