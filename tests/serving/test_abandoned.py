"""A request whose client leaves before the response counts as failed, once, as code 499."""

import contextlib
import json
import socket
import struct
import threading
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dwcp_ml.local_rollout.envoy import EnvoyProcess
from dwcp_ml.serving.http_exchange import _is_taken
from tests.metrics_sources.fakes import post
from tests.serving.running import TIMEOUT_SECONDS, Server, chunked, plain, receive, split

pytestmark = pytest.mark.server

BROKEN = Path(__file__).parents[1] / "local_rollout/broken_server.py"
SECONDS = 0.6
"""How long the model takes."""

NAME = "consensus_latency"
PATH = f"/v1/models/{NAME}:predict"
SMALL = json.dumps({"instances": [list(range(20))]}).encode()
LARGE = json.dumps({"instances": [list(range(20))] * 100}).encode()
"""It runs in the thread, while the event loop goes on."""


@pytest.fixture(scope="module")
def slow(model_dir, tmp_path_factory):
    """A server whose model takes ``SECONDS``."""
    program = (str(BROKEN), "slow", str(SECONDS))
    place = tmp_path_factory.mktemp("slow")
    running = Server(model_dir, place, program=program)
    try:
        yield running
        assert running.stop() == 0, running.log()
        assert "Traceback" not in running.log()
    finally:
        running.kill()


def counts(server, metric="dwcp_requests_total"):
    """Return code -> requests of all models, those of no requests left out."""
    _, _, text = server.request("GET", "/metrics")
    codes = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            if sample.name == metric and sample.value:
                code = sample.labels["code"]
                codes[code] = codes.get(code, 0) + int(sample.value)
    return codes


def increase(after, before):
    return {code: n - before.get(code, 0) for code, n in after.items() if n > before.get(code, 0)}


@contextlib.contextmanager
def counted(server, expected, metric="dwcp_requests_total"):
    """Check what was counted, and that nothing follows when the model is done."""
    before = counts(server, metric)
    yield
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while increase(counts(server, metric), before) != expected:
        assert time.monotonic() < deadline, increase(counts(server, metric), before)
        time.sleep(0.05)
    time.sleep(1.5 * SECONDS)
    assert increase(counts(server, metric), before) == expected


def connect(server):
    return socket.create_connection(("127.0.0.1", server.http_port), TIMEOUT_SECONDS)


def close(stream, reset):
    if reset:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("form", [plain, chunked])
@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["inline", "thread"])
def test_a_client_that_leaves_during_its_request_is_a_failure(slow, body, form, reset):
    with counted(slow, {"499": 1}):
        stream = connect(slow)
        stream.sendall(form(PATH, body))
        time.sleep(SECONDS / 3)
        close(stream, reset)


def test_a_request_that_waited_unread_for_too_long_is_a_failure(slow):
    """The server was busy with another one, and its client left meanwhile."""
    with counted(slow, {"200": 1, "499": 1}), connect(slow) as first:
        first.sendall(plain(PATH, SMALL))
        time.sleep(SECONDS / 4)
        with connect(slow) as second:
            second.sendall(plain(PATH, SMALL))
        assert split(receive(first, 1))[0][0] == 200


@pytest.fixture(scope="module")
def once_slow(model_dir, tmp_path_factory):
    """A server whose model takes ``SECONDS`` if a row begins with 77."""
    program = (str(BROKEN), "once", str(SECONDS))
    running = Server(model_dir, tmp_path_factory.mktemp("once"), program=program)
    try:
        yield running
        assert running.stop() == 0, running.log()
    finally:
        running.kill()


STALLING = json.dumps({"instances": [[77.0, *range(19)]]}).encode()


@pytest.mark.parametrize("form", [plain, chunked])
def test_a_quick_request_whose_client_left_while_the_server_was_busy_is_a_failure(once_slow, form):
    with counted(once_slow, {"200": 1, "499": 1}), connect(once_slow) as first:
        first.sendall(plain(PATH, STALLING))
        time.sleep(SECONDS / 4)
        with connect(once_slow) as second:
            second.sendall(form(PATH, SMALL))
            time.sleep(SECONDS / 4)
        assert split(receive(first, 1))[0][0] == 200


def test_the_time_that_a_request_waits_for_the_server_is_in_its_latency(once_slow):
    def slower_than(bound):
        _, _, text = once_slow.request("GET", "/metrics")
        samples = [s for family in text_string_to_metric_families(text.decode())
                   for s in family.samples if s.name == "dwcp_request_seconds_bucket"]  # fmt: skip
        up_to = sum(s.value for s in samples if s.labels["le"] == bound)
        return sum(s.value for s in samples if s.labels["le"] == "+Inf") - up_to

    before = slower_than("0.25")
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(connect(once_slow))
        first.sendall(plain(PATH, STALLING))
        time.sleep(SECONDS / 4)
        others = [stack.enter_context(connect(once_slow)) for _ in range(8)]
        for stream in others:
            stream.sendall(plain(PATH, SMALL))
        for stream in (first, *others):
            assert split(receive(stream, 1))[0][0] == 200
    assert slower_than("0.25") == before + 9


@pytest.mark.parametrize("leave", ["deadline", "cancel"])
def test_a_grpc_call_that_was_given_up_before_it_began_is_a_failure(once_slow, pb, leave):
    import grpc
    from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as stubs

    def call(first):
        request = pb.ModelInferRequest(model_name=NAME)
        request.inputs.add(name="features", datatype="FP32", shape=[1, 20])
        request.inputs[0].contents.fp32_contents.extend([first, *range(19)])
        return request

    with (
        counted(once_slow, {"200": 1, "499": 1}),
        grpc.insecure_channel(f"127.0.0.1:{once_slow.grpc_port}") as channel,
    ):
        stub = stubs.GRPCInferenceServiceStub(channel)
        stalling = stub.ModelInfer.future(call(77.0), timeout=TIMEOUT_SECONDS)
        time.sleep(SECONDS / 4)
        quick = stub.ModelInfer.future(
            call(1.0), timeout=SECONDS / 4 if leave == "deadline" else TIMEOUT_SECONDS
        )
        time.sleep(SECONDS / 3)
        quick.cancel()
        stalling.result()


def test_a_client_that_leaves_a_request_that_hangs_counts_at_once(model_dir, tmp_path):
    program = (str(BROKEN), "slow", "8")
    server = Server(model_dir, tmp_path, "--grace-seconds", "1", program=program)
    try:
        with connect(server) as stream:
            stream.sendall(plain(PATH, LARGE))
            time.sleep(0.5)
        deadline = time.monotonic() + 4.0
        while counts(server) != {"499": 1}:
            assert time.monotonic() < deadline, counts(server)
            time.sleep(0.05)
    finally:
        server.kill()


def test_a_client_that_only_ends_its_side_counts_as_gone(slow):
    """From outside it looks like one that left; gateways do not close one direction only."""
    with counted(slow, {"499": 1}), connect(slow) as stream:
        stream.sendall(plain(PATH, SMALL))
        time.sleep(SECONDS / 3)
        stream.shutdown(socket.SHUT_WR)
        assert receive(stream) == b""


@pytest.mark.parametrize("form", [plain, chunked])
def test_a_client_that_leaves_between_requests_is_none(slow, form):
    with counted(slow, {"200": 1}):
        with connect(slow) as stream:
            stream.sendall(form(PATH, SMALL))
            assert split(receive(stream, 1))[0][0] == 200
        for part in (b"", form(PATH, SMALL)[:30], form(PATH, SMALL)[:-12]):
            with connect(slow) as stream:
                stream.sendall(part)
                time.sleep(0.05)


def test_a_copy_of_a_router_that_is_given_up_is_counted_apart(slow):
    mirrored = "dwcp_mirrored_requests_total"
    with counted(slow, {}), counted(slow, {"499": 1}, mirrored), connect(slow) as stream:
        stream.sendall(plain(PATH, SMALL, [("X-DWCP-Mirrored", "true")]))
        time.sleep(SECONDS / 3)


def test_the_seconds_until_it_left_are_in_the_histogram(slow):
    def observed():
        _, _, text = slow.request("GET", "/metrics")
        families = text_string_to_metric_families(text.decode())
        samples = [sample for family in families for sample in family.samples]
        return sum(s.value for s in samples if s.name == "dwcp_request_seconds_count")

    before = observed()
    with counted(slow, {"499": 1}), connect(slow) as stream:
        stream.sendall(plain(PATH, LARGE))
        time.sleep(SECONDS / 3)
    assert observed() == before + 1


def test_a_time_out_of_the_gateway_is_a_failure(slow):
    address = f"127.0.0.1:{slow.http_port}"
    with (
        counted(slow, {"499": 1}),
        EnvoyProcess([address], [address], request_timeout_seconds=SECONDS / 3) as envoy,
    ):
        status, _, _ = post(envoy.address, SMALL, path=PATH)
        assert status == 504


def test_a_client_that_resets_its_request_at_the_gateway_is_a_failure(slow):
    address = f"127.0.0.1:{slow.http_port}"
    with EnvoyProcess([address], [address]) as envoy, counted(slow, {"499": 1}):
        host, port = envoy.address.split(":")
        stream = socket.create_connection((host, int(port)), TIMEOUT_SECONDS)
        stream.sendall(plain(PATH, SMALL))
        time.sleep(SECONDS / 3)
        close(stream, reset=True)


@pytest.mark.parametrize("leave", ["deadline", "cancel", "disconnect"])
@pytest.mark.parametrize("rows", [1, 100], ids=["inline", "thread"])
def test_a_grpc_client_that_leaves_is_a_failure(slow, pb, rows, leave):
    import grpc
    from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as stubs

    request = pb.ModelInferRequest(model_name=NAME)
    request.inputs.add(name="features", datatype="FP32", shape=[rows, 20])
    request.inputs[0].contents.fp32_contents.extend([*range(20)] * rows)
    with counted(slow, {"499": 1}):
        channel = grpc.insecure_channel(f"127.0.0.1:{slow.grpc_port}")
        stub = stubs.GRPCInferenceServiceStub(channel)
        timeout = SECONDS / 3 if leave == "deadline" else TIMEOUT_SECONDS
        call = stub.ModelInfer.future(request, timeout=timeout)
        time.sleep(SECONDS / 3)
        if leave == "cancel":
            call.cancel()
        if leave != "disconnect":
            with pytest.raises((grpc.RpcError, grpc.FutureCancelledError)):
                call.result()
        channel.close()


def test_what_is_answered_during_the_shutdown_is_no_failure(model_dir, tmp_path):
    program = (str(BROKEN), "slow", str(SECONDS))
    server = Server(model_dir, tmp_path, "--drain-seconds", "4", program=program)
    try:
        statuses = []
        thread = threading.Thread(target=lambda: statuses.append(server.post(PATH, LARGE)[0]))
        thread.start()
        time.sleep(SECONDS / 3)
        server.terminate()
        thread.join(TIMEOUT_SECONDS)
        assert statuses == [200]
        assert counts(server) == {"200": 1}
        assert server.wait() == 0
    finally:
        server.kill()


class FakeStream:
    """What Granian gives for a stream whose client has left: it keeps the error that it raises."""

    def __init__(self):
        self.error = RuntimeError("closed")

    def __await__(self):
        return self

    def __next__(self):
        raise self.error


def test_a_request_whose_client_has_left_is_not_kept_by_its_error():
    """The frames of its traceback hold all of the request, and the error is never freed."""
    stream = FakeStream()
    assert not _is_taken(stream)
    assert stream.error.__traceback__ is None
