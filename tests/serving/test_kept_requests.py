"""The newest requests, which a server keeps for a rollout to compare a candidate with."""

import json
import socket
import time

import numpy as np
import orjson
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from dwcp_ml.operator.comparison import MAX_PAGE_BYTES
from dwcp_ml.serving import kept_requests
from dwcp_ml.serving.headers import MIRRORED
from dwcp_ml.serving.kept_requests import (
    MAX_AGE_OF_ANSWER_SECONDS,
    MAX_AGE_SECONDS,
    MAX_KEPT,
    MAX_OF_ANSWER,
    KeptRequests,
)
from dwcp_ml.serving.rejections import ModelNotFound
from tests.serving.bundles import MODELS, VERSION, rows_for
from tests.serving.conftest import _served
from tests.serving.running import Server

BANDWIDTH = "bandwidth_predictor"


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves by hand; each request comes a second after the last one."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

        def time(self):
            return 1_700_000_000.0

    made = Clock()
    monkeypatch.setattr(kept_requests, "time", made)
    return made


@pytest.fixture
def kept(models, clock):
    return KeptRequests(models.values(), CollectorRegistry(), 8081)


def add(kept, clock, models, count, name=BANDWIDTH, gap=1.0):
    rows = rows_for(name, count)
    predictions = models[name].run(rows)
    for row in range(count):
        clock.now += gap
        kept.add(models[name], rows, predictions, [row])
    return rows, predictions


def test_the_newest_are_handed_out_oldest_first(kept, clock, models):
    rows, predictions = add(kept, clock, models, 5)
    found = kept.since(BANDWIDTH, 2, 2)
    assert (found["last"], found["version"], found["output"]) == (
        5, VERSION, "next_throughput_mbps",
    )  # fmt: skip
    assert found["digest"] == models[BANDWIDTH].digest
    for each, row in zip(found["requests"], (3, 4), strict=True):
        np.testing.assert_array_equal(each["features"], rows[row].reshape(-1))
        assert each["prediction"] == float(predictions["next_throughput_mbps"][row])


def test_what_is_known_is_not_handed_out_again(kept, clock, models):
    add(kept, clock, models, 5)
    assert len(kept.since(BANDWIDTH, 4, 100)["requests"]) == 1
    assert kept.since(BANDWIDTH, 5, 100)["requests"] == []
    assert kept.since(BANDWIDTH, 500, 100)["requests"] == []  # the server was started again


def test_number_and_age_are_bounded(kept, clock, models):
    add(kept, clock, models, MAX_KEPT + 10, gap=0.011)
    found = kept.since(BANDWIDTH, 0, MAX_KEPT * 2)
    assert (len(found["requests"]), found["last"]) == (MAX_KEPT, MAX_KEPT + 10)
    clock.now += MAX_AGE_SECONDS + 1
    assert kept.since(BANDWIDTH, 0, 10)["requests"] == []


def test_of_a_burst_a_sample_is_kept(kept, clock, models):
    add(kept, clock, models, 100, gap=0.001)
    assert 9 <= kept.since(BANDWIDTH, 0, 100)["last"] <= 10


def test_a_busy_model_does_not_keep_another_from_being_kept(kept, clock, models):
    other = next(name for name in MODELS if name != BANDWIDTH)
    for _ in range(20):
        add(kept, clock, models, 1, gap=0.05)
        add(kept, clock, models, 1, other, gap=0.001)
    assert kept.since(other, 0, 100)["last"] == 20


def test_a_model_that_is_not_served_has_none(kept):
    with pytest.raises(ModelNotFound):
        kept.since("another", 0, 1)


def test_the_metric_says_on_which_port_they_are(models, clock):
    registry = CollectorRegistry()
    kept = KeptRequests(models.values(), registry, 8081)
    add(kept, clock, models, 3)
    labels = f'model="{BANDWIDTH}",port="8081",version="{VERSION}"'
    assert f"dwcp_kept_requests{{{labels}}} 3.0" in generate_latest(registry).decode()


RELIABILITY = "reliability_detector"


def add_flags(kept, clock, models, flags, gap=1.0):
    """Add requests that the model answers with these flags, each with a score of its own."""
    rows = rows_for(RELIABILITY, len(flags))
    predictions = {
        "is_anomaly": np.array(flags, bool),
        "anomaly_score": np.arange(len(flags), dtype=np.float32) / 1000,
    }
    for row in range(len(flags)):
        clock.now += gap
        kept.add(models[RELIABILITY], rows, predictions, [row])


def flags_of(found, rare):
    return [each["prediction"] for each in found["requests"] if each["rare"] is rare]


def test_flagged_requests_are_kept_when_the_others_are_long_gone(kept, clock, models):
    add_flags(kept, clock, models, [1] * 5 + [0] * (MAX_KEPT + 10))
    found = kept.since(RELIABILITY, 0, 100)
    assert flags_of(found, rare=True) == [1.0] * 5
    assert set(flags_of(found, rare=False)) == {0.0}
    assert [each["score"] for each in found["requests"][-5:]] == pytest.approx(np.arange(5) / 1000)
    clock.now += MAX_AGE_OF_ANSWER_SECONDS
    assert kept.since(RELIABILITY, 0, 100)["requests"] == []


def test_no_request_is_handed_out_twice_and_no_more_than_the_limit(kept, clock, models):
    add_flags(kept, clock, models, [0, 0, 1] * 200, gap=0.4)
    for limit in (1, 2, 10, 256, 512):
        requests = kept.since(RELIABILITY, 0, limit)["requests"]
        assert len(requests) == limit
        assert len({tuple(each["features"]) for each in requests}) == limit
        rare = sum(each["rare"] for each in requests)
        assert rare <= min(0.75 * limit, MAX_OF_ANSWER)
    found = kept.since(RELIABILITY, 590, 512)
    assert len(found["requests"]) == 10
    assert kept.since(RELIABILITY, found["last"], 512)["requests"] == []


def test_a_flag_within_a_burst_is_kept(kept, clock, models):
    add_flags(kept, clock, models, [0] * 10 + [1] * 10, gap=0.0005)
    found = kept.since(RELIABILITY, 0, 100)
    assert flags_of(found, rare=True) == [1.0]


def test_of_a_batch_each_answer_is_kept(kept, clock, models):
    rows = rows_for(RELIABILITY, 4)
    predictions = {"is_anomaly": np.array([0, 0, 1, 1], bool), "anomaly_score": np.zeros(4)}
    clock.now += 1.0
    kept.add(models[RELIABILITY], rows, predictions, [0, 1, 2, 3])
    requests = kept.since(RELIABILITY, 0, 100)["requests"]
    assert [(each["prediction"], each["rare"]) for each in requests] == [(0.0, False), (1.0, True)]
    np.testing.assert_array_equal(requests[1]["features"], rows[2])


def test_a_number_has_no_rare_answers(kept, clock, models):
    add(kept, clock, models, 20)
    requests = kept.since(BANDWIDTH, 0, 100)["requests"]
    assert not any(each["rare"] or "score" in each for each in requests)


@pytest.mark.parametrize(("steps", "handed_out"), [(10, 300), (500, 34), (17_142, 1), (17_143, 0)])
def test_a_page_is_bounded_however_long_a_window_is(kept, clock, models, steps, handed_out):
    long = models[BANDWIDTH]
    shape, long.shape = long.shape, (steps, 7)
    try:
        rows = np.full((1, steps, 7), -1.2345678e-10, np.float32)
        for _ in range(max(handed_out, 1)):
            clock.now += 0.5
            kept.add(long, rows, {"next_throughput_mbps": np.ones(1)}, [0])
        found = kept.since(BANDWIDTH, 0, 300)
    finally:
        long.shape = shape
    assert (len(found["requests"]), found["too_large"]) == (handed_out, not handed_out)
    assert len(orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY)) < MAX_PAGE_BYTES / 2 + 1000


@pytest.fixture(scope="module")
def server(model_dir, tmp_path_factory):
    place = tmp_path_factory.mktemp("kept")
    yield from _served(model_dir, place, "--requests_port", "0")


def predict(server, name, rows, **headers):
    body = json.dumps({"instances": rows.tolist()})
    status, _, answer = server.request("POST", f"/v1/models/{name}:predict", body, headers)
    assert status == 200, answer
    time.sleep(0.02)  # longer than the gap between two requests that are kept
    return json.loads(answer)["predictions"]


def kept_of(server, name, after=0):
    path = f"/v1/requests?model={name}&after={after}"
    status, _, body = server.request("GET", path, port=server.requests_port)
    assert status == 200, body
    return json.loads(body)


@pytest.mark.server
@pytest.mark.parametrize("name", MODELS)
def test_a_real_server_keeps_the_first_instance_of_each_request(server, name):
    before = kept_of(server, name)["last"]
    rows = rows_for(name, 3, seed=7)
    answers = [predict(server, name, rows)[0], predict(server, name, rows[1:2])[0]]
    found = kept_of(server, name, before)
    assert len(found["requests"]) == 2
    for each, row, answer in zip(found["requests"], rows, answers, strict=False):
        np.testing.assert_array_equal(np.float32(each["features"]), row.reshape(-1))
        assert each["prediction"] == pytest.approx(float(answer[found["output"]]), rel=1e-6)


@pytest.mark.server
def test_mirrored_copies_are_neither_kept_nor_counted_as_predictions(server):
    def of_own_traffic():
        _, _, page = server.request("GET", "/metrics")
        start = f'dwcp_request_prediction_count{{model="{BANDWIDTH}"'
        lines = (line for line in page.decode().splitlines() if line.startswith(start))
        return next((float(line.split()[-1]) for line in lines), 0.0)

    before, counted = kept_of(server, BANDWIDTH)["last"], of_own_traffic()
    predict(server, BANDWIDTH, rows_for(BANDWIDTH, 2), **{MIRRORED: "true"})
    assert (kept_of(server, BANDWIDTH)["last"], of_own_traffic()) == (before, counted)
    predict(server, BANDWIDTH, rows_for(BANDWIDTH, 2))
    assert (kept_of(server, BANDWIDTH)["last"], of_own_traffic()) == (before + 1, counted + 1)


@pytest.mark.server
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", f"/v1/requests?model={BANDWIDTH}", 405),
        ("GET", "/v1/requests?model=another", 404),
        ("GET", "/v1/requests", 404),
        ("GET", f"/v1/requests?model={BANDWIDTH}&after=-1", 400),
        ("GET", f"/v1/requests?model={BANDWIDTH}&after=²", 400),
        ("GET", f"/v1/requests?model={BANDWIDTH}&limit=1e9", 400),
        ("GET", "/metrics", 404),
        ("GET", f"/v1/requests?{'a=1&' * 300}", 400),
    ],
)
def test_other_requests_are_refused(server, method, path, status):
    from urllib.parse import quote

    found, _, body = server.request(method, quote(path, safe="/?=&"), port=server.requests_port)
    assert (found, "error" in json.loads(body)) == (status, True)


@pytest.mark.server
def test_they_are_not_on_the_port_of_inference(server):
    assert server.request("GET", f"/v1/requests?model={BANDWIDTH}")[0] == 404


@pytest.mark.server
@pytest.mark.parametrize("words", [(), ("--requests_port", "0", "--no-request-ring")])
def test_none_are_kept_unless_asked_for(model_dir, tmp_path, words):
    for server in _served(model_dir, tmp_path, *words):
        assert server.requests_port is None
        assert b"dwcp_kept_requests" not in server.request("GET", "/metrics")[2]


@pytest.mark.server
def test_who_reads_them_slowly_does_not_hold_up_the_end(model_dir, tmp_path):
    server = Server(model_dir, tmp_path, "--requests_port", "0", "--grace-seconds", "600")
    try:
        with socket.create_connection(("127.0.0.1", server.requests_port)) as reader:
            reader.sendall(b"GET /v1/requests?model=")
            server.request("GET", "/metrics", port=server.requests_port)  # the part has arrived
            assert server.stop() == 0
    finally:
        server.kill()
