"""A Prometheus, faked where it must misbehave and real where it must be understood."""

import json
import re
import time

import pytest

from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.metrics_sources.prometheus import PrometheusSource, parse, selector
from dwcp_ml.metrics_sources.samples import Expected, SourceError
from tests.errors import about
from tests.metrics_sources.fakes import FakeServer
from tests.metrics_sources.metrics import CONTRACT, MODEL, VERSION, lines
from tests.metrics_sources.real_prometheus import START_SECONDS, Prometheus, job

EXPECTED = Expected(MODEL, VERSION)


def vector(*values):
    result = [{"metric": {"instance": "a"}, "value": [12.5, value]} for value in values]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


def test_a_vector_is_read_with_its_moment():
    moment, samples = parse(200, json.dumps(vector("1", "NaN", "+Inf")).encode())
    assert moment == "12.5"
    assert [str(each.value) for each in samples] == ["1.0", "nan", "inf"]
    assert parse(200, json.dumps(vector()).encode()) == ("0", [])


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (200, b"<html>", (ErrorCode.MALFORMED, "200")),
        (200, b"[]", (ErrorCode.STATUS, "200")),
        (503, b'{"status":"error","error":"query timed out"}', (ErrorCode.STATUS, "503")),
        (200, b'{"status":"error","error":"bad"}', (ErrorCode.STATUS, "200")),
        (500, json.dumps(vector("1")).encode(), (ErrorCode.STATUS, "500")),
        (
            200,
            json.dumps(vector("1") | {"warnings": ["store x is gone"]}).encode(),
            (ErrorCode.INCOMPLETE, ""),
        ),
        (
            200,
            b'{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}',
            (ErrorCode.WRONG_TYPE, ""),
        ),
        (200, b'{"status":"success"}', (ErrorCode.MALFORMED, "")),
        (
            200,
            b'{"status":"success","data":{"resultType":"vector","result":[1]}}',
            (ErrorCode.MALFORMED, ""),
        ),
        (200, json.dumps(vector("x")).encode(), (ErrorCode.MALFORMED, "")),
        (200, json.dumps(vector("1")).replace("12.5", "NaN").encode(), (ErrorCode.AMBIGUOUS, "")),
    ],
)
def test_what_is_no_vector_is_an_error(status, body, fault):
    with pytest.raises(SourceError, check=about(*fault)):
        parse(status, body)


def test_the_reason_of_prometheus_is_repeated():
    with pytest.raises(SourceError, match="503: query timed out"):
        parse(503, b'{"status":"error","error":"query timed out"}')


@pytest.mark.parametrize("value", ['"} or up{job="', "\\", "a\nb", "x\\", "ü", "😀", "`", "\x01"])
def test_a_value_stays_a_value(value):
    quoted = selector({"job": value}).removeprefix("{job=").removesuffix("}")
    assert json.loads(quoted) == value
    assert "\n" not in quoted
    assert re.fullmatch(r'"(?:[^"\\]|\\.)*"', quoted)


@pytest.mark.parametrize(
    ("matchers", "label"),
    [
        ({}, "instance"),
        ({'job="x",up': "1"}, "instance"),
        ({"job": "x"}, "in stance"),
        ({"__name__": "up"}, "instance"),
        ({"job": "\ud83d"}, "instance"),
    ],
)
def test_labels_are_labels(matchers, label):
    with pytest.raises(UsageError):
        PrometheusSource("http://a:1", EXPECTED, matchers, instance_label=label)


@pytest.mark.server
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((500, b""), "Prometheus: it responded with 500 without JSON"),
        ((200, b"x" * 9_000_000), "more than 8000000 bytes"),
        ((0, b""), "not within"),
        ((200, json.dumps(vector()).encode()), 'has no target {job="c"}'),
        ((200, json.dumps(vector("1", "1")).encode()), "returned up of a twice"),
        (
            (200, json.dumps(vector("1")).replace("instance", "pod").encode()),
            "no label instance",
        ),
    ],
)
def test_a_prometheus_that_fails_is_an_error(answer, said):
    with FakeServer(answer) as fake:
        source = PrometheusSource(
            f"http://{fake.address}", EXPECTED, {"job": "c"}, timeout_seconds=1.0
        )
        arm = source.read()
        assert said in arm.error
        assert arm.replicas == ()


# From here on a real one.


def source_of(running, name="c", **options):
    return PrometheusSource(running.address, EXPECTED, {"job": name}, **options)


def until(source, condition):
    deadline = time.monotonic() + START_SECONDS
    while not condition(arm := source.read()):
        assert time.monotonic() < deadline, arm
        time.sleep(0.05)
    return arm


@pytest.fixture(scope="module")
def servers():
    held = [FakeServer((200, lines())), FakeServer((200, lines()))]
    yield held
    for server in held:
        server.stop()


@pytest.fixture(scope="module")
def scraping(prometheus_binary, servers, tmp_path_factory):
    place = tmp_path_factory.mktemp("prometheus")
    with FakeServer((200, lines())) as other:
        jobs = [job("c", servers), job("s", [other])]
        with Prometheus(prometheus_binary, place, jobs) as started:
            yield started


@pytest.fixture
def replicas(servers):
    for server in servers:
        server.answer = (200, lines())
    return servers


@pytest.fixture
def running(scraping, replicas):
    """Return a Prometheus that has scraped both replicas as they are now."""

    def fresh(arm):
        return not arm.error and [each.requests for each in arm.replicas] == [9, 9]

    until(source_of(scraping), fresh)
    return scraping


@pytest.mark.server
def test_a_real_prometheus_counts_like_the_pages(running, replicas):
    arm = source_of(running).read()
    assert arm.error == ""
    assert {each.replica for each in arm.replicas} == {each.address for each in replicas}
    for replica in arm.replicas:
        assert (replica.requests, replica.errors, replica.started_at) == (9, 2, 1e9)
        assert (replica.latency.edges, replica.latency.counts) == ((0.01,), (8, 9))
    assert arm.sketches["feature:rtt_ms"].counts == (18,)
    assert arm.contracts == (CONTRACT,)
    bare = source_of(running, sketches=False).read()
    assert bare.sketches == {}
    assert bare.replicas == arm.replicas


@pytest.mark.server
def test_a_restart_shows_as_another_life(running, replicas):
    source = source_of(running)
    fresh = lines(started="process_start_time_seconds 2e9", bad=None)
    replicas[0].answer = (200, fresh)

    def restarted(arm):
        lives = {each.replica: each for each in arm.replicas}
        return not arm.error and lives[replicas[0].address].started_at == 2e9

    arm = until(source, restarted)
    lives = {each.replica: (each.requests, each.started_at) for each in arm.replicas}
    assert lives == {replicas[0].address: (7, 2e9), replicas[1].address: (9, 1e9)}


@pytest.mark.server
def test_a_killed_replica_is_an_error_until_it_is_back(running, replicas):
    source = source_of(running)
    replicas[0].stop()
    arm = until(source, lambda arm: arm.error)
    assert arm.error == f"{replicas[0].address}: Prometheus can't scrape it."
    assert [each.replica for each in arm.replicas] == [replicas[1].address]
    assert source_of(running, "s").read().error == ""
    replicas[0] = FakeServer((200, lines()), port=replicas[0].port)
    until(source, lambda arm: not arm.error and len(arm.replicas) == 2)


@pytest.mark.server
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"info": None}, "has no dwcp_model_info of"),
        ({"started": None}, "has no process_start_time_seconds"),
        (
            {"ok": f'dwcp_requests_total{{model="{MODEL}",version="{VERSION}",code="200"}} NaN'},
            "is nan, which is not a count",
        ),
        ({"inf": None}, "no bucket +Inf"),
        ({"info": f'dwcp_model_info{{model="{MODEL}",version="w"}} 1'}, f"w, not {VERSION}"),
    ],
)
def test_a_gap_in_one_replica_is_named(running, replicas, changed, said):
    source = source_of(running)
    replicas[1].answer = (200, lines(**changed))
    arm = until(source, lambda arm: arm.error)
    assert said in arm.error
    assert arm.error.startswith(replicas[1].address)


@pytest.mark.server
def test_old_samples_are_an_error(running):
    # The newest sample is never this young.
    arm = until(source_of(running, max_age_seconds=1e-9), lambda arm: arm.error)
    assert "s old, more than" in arm.error


@pytest.mark.server
def test_an_arm_that_nobody_scrapes_is_an_error(running):
    assert 'has no target {job="x\\""}' in source_of(running, 'x"').read().error


@pytest.mark.server
def test_a_stopped_prometheus_is_an_error(running):
    """The last one: there is none after it."""
    running.stop()
    arm = source_of(running).read()
    assert arm.error.startswith("Prometheus: ")
    assert "connection refused" in arm.error
    assert arm.replicas == ()
