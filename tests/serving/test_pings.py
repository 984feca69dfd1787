"""The gRPC server keeps the connection of a client that pings it without a call."""

import socket
import time

import pytest

from dwcp_ml.serving.grpc_server import MIN_PING_INTERVAL_MS

pytestmark = pytest.mark.server

SETTINGS, PING, GOAWAY, ACK = 4, 6, 7, 1


def frame(kind, flags=0, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + bytes(4) + payload


def frames(stream):
    while True:
        head = stream.read(9)
        if len(head) < 9:
            return
        yield head[3], head[4], stream.read(int.from_bytes(head[:3], "big"))


def test_pings_of_a_client_without_a_call_are_answered(server):
    with socket.create_connection(("127.0.0.1", server.grpc_port), 10) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS))
        received = frames(connection.makefile("rb"))
        for number in range(5):  # gRPC's defaults allow two
            payload = number.to_bytes(8, "big")
            connection.sendall(frame(PING, payload=payload))
            for kind, flags, content in received:
                assert kind != GOAWAY, content
                if (kind, flags, content) == (PING, ACK, payload):
                    break
            else:
                pytest.fail(f"the connection was closed at ping {number}")
            time.sleep(1.2 * MIN_PING_INTERVAL_MS / 1000)
