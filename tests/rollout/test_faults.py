"""Half an hour without eyes, at every moment of a rollout: it holds, says why, and goes on.

No traffic, metrics that are down, NaN, stale or reset, a replica that is missing, a silent router:
none of them moves any traffic, and none hides a candidate that crashes.
"""

import pytest

from dwcp_ml.rollout.observation import Histogram
from dwcp_ml.rollout.reason import Reason
from dwcp_ml.rollout.status import Phase
from tests.matrix import diagonal, few
from tests.rollout.histories import (
    SHARES,
    at,
    moments,
)

FAULT_SECONDS = 1800
LOOK_SECONDS = 90
LOOKS = FAULT_SECONDS // LOOK_SECONDS
MOMENTS = moments()
STEPS = ("before 1", 1, 5, 25, 50, 100, "watching")
SHOWN = {1, 5, 25, 50}
"""Where the two arms are compared."""


def arm_says(name, error, replicas="none"):
    def see(seen):
        arm = getattr(seen, name)
        kept = arm.replicas[:1] if replicas == "first" else ()
        changed = arm.replace(error=error, replicas=kept)
        return seen.replace(**{name: changed})

    return see


def no_arm(name):
    return lambda seen: seen.replace(**{name: None})


def blind(seen):
    return seen.replace(live_percent=None, router_error="connection refused")


def one_bad_histogram(seen):
    """Return what is seen when the bounds of the candidate's histograms descend."""
    replicas = tuple(
        each.replace(latency=Histogram(edges=(0.1, 0.01), counts=(0, 0, 0)))
        for each in seen.candidate.replicas
    )
    arm = seen.candidate.replace(replicas=replicas)
    return seen.replace(candidate=arm)


def two_layouts(seen):
    first, second = seen.candidate.replicas
    other = second.latency.replace(edges=(0.02, 0.2))
    arm = seen.candidate.replace(replicas=(first, second.replace(latency=other)))
    return seen.replace(candidate=arm)


class Stale:
    """The counters stay those of the last reconciliation; router and pods are seen."""

    def __init__(self, servers):
        last = servers.observe()
        self.arms = {"stable": last.stable, "candidate": last.candidate}

    def __call__(self, seen):
        old = {
            name: arm.replace(
                restarts=getattr(seen, name).restarts, ready=getattr(seen, name).ready
            )
            for name, arm in self.arms.items()
        }
        return seen.replace(**old)


class Fault:
    """A fault of ``Servers`` or of what is seen of them, while it lasts.

    ``quiet`` is one that shows as no requests: the first share needs none, and is given.
    """

    def __init__(self, reasons, see=None, *, rate=None, resets=False, quiet=False):
        self.reasons, self.see, self.rate, self.resets = reasons, see, rate, resets
        self.quiet = quiet

    def begin(self, servers):
        if self.rate is not None:
            servers.requests_per_second = self.rate
        return self.see(servers) if isinstance(self.see, type) else self.see

    def tick(self, servers):
        if self.resets:
            for arm in ("stable", "candidate"):
                servers.begin_again(arm)
            servers.requests_per_second = 0.0

    def end(self, servers):
        servers.requests_per_second = 400.0


UNSEEN = "the candidate is not seen"
"""And so its crashes are not seen either."""

WAITS = (Reason.NO_TRAFFIC, Reason.INSUFFICIENT_REQUESTS)
DOWN = (Reason.METRICS_UNAVAILABLE,)
FAULTS = {
    "no traffic": Fault(WAITS, rate=0.0, quiet=True),
    "candidate's metrics down": Fault(DOWN, arm_says("candidate", "connection refused")),
    "stable's metrics down": Fault(DOWN, arm_says("stable", "timed out")),
    "NaN": Fault(DOWN, arm_says("candidate", "b: is nan, which is not a count")),
    "stale and known to be": Fault(DOWN, arm_says("stable", "newest sample is 90 s old")),
    "stale": Fault(WAITS, Stale, quiet=True),
    "counters that begin again at every reconciliation": Fault(WAITS, resets=True, quiet=True),
    "a replica of the candidate missing": Fault(
        DOWN, arm_says("candidate", "b: connection refused", "first")
    ),
    "a replica of the stable missing": Fault(
        DOWN, arm_says("stable", "b: connection refused", "first")
    ),
    UNSEEN: Fault(DOWN, no_arm("candidate")),
    "the stable is not seen": Fault(DOWN, no_arm("stable")),
    "buckets of two layouts": Fault((Reason.METRICS_INCOMPARABLE,), two_layouts),
}


def hold(controller, fault):
    """Let a fault last; return the reason at each reconciliation."""
    live, phase, watched = controller.live, controller.kept.phase, controller.kept.watch_elapsed
    see, reasons = fault.begin(controller.servers), []
    for _ in range(LOOKS):
        fault.tick(controller.servers)
        write = controller.reconcile(see, seconds=LOOK_SECONDS)
        if not (fault.quiet and phase is Phase.PENDING):
            assert write is None, (write, controller.kept.cause)
            assert controller.live == live
        reasons.append(controller.kept.cause.reason)
    fault.end(controller.servers)
    assert controller.kept.watch_elapsed == watched, "it watched nothing"
    assert controller.live <= max(live, 1)
    assert controller.kept.phase not in (Phase.ROLLING_BACK, Phase.ROLLED_BACK, Phase.PROMOTED)
    return reasons


@pytest.mark.parametrize(("name", "place"), diagonal(FAULTS, STEPS))
def test_half_an_hour_of_a_fault_holds_says_why_and_is_survived(name, place):
    fault = FAULTS[name]
    assert MOMENTS[place]
    for number in MOMENTS[place]:
        controller = at(number)
        reasons = hold(controller, fault)
        # The first may still be that of the decision before.
        assert set(reasons[1:]) <= set(fault.reasons), reasons
        assert controller.until_end() is Phase.PROMOTED
        assert controller.weights == [0, *SHARES]


@pytest.mark.parametrize(("name", "place"), diagonal(FAULTS, STEPS))
def test_a_bad_candidate_is_rolled_back_at_the_latest_after_the_fault(name, place):
    controller, fault = at(MOMENTS[place][-1]), FAULTS[name]
    controller.servers.errors["candidate"] = 0.8
    live = controller.live
    see = fault.begin(controller.servers)
    for _ in range(LOOKS):
        fault.tick(controller.servers)
        controller.reconcile(see, seconds=LOOK_SECONDS)
    fault.end(controller.servers)
    assert controller.until_end() is Phase.ROLLED_BACK
    assert controller.live == 0
    assert max(controller.weights) == max(live, 1), "it did not rise in the meantime"


PARTIAL = (
    "stable's metrics down", "stale and known to be", "the stable is not seen",
    "a replica of the candidate missing", "a replica of the stable missing",
    "buckets of two layouts", "blind",
)  # fmt: skip
"""Faults that leave some of the candidate's counters readable."""


@pytest.mark.parametrize(("name", "place"), diagonal(PARTIAL, STEPS[1:]))
def test_a_candidate_that_fails_everything_is_rolled_back_while_the_fault_lasts(name, place):
    controller = at(MOMENTS[place][-1])
    controller.servers.errors["candidate"] = 1.0
    see = blind if name == "blind" else FAULTS[name].begin(controller.servers)
    writes = [controller.reconcile(see) for _ in range(8)]
    assert any(write is not None and write.percent == 0 for write in writes), controller.kept.cause
    assert controller.kept.cause.reason in (Reason.TEST_FAILED, Reason.WEIGHT_UNKNOWN)
    assert controller.kept.phase in (Phase.ROLLING_BACK, Phase.ROLLED_BACK)


@pytest.mark.parametrize("place", STEPS)
@pytest.mark.parametrize("name", ["blind", *FAULTS])
def test_an_abort_writes_0_in_the_next_reconciliation_whatever_the_fault(name, place):
    controller = at(MOMENTS[place][-1])
    see = blind if name == "blind" else FAULTS[name].begin(controller.servers)
    live = controller.live
    controller.edit(abort=True)
    write = controller.reconcile(see)
    assert (write is not None and write.percent == 0) or live == 0
    assert controller.live == 0


@pytest.mark.parametrize(
    ("name", "place"), diagonal([name for name in FAULTS if name != UNSEEN], STEPS)
)
def test_a_candidate_that_crashes_is_taken_back_while_the_fault_lasts(name, place):
    controller, fault = at(MOMENTS[place][-1]), FAULTS[name]
    see = fault.begin(controller.servers)
    for _ in range(6):
        fault.tick(controller.servers)
        controller.reconcile(see)
        controller.servers.restarts += 1
        controller.servers.ready = False
    assert controller.kept.phase is Phase.ROLLED_BACK
    assert controller.kept.cause.reason is Reason.CANDIDATE_CRASHED
    assert controller.live == 0


@pytest.mark.parametrize("place", few(STEPS, "before 1", 25, "watching"))
def test_a_silent_router_holds_and_the_reason_to_go_back_outlives_it(place):
    for number in MOMENTS[place]:
        controller = at(number)
        timed = controller.kept.step_elapsed, controller.kept.watch_elapsed
        for _ in range(LOOKS):
            assert controller.reconcile(blind, seconds=LOOK_SECONDS) is None
            assert controller.kept.cause.reason is Reason.WEIGHT_UNKNOWN
            assert controller.kept.cause.detail == "connection refused"
        assert (controller.kept.step_elapsed, controller.kept.watch_elapsed) == timed
        assert controller.until_end() is Phase.PROMOTED
        assert controller.weights == [0, *SHARES]
        going = at(number)
        going.edit(abort=True)
        going.reconcile(dies="before write")
        for _ in range(3):
            going.reconcile(blind)
        assert going.until_end() is Phase.ROLLED_BACK
        assert going.kept.cause.reason is Reason.ABORTED


@pytest.mark.parametrize(("arm", "place"), diagonal(["stable", "candidate"], STEPS))
def test_counters_that_begin_again_once_lose_a_little_and_decide_nothing(place, arm):
    for number in MOMENTS[place]:
        controller = at(number)
        controller.servers.begin_again(arm)
        assert controller.until_end() is Phase.PROMOTED
        assert controller.weights == [0, *SHARES]
        bad = at(number)
        bad.servers.errors["candidate"] = 0.8
        bad.servers.begin_again(arm)
        assert bad.until_end() is Phase.ROLLED_BACK


@pytest.mark.parametrize("place", STEPS)
def test_a_replica_that_comes_and_goes_is_not_counted_twice(place):
    """Service discovery loses one for a reconciliation, without an error, again and again."""

    def without_one(seen):
        arm = seen.candidate.replace(replicas=seen.candidate.replicas[:1])
        return seen.replace(candidate=arm)

    for number in MOMENTS[place]:
        controller = at(number)
        for odd in range(100):
            controller.reconcile(without_one if odd % 2 else None)
            if controller.kept.ended:
                break
        assert controller.kept.phase is Phase.PROMOTED
        counted = sum(
            controller.servers.counts["candidate", name][1] for name in ("a", "b")
        )  # fmt: skip
        assert controller.kept.exposed_requests <= counted


@pytest.mark.parametrize("place", few(sorted(SHOWN), 5))
def test_a_histogram_that_is_none_holds_where_the_arms_are_compared(place):
    for number in MOMENTS[place]:
        controller = at(number)
        for _ in range(LOOKS):
            assert controller.reconcile(one_bad_histogram) is None
        assert controller.kept.cause.reason is Reason.TEST_UNAVAILABLE
        assert controller.until_end() is Phase.PROMOTED
