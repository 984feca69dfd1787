"""A server of gRPC that stops under load, behind an endpoint that leads to the next one."""

import asyncio
import contextlib
from collections import Counter

import grpc
import pytest

from dwcp_ml.serving import proto
from tests.serving.bundles import rows_for
from tests.serving.running import TIMEOUT_SECONDS, Server

pytestmark = pytest.mark.server

NAME = "reliability_detector"
CHANNELS = 8
CALLERS = 4
"""Of each channel; each sends the next call after the response to its last one."""


class Endpoint:
    """A port that leads new connections to ``port``, as the address of a Kubernetes Service does.

    Connections that exist stay where they are.
    """

    def __init__(self, port):
        self.port = port
        self.connected = Counter()
        self.serving = set()

    async def serve(self, reader, writer):
        self.serving.add(asyncio.current_task())
        self.connected[self.port] += 1
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.port)
        await asyncio.gather(copy(reader, server_writer), copy(server_reader, writer))


async def copy(reader, writer):
    with contextlib.suppress(OSError):
        while part := await reader.read(1 << 16):
            writer.write(part)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def call_until(ended, address, statuses):
    """Call again and again over one channel."""
    request = proto.message("ModelInferRequest")(model_name=NAME)
    request.inputs.add(name="features", datatype="FP32", shape=[1, 6])
    request.raw_input_contents.append(rows_for(NAME, 1).tobytes())
    content = request.SerializeToString()
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        call = channel.unary_unary(f"/{proto.SERVICE}/ModelInfer")

        async def caller():
            while not ended.is_set():
                try:
                    await call(content, timeout=TIMEOUT_SECONDS)
                    statuses[grpc.StatusCode.OK] += 1
                except grpc.RpcError as error:
                    statuses[error.code()] += 1
                await asyncio.sleep(0.005)

        await asyncio.gather(*(caller() for _ in range(CALLERS)))


async def calls_while_it_stops(first, second):
    endpoint = Endpoint(first.grpc_port)
    listening = await asyncio.start_server(endpoint.serve, "127.0.0.1", 0)
    address = f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    ended, statuses = asyncio.Event(), Counter()
    calling = [asyncio.create_task(call_until(ended, address, statuses)) for _ in range(CHANNELS)]
    await asyncio.sleep(1.5)
    first.terminate()
    await asyncio.sleep(0.5)  # until a load balancer knows
    endpoint.port = second.grpc_port
    assert await asyncio.to_thread(first.wait) == 0
    served = statuses.total()
    await asyncio.sleep(0.5)
    ended.set()
    await asyncio.gather(*calling)
    listening.close()
    await asyncio.gather(*endpoint.serving)
    assert endpoint.connected[second.grpc_port] >= CHANNELS
    assert statuses.total() > served, "the second server has the calls now"
    return statuses


def test_no_call_is_lost_when_the_server_stops_under_load(model_dir, tmp_path):
    """Connections have left by their age when the drain ends; see docs/serving.md."""
    first, second = (
        Server(model_dir, tmp_path / name, "--drain-seconds", "4") for name in ("first", "second")
    )
    try:
        statuses = asyncio.run(calls_while_it_stops(first, second))
        assert set(statuses) == {grpc.StatusCode.OK}, statuses
        assert "Traceback" not in first.log()
    finally:
        first.kill()
        second.kill()
