"""Dropped, doubled or late watch events, a silent watch: no reconciliation is missed."""

import dataclasses
import http.server
import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

from dwcp_ml.kube.api import MODEL_ROLLOUT, TRAINING_RUN, ApiUnavailable
from dwcp_ml.operator.app import RESYNC_SECONDS, Operator
from dwcp_ml.operator.events import REPEAT_SECONDS
from dwcp_ml.operator.settings import OperatorSettings
from dwcp_ml.operator.workqueue import Queue
from dwcp_ml.rollout.status import Phase
from tests.operator.faulty import FaultyScenario, short
from tests.operator.memory_api import MemoryApi
from tests.operator.scenario import KEY

ITEM = (MODEL_ROLLOUT.kind, KEY)


class Process:
    """The whole operator but for its threads and its watches, second by second."""

    def __init__(self, deliver=lambda number, change: 1):
        self.scenario = FaultyScenario(short(), first=False)
        self.deliver = deliver
        self.seen = len(self.scenario.api.changes)
        self.events = 0
        settings = OperatorSettings(identity="a")
        self.operator = Operator(settings, self.scenario.api, self.scenario.time.clock)
        self.queue = self.operator.queues[MODEL_ROLLOUT.kind]
        self.operator.rollouts.source = self.scenario.fleet
        self.listed_at = None
        self.reconciled = []

    def second(self):
        now = self.scenario.time.now
        self.operator.tick()
        if self.listed_at is None or now - self.listed_at >= RESYNC_SECONDS:
            self.operator.list_all()
            self.listed_at = now
        self._events()
        while (item := self.queue.take(timeout=0)) is not None:
            self.reconciled.append((now, item))
            after = 60.0
            try:
                after = self.operator.reconcile(item)
            except Exception as error:
                after = self.operator.failed(item, error)
            self.queue.done(item, after)
        self.scenario.pass_time(1.0)

    def _events(self):
        for change in self.scenario.api.changes[self.seen :]:
            if change.kind is MODEL_ROLLOUT:
                self.events += 1
                name = change.obj["metadata"]["name"]
                for _ in range(self.deliver(self.events, change)):
                    self.queue.add((change.kind.kind, (KEY[0], name)))
        self.seen = len(self.scenario.api.changes)

    def until_end(self, seconds=1200):
        for _ in range(seconds):
            self.second()
            if self.scenario.phase in ("Promoted", "RolledBack"):
                return self.scenario.final
        raise AssertionError(self.scenario.status)


@pytest.mark.slow
def test_each_event_dropped_or_doubled_changes_nothing(record_property):
    plain = Process()
    expected = plain.until_end()
    assert plain.events >= 4
    record_property("tried", 2 * plain.events)
    for number in range(1, plain.events + 1):
        for times in (0, 3):
            process = Process(lambda event, change, n=number, t=times: t if event == n else 1)
            assert process.until_end() == expected, (number, times)


@pytest.mark.slow
def test_a_watch_that_is_silent_from_the_beginning_changes_nothing():
    """As after 410 Gone, too: whatever was missed, the next reconciliation reads what is there."""
    expected = Process().until_end()
    process = Process(lambda event, change: 0)
    assert process.until_end() == expected


def test_what_no_watch_tells_of_is_found_within_one_resync():
    process = Process(lambda event, change: 0)
    process.second()
    other = short()
    other["metadata"]["name"] = other["spec"]["inferenceService"] = "consensus-latency"
    process.scenario.api.create(other)
    for _ in range(int(RESYNC_SECONDS) + 1):
        process.second()
    assert ("ModelRollout", (KEY[0], "consensus-latency")) in [one for _, one in process.reconciled]


def test_an_edit_that_no_watch_tells_of_is_seen_at_the_next_look():
    process = Process(lambda event, change: 0)
    for _ in range(5):
        process.second()
    process.scenario.edit(lambda one: one["spec"].update(abort=True))
    for _ in range(25):
        process.second()
    assert process.scenario.phase in ("RollingBack", "RolledBack")


def test_there_is_no_hot_loop():
    """Its own writes come back as events, and are reconciled once."""
    process = Process()
    for _ in range(120):
        process.second()
    times = [at for at, item in process.reconciled if item == ITEM]
    assert len(times) <= 120 / 10 + process.events + 2
    process.until_end()
    ended = len(process.reconciled)
    for _ in range(600):
        process.second()
    assert len(process.reconciled) - ended <= 4


def test_who_does_not_lead_looks_at_nothing():
    process = Process()
    process.operator.lease.take_part = lambda: False
    for _ in range(30):
        process.second()
    assert "status" not in process.scenario.resource
    assert "dwcp_operator_leader 0.0" in process.operator.metrics.page().decode()


def test_an_api_server_that_is_down_is_asked_less_and_less():
    process = Process()
    process.second()

    def down(call):
        if call.kind is MODEL_ROLLOUT:
            raise ApiUnavailable("connection refused")

    process.scenario.api.before = down
    process.reconciled.clear()
    for _ in range(300):
        process.second()
    assert len(process.reconciled) <= 12
    process.scenario.api.before = lambda call: None
    assert process.until_end()[0] == "Promoted"


def test_it_says_what_it_does():
    process = Process()
    process.until_end()
    page = process.operator.metrics.page().decode()
    assert 'dwcp_operator_rollouts{phase="Promoted"} 1.0' in page
    assert 'dwcp_operator_writes_total{kind="InferenceService"} 5.0' in page
    assert 'dwcp_operator_writes_total{kind="ModelRollout/status"} 6.0' in page
    assert "dwcp_operator_leader 1.0" in page
    assert 'dwcp_operator_reconcile_seconds_count{kind="ModelRollout"}' in page
    for phase in Phase:
        assert f'dwcp_operator_rollouts{{phase="{phase.value}"}}' in page


def test_events_are_told_once():
    from dwcp_ml.kube.api import EVENT

    process = Process()
    process.until_end()
    events = process.scenario.api.list(EVENT, KEY[0])
    said = [(one["reason"], one["message"]) for one in events]
    assert len(said) == len(set(said))
    assert any("is live" in text for _, text in said)
    assert all(one["involvedObject"]["name"] == KEY[1] for one in events)
    recorder = process.operator.rollouts.recorder
    event = dataclasses.replace(_an_event(), uid=events[0]["involvedObject"]["uid"])
    for seconds, count in ((0, 1), (10, 1), (REPEAT_SECONDS, 2)):
        process.scenario.time.pass_time(seconds)
        process.operator.tick()
        recorder.record(event)
        found = [one for one in process.scenario.api.list(EVENT) if one["message"] == "once"]
        assert [one["count"] for one in found] == [count]


def _an_event():
    from dwcp_ml.operator.events import Event

    return Event(KEY, "uid", "ModelRollout", True, "Test", "once")


# the queue by itself


def test_a_rollout_that_is_rolled_back_goes_first_until_it_has_ended():
    process = Process()
    asked = []
    prefer = process.queue.prefer
    process.queue.prefer = lambda item, first: (asked.append(first), prefer(item, first))
    while not process.scenario.status.get("livePercent"):
        process.second()
    assert set(asked) == {False}
    process.scenario.edit(lambda one: one["spec"].update(abort=True))
    while process.scenario.phase != Phase.ROLLED_BACK:
        process.second()
    assert True in asked
    for _ in range(130):
        process.second()
    assert asked[-1] is False


def test_the_pages_say_how_it_is():
    process = Process()
    operator = process.operator
    operator._settings = operator._settings.replace(port=0)
    with operator.pages() as pages:
        assert _get(pages.port, "/healthz") == (200, "ok\n")
        assert _get(pages.port, "/readyz") == (503, "The API server does not answer.\n")
        process.second()
        assert _get(pages.port, "/readyz") == (503, "The watches have not started.\n")
        operator.watching.set()
        assert _get(pages.port, "/readyz") == (200, "ok\n")
        assert "dwcp_operator_leader 1.0" in _get(pages.port, "/metrics")[1]
        process.scenario.time.pass_time(100)
        assert _get(pages.port, "/healthz")[0] == 503
        assert _get(pages.port, "/other")[0] == 404


def _get(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


class Events(http.server.BaseHTTPRequestHandler):
    """An API server that answers watches from a script: one list of lines for each."""

    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        self.server.requests.append((urllib.parse.urlsplit(self.path).path, query))
        script = self.server.scripts.get("modelrollouts" in self.path, [])
        lines = script.pop(0) if script else []
        self.send_response(200)
        self.end_headers()
        for line in lines:
            self.wfile.write(json.dumps(line).encode() + b"\n")

    def log_message(self, *args):
        pass


def changed(name, version):
    metadata = {"namespace": "ml", "name": name, "resourceVersion": str(version)}
    return {"type": "MODIFIED", "object": {"metadata": metadata}}


EXPIRED = {
    "type": "ERROR",
    "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"},
}


@pytest.mark.slow
def test_a_watch_that_ends_goes_on_and_one_that_has_expired_starts_over():
    from kubernetes import client

    from dwcp_ml.operator.watch import keep_watching

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Events)
    server.requests = []
    server.scripts = {True: [[changed("a", 5)], [EXPIRED], [changed("b", 9)], ["nonsense"]]}
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    configuration = client.Configuration(host=f"http://127.0.0.1:{server.server_address[1]}")
    queue, stop, started = Queue(), threading.Event(), threading.Event()
    thread = threading.Thread(
        target=keep_watching,
        args=(queue, client.ApiClient(configuration), MODEL_ROLLOUT, "", stop, started),
    )
    thread.start()
    try:
        items = {queue.take(timeout=30), queue.take(timeout=30)}
        assert items == {("ModelRollout", ("ml", "a")), ("ModelRollout", ("ml", "b"))}
        while len(server.requests) < 5:
            time.sleep(0.1)
    finally:
        stop.set()
        thread.join(30)
        server.shutdown()
        server.server_close()
    assert started.is_set()
    versions = [query.get("resourceVersion", [""])[0] for _, query in server.requests[:4]]
    assert versions == ["", "5", "", "9"]
    assert all(query["watch"] == ["True"] for _, query in server.requests)
    assert {path for path, _ in server.requests} == {"/apis/ml.dwcp.io/v1alpha1/modelrollouts"}


def test_a_kubeflow_that_hangs_holds_up_no_rollout():
    api, hangs, released, reconciled = MemoryApi(), *(threading.Event() for _ in range(3))
    for kind in (TRAINING_RUN, MODEL_ROLLOUT):
        metadata = {"namespace": KEY[0], "name": "a"}
        api.create({"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata})

    def hang(key):
        hangs.set()
        released.wait(30)

    operator = Operator(OperatorSettings(identity="a", workers=1), api)
    operator._reconcilers = {
        TRAINING_RUN.kind: hang,
        MODEL_ROLLOUT.kind: lambda key: hangs.is_set() and reconciled.set(),
    }
    operator.tick()
    operator.begin()
    try:
        assert hangs.wait(30)
        operator.list_all(at_once=True)
        assert reconciled.wait(10)
    finally:
        released.set()
        operator.end()
