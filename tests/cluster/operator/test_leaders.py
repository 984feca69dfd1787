"""Two operators and one Lease on a real API server: the one that was paused overwrites nothing."""

import itertools
import time

import numpy as np
import pytest

from dwcp_ml.kube.api import INFERENCE_SERVICE, MODEL_ROLLOUT, KubeError
from dwcp_ml.kube.client import KubeApi
from dwcp_ml.operator.lease import LEASE_SECONDS, GuardedApi, Lease, NotLeader
from dwcp_ml.operator.reconcile import Reconciler
from tests.cluster.operator.in_process import ClusterScenario
from tests.cluster.processes import eventually
from tests.operator.fake_servers import NAME
from tests.operator.faulty import Paused, Pausing, count
from tests.operator.rules import ENDED
from tests.operator.scenario import digest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]


class Leader:
    """One process of the election; ``api`` is what it writes with."""

    def __init__(self, play, api, name):
        self.play = play
        self.lease = Lease(KubeApi(play.cluster.api), play.namespace, "operator", name,
                           play.time.clock)  # fmt: skip
        guarded = GuardedApi(api, self.lease.check)
        self.operator = Reconciler(
            guarded, play.fleet, play.time.clock,
        )  # fmt: skip

    def go_on(self, rounds):
        """Reconcile at most ``rounds`` times; return the request that was paused, if one was."""
        for _ in range(rounds):
            self.lease.take_part()
            self.play.time.pass_time(1.0)
            self.play.fleet.pass_time(1.0)
            try:
                result = self.operator.reconcile((self.play.namespace, NAME))
            except Paused as paused:
                return paused.send
            except KubeError:
                continue
            if self.play.phase in ENDED and not result.wrote:
                return None
            time.sleep(0.03)
        return None


def _versions(play):
    found = (play.service, play.resource)
    return [one and one["metadata"]["resourceVersion"] for one in found]


def _writes_since(history, play, since):
    """Return the kinds that somebody changed after a version of the whole, KServe's left out."""
    written = set()
    events = history.of(play.namespace)
    for place, (version, _, kind, found) in enumerate(events):
        if version <= since or kind not in (INFERENCE_SERVICE, MODEL_ROLLOUT):
            continue
        before = next((one[3] for one in reversed(events[:place]) if one[2] is kind), None)
        is_status = before is not None and before["spec"] == found["spec"]
        if kind is MODEL_ROLLOUT or not is_status:
            written.add(kind.kind)
    return written


def _newest(history, play):
    return max(event[0] for event in history.of(play.namespace))


def _trial(cluster, history, namespace, seed):
    """Pause a leader in a write, let another one go on, wake the first.

    Return whether its write succeeded; None where it made fewer writes.
    """
    rng = np.random.default_rng(seed)
    play = ClusterScenario(cluster, namespace)
    if rng.random() < 0.4:
        play.fleet.errors[digest(2)] = 0.8
    first = Leader(play, Pausing(play.api, int(rng.integers(1, 12))), "a")
    send = first.go_on(rounds=150)
    if send is None:
        return None
    second = Leader(play, play.api, "b")
    since = _newest(history, play)
    second.lease.take_part()
    play.time.pass_time(LEASE_SECONDS)
    second.go_on(rounds=int(rng.choice([0, 0, 1, 2, 4, 8])))
    written = _writes_since(history, play, since)
    before = _newest(history, play)
    try:
        send()
        succeeded = _writes_since(history, play, before)
    except KubeError:
        succeeded = set()
    assert not succeeded & written, f"{seed}: a write of the old leader after the new one's"
    with pytest.raises(NotLeader):
        first.lease.check()
    second.go_on(rounds=300)
    assert play.phase in ENDED, (seed, play.status)
    history.check(namespace)
    return bool(succeeded)


def test_a_leader_that_was_paused_past_its_lease_overwrites_nothing(
    cluster, installed, history, record_property
):
    happened = []
    for seed in itertools.count():
        with cluster.namespace() as namespace:
            succeeded = _trial(cluster, history, namespace, seed)
        if succeeded is not None:
            happened.append(succeeded)
        if len(happened) == count(200):
            break
    record_property("tried", len(happened))
    assert not all(happened)


def test_a_process_that_is_stopped_is_succeeded_and_wakes_up_to_nothing(
    cluster, installed, prometheus, told, history
):
    """SIGSTOP in the middle of rollouts, and SIGCONT once another process leads."""
    processes = cluster.processes
    old, _ = installed.start("old", prometheus.address)
    how = {"dwell": 2, "watchSeconds": 2}
    stories = told({"good": how, "bad": {"bad_at": 100, **how}, "abort": how})
    eventually(lambda: stories["good"].status.get("targetPercent", 0) >= 5, 60.0)
    new, _ = installed.start("new", prometheus.address)
    processes.signal(old, "SIGSTOP")
    stories["good"].until("Promoted")
    processes.signal(old, "SIGCONT")
    stories["abort"].edit(abort=True)
    stories["bad"].until("RolledBack")
    stories["abort"].until(*ENDED)
    for story in stories.values():
        history.check(story.namespace)
    for name in (old, new):
        assert installed.stop(name) == 0
