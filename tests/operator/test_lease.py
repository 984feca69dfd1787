"""Two processes and one Lease: one writes, and the one that was paused no more."""

import itertools

import numpy as np
import pytest

from dwcp_ml.kube.api import INFERENCE_SERVICE, LEASE, MODEL_ROLLOUT, ApiUnavailable, KubeError
from dwcp_ml.operator.lease import (
    LEASE_SECONDS,
    RENEW_BY_SECONDS,
    RETRY_SECONDS,
    GuardedApi,
    Lease,
    NotLeader,
)
from dwcp_ml.operator.reconcile import Reconciler
from dwcp_ml.operator.settings import Clock
from tests.operator.fake_servers import Time
from tests.operator.faulty import FaultyScenario, Paused, Pausing, count, short
from tests.operator.memory_api import MemoryApi
from tests.operator.scenario import KEY, digest


class Candidate:
    """A process in the election, with a clock of its own that may stand still."""

    def __init__(self, api, time, name):
        self.offset = 0.0
        self.clock = Clock(wall=lambda: time.now + self.offset, monotonic=lambda: time.now)
        self.lease = Lease(api, "dwcp-ml", "operator", name, self.clock)


@pytest.fixture
def api():
    return MemoryApi()


@pytest.fixture
def time():
    return Time()


def test_one_of_two_leads_and_keeps_it(api, time):
    first, second = (Candidate(api, time, name).lease for name in ("a", "b"))
    for _ in range(100):
        assert first.take_part()
        assert not second.take_part()
        time.pass_time(RETRY_SECONDS)
    assert api.at(LEASE, "dwcp-ml", "operator")["spec"]["leaseTransitions"] == 1


def test_a_lease_that_is_not_renewed_is_taken_after_its_time_and_not_before(api, time):
    first, second = (Candidate(api, time, name).lease for name in ("a", "b"))
    first.take_part()
    second.take_part()
    waited = 0.0
    while not second.take_part():
        time.pass_time(1.0)
        waited += 1.0
    assert waited == LEASE_SECONDS
    assert not first.leads
    with pytest.raises(NotLeader):
        first.check()
    second.check()


def test_the_holder_stops_before_anybody_else_may_begin(api, time):
    first = Candidate(api, time, "a").lease
    first.take_part()
    time.pass_time(RENEW_BY_SECONDS)
    assert not first.leads
    assert RENEW_BY_SECONDS < LEASE_SECONDS


@pytest.mark.parametrize("offset", [-7200.0, 7200.0])
def test_clocks_that_differ_by_hours_change_nothing(api, time, offset):
    first, second = Candidate(api, time, "a"), Candidate(api, time, "b")
    second.offset = offset
    for _ in range(50):
        assert first.lease.take_part()
        assert not second.lease.take_part()
        time.pass_time(RETRY_SECONDS)


def test_a_lease_that_is_given_back_is_taken_at_once(api, time):
    first, second = (Candidate(api, time, name).lease for name in ("a", "b"))
    first.take_part()
    assert not second.take_part()
    first.release()
    assert not first.leads
    assert second.take_part()
    first.release()
    assert second.take_part(), "only its holder gives it back"


def test_a_renewal_whose_answer_is_lost_is_no_renewal(api, time):
    lease = Candidate(api, time, "a").lease
    lease.take_part()

    def lose(call):
        raise ApiUnavailable("no answer")

    api.after = lose
    for _ in range(int(RENEW_BY_SECONDS / RETRY_SECONDS)):
        time.pass_time(RETRY_SECONDS)
        lease.take_part()
    assert not lease.leads
    api.after = lambda call: None
    assert lease.take_part()


def test_who_does_not_lead_reads_and_does_not_write(api, time):
    lease = Candidate(api, time, "a").lease
    wrote = []
    guarded = GuardedApi(api, lease.check, lambda kind, status: wrote.append((kind, status)))
    resource = short()
    with pytest.raises(NotLeader):
        guarded.create(resource)
    lease.take_part()
    made = guarded.create(resource)
    guarded.replace({**made, "status": {"phase": "Pending"}}, status=True)
    time.pass_time(RENEW_BY_SECONDS)
    assert guarded.get(MODEL_ROLLOUT, *KEY)["status"] == {"phase": "Pending"}
    assert guarded.list(MODEL_ROLLOUT)
    for write in (
        lambda: guarded.replace(made),
        lambda: guarded.apply(made, manager="a", resource_version=None),
        lambda: guarded.delete(MODEL_ROLLOUT, *KEY),
    ):
        with pytest.raises(NotLeader):
            write()
    assert wrote == [("ModelRollout", False), ("ModelRollout", True)]


# 9 two leaders


def _leader(scenario, api, name):
    lease = Lease(scenario.api, "dwcp-ml", "operator", name, scenario.time.clock)
    guarded = GuardedApi(api, lease.check)
    operator = Reconciler(
        guarded, scenario.fleet, scenario.time.clock,
    )  # fmt: skip
    return lease, operator


def _written(scenario, since):
    return {
        (one.kind, one.obj["metadata"]["name"]) for one in scenario.api.changes[since:]
        if one.kind in (INFERENCE_SERVICE, MODEL_ROLLOUT)
    }  # fmt: skip


def _trial(seed):
    """Pause a leader in a write, let another one go on, wake the first.

    Return whether its write succeeded; None where it made fewer writes.
    """
    rng = np.random.default_rng(seed)
    scenario = FaultyScenario(short())
    if rng.random() < 0.4:
        scenario.fleet.errors[digest(2)] = 0.8
    first, old = _leader(scenario, Pausing(scenario.api, int(rng.integers(1, 14))), "a")
    send = _go_on(scenario, first, old, rounds=60)
    if send is None:
        return None
    if rng.random() < 0.3:
        scenario.fleet.errors[digest(2)] = 0.8
    second, new = _leader(scenario, scenario.api, "b")
    since = len(scenario.api.changes)
    second.take_part()
    scenario.pass_time(LEASE_SECONDS)
    _go_on(scenario, second, new, rounds=int(rng.choice([0, 0, 1, 2, 4, 8])))
    written = _written(scenario, since)
    before = len(scenario.api.changes)
    try:
        send()
        succeeded = _written(scenario, before)
    except KubeError:
        succeeded = set()
    assert not succeeded & written, f"{seed}: a write of the old leader after the new one's"
    with pytest.raises(NotLeader):
        first.check()
    _go_on(scenario, second, new, rounds=120)
    assert scenario.phase in ("Promoted", "RolledBack"), seed
    return bool(succeeded)


def _go_on(scenario, lease, operator, rounds):
    """Reconcile this many times; return the request in which it was paused, if any."""
    for _ in range(rounds):
        lease.take_part()
        scenario.pass_time(5.0)
        try:
            operator.reconcile(KEY)
        except Paused as paused:
            return paused.send
        except KubeError:
            continue
    return None


@pytest.mark.slow
def test_a_leader_that_was_paused_past_its_lease_overwrites_nothing(record_property):
    """Paused in the middle of a write: sent after the last check, arriving whenever it likes."""
    trials = filter(lambda one: one is not None, map(_trial, itertools.count()))
    happened = list(itertools.islice(trials, count(200)))
    record_property("tried", len(happened))
    assert any(happened), "some arrive before the new leader wrote to that object, and may"
    assert not all(happened)
