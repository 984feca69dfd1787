"""Status codes in the server's metrics that HTTP itself does not define."""

from __future__ import annotations

from typing import Final

CLIENT_CLOSED_REQUEST: Final = 499
"""The client left before it had the response: a gateway whose time-out passed, or a reset. No
response has this code; nginx and gRPC's mapping to HTTP use it for the same."""
