"""How much one request may ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What is refused with 413 before it is looked at.

    Parameters
    ----------
    body_bytes
        Size of a body; the default holds ``rows`` windows of the largest model as text.
    rows
        Instances of one request.
    inline_rows
        Up to so many rows are answered on the event loop itself, together with those of other
        connections; more of them go to a thread, so that nobody waits behind them.
    """

    body_bytes: int = 8 << 20
    rows: int = 4096
    inline_rows: int = 64
