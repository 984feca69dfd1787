"""Metrics pages over the wire: everything a server can do wrong is an error with its name."""

import re

import pytest

from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.metrics_sources.samples import Expected, SourceError
from dwcp_ml.metrics_sources.scrape import MetricsPages, is_ready, parse
from tests.errors import about
from tests.metrics_sources.fakes import FakeServer
from tests.metrics_sources.metrics import MODEL, VERSION, lines

EXPECTED = Expected(MODEL, VERSION)


@pytest.mark.parametrize("page", [b"\xff\xfe", b"{", b"dwcp_requests_total x\n"])
def test_garbage_is_no_page(page):
    with pytest.raises(SourceError, check=about(ErrorCode.MALFORMED)):
        list(parse(page))


@pytest.mark.parametrize("servers", [[], ["a:1", "a:1"], ["a:1", "http://a:1/metrics"]])
def test_replicas_are_named_once(servers):
    with pytest.raises(UsageError, check=about(ErrorCode.AMBIGUOUS, "replica")):
        MetricsPages(servers, EXPECTED)


@pytest.mark.parametrize("server", ["ftp://a:1", "http://", "http://a:99999"])
def test_what_is_no_address_is_said(server):
    assert "is not an address" in MetricsPages([server], EXPECTED).read().error


def read(*servers, **options):
    options.setdefault("timeout_seconds", 10.0)
    return MetricsPages([each.address for each in servers], EXPECTED, **options).read()


@pytest.mark.server
def test_two_replicas_are_read():
    with FakeServer((200, lines())) as first, FakeServer((200, lines())) as second:
        arm = read(first, second)
        assert arm.error == ""
        assert [each.replica for each in arm.replicas] == [first.address, second.address]
        assert first.seen[0][0] == "GET /metrics HTTP/1.1"


@pytest.mark.server
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((500, b""), "responded with 500"),
        ((302, b""), "responded with 302"),
        ((200, b""), "has process_start_time_seconds 0 times|has no dwcp_model_info of"),
        ((200, b"<html>"), "holds no metrics"),
        ((200, lines(info=None)), "has no dwcp_model_info of bandwidth_predictor"),
        ((200, b"#" * 300_000), "more than 200000 bytes"),
        ((0, b""), "gave no response: not within"),
        ((0, b"HTTP/1.1 200 X\r\n"), "does not say how long"),
        ((0, b"HTTP/1.1 200 X\r\n\r\n" + lines()), "does not say how long"),
        ((0, b"HTTP/1.1 200 X\r\ncontent-length: 50\r\n\r\nx"), "gave no response"),
        ((0, b"SSH-2.0\r\n"), "gave no response"),
    ],
)
def test_a_bad_answer_is_named(answer, said):
    with FakeServer((200, lines())) as good, FakeServer(answer) as bad:
        # Who is silent is waited for; who answers may take its time on a busy machine.
        seconds = 2.0 if "not within" in said else 20.0
        arm = read(good, bad, max_bytes=200_000, timeout_seconds=seconds)
        assert re.search(said, arm.error), arm.error
        assert arm.error.startswith(bad.address)
        assert [each.replica for each in arm.replicas] == [good.address]


@pytest.mark.server
def test_a_killed_replica_is_an_error_not_zero():
    with FakeServer((200, lines())) as good, FakeServer((200, lines())) as bad:
        assert read(good, bad).error == ""
        bad.stop()
        arm = read(good, bad)
        assert "gave no response: connection refused" in arm.error
        assert len(arm.replicas) == 1


@pytest.mark.server
def test_readiness_is_what_the_server_says():
    with FakeServer((200, b"")) as up, FakeServer((503, b"")) as draining:
        assert is_ready(up.address)
        assert up.seen[0][0] == "GET /v2/health/ready HTTP/1.1"
        assert not is_ready(draining.address)
        up.stop()
        assert not is_ready(up.address)
