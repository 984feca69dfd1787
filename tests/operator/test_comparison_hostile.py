"""Pages and answers that are not of our servers: none ends, or holds up, a reconciliation."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from dwcp_ml.operator import comparison
from dwcp_ml.operator.comparison import PodComparison
from dwcp_ml.rollout.spec import Revision
from tests.operator.test_comparison import NAME, OUTPUT, live_of, spec_of

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


def fake_client(monkeypatch, infer):
    """Put a fake in the place of the candidate's client: ``infer(address, rows, headers)``."""

    class Client:
        def __init__(self, address, _):
            self.address = address

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def infer(self, _, rows, headers):
            return infer(self.address, rows, headers)

    monkeypatch.setattr(comparison, "HttpClient", Client)


def test_a_candidate_that_refuses_some_rows_is_asked_for_each(monkeypatch):
    """A fake of the candidate's server: it refuses negative rows, whatever is beside them."""

    def infer(_, rows, headers):
        assert headers == {"x-dwcp-mirrored": "true"}
        if (rows < 0).any():
            raise comparison.ResponseRefused("no.", 400)
        return {OUTPUT: np.full(len(rows), 3.0)}

    fake_client(monkeypatch, infer)
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

    def infer(*_):
        now[0] += 1.9
        raise comparison.ResponseRefused("no.", 400)

    fake_client(monkeypatch, infer)
    monkeypatch.setattr(comparison.time, "monotonic", lambda: now[0])
    kept = [comparison._Request((float(row),) * 70, {OUTPUT: 1.0}, rare=False) for row in range(64)]
    pairs, fault = comparison._compare(NAME, kept, ["127.0.0.1:1"])
    assert 0 < len(pairs) < 4
    assert now[0] <= comparison.TOTAL_SECONDS + comparison.TIMEOUT_SECONDS
    assert fault == ""


def test_each_pod_of_the_candidate_is_asked_now_and_then(monkeypatch):
    asked = set()

    def infer(address, rows, _):
        asked.add(address)
        return {OUTPUT: np.ones(len(rows))}

    fake_client(monkeypatch, infer)
    spec = spec_of(Revision(version="1", digest="a" * 64), Revision(version="2", digest="c" * 64))
    pods = ("127.0.0.2:1", "127.0.0.3:1")
    with page(json.dumps(GOOD).encode()) as port:
        for _ in range(50):
            PodComparison().read(spec, live_of(["127.0.0.1:1"], pods), (port, 0), "")
    assert asked == set(pods)


def test_what_a_candidate_says_of_a_copy_is_not_repeated(monkeypatch):
    """It knows the inputs of callers, and the status of a rollout is read by many."""

    def infer(*_):
        raise comparison.ResponseRefused("the row [1.5, 2.5] must wait.", 503)

    fake_client(monkeypatch, infer)
    spec = spec_of(Revision(version="1", digest="a" * 64), Revision(version="2", digest="c" * 64))
    with page(json.dumps(GOOD).encode()) as port:
        read = PodComparison().read(spec, live_of(["127.0.0.1:1"], ["127.0.0.1:2"]), (port, 0), "")
    assert (read.pairs, read.error) == ((), "the candidate responded with 503.")


@pytest.mark.parametrize("window", [10, 12])
def test_a_bundle_may_have_a_window_of_its_own(monkeypatch, window):
    shapes = []

    def infer(_, rows, __):
        shapes.append(rows.shape)
        return {OUTPUT: np.ones(len(rows))}

    fake_client(monkeypatch, infer)
    request = {"features": [0.0] * 7 * window, "prediction": 1.0}
    spec = spec_of(Revision(version="1", digest="a" * 64), Revision(version="2", digest="c" * 64))
    with page(json.dumps({**GOOD, "requests": [request]}).encode()) as port:
        read = PodComparison().read(spec, live_of(["127.0.0.1:1"], ["127.0.0.1:2"]), (port, 0), "")
    assert (read.error, shapes) == ("", [(1, window, 7)])
