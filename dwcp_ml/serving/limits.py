"""Limits of one request."""

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
    inline_rows
        Requests of at most this many rows run on the event loop itself, together with those of
        other connections; larger ones run in a thread, so that small requests do not wait for them.
    batch_rows
        Maximum rows of several requests in one run. The runtime never releases the memory of its
        largest run.
    waiting_large
        Maximum requests that wait for the thread; the next one is rejected with 503.
    """

    body_bytes: int = 8 << 20
    rows: int = 4096
    inline_rows: int = 64
    batch_rows: int = 1024
    waiting_large: int = 32
