"""Limits of the server: what is rejected before it is computed, and how much it holds at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What is rejected before it is computed, and how much is computed at once.

    Parameters
    ----------
    body_bytes
        Maximum size of a body; the default holds ``rows`` windows of the largest model as text.
    rows
        Maximum instances of one request.
    gzip_ratio
        Maximum size of a decompressed body of over a MiB, as a multiple of its compressed size.
    bytes_in_flight
        Maximum bytes of all bodies of over ``inline_bytes`` that have arrived, in whole or in part,
        and have no response yet; a request above it is rejected with 503.
    inline_bytes
        Requests whose body has at most this many bytes are decoded on the event loop itself; larger
        ones in a thread, so that small requests do not wait for them.
    inline_rows
        Requests of at most this many rows run on the event loop, together with those of other
        connections; larger ones in the thread.
    batch_rows
        Maximum rows of several requests in one run. The runtime never releases the memory of its
        largest run.
    waiting_large
        Maximum requests that wait for the thread; the next one is rejected with 503.
    arrival_seconds
        Maximum time for a body to arrive, and for the first request of a connection.
    connections
        Maximum HTTP connections; more wait.
    streams
        Maximum concurrent requests of one HTTP/2 connection; a client that takes no responses holds
        as many in the server's memory.
    calls
        Maximum concurrent gRPC calls.
    idle_seconds
        An HTTP/1.1 connection that starts no request, or does not complete its head, is closed
        after this time. The default is longer than the idle time of common gateways (Envoy: an
        hour), so that it is the gateway that closes, and no request meets a closing connection.
    max_age_seconds
        An HTTP/1.1 or gRPC connection is closed after this time, between two requests, so that
        clients spread over new pods; a gRPC connection after half of the drain, if that is less.
    """

    body_bytes: int = 8 << 20
    rows: int = 4096
    gzip_ratio: int = 64
    bytes_in_flight: int = 64 << 20
    inline_bytes: int = 16 << 10
    inline_rows: int = 64
    batch_rows: int = 1024
    waiting_large: int = 32
    arrival_seconds: float = 60.0
    connections: int = 4096
    streams: int = 16
    calls: int = 256
    idle_seconds: float = 3900.0
    max_age_seconds: float = 600.0
