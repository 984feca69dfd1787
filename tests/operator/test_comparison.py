"""Requests of the stable that the candidate answers, too: on real servers, and on hostile pages."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from onnx import helper

from dwcp_ml.contract.champion import ChampionRecord, difference_record
from dwcp_ml.contract.models import MODELS
from dwcp_ml.kube.kserve import DeployedRevision, ObservedTraffic
from dwcp_ml.metrics_sources.samples import Expected
from dwcp_ml.metrics_sources.scrape import MetricsPages
from dwcp_ml.operator import comparison
from dwcp_ml.operator.comparison import PodComparison
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


def predict(server, rows):
    for row in rows:
        body = json.dumps({"instances": [row.tolist()]})
        status, _, _ = server.request("POST", f"/v1/models/{NAME}:predict", body)
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
    spec = spec_of(its, other, shadow=ShadowStep(minimum_pairs=100))
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


# A page that is not of our server: a fake, because ours sends none of these.


@contextmanager
def page(body, status=200):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


GOOD = {
    "digest": "a" * 64, "output": OUTPUT, "started_at": 1.0, "last": 1,
    "requests": [{"features": [0.0] * 70, "prediction": 1.0}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 200),
        (b"{", 200),
        (b"[" * 100_000, 200),
        (b"null", 200),
        (json.dumps(GOOD).encode(), 500),
        (json.dumps(GOOD).encode(), 302),
        (json.dumps({**GOOD, "output": "another"}).encode(), 200),
        (json.dumps({**GOOD, "digest": "b" * 64}).encode(), 200),
        (json.dumps({**GOOD, "last": -1}).encode(), 200),
        (json.dumps({**GOOD, "started_at": None}).encode(), 200),
        (json.dumps({**GOOD, "requests": GOOD["requests"] * 300}).encode(), 200),
        (json.dumps(GOOD).replace("1.0", "NaN").encode(), 200),
        (json.dumps(GOOD).replace("0.0", "1e999").encode(), 200),
        (json.dumps({**GOOD, "requests": [{"features": [0.0], "prediction": 1.0}]}).encode(), 200),
        (b'{"x": "' + b"a" * 9_000_000 + b'"}', 200),
    ],
    ids=range(15),
)
def test_a_page_that_holds_no_requests_is_an_error_and_no_pairs(body, status):
    spec = spec_of(Revision(version="1", digest="a" * 64), Revision(version="2", digest="c" * 64))
    with page(body, status) as port:
        live = live_of(["127.0.0.1:1"], ["127.0.0.1:2"])
        read = PodComparison().read(spec, live, (port, 0), "")
    assert read.pairs == ()
    assert read.error
    assert len(read.error) < 500


def test_a_pod_that_was_not_ready_for_a_while_is_not_counted_twice():
    known = json.dumps({"127.0.0.1:1": [1.0, 7], "127.0.0.2:1": [1.0, 5]})
    spec = spec_of(Revision(version="1", digest="a" * 64), Revision(version="2", digest="c" * 64))
    with page(json.dumps({**GOOD, "last": 7, "requests": []}).encode()) as port:
        live = live_of(["127.0.0.1:1"], ["127.0.0.1:2"])
        read = PodComparison().read(spec, live, (port, 0), known)
    assert json.loads(read.cursor) == json.loads(known)
    many = json.dumps({f"10.0.{number // 256}.{number % 256}:1": [1.0, 5] for number in range(500)})
    assert len(comparison._known(many, ["10.0.0.0:1"])) == 1 + comparison.MAX_GONE


def test_a_candidate_that_refuses_some_rows_is_asked_for_each(monkeypatch):
    """A fake of the candidate's server: it refuses negative rows, whatever is beside them."""

    class Client:
        def __init__(self, *_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def infer(self, model, rows, headers):
            assert headers == {"x-dwcp-mirrored": "true"}
            if (rows < 0).any():
                raise comparison.ResponseRefused("no.", 400)
            return {OUTPUT: np.full(len(rows), 3.0)}

    monkeypatch.setattr(comparison, "HttpClient", Client)
    requests = [
        {"features": [float(number), *[sign] * 69], "prediction": 3.0}
        for number, sign in enumerate([1.0, -1.0] * 40)
    ]
    spec = spec_of(Revision(version="1", digest="a" * 64), Revision(version="2", digest="c" * 64))
    with page(json.dumps({**GOOD, "requests": requests}).encode()) as port:
        live = live_of(["127.0.0.1:1"], ["127.0.0.1:2"])
        read = PodComparison().read(spec, live, (port, 0), "")
    assert [pair.difference for pair in read.pairs] == [0.0, 1.0] * 40
    assert [pair.signed for pair in read.pairs] == [0.0, None] * 40


def tensor(**changes):
    right = {"name": OUTPUT, "datatype": "FP32", "shape": [1], "data": [1.0]}
    return json.dumps({"outputs": [{**right, **changes}]}).encode()


@pytest.mark.parametrize(
    ("answer", "signed"),
    [
        (tensor(), 0.0),
        (tensor(shape=[1, 1]), None),
        (tensor(shape=[2], data=[1.0, 1.0]), None),
        (tensor(shape=[0], data=[]), None),
        (tensor(shape=[]), None),
        (tensor(shape="a"), None),
        (tensor(shape=[10**30]), None),
        (tensor(data=["x"]), None),
        (tensor(data=[None]), None),
        (tensor(data=[[1.0], [1.0, 2.0]]), None),
        (tensor(datatype="INT64", data=[10**30]), None),
        (tensor(datatype="X"), None),
        (tensor(name=[]), None),
        (b'{"outputs": [{}]}', None),
        (b'{"outputs": {"a": 1}}', None),
        (b'{"outputs": null}', None),
        (b"[" * 100_000, None),
        (b"\xff", None),
    ],
    ids=range(18),
)
def test_an_answer_that_is_no_prediction_differs_from_any(answer, signed):
    """No answer of a candidate may end a reconciliation: its roll-back comes after it."""
    spec = spec_of(Revision(version="1", digest="a" * 64), Revision(version="2", digest="c" * 64))
    with page(json.dumps(GOOD).encode()) as port, page(answer) as candidate:
        live = live_of(["127.0.0.1:1"], [f"127.0.0.1:{candidate}"])
        read = PodComparison().read(spec, live, (port, 0), "")
    assert [pair.signed for pair in read.pairs] == [signed]
    assert read.error == ""


def test_a_candidate_that_refuses_slowly_has_no_more_time_than_one_that_answers(monkeypatch):
    """A fake of the client, and of the clock: each request takes nearly its limit."""
    now = [0.0]

    class Client:
        def __init__(self, *_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def infer(self, *_):
            now[0] += 1.9
            raise comparison.ResponseRefused("no.", 400)

    monkeypatch.setattr(comparison, "HttpClient", Client)
    monkeypatch.setattr(comparison.time, "monotonic", lambda: now[0])
    kept = [comparison._Kept(features=(float(number),) * 70, prediction=1.0) for number in range(64)]
    pairs, fault = comparison._compare(NAME, kept, ["127.0.0.1:1"])
    assert 0 < len(pairs) < 4
    assert now[0] <= comparison.TOTAL_SECONDS + comparison.TIMEOUT_SECONDS
    assert fault == ""
