"""The least that any server on Granian costs: it reads each request and sends the same bytes.

python -m benchmarks.servers.echo --port-file FILE
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.server import embed

BODY = b'{"predictions":[{"predicted_bandwidth_mbps":1.0,"predicted_latency_ms":2.0}]}'


class Echo:
    """The application."""

    async def __call__(self, scope: Any, protocol: Any) -> None:
        await protocol()
        protocol.response_bytes(200, [("content-type", "application/json")], BODY)


async def serve(port_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = embed.Server(
        Echo(), address="127.0.0.1", port=port, interface=Interfaces.RSGI, http=HTTPModes.auto,
        websockets=False, log_enabled=False,
    )  # fmt: skip
    port_file.write_text(json.dumps({"http": port}))
    serving = asyncio.ensure_future(server.serve())
    asyncio.get_running_loop().add_signal_handler(15, server.stop)
    await serving


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port-file", type=Path, required=True)
    uvloop.run(serve(parser.parse_args().port_file))
