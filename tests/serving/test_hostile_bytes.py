"""Random and mutated bytes over raw sockets: never a 5xx, a traceback, or memory that stays."""

import random

import grpc
import pytest

from tests.serving.random_requests import (
    GOOD,
    NAME,
    PATH,
    good_message,
    mutated,
    mutated_message,
    random_bytes,
    random_message,
    send,
    with_random_body,
)
from tests.serving.running import TIMEOUT_SECONDS, plain

pytestmark = pytest.mark.server

SEEDS = range(6)
TRIES = 60


def check(server, contents, seed):
    rng = random.Random(seed)
    before = server.memory()
    statuses = set()
    for content in contents:
        for status, headers, _ in send(server, content, rng):
            assert status < 500, content
            assert "content-type" not in headers or headers["x-request-id"]
            statuses.add(status)
    ((status, _, _),) = server.responses(plain(PATH, GOOD))
    assert status == 200
    assert server.memory() - before < 30e6
    assert "Traceback" not in server.log()
    return statuses


@pytest.mark.parametrize("seed", SEEDS)
def test_mutated_requests(server, seed):
    rng = random.Random(seed)
    statuses = check(server, [mutated(rng) for _ in range(TRIES)], seed)
    assert {200, 400} <= statuses, "the mutations reach both sides"


@pytest.mark.parametrize("seed", SEEDS)
def test_random_bytes(server, seed):
    rng = random.Random(seed)
    contents = [random_bytes(rng) for _ in range(TRIES)]
    assert check(server, contents, seed) <= {400}


@pytest.mark.parametrize("seed", SEEDS)
def test_random_bodies(server, seed):
    rng = random.Random(seed)
    contents = [with_random_body(rng) for _ in range(TRIES)]
    assert check(server, contents, seed) <= {200, 400, 413}


def test_random_messages_over_grpc(server, pb):
    """Bytes that are no message, and messages with random fields."""
    rng = random.Random(0)
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        whole = good_message(pb)
        codes = set()
        for number in range(200):
            content = mutated_message(whole, rng) if number % 2 else random_message(pb, rng)
            try:
                call(content, timeout=TIMEOUT_SECONDS)
                codes.add(grpc.StatusCode.OK)
            except grpc.RpcError as error:
                codes.add(error.code())
        assert (
            pb.ModelInferResponse.FromString(call(whole, timeout=TIMEOUT_SECONDS)).model_name
            == NAME
        )
    assert {code.name for code in codes} == {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}
    assert "Traceback" not in server.log()
