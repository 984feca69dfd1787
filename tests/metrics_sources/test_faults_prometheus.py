"""A real Prometheus that sees badly: what comes out of it holds the rollout."""

import time

import pytest

from dwcp_ml.metrics_sources.prometheus import PrometheusSource
from dwcp_ml.metrics_sources.samples import Expected
from dwcp_ml.rollout.observation import Observation
from dwcp_ml.rollout.reason import Reason
from dwcp_ml.rollout.status import Phase
from tests.metrics_sources.fakes import FakeServer
from tests.metrics_sources.metrics import MODEL
from tests.metrics_sources.real_prometheus import START_SECONDS, Prometheus, job
from tests.metrics_sources.test_faults_scrape import page_of
from tests.rollout.histories import CANDIDATE, STABLE, Controller, Servers, quick_spec, steps_of

pytestmark = pytest.mark.server

MAX_AGE_SECONDS = 2.0
"""Ten scrapes."""


class Scraped(Servers):
    """Two replicas of each arm, seen through Prometheus once it has scraped what they say."""

    def __init__(self, spec, fakes, prometheus):
        super().__init__(spec)
        self.fakes = fakes
        self.prometheus = prometheus
        self.changed = {}
        """(arm, replica) -> what is changed in its page."""
        self.expect_error = False
        self.stamped = False
        self.frozen = None
        """Since when the candidate's pages are old ones, if they are."""

    def observe(self):
        counted = super().observe()
        for (arm, name), fake in self.fakes.items():
            sample = getattr(counted, arm).replicas["ab".index(name)]
            revision = STABLE if arm == "stable" else CANDIDATE
            page = page_of(sample, revision)
            for change in self.changed.get((arm, name), ()):
                page = change(page)
            fake.answer = self._dated(arm, page) if self.stamped else (200, page)
        arms = {
            arm: self._read(arm, revision, getattr(counted, arm))
            for arm, revision in (("stable", STABLE), ("candidate", CANDIDATE))
        }
        return Observation(live_percent=self.live_percent, promoted=self.promoted, **arms)

    def _dated(self, arm, page):
        frozen = self.frozen if arm == "candidate" else None
        return lambda *request: (200, written_at(page, frozen or time.time()))

    def _read(self, arm, revision, counted):
        source = PrometheusSource(
            self.prometheus.address, Expected(MODEL, revision.version, revision.digest),
            {"job": arm}, max_age_seconds=MAX_AGE_SECONDS,
        )  # fmt: skip
        wanted = sorted(each.requests for each in counted.replicas)
        deadline = time.monotonic() + START_SECONDS
        while True:
            read = source.read()
            if self.expect_error and arm == "candidate":
                done = bool(read.error)
            else:
                done = not read.error and sorted(r.requests for r in read.replicas) == wanted
            if done:
                return read.replace(restarts=counted.restarts)
            assert time.monotonic() < deadline, read
            time.sleep(0.05)


@pytest.fixture(scope="module")
def fakes():
    held = {(arm, name): FakeServer() for arm in ("stable", "candidate") for name in ("a", "b")}
    yield held
    for fake in held.values():
        fake.stop()


@pytest.fixture(scope="module")
def scraping(prometheus_binary, fakes, tmp_path_factory):
    arms = {
        arm: [fake for (of, _), fake in fakes.items() if of == arm]
        for arm in ("stable", "candidate")
    }
    place = tmp_path_factory.mktemp("prometheus")
    jobs = [job(name, servers) for name, servers in arms.items()]
    with Prometheus(prometheus_binary, place, jobs) as started:
        yield started


@pytest.fixture
def controller(scraping, fakes):
    """Return a rollout at 50 %; every test has counters of its own, that began later."""
    spec = quick_spec(steps=steps_of((50, 100), requests=100, dwell=30.0))
    servers = Scraped(spec, fakes, scraping)
    servers.now = time.time()
    for arm in ("stable", "candidate"):
        servers.begin_again(arm)
    held = Controller(spec, servers)
    while held.live < 50:
        held.reconcile()
    return held


def nan(page):
    return b"\n".join(
        line.rpartition(b" ")[0] + b" NaN" if b'code="200"' in line else line
        for line in page.splitlines()
    ) + b"\n"  # fmt: skip


def no_start(page):
    return page.replace(b"process_start_time_seconds", b"another_time_seconds")


def written_at(page, seconds):
    """Return the page with the time of its samples, as an exporter behind a cache writes it."""
    stamp = f" {int(1000 * seconds)}".encode()
    return b"\n".join(line + stamp for line in page.splitlines()) + b"\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (nan, "is nan, which is not a count"),
        (no_start, "process_start_time_seconds"),
    ],
)
def test_what_prometheus_can_not_vouch_for_holds_and_is_survived(controller, change, said):
    servers = controller.servers
    servers.changed["candidate", "b"] = [change]
    servers.expect_error = True
    for _ in range(3):
        assert controller.reconcile(seconds=600.0) is None
        cause = controller.kept.cause
        assert (cause.reason, cause.arm) == (Reason.METRICS_UNAVAILABLE, "candidate")
    assert said in controller.kept.cause.detail
    servers.changed.clear()
    servers.expect_error = False
    assert controller.until_end() is Phase.PROMOTED
    assert controller.weights == [0, 50, 100]


def test_samples_that_grow_old_hold_and_are_survived(controller):
    """Its page is there, and is that of then; Prometheus repeats the samples, and they age."""
    servers = controller.servers
    servers.stamped = True
    controller.reconcile()
    servers.frozen = time.time()
    servers.expect_error = True
    for _ in range(3):
        assert controller.reconcile(seconds=600.0) is None
        assert f"s old, more than {MAX_AGE_SECONDS:g} s" in controller.kept.cause.detail
    servers.frozen, servers.expect_error = None, False
    assert controller.until_end() is Phase.PROMOTED


def test_a_crash_loop_of_a_replica_that_can_not_be_scraped_is_taken_back(controller):
    servers = controller.servers
    servers.changed["candidate", "b"] = [lambda page: b"{"]
    servers.expect_error = True
    for _ in range(4):
        servers.restarts += 1
        controller.reconcile()
    assert controller.kept.phase is Phase.ROLLED_BACK
    assert controller.kept.cause.reason is Reason.CANDIDATE_CRASHED


def test_a_stopped_prometheus_holds(controller, scraping):
    """The last one: there is none after it."""
    scraping.stop()

    def unseen(arm, revision):
        expected = Expected(MODEL, revision.version, revision.digest)
        return PrometheusSource(scraping.address, expected, {"job": arm}).read()

    def see(seen):
        arms = {"stable": unseen("stable", STABLE), "candidate": unseen("candidate", CANDIDATE)}
        return seen.replace(**arms)

    controller.servers.observe = lambda: Servers.observe(controller.servers)
    for _ in range(30):
        assert controller.reconcile(see, seconds=60.0) is None
    cause = controller.kept.cause
    assert (cause.reason, cause.arm) == (Reason.METRICS_UNAVAILABLE, "stable")
    assert cause.detail.startswith("Prometheus: ")
    assert controller.live == 50
