"""Watch events that are dropped, doubled or late, a silent watch: a look is never missed."""

import dataclasses
import urllib.error
import urllib.request

import pytest

from dwcp_ml.kube.api import MODEL_ROLLOUT, Unavailable
from dwcp_ml.operator.app import RESYNC_SECONDS, Operator
from dwcp_ml.operator.events import QUIET_SECONDS
from dwcp_ml.operator.settings import OperatorSettings
from dwcp_ml.operator.workqueue import Queue
from dwcp_ml.rollout.status import Phase
from tests.operator.faulty import Play, short
from tests.operator.scenario import KEY

ITEM = (MODEL_ROLLOUT.kind, KEY)


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"k" * 32)
    return path


class Process:
    """The whole operator but for its threads and its watches, second by second."""

    def __init__(self, key_file, deliver=lambda number, change: 1):
        self.scene = Play(short(), first=False)
        self.deliver = deliver
        self.seen = len(self.scene.api.changes)
        self.events = 0
        settings = OperatorSettings(key_files=(key_file,), identity="a")
        self.operator = Operator(settings, self.scene.api, self.scene.time.clock)
        self.operator.rollouts.source = self.scene.fleet
        self.listed_at = None
        self.looked = []

    def second(self):
        now = self.scene.time.now
        self.operator.tick()
        if self.listed_at is None or now - self.listed_at >= RESYNC_SECONDS:
            self.operator.list_all()
            self.listed_at = now
        self._events()
        while (item := self.operator.queue.take(timeout=0)) is not None:
            self.looked.append((now, item))
            after = 60.0
            try:
                after = self.operator.look(item)
            except Exception as error:
                after = self.operator.failed(item, error)
            self.operator.queue.done(item, after)
        self.scene.pass_time(1.0)

    def _events(self):
        for change in self.scene.api.changes[self.seen :]:
            if change.kind is MODEL_ROLLOUT:
                self.events += 1
                name = change.obj["metadata"]["name"]
                for _ in range(self.deliver(self.events, change)):
                    self.operator.queue.add((change.kind.kind, (KEY[0], name)))
        self.seen = len(self.scene.api.changes)

    def until_end(self, seconds=1200):
        for _ in range(seconds):
            self.second()
            if self.scene.phase in ("Promoted", "RolledBack"):
                return self.scene.final
        raise AssertionError(self.scene.status)


@pytest.mark.slow
def test_each_event_dropped_or_doubled_changes_nothing(key_file, record_property):
    plain = Process(key_file)
    expected = plain.until_end()
    assert plain.events >= 4
    record_property("tried", 2 * plain.events)
    for number in range(1, plain.events + 1):
        for times in (0, 3):
            process = Process(
                key_file, lambda event, change, n=number, t=times: t if event == n else 1
            )
            assert process.until_end() == expected, (number, times)


@pytest.mark.slow
def test_a_watch_that_is_silent_from_the_beginning_changes_nothing(key_file):
    """As after 410 Gone, too: whatever was missed, the next look reads what is there."""
    expected = Process(key_file).until_end()
    process = Process(key_file, lambda event, change: 0)
    assert process.until_end() == expected


def test_what_no_watch_tells_of_is_found_within_one_resync(key_file):
    process = Process(key_file, lambda event, change: 0)
    process.second()
    other = short()
    other["metadata"]["name"] = other["spec"]["inferenceService"] = "consensus-latency"
    process.scene.api.create(other)
    for _ in range(int(RESYNC_SECONDS) + 1):
        process.second()
    assert ("ModelRollout", (KEY[0], "consensus-latency")) in [one for _, one in process.looked]


def test_an_edit_that_no_watch_tells_of_is_seen_at_the_next_look(key_file):
    process = Process(key_file, lambda event, change: 0)
    for _ in range(5):
        process.second()
    process.scene.edit(lambda one: one["spec"].update(abort=True))
    for _ in range(25):
        process.second()
    assert process.scene.phase in ("RollingBack", "RolledBack")


def test_there_is_no_hot_loop(key_file):
    """Its own writes come back as events, and are looked at once."""
    process = Process(key_file)
    for _ in range(120):
        process.second()
    looks = [at for at, item in process.looked if item == ITEM]
    assert len(looks) <= 120 / 10 + process.events + 2
    process.until_end()
    ended = len(process.looked)
    for _ in range(600):
        process.second()
    assert len(process.looked) - ended <= 4


def test_who_does_not_lead_looks_at_nothing(key_file):
    process = Process(key_file)
    process.operator.lease.take_part = lambda: False
    for _ in range(30):
        process.second()
    assert "status" not in process.scene.resource
    assert "dwcp_operator_leader 0.0" in process.operator.metrics.page().decode()


def test_an_api_server_that_is_down_is_asked_less_and_less(key_file):
    process = Process(key_file)
    process.second()

    def down(call):
        if call.kind is MODEL_ROLLOUT:
            raise Unavailable("connection refused")

    process.scene.api.before = down
    process.looked.clear()
    for _ in range(300):
        process.second()
    assert len(process.looked) <= 12
    process.scene.api.before = lambda call: None
    assert process.until_end()[0] == "Promoted"


def test_it_says_what_it_does(key_file):
    process = Process(key_file)
    process.until_end()
    page = process.operator.metrics.page().decode()
    assert 'dwcp_operator_rollouts{phase="Promoted"} 1.0' in page
    assert 'dwcp_operator_writes_total{kind="InferenceService"} 5.0' in page
    assert 'dwcp_operator_writes_total{kind="ModelRollout/status"} 5.0' in page
    assert "dwcp_operator_leader 1.0" in page
    assert 'dwcp_operator_reconcile_seconds_count{kind="ModelRollout"}' in page
    for phase in Phase:
        assert f'dwcp_operator_rollouts{{phase="{phase.value}"}}' in page


def test_events_are_told_once(key_file):
    from dwcp_ml.kube.api import EVENT

    process = Process(key_file)
    process.until_end()
    events = process.scene.api.list(EVENT, KEY[0])
    said = [(one["reason"], one["message"]) for one in events]
    assert len(said) == len(set(said))
    assert any("is live" in text for _, text in said)
    assert all(one["involvedObject"]["name"] == KEY[1] for one in events)
    teller = process.operator.rollouts.tell
    happening = dataclasses.replace(_a_happening(), uid=events[0]["involvedObject"]["uid"])
    for seconds, count in ((0, 1), (10, 1), (QUIET_SECONDS, 2)):
        process.scene.time.pass_time(seconds)
        process.operator.tick()
        teller(happening)
        found = [one for one in process.scene.api.list(EVENT) if one["message"] == "once"]
        assert [one["count"] for one in found] == [count]


def _a_happening():
    from dwcp_ml.operator.telling import Happening

    return Happening(KEY, "uid", "ModelRollout", True, "Test", "once")


# the queue by itself


def test_a_rollout_that_is_taken_back_goes_first_until_it_has_ended(key_file):
    process = Process(key_file)
    asked = []
    prefer = process.operator.queue.prefer
    process.operator.queue.prefer = lambda item, first: (asked.append(first), prefer(item, first))
    while not process.scene.status.get("livePercent"):
        process.second()
    assert set(asked) == {False}
    process.scene.edit(lambda one: one["spec"].update(abort=True))
    while process.scene.phase != Phase.ROLLED_BACK:
        process.second()
    assert True in asked
    for _ in range(130):
        process.second()
    assert asked[-1] is False


def test_one_that_can_not_be_taken_back_waits_its_turn(key_file):
    process = Process(key_file)
    asked = []
    process.operator.queue.prefer = lambda item, first: asked.append(first)
    while not process.scene.status.get("livePercent"):
        process.second()
    process.scene.edit(lambda one: one["spec"].update(abort=True))
    while process.scene.phase != Phase.ROLLING_BACK:
        process.second()
    assert asked[-1] is True
    process.scene.edit_status(lambda status: status.update(seal="somebody else's"))
    for _ in range(30):
        process.second()
    assert process.scene.phase == Phase.ROLLING_BACK
    assert asked[-1] is False


def test_the_pages_say_how_it_is(key_file):
    process = Process(key_file)
    operator = process.operator
    operator._settings = operator._settings.replace(port=0)
    with operator.pages() as pages:
        assert _get(pages.port, "/healthz") == (200, "ok\n")
        assert _get(pages.port, "/readyz") == (503, "the API server does not answer.\n")
        process.second()
        assert _get(pages.port, "/readyz") == (503, "the watches have not begun.\n")
        operator.watching.set()
        assert _get(pages.port, "/readyz") == (200, "ok\n")
        assert "dwcp_operator_leader 1.0" in _get(pages.port, "/metrics")[1]
        process.scene.time.pass_time(100)
        assert _get(pages.port, "/healthz")[0] == 503
        assert _get(pages.port, "/other")[0] == 404


def _get(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.slow
def test_what_is_watched_writes_nothing():
    """kopf is used to watch only: no handler that keeps books, no events, no CRDs."""
    from kubernetes import client

    from dwcp_ml.operator.watch import connection_of, registry_of, settings_of

    configuration = client.Configuration(
        host="https://10.0.0.1:6443", api_key={"authorization": "Bearer abc"}
    )
    connection = connection_of(configuration)
    assert (connection.server, connection.scheme, connection.token) == (
        "https://10.0.0.1:6443", "Bearer", "abc",
    )  # fmt: skip
    registry = registry_of(Queue(), configuration)
    assert not registry._spawning._handlers
    assert not registry._changing._handlers
    assert len(registry._watching._handlers) == 2
    settings = settings_of()
    assert not settings.posting.enabled
    assert settings.scanning.disabled
    assert settings.peering.standalone
