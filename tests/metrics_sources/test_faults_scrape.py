"""Servers that go blind, real pages over real HTTP: what comes out of them holds the rollout."""

import pytest

from dwcp_ml.metrics_sources.samples import Expected
from dwcp_ml.metrics_sources.scrape import MetricsPages
from dwcp_ml.rollout.observation import Observation
from dwcp_ml.rollout.reason import Reason
from dwcp_ml.rollout.status import Phase
from tests.metrics_sources.fakes import FakeServer
from tests.metrics_sources.metrics import MODEL
from tests.rollout.histories import CANDIDATE, STABLE, Controller, Servers, quick_spec

pytestmark = pytest.mark.server

LOOKS = 30
LOOK_SECONDS = 60
"""Together half an hour; of virtual time, the pages are read at once."""


def page_of(sample, revision, changed=()):
    """Return the metrics page of a replica that counted so."""
    labels = f'model="{MODEL}",version="{revision.version}"'
    low, high, total = sample.latency.counts
    found = {
        "started": f"process_start_time_seconds {sample.started_at}",
        "info": f'dwcp_model_info{{{labels},digest="{revision.digest}"}} 1',
        "ok": f'dwcp_requests_total{{{labels},code="200"}} {sample.requests - sample.errors}',
        "bad": f'dwcp_requests_total{{{labels},code="500"}} {sample.errors}',
        "low": f'dwcp_request_seconds_bucket{{{labels},le="0.01"}} {low}',
        "high": f'dwcp_request_seconds_bucket{{{labels},le="0.1"}} {high}',
        "inf": f'dwcp_request_seconds_bucket{{{labels},le="+Inf"}} {total}',
    } | dict(changed)
    return "\n".join(filter(None, found.values())).encode() + b"\n"


class Pages(Servers):
    """Two replicas of each arm, each with a page of its own; seen through ``MetricsPages``."""

    def __init__(self, spec):
        super().__init__(spec)
        self.fakes = {
            (arm, name): FakeServer() for arm in ("stable", "candidate") for name in ("a", "b")
        }
        self.answers = {}
        """(arm, replica) -> what it answers instead of its page."""

    def stop(self):
        for fake in self.fakes.values():
            fake.stop()

    def observe(self):
        counted = super().observe()
        arms = {}
        for arm, revision in (("stable", STABLE), ("candidate", CANDIDATE)):
            sample = getattr(counted, arm)
            for name, replica in zip("ab", sample.replicas, strict=True):
                answer = self.answers.get((arm, name), (200, page_of(replica, revision)))
                self.fakes[arm, name].answer = answer
            expected = Expected(MODEL, revision.version, revision.digest)
            servers = [self.fakes[arm, name].address for name in ("a", "b")]
            read = MetricsPages(servers, expected, timeout_seconds=2.0).read()
            arms[arm] = read.replace(ready=sample.ready, restarts=sample.restarts)
        return Observation(live_percent=self.live_percent, promoted=self.promoted, **arms)


@pytest.fixture
def controller():
    spec = quick_spec()
    servers = Pages(spec)
    yield Controller(spec, servers)
    servers.stop()


def last_page(controller, arm, name, changed=()):
    sample = getattr(Servers.observe(controller.servers), arm)
    revision = STABLE if arm == "stable" else CANDIDATE
    return page_of(sample.replicas["ab".index(name)], revision, changed)


def nan(controller, arm, name):
    text = f'dwcp_requests_total{{model="{MODEL}",version="2",code="200"}} NaN'
    return 200, last_page(controller, arm, name, {"ok": text})


def not_started(controller, arm, name):
    return 200, last_page(controller, arm, name, {"started": "process_start_time_seconds NaN"})


def stale(controller, arm, name):
    return 200, last_page(controller, arm, name)


FAULTS = {
    "refused": (lambda *which: (0, b"\r\n"), "gave no response", ["b"]),
    "500": (lambda *which: (500, b""), "responded with 500", ["b"]),
    "no answer": (lambda *which: (0, b""), "not within", ["b"]),
    "half a page": (lambda *which: (200, b"dwcp_requests_total{mo"), "no metrics", ["b"]),
    "an empty page": (lambda *which: (200, b""), "has no dwcp_model_info of", ["b"]),
    "NaN": (nan, "is nan, which is not a count", ["b"]),
    "no time of its start": (not_started, "process_start_time_seconds is nan", ["b"]),
    "both stale": (stale, "has answered no request since|Waiting for traffic", ["a", "b"]),
}


@pytest.mark.parametrize("live", [1, 25, 100])
@pytest.mark.parametrize("name", FAULTS)
def test_half_an_hour_of_a_fault_holds_and_is_survived(controller, name, live):
    make, said, replicas = FAULTS[name]
    while controller.live < live:
        controller.reconcile()
    reconciliations = 3 if name == "no answer" else LOOKS  # each waits for its time-out
    for replica in replicas:
        which = "candidate", replica
        controller.servers.answers[which] = make(controller, *which)
    for number in range(reconciliations):
        assert controller.reconcile(seconds=LOOK_SECONDS) is None
        assert controller.live == live
        assert any(each in controller.kept.cause.sentence for each in said.split("|")), (
            number, controller.kept.cause,
        )  # fmt: skip
    controller.servers.answers.clear()
    assert controller.until_end() is Phase.PROMOTED


def test_a_killed_replica_of_the_stable_holds_until_it_is_back(controller):
    while controller.live < 5:
        controller.reconcile()
    fake = controller.servers.fakes["stable", "b"]
    fake.stop()
    for _ in range(LOOKS):
        assert controller.reconcile(seconds=LOOK_SECONDS) is None
    cause = controller.kept.cause
    assert (cause.reason, cause.arm) == (Reason.METRICS_UNAVAILABLE, "stable")
    assert f"{fake.address}/metrics gave no response: connection refused" in cause.detail
    controller.servers.fakes["stable", "b"] = FakeServer(port=fake.port)
    assert controller.until_end() is Phase.PROMOTED


def test_a_replica_that_began_again_is_another_life(controller):
    while controller.live < 5:
        controller.reconcile()
    before = controller.kept.exposed_requests
    controller.servers.begin_again("candidate")
    controller.reconcile()
    in_its_second_life = sum(
        each.requests for each in Servers.observe(controller.servers).candidate.replicas
    )
    assert controller.kept.exposed_requests == before + in_its_second_life
    assert controller.until_end() is Phase.PROMOTED


@pytest.mark.parametrize("name", ["500", "NaN", "both stale"])
def test_a_crash_loop_is_seen_through_the_fault(controller, name):
    make, _, replicas = FAULTS[name]
    while controller.live < 5:
        controller.reconcile()
    for replica in replicas:
        which = "candidate", replica
        controller.servers.answers[which] = make(controller, *which)
    for _ in range(5):
        controller.servers.restarts += 1
        controller.reconcile()
    assert controller.kept.phase is Phase.ROLLED_BACK
    assert controller.kept.cause.reason is Reason.CANDIDATE_CRASHED


def test_a_bad_candidate_is_rolled_back_by_the_replica_that_still_answers(controller):
    while controller.live < 5:
        controller.reconcile()
    controller.servers.answers["candidate", "a"] = (500, b"")
    controller.servers.errors["candidate"] = 0.8
    for _ in range(LOOKS):
        if controller.reconcile(seconds=LOOK_SECONDS) is not None:
            break
    assert controller.live == 0
    controller.servers.answers.clear()
    assert controller.until_end() is Phase.ROLLED_BACK
    cause = controller.kept.cause
    assert (cause.reason, cause.test) == (Reason.TEST_FAILED, "error_rate")
