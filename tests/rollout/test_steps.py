"""What a step counts is its own, and it waits for every test that is on."""

import pytest

from dwcp_ml.rollout.decide import hold_of_step
from dwcp_ml.rollout.reason import Reason
from dwcp_ml.rollout.spec import (
    LatencyTest,
)
from dwcp_ml.rollout.status import Phase
from tests.rollout.histories import (
    BROAD,
    SHARES,
    Controller,
    at,
    moments,
    quick_spec,
    steps_of,
)

MOMENTS = moments()
LOOKS = 30


def test_every_step_waits_for_its_own_requests_and_its_own_time():
    """The evidence of the first step is enough for all; neither requests nor time carry over."""
    spec = quick_spec(steps=steps_of(SHARES, requests=2000, dwell=90.0))
    controller, before, began = Controller(spec), 0, 0.0
    while controller.kept.phase is not Phase.WATCHING:
        write = controller.reconcile()
        if write is None:
            continue
        if controller.live > 1:
            counted = controller.kept.exposed_requests
            assert counted - before >= 2000, controller.live
            assert controller.servers.now - began >= 90.0
        before, began = controller.kept.exposed_requests, controller.servers.now
        assert (controller.kept.step_requests, controller.kept.step_elapsed) == (0, 0.0)


def test_a_step_that_somebody_led_back_to_is_proved_again():
    controller = at(MOMENTS[25][0])
    controller.servers.live_percent = 1
    controller.reconcile()
    assert controller.kept.passed_percent == 0
    waits = (Reason.DWELLING, Reason.INSUFFICIENT_REQUESTS)
    assert controller.kept.cause.reason in waits
    reconciliations = 0
    while controller.live == 1:
        controller.reconcile()
        reconciliations += 1
    assert reconciliations > 1
    assert controller.until_end() is Phase.PROMOTED


def test_a_watch_that_was_broken_off_begins_anew():
    controller = at(MOMENTS["watching"][-1])
    assert controller.kept.watch_elapsed > 0
    controller.servers.live_percent = 5
    controller.reconcile()
    while controller.kept.phase is not Phase.WATCHING:
        controller.reconcile()
    assert controller.kept.watch_elapsed == 0


def test_warming_up_is_said():
    controller = Controller(quick_spec(analysis=BROAD.replace(warm_up_seconds=90.0)))
    controller.reconcile()
    controller.servers.begin_again("candidate")
    controller.reconcile()
    assert controller.kept.cause.reason is Reason.WARMING_UP
    assert (controller.kept.cause.value, controller.kept.cause.limit) == (120, 90.0)
    assert controller.until_end() is Phase.PROMOTED


def test_requests_at_a_share_that_somebody_set_are_not_those_of_the_step():
    controller = at(MOMENTS[25][0] + 1)
    before = controller.kept.step_requests
    assert before > 0
    controller.servers.live_percent = 90
    assert controller.reconcile().percent == 25
    assert controller.kept.step_requests == before


def test_a_candidate_that_is_ready_in_between_begins_to_be_unready_anew():
    controller = at(MOMENTS[25][0])
    for ready in [False] * 5 + [True] + [False] * 5:
        controller.servers.ready = ready
        controller.reconcile()
    assert controller.kept.unready_elapsed == 150.0
    assert controller.kept.phase is Phase.PROGRESSING
    controller.reconcile()
    assert controller.kept.phase is Phase.ROLLING_BACK


def test_how_far_the_logs_were_read_is_not_forgotten():
    def read_to(cursor):
        return lambda seen: seen.replace(pairs_cursor=cursor, ground_truth_cursor=cursor)

    controller = at(1)
    for cursor in ("p7", ""):
        controller.reconcile(read_to(cursor))
        assert (controller.kept.pairs_cursor, controller.kept.ground_truth_cursor) == ("p7", "p7")


def test_a_test_that_is_turned_off_has_no_say_from_then_on():
    strict = BROAD.replace(latency=LatencyTest(margin=0.0001))
    controller = Controller(quick_spec(analysis=strict))
    for _ in range(LOOKS):
        controller.reconcile()
    assert controller.live == 1
    assert controller.kept.cause.reason is Reason.INSUFFICIENT_EVIDENCE
    controller.edit(analysis=strict.replace(latency=None).model_dump())
    controller.reconcile()
    assert {verdict.test for verdict in controller.kept.verdicts} == {
        "error_rate", "rejection_rate",
    }  # fmt: skip
    assert controller.until_end() is Phase.PROMOTED


@pytest.mark.parametrize("said", [(), ("latency",), ("error_rate",)])
def test_a_step_without_a_verdict_of_each_test_waits(said):
    controller = at(MOMENTS[5][-1])
    status = controller.kept
    spec, seen = controller.spec, controller.servers.observe()
    step = spec.steps[1]
    assert hold_of_step(spec, status, step, seen, None, has_traffic=True) is None
    kept = tuple(verdict for verdict in status.verdicts if verdict.test in said)
    less = status.replace(verdicts=kept)
    hold = hold_of_step(spec, less, step, seen, None, has_traffic=True)
    assert hold.reason is Reason.INSUFFICIENT_EVIDENCE
    assert hold.test not in said


def test_as_many_requests_as_are_asked_for_are_enough():
    controller = at(MOMENTS[5][-1])
    step, seen = controller.spec.steps[1], controller.servers.observe()
    enough = step.minimum_requests
    for requests, reason in ((enough, None), (enough - 1, Reason.INSUFFICIENT_REQUESTS)):
        status = controller.kept.replace(step_requests=requests)
        hold = hold_of_step(controller.spec, status, step, seen, None, has_traffic=True)
        assert (hold and hold.reason) is reason


def test_a_candidate_without_traffic_may_take_its_time():
    controller = Controller(quick_spec())
    controller.servers.ready = False
    for _ in range(LOOKS):
        assert controller.reconcile() is None
    assert controller.kept.cause.reason is Reason.CANDIDATE_NOT_READY
    controller.servers.ready = True
    assert controller.until_end() is Phase.PROMOTED


def test_the_watch_is_as_long_as_it_is_asked_for():
    """Looks of 30 s, a watch of 60: at its beginning, in the middle, and the third is the end."""
    controller = at(MOMENTS["watching"][0])
    assert controller.kept.watch_elapsed == 0
    phases = []
    for _ in range(3):
        controller.reconcile()
        phases.append(controller.kept.phase)
    assert phases == [Phase.WATCHING, Phase.PROMOTING, Phase.PROMOTED]


def test_a_first_deployment_waits_for_the_candidate():
    controller = Controller(quick_spec(stable=None))
    controller.servers.ready = False
    for _ in range(LOOKS):
        assert controller.reconcile() is None
    assert controller.kept.cause.reason is Reason.CANDIDATE_NOT_READY
    controller.servers.ready = True
    assert controller.until_end() is Phase.PROMOTED
