"""Requests of the stable that the candidate answers, too: on real servers."""

import json
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
from onnx import helper
from pydantic import ValidationError

from dwcp_ml.contract.champion import ChampionRecord, difference_record
from dwcp_ml.contract.models import MODELS
from dwcp_ml.kube.kserve import DeployedRevision, ObservedTraffic
from dwcp_ml.metrics_sources.samples import Expected
from dwcp_ml.metrics_sources.scrape import MetricsPages
from dwcp_ml.operator.comparison import MAX_PAGE_BYTES, PodComparison, _page, _record
from dwcp_ml.operator.observation import Place, PodSource, observe
from dwcp_ml.rollout.decide import decide
from dwcp_ml.rollout.reason import Reason
from dwcp_ml.rollout.spec import Revision, RolloutSpec, ShadowStep
from dwcp_ml.rollout.status import Phase, RolloutStatus, Shadow
from dwcp_ml.serving.repository import load_models
from tests.serving.bundles import _constant, graph, make_bundle, rows_for
from tests.serving.running import Server

NAME = "bandwidth_predictor"
OUTPUT = "next_throughput_mbps"


def live_of(stable, candidate, revision=None):
    """Return the traffic at 0 %, with the addresses of both arms' pods."""
    deployed = revision and DeployedRevision("s3://m", revision.version, revision.digest)
    return ObservedTraffic(
        exists=True, percent=0, error="", unsupported="", stable=None, candidate=deployed,
        promoted=False, candidate_ready=True, restarts=0,
        pods={"stable": tuple(stable), "candidate": tuple(candidate)}, resource_version="1",
    )  # fmt: skip


def changed(fault):
    """Return the graph of the bandwidth predictor with a fault of serving built in."""
    model = graph(MODELS[NAME])
    nodes, constants = model.graph.node, model.graph.initializer
    if fault is None:
        return model
    if fault == "stale":  # the window without its newest step, the oldest one twice
        places = np.array([0, *range(9)])
        constants.append(_constant("places", places, np.int64))
        nodes.insert(0, helper.make_node("Gather", ["features", "places"], ["given"], axis=1))
        nodes[1].input[0] = "given"
    elif fault == "swapped":
        constants.append(_constant("places", [1, 0, 2, 3, 4, 5, 6], np.int64))
        nodes.insert(0, helper.make_node("Gather", ["features", "places"], ["given"], axis=2))
        nodes[1].input[0] = "given"
    else:
        nodes[-1].output[0] = "right"
        constants.append(_constant("factor", fault[0]))
        constants.append(_constant("offset", fault[1]))
        nodes.append(helper.make_node("Mul", ["right", "factor"], ["scaled"]))
        nodes.append(helper.make_node("Add", ["scaled", "offset"], [OUTPUT]))
    return model


@contextmanager
def served(tmp_path, name, *words, fault=None, champion=None, host="127.0.0.1"):
    """Serve a bundle; yield the server, its address, and the bundle as a revision."""
    make_bundle(tmp_path / name, NAME, f"v-{name}", changed(fault), champion=champion)
    model = load_models(tmp_path / name)[NAME]
    server = Server(tmp_path / name, tmp_path / f"place-{name}", "--host", host, *words)
    try:
        yield (
            server,
            f"{host}:{server.http_port}",
            Revision(version=model.version, digest=model.digest),
        )
    finally:
        server.kill()


def spec_of(stable, candidate, **changes):
    return RolloutSpec(model=NAME, stable=stable, candidate=candidate, **changes)


def predict(server, rows, name=NAME):
    for row in rows:
        body = json.dumps({"instances": [row.tolist()]})
        status, _, _ = server.request("POST", f"/v1/models/{name}:predict", body)
        assert status == 200
        time.sleep(0.012)  # longer than the gap between two requests that are kept


def port_of(address, revision):
    return MetricsPages([address], Expected(NAME, revision.version, revision.digest)).read()


@pytest.fixture
def two(tmp_path):
    with (
        served(tmp_path, "stable", "--requests_port", "0") as stable,
        served(tmp_path, "candidate", fault=(1.1, 0.0)) as candidate,
    ):
        yield stable, candidate


@pytest.mark.server
def test_the_same_requests_are_answered_by_both(two):
    (stable, at, its), (_, there, other) = two
    rows = rows_for(NAME, 40)
    predict(stable, rows)
    ports = port_of(at, its).requests_port, 0
    read = PodComparison().read(spec_of(its, other), live_of([at], [there]), ports, "")
    assert (read.error, read.record, len(read.pairs)) == ("", None, 40)
    signed = [pair.signed for pair in read.pairs]
    assert [pair.difference for pair in read.pairs] == signed
    assert (max(signed), np.median(signed)) == pytest.approx((0.1, 0.1), rel=1e-3)
    again = PodComparison().read(spec_of(its, other), live_of([at], [there]), ports, read.cursor)
    assert (again.pairs, again.error, again.cursor) == ((), "", read.cursor)
    predict(stable, rows[:3])
    predict(stable, rows[:3])
    more = PodComparison().read(spec_of(its, other), live_of([at], [there]), ports, read.cursor)
    assert len(more.pairs) == 3, "what is sent twice says the same once"
    counted = port_of(there, other)
    assert counted.replicas[0].requests == 0, "copies are no requests of the candidate's own"


@pytest.mark.server
def test_a_pod_that_started_again_is_read_from_its_first_request(two, tmp_path):
    (stable, at, its), (_, there, other) = two
    predict(stable, rows_for(NAME, 3))
    ports = port_of(at, its).requests_port, 0
    before = json.dumps({at: [1.0, 1000]})
    read = PodComparison().read(spec_of(its, other), live_of([at], [there]), ports, before)
    assert len(read.pairs) == 3
    assert json.loads(read.cursor)[at][1] == 3


@pytest.mark.server
@pytest.mark.parametrize("cursor", ["{", "[]", '{"a": 1}', "null", '{"a": [0, -1]}'])
def test_a_cursor_that_can_not_be_read_begins_again(two, cursor):
    (stable, at, its), (_, there, other) = two
    predict(stable, rows_for(NAME, 2))
    ports = port_of(at, its).requests_port, 0
    read = PodComparison().read(spec_of(its, other), live_of([at], [there]), ports, cursor)
    assert len(read.pairs) == 2


@pytest.mark.server
def test_one_pod_of_two_is_enough_and_none_is_said(two):
    (stable, at, its), (_, there, other) = two
    predict(stable, rows_for(NAME, 2))
    ports = port_of(at, its).requests_port, 0
    gone = "127.0.0.9:8080"
    spec = spec_of(its, other)
    one = PodComparison().read(spec, live_of([at, gone], [there]), ports, "")
    assert (len(one.pairs), one.error) == (2, "")
    none = PodComparison().read(spec, live_of([gone], [there]), ports, "")
    assert none.pairs == ()
    assert "127.0.0.9" in none.error
    for pods in ((), (there,)), ((at,), ()):
        assert PodComparison().read(spec, live_of(*pods), ports, "x").error
    closed = PodComparison().read(spec, live_of([at], ["127.0.0.9:8080"]), ports, "")
    assert closed.error.startswith("the candidate: ")


@pytest.mark.server
def test_a_stable_of_another_bundle_is_not_compared(two):
    (stable, at, its), (_, there, other) = two
    predict(stable, rows_for(NAME, 2))
    ports = port_of(at, its).requests_port, 0
    spec = spec_of(its.replace(digest="0" * 64), other)
    read = PodComparison().read(spec, live_of([at], [there]), ports, "")
    assert (read.pairs, bool(read.error)) == ((), True)


# Through the decision: what each candidate does before it has a live request.

FAULTS = {
    "constant": (0.0, 100.0),
    "x 1.3": (1.3, 0.0),
    "zero": (0.0, 0.0),
    "stale": "stale",
    "swapped features": "swapped",
}


def shadow(at, there, its, other, predicts, reconciliations=40):
    """Reconcile as the operator does, at 0 %, until the first live request or the end."""
    spec = spec_of(its, other, shadow=ShadowStep(minimum_pairs=300))
    status, write = RolloutStatus(), None
    for number in range(reconciliations):
        predicts(20)
        live, place = live_of([at], [there], other), Place("models", "bandwidth-predictor")
        seen = observe(spec, live, PodSource(), place, PodComparison(), status.pairs_cursor)
        status, write = decide(spec, status, seen, 1e9 + 10.0 * number)
        if write is not None or status.ended:
            break
    return status, write


@pytest.mark.server
@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_each_fault_of_serving_is_stopped_before_any_live_request(tmp_path, fault):
    with (
        served(tmp_path, "stable", "--requests_port", "0") as (stable, at, its),
        served(tmp_path, "candidate", fault=FAULTS.get(fault)) as (_, there, other),
    ):
        rows = iter(rows_for(NAME, 1000))
        status, write = shadow(
            at, there, its, other, lambda count: predict(stable, [next(rows) for _ in range(count)])
        )
    assert status.exposed_requests == 0
    if fault is None:
        assert (status.shadow, write.percent) == (Shadow.PASSED, 1)
        return
    assert (status.phase, write) == (Phase.ROLLED_BACK, None)
    assert (status.cause.reason, status.cause.test) == (Reason.TEST_FAILED, "divergence")


def record_of(revision, factor):
    """Return what the gate measured: the candidate predicts this many times the stable."""
    rng = np.random.default_rng(5)
    champion = np.exp(rng.normal(3.0, 1.0, 2000))
    challenger = champion * rng.normal(factor, 0.02, 2000)
    return ChampionRecord(
        version=revision.version, digest=revision.digest, metrics={"mape": 4.0},
        difference=difference_record(OUTPUT, champion, challenger),
    )  # fmt: skip


@pytest.mark.server
@pytest.mark.parametrize(
    ("served_factor", "measured", "end"),
    [
        (1.05, 1.0, Phase.ROLLED_BACK),  # it is served otherwise than the gate has seen it
        (1.05, 1.05, Phase.PROGRESSING),
        (1.3, 1.3, Phase.PROGRESSING),  # beyond the tolerance, and meant
    ],
)
def test_what_the_gate_measured_is_meant_and_nothing_else(tmp_path, served_factor, measured, end):
    with served(tmp_path, "stable", "--requests_port", "0") as (stable, at, its):
        options = {"fault": (served_factor, 0.0), "champion": record_of(its, measured)}
        port = str(port_of(at, its).requests_port)
        with served(
            tmp_path, "candidate", "--requests_port", port, host="127.0.0.2", **options
        ) as (_, there, other):
            rows = iter(rows_for(NAME, 1000))
            status, write = shadow(
                at, there, its, other, lambda n: predict(stable, [next(rows) for _ in range(n)])
            )
    assert (status.phase, status.exposed_requests) == (end, 0)
    assert (write is None) == (end is Phase.ROLLED_BACK)


# What a server sends that is newer, or does what it should not.


class Pages(BaseHTTPRequestHandler):
    """A fake server of the stable, or of the candidate: what it sends is what a test sets."""

    body = b""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        with suppress(OSError):  # the reader has seen enough
            self.wfile.write(self.body)

    def log_message(self, *words):
        pass


@contextmanager
def sending(body):
    handler = type("Handler", (Pages,), {"body": body})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


STABLE, OTHER = (Revision(version=each, digest=each * 64) for each in "ab")


def page(requests, **more):
    fields = {"digest": STABLE.digest, "output": OUTPUT, "started_at": 1.0, "last": 9}
    return json.dumps({**fields, "requests": requests, **more}).encode()


def read_page(body):
    with sending(body) as port:
        return _page(f"127.0.0.1:{port}", port, spec_of(STABLE, OTHER), None, 256)


def test_fields_of_a_newer_server_are_ignored_in_a_page():
    request = {"features": [1.0] * 70, "prediction": 2.0, "new": {"a": [1]}}
    found = read_page(page([request], newer=[1, 2]))
    assert [each.stable for each in found.kept()] == [{OUTPUT: 2.0}]


def test_fields_of_a_newer_server_are_ignored_in_a_record_and_only_there():
    record = record_of(STABLE, 1.05)
    newer = record.model_dump(mode="json") | {"new": 1}
    newer["difference"] |= {"newer": {"x": [1]}}
    with sending(json.dumps({"champion": newer, "newest": 0}).encode()) as port:
        found = _record(f"127.0.0.1:{port}", port, spec_of(STABLE, OTHER))
    assert found == record.difference
    with pytest.raises(ValidationError):
        ChampionRecord.model_validate(newer)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (page([{"features": [1] * 1_300_000, "prediction": 1}]), "more than 120000 values"),
        (b"[" + b"1," * 1_999_000 + b"1]", "more than 120000 values"),
        (b" " * (MAX_PAGE_BYTES + 1), f"more than {MAX_PAGE_BYTES} bytes"),
        (b"[" * 1_000_000, "holds no requests"),
        (page([], too_large=True), "a request has more than 120000 values"),
        (page([{"features": [1.0] * 70, "prediction": 1}] * 257), "requests is wrong"),
        (b'{"digest": 1e999}', "digest is wrong"),
    ],
    ids=["values", "a list", "bytes", "depth", "too large", "requests", "a number"],
)
def test_a_page_that_is_too_large_is_not_read(body, words):
    assert words in read_page(body)


# Detectors, whose flags are rare.

DETECTOR = "reliability_detector"


def detector(fault):
    """Return the graph of the detector with a constant flag, or a constant score behind it."""
    model = graph(MODELS[DETECTOR])
    nodes, constants = model.graph.node, model.graph.initializer
    if fault is None:
        return model
    constants.append(_constant("none", 0.0))
    if fault == "score":
        for node in nodes:  # the flag is made from the score that is right
            renamed = [name.replace("anomaly_score", "right") for name in (*node.input, "|")]
            outputs = [name.replace("anomaly_score", "right") for name in node.output]
            node.input[:], node.output[:] = renamed[:-1], outputs
        nodes.append(helper.make_node("Mul", ["right", "none"], ["anomaly_score"]))
        return model
    nodes[-1].input[0] = "same"
    constants.append(_constant("offset", 1.0 if fault == "always" else 0.0))
    nodes.insert(len(nodes) - 1, helper.make_node("Mul", ["anomaly_score", "none"], ["zero"]))
    nodes.insert(len(nodes) - 1, helper.make_node("Add", ["zero", "offset"], ["same"]))
    return model


def rare_rows(model, count, flagged):
    """Return rows of which the model flags the first ``flagged``, and none of the others."""
    rows = rows_for(DETECTOR, 20 * count)
    flags = model.run(rows)["is_anomaly"]
    return np.concatenate([rows[flags][:flagged], rows[~flags][: count - flagged]])


@pytest.mark.server
@pytest.mark.parametrize("fault", [None, "never", "always", "score"])
def test_a_detector_whose_flag_or_score_is_constant_is_stopped_before_any_live_request(
    tmp_path, fault
):
    """Of 700 requests the first 160 were an incident; the newest 500 hold no flag."""
    make_bundle(tmp_path / "stable", DETECTOR, "v-stable")
    stable_model = load_models(tmp_path / "stable")[DETECTOR]
    rng = np.random.default_rng(3)
    flags = rng.random(5000) < 0.03
    same = rng.random(5000)
    record = ChampionRecord(
        version="v-stable", digest=stable_model.digest, metrics={"pr_auc": 0.9},
        difference=difference_record("is_anomaly", flags, flags, scores=(same, same)),
    )  # fmt: skip
    make_bundle(tmp_path / "candidate", DETECTOR, "v-candidate", detector(fault), champion=record)
    model = load_models(tmp_path / "candidate")[DETECTOR]
    its, other = (
        Revision(version=each.version, digest=each.digest) for each in (stable_model, model)
    )
    stable = Server(tmp_path / "stable", tmp_path / "one", "--requests_port", "0")
    candidate = Server(
        tmp_path / "candidate", tmp_path / "two", "--host", "127.0.0.2",
        "--requests_port", str(stable.requests_port),
    )  # fmt: skip
    try:
        rows = iter(rare_rows(stable_model, 700, 160))
        at, there = (
            f"127.0.0.{number}:{each.http_port}" for number, each in ((1, stable), (2, candidate))
        )
        predict(stable, [next(rows) for _ in range(160)], DETECTOR)
        spec = RolloutSpec(
            model=DETECTOR, stable=its, candidate=other, shadow=ShadowStep(minimum_pairs=300)
        )
        status, write = RolloutStatus(), None
        for number in range(27):
            predict(stable, [next(rows) for _ in range(20)], DETECTOR)
            live, place = live_of([at], [there], other), Place("models", "reliability-detector")
            seen = observe(spec, live, PodSource(), place, PodComparison(), status.pairs_cursor)
            status, write = decide(spec, status, seen, 1e9 + 10.0 * number)
            if write is not None or status.ended:
                break
    finally:
        stable.kill()
        candidate.kill()
    assert status.exposed_requests == 0
    if fault is None:
        assert (status.shadow, write.percent) == (Shadow.PASSED, 1)
        return
    assert (status.phase, write) == (Phase.ROLLED_BACK, None)
    assert (status.cause.reason, status.cause.test) == (Reason.TEST_FAILED, "divergence")
