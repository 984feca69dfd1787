"""How much one request may ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What is refused before it is computed, and how much is computed at once.

    Parameters
    ----------
    body_bytes
        Size of a body; the default holds ``rows`` windows of the largest model as text.
    rows
        Instances of one request.
    inline_rows
        Up to so many rows are answered on the event loop itself, together with those of other
        connections; more of them go to a thread, so that nobody waits behind them.
    batch_rows
        So many rows of several requests are answered by one run at most; what the runtime once
        took for a larger one it would keep.
    waiting_large
        So many requests may wait for that thread; the next one is refused with 503.
    """

    body_bytes: int = 8 << 20
    rows: int = 4096
    inline_rows: int = 64
    batch_rows: int = 1024
    waiting_large: int = 32
