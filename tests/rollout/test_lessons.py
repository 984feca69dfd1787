"""What is no pass, what is timed when the clock jumps, what other controllers got wrong."""

import functools

import pytest

from dwcp_ml.rollout.observation import Pair
from dwcp_ml.rollout.reason import Reason
from dwcp_ml.rollout.spec import (
    Analysis,
    DivergenceTest,
    ErrorRateTest,
    GroundTruthTest,
    Skip,
)
from dwcp_ml.rollout.status import Phase
from tests.matrix import few
from tests.rollout.histories import (
    BROAD,
    OTHER,
    PLACES,
    SHARES,
    Controller,
    at,
    moments,
    place_of,
    quick_spec,
    steps_of,
)

MOMENTS = moments()
STEPS = PLACES[:-1]
LOOKS = 30


def down(seen):
    arm = seen.candidate.replace(error="connection refused", replicas=())
    return seen.replace(candidate=arm)


def test_buckets_that_never_could_be_compared_are_no_pass():
    """From the first reconciliation the arms count in other buckets: there is no evidence."""

    def other_buckets(seen):
        replicas = tuple(
            each.replace(latency=each.latency.replace(edges=(0.02, 0.2)))
            for each in seen.candidate.replicas
        )
        arm = seen.candidate.replace(replicas=replicas)
        return seen.replace(candidate=arm)

    controller = at(0)
    for _ in range(LOOKS):
        controller.reconcile(other_buckets)
    assert controller.weights == [0, 1]
    cause = controller.kept.cause
    assert (cause.reason, cause.test) == (Reason.TEST_UNAVAILABLE, "latency")
    controller.edit(analysis=BROAD.replace(latency=None).model_dump())
    for _ in range(100):
        controller.reconcile(other_buckets)
    assert controller.kept.phase is Phase.PROMOTED, "a test that was turned off has no say"


@pytest.mark.parametrize("field", ["pairs_error", "labels_error"])
@pytest.mark.parametrize("required", [True, False])
def test_a_log_that_can_not_be_read_holds_if_its_test_is_required(field, required):
    name, settings = {
        "pairs_error": ("divergence", DivergenceTest(required=required)),
        "labels_error": ("ground_truth", GroundTruthTest(required=required)),
    }[field]
    controller = Controller(quick_spec(analysis=BROAD.replace(**{name: settings})))
    for _ in range(LOOKS):
        controller.reconcile(lambda seen: seen.replace(**{field: "the log is gone"}))
    if required:
        assert controller.weights == [0, 1]
        cause = controller.kept.cause
        assert (cause.reason, cause.test) == (Reason.TEST_UNAVAILABLE, name)
        assert cause.detail == "the log is gone"
    else:
        assert controller.kept.phase is Phase.PROMOTED


def test_where_no_test_is_required_every_one_is():
    """Else a step would pass on nothing."""
    only = Analysis(
        warm_up_seconds=0, error_rate=None, latency=None, divergence=DivergenceTest(tolerance=0.2)
    )
    controller = Controller(quick_spec(analysis=only))
    for _ in range(LOOKS):
        controller.reconcile()
    assert controller.weights == [0, 1]
    assert controller.kept.cause.reason is Reason.INSUFFICIENT_EVIDENCE
    same = tuple(Pair(request_id=str(n), difference=0.0) for n in range(100))
    assert controller.until_end(seen=lambda seen: seen.replace(pairs=same)) is Phase.PROMOTED


def test_restarts_of_a_replica_that_is_gone_do_not_hide_new_ones():
    controller = at(MOMENTS[5][0])
    controller.servers.restarts = 2
    controller.reconcile()
    controller.servers.restarts = 0  # the pod that had crashed twice was replaced
    controller.reconcile()
    assert not controller.kept.ended
    controller = Controller(quick_spec())
    controller.servers.restarts = 50
    controller.reconcile()
    controller.servers.restarts = 0
    controller.reconcile()
    controller.servers.restarts = 3
    assert controller.until_end() is Phase.ROLLED_BACK
    assert controller.kept.cause.reason is Reason.CANDIDATE_CRASHED


LONG_DWELLS = quick_spec(steps=steps_of(SHARES, requests=100, dwell=120.0), watch_seconds=120.0)


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
@pytest.mark.parametrize("place", few(STEPS, 5))
def test_a_clock_that_jumps_an_hour_leaves_the_dwell_alone(place, jump):
    """Every 10 s: a jump adds at most 30 s to a dwell of 120, or takes 10 s away."""
    spec = LONG_DWELLS
    expected = _undisturbed_times()
    assert min(expected.values()) >= 120.0
    controller, numbers, number = Controller(spec, seconds=10.0), [], 0
    while not controller.kept.ended:
        if place_of(controller) == place:
            numbers.append(number)
        controller.reconcile()
        number += 1
    for number in {numbers[0], numbers[len(numbers) // 2]}:
        found = _times_at_each_share(spec, number, jump)
        assert found.keys() == expected.keys()
        for share, seconds in found.items():
            assert abs(seconds - expected[share]) <= 30.0, (number, share)


@functools.cache
def _undisturbed_times():
    return _times_at_each_share(LONG_DWELLS, None, 0.0)


def _times_at_each_share(spec, jumps_at, jump):
    """Return share -> seconds of true time there, until the promotion."""
    controller, spent = Controller(spec, seconds=10.0), {}
    for number in range(400):
        if number == jumps_at:
            controller.clock_ahead += jump
        controller.reconcile()
        if controller.kept.ended:
            assert controller.kept.phase is Phase.PROMOTED
            return spent
        share = "watch" if controller.kept.phase is Phase.WATCHING else controller.live
        spent[share] = spent.get(share, 0.0) + 10.0
    raise AssertionError(controller.kept.cause)


def test_a_clock_that_jumps_does_not_make_an_unready_candidate_older():
    controller = at(MOMENTS[25][0])
    controller.servers.ready = False
    controller.reconcile()
    controller.clock_ahead = 3600.0
    controller.reconcile()
    assert controller.kept.unready_elapsed <= 60.0
    assert controller.kept.phase is Phase.PROGRESSING


# What other controllers got wrong.


def test_a_test_that_nobody_knows_is_refused():
    """Flagger #1581: a metric without a known kind passed."""
    with pytest.raises(ValueError, match="sucess_rate"):
        Analysis(sucess_rate=ErrorRateTest())


def test_a_verdict_that_is_not_there_is_no_pass():
    """An analysis that ends before any measurement, a group without data: no pass of theirs."""
    controller = at(MOMENTS[1][-1])
    assert controller.kept.passed_percent == 1
    fresh = at(MOMENTS[1][1])
    fresh.edit(analysis=BROAD.replace(ground_truth=GroundTruthTest(required=True)).model_dump())
    for _ in range(LOOKS):
        fresh.reconcile(lambda seen: seen.replace(losses=()))
    assert fresh.weights == [0, 1]
    assert fresh.kept.cause.reason is Reason.INSUFFICIENT_EVIDENCE


def test_outages_do_not_add_up():
    """Flagger's failed checks never decrease; forty short outages are no reason to go back."""
    controller = at(1)
    for number in range(160):
        controller.reconcile(down if number % 2 else None)
        if controller.kept.ended:
            break
    assert controller.kept.phase is Phase.PROMOTED


def test_missed_reconciliations_leave_nothing_stuck():
    """Argo Rollouts #4694: a missed event, and it stood still. Here nothing depends on one."""
    for number in range(max(MOMENTS["watching"]) + 1):
        controller = at(number)
        controller.reconcile(seconds=900.0)
        assert controller.until_end() is Phase.PROMOTED
        assert controller.weights == [0, *SHARES]


def test_candidates_one_after_another_each_begin_below():
    """KServe #2130: shares of consecutive canaries were left behind."""
    controller = at(MOMENTS[25][0])
    for number in range(4, 9):
        controller.edit(candidate=OTHER.replace(digest=f"{number:064d}"))
        controller.reconcile()
        assert controller.live == 0
        while controller.live < 25:
            controller.reconcile()
        assert controller.weights[-4:] == [0, 1, 5, 25]
    assert controller.until_end() is Phase.PROMOTED


def test_a_person_may_let_a_step_pass_without_eyes():
    controller = at(MOMENTS[5][0])
    controller.edit(skip=Skip(traffic_percent=5, reason="seen on the other site").model_dump())
    for _ in range(3):
        controller.reconcile(down)
    assert controller.live == 25
    for _ in range(LOOKS):
        assert controller.reconcile(down) is None
