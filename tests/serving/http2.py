"""HTTP/2 frames by hand, right and wrong ones: RFC 9113, and as much of HPACK as a test needs."""

import socket
import struct
import time

from tests.serving.running import TIMEOUT_SECONDS

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY = range(8)
WINDOW_UPDATE, CONTINUATION = 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
CANCEL = 8

HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE = 1, 4
FRAME_BYTES = 1 << 14

_STATUSES = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}
"""HPACK's static table, the statuses."""

_DIGITS = {"00000": "0", "00001": "1", "00010": "2"} | {
    f"{0b011001 + n:06b}": str(3 + n) for n in range(7)
}
"""Huffman's codes of the digits."""


class Closed(Exception):
    """The server has closed the connection."""


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(**values):
    """Return a frame of settings: ``settings(INITIAL_WINDOW_SIZE=0)``."""
    pairs = (struct.pack(">HI", globals()[name], value) for name, value in values.items())
    return frame(SETTINGS, payload=b"".join(pairs))


def hpack(fields):
    """Return fields as literals that no table takes, without Huffman's code."""
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields)


def _text(text):
    data = text if isinstance(text, bytes) else text.encode("latin-1")
    length = len(data)
    if length < 127:
        return bytes([length]) + data
    rest, more = length - 127, bytearray([127])
    while rest > 127:
        more.append(rest & 127 | 128)
        rest >>= 7
    more.append(rest)
    return bytes(more) + data


def head(method, path, *fields):
    """Return the fields of a request."""
    own = [(":method", method), (":scheme", "http"), (":authority", "dwcp"), (":path", path)]
    return hpack([*own, *fields])


def status_of(block):
    """Return the status that a block of headers begins with, if no dynamic table is used."""
    while block[0] & 0xE0 == 0x20:  # the size of the table
        block = block[1:] if block[0] & 31 < 31 else block[2:]
    if block[0] & 0x80:
        return _STATUSES[block[0] & 0x7F]
    assert block[0] & 0x0F == 8, f"no :status first: {block[:8]!r}"  # a literal, with its name
    length = block[1] & 0x7F
    value = block[2 : 2 + length]
    if not block[1] & 0x80:
        return int(value)
    bits, text = "".join(f"{byte:08b}" for byte in value), ""
    while len(text) < 3:
        code = next(code for code in _DIGITS if bits.startswith(code))
        text, bits = text + _DIGITS[code], bits[len(code) :]
    return int(text)


class Http2:
    """A connection to a server, which answers its settings and pings only in ``take``.

    ``table`` is the size of the table of headers that the server may use: 0, for ``status_of``.
    """

    def __init__(self, port, table=0, **values):
        self.stream = socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS)
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.next = 1
        self.statuses, self.bodies, self.ended, self.reset = {}, {}, set(), {}
        self.gone = None
        self._initial, self._window, self._windows = 65_535, 65_535, {}
        self._received = b""
        self.send(PREFACE, settings(HEADER_TABLE_SIZE=table, **values))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stream.close()

    def send(self, *frames):
        """Send frames; raises ``Closed`` if the server has closed the connection."""
        try:
            self.stream.sendall(b"".join(frames))
        except OSError as error:
            raise Closed(str(error)) from error

    def start(self, method, path, *fields, end=True):
        """Send the head of a request; return the number of its stream."""
        number, self.next = self.next, self.next + 2
        flags = END_HEADERS | (END_STREAM if end else 0)
        self.send(frame(HEADERS, flags, number, head(method, path, *fields)))
        return number

    def request(self, method, path, body=b"", seconds=TIMEOUT_SECONDS):
        """Return status and body of a request."""
        number = self.start(method, path, ("content-length", str(len(body))), end=not body)
        if body:
            self.upload(number, body)
        self.take(lambda: self.is_over(number), seconds)
        return self.statuses[number], self.bodies.get(number, b"")

    def upload(self, number, body):
        """Send the body of a request, as far as the server's windows let it, and end it.

        Returns at once if the server has the request ended before.
        """
        while body and not self.is_over(number):
            allowed = min(self._window, self._initial + self._windows.get(number, 0), FRAME_BYTES)
            if allowed <= 0:
                self.take(self._changed(number))
                continue
            part, body = body[:allowed], body[allowed:]
            self.send(frame(DATA, 0 if body else END_STREAM, number, part))
            self._window -= len(part)
            self._windows[number] = self._windows.get(number, 0) - len(part)

    def is_over(self, number):
        """Return whether a request has its whole response, or was reset."""
        return number in self.ended or number in self.reset

    def _changed(self, number):
        def windows():
            return self._window, self._initial, sum(self._windows.values())

        before = windows()
        return lambda: self.is_over(number) or windows() != before

    def take(self, until, seconds=TIMEOUT_SECONDS):
        """Read frames until a condition is met; ``Closed`` if the server closes before."""
        deadline = time.monotonic() + seconds
        while not until():
            left = deadline - time.monotonic()
            assert left > 0, "the server did not send what was expected in time"
            self.stream.settimeout(left)
            try:
                part = self.stream.recv(1 << 18)
            except TimeoutError:
                continue
            except OSError as error:
                raise Closed(str(error)) from error
            finally:
                self.stream.settimeout(TIMEOUT_SECONDS)
            if not part:
                raise Closed(f"after GOAWAY {self.gone}")
            self._received += part
            while len(self._received) >= 9:
                end = 9 + int.from_bytes(self._received[:3], "big")
                if len(self._received) < end:
                    break
                one, self._received = self._received[:end], self._received[end:]
                self._read(one[3], one[4], int.from_bytes(one[5:9], "big"), one[9:])

    def _read(self, kind, flags, stream, payload):
        if kind == HEADERS and stream not in self.statuses:
            assert flags & END_HEADERS
            self.statuses[stream] = status_of(payload)
        elif kind == DATA:
            self.bodies[stream] = self.bodies.get(stream, b"") + payload
            if payload:  # so that the server may send as much again
                size = struct.pack(">I", len(payload))
                self.send(frame(WINDOW_UPDATE, 0, 0, size), frame(WINDOW_UPDATE, 0, stream, size))
        elif kind == RST_STREAM:
            self.reset[stream] = int.from_bytes(payload, "big")
        elif kind == GOAWAY:
            self.gone = int.from_bytes(payload[4:8], "big")
        else:
            self._read_of_connection(kind, flags, stream, payload)
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            self.ended.add(stream)

    def _read_of_connection(self, kind, flags, stream, payload):
        if kind == WINDOW_UPDATE and stream:
            self._windows[stream] = self._windows.get(stream, 0) + int.from_bytes(payload, "big")
        elif kind == WINDOW_UPDATE:
            self._window += int.from_bytes(payload, "big")
        elif kind == PING and not flags & ACK:
            self.send(frame(PING, ACK, 0, payload))
        elif kind == SETTINGS and not flags & ACK:
            for name, value in struct.iter_unpack(">HI", payload):
                if name == INITIAL_WINDOW_SIZE:
                    self._initial = value
            self.send(frame(SETTINGS, ACK))
