"""The shadow step: before any live request, what the stable has predicted is predicted again."""

import pytest

from dwcp_ml.contract.champion import DifferenceRecord
from dwcp_ml.rollout.observation import Pair
from dwcp_ml.rollout.reason import Reason
from dwcp_ml.rollout.spec import DivergenceTest, ShadowStep, Skip
from dwcp_ml.rollout.status import Phase, Shadow
from tests.rollout.histories import BROAD, OTHER, Controller, quick_spec

PAIRS = 100
"""Of each reconciliation."""


def seen_with(difference=0.0, count=PAIRS, error="", record=None, **more):
    """Return what adds pairs, all with one difference, to an observation."""
    pairs = tuple(
        Pair(request_id=str(number), difference=min(abs(difference), 1.0), signed=difference)
        for number in range(count)
    )

    def see(found):
        return found.replace(
            are_compared=True, pairs=pairs, pairs_error=error, pairs_record=record, **more
        )

    return see


def shadow_spec(minimum=250, **changes):
    return quick_spec(shadow=ShadowStep(minimum_pairs=minimum), **changes)


def events(controller):
    return [event.cause.reason for event in controller.kept.events]


def test_no_live_request_before_enough_were_compared():
    controller = Controller(shadow_spec())
    for expected in (100, 200):
        assert controller.reconcile(seen_with()) is None
        cause = controller.kept.cause
        assert (cause.reason, cause.value, cause.limit) == (Reason.COMPARING, expected, 250)
    assert controller.reconcile(seen_with()).percent == 1
    assert controller.kept.exposed_requests == 0
    assert events(controller) == [Reason.NEW_CANDIDATE, Reason.COMPARED, Reason.STEP_STARTED][-2:]
    assert controller.until_end(seen=seen_with()) is Phase.PROMOTED


@pytest.mark.parametrize("difference", [0.2, 1.0, -0.5])
def test_a_candidate_that_predicts_something_else_never_gets_traffic(difference):
    controller = Controller(shadow_spec())
    assert controller.until_end(seen=seen_with(difference)) is Phase.ROLLED_BACK
    assert (controller.weights, controller.kept.exposed_requests) == ([0], 0)
    cause = controller.kept.cause
    assert (cause.reason, cause.test) == (Reason.TEST_FAILED, "divergence")


def test_a_difference_that_the_gate_measured_is_meant():
    record = DifferenceRecord(
        examples=1000, changed=1.0, largest_changed=1.0,
        quantiles=(0.17, 0.18, 0.19, 0.2, 0.21, 0.22, 0.23),
        largest_above=(1.0, 1.0, 0.9, 0.5, 0.1, 0.01, 0.0),
        largest_below=(0.0, 0.01, 0.1, 0.5, 0.9, 1.0, 1.0),
    )  # fmt: skip
    for difference, end in ((0.2, Phase.PROMOTED), (0.3, Phase.ROLLED_BACK)):
        controller = Controller(shadow_spec())
        assert controller.until_end(seen=seen_with(difference, record=record)) is end


def test_a_candidate_that_shows_another_record_each_time_is_judged_all_the_same():
    controller, seen = Controller(shadow_spec(minimum=10_000)), 0
    for number in range(1, 60):
        record = DifferenceRecord(examples=number, changed=0.1, largest_changed=0.1)
        controller.reconcile(seen_with(1.0, record=record))
        seen += PAIRS
        if controller.kept.ended:
            break
    assert (controller.kept.phase, seen) == (Phase.ROLLED_BACK, PAIRS)


def test_without_requests_of_the_stable_it_waits_and_says_so():
    controller = Controller(shadow_spec())
    for _ in range(5):
        assert controller.reconcile(seen_with(count=0)) is None
    assert controller.kept.cause.reason is Reason.NOTHING_TO_COMPARE


def test_where_no_requests_are_kept_it_is_skipped():
    controller = Controller(shadow_spec())
    assert controller.reconcile().percent == 1
    assert controller.kept.shadow is Shadow.SKIPPED
    assert Reason.REQUESTS_NOT_KEPT in events(controller)


def test_what_is_not_known_yet_is_waited_for():
    controller = Controller(shadow_spec())
    assert controller.reconcile(lambda found: found.replace(are_compared=None)) is None
    assert controller.kept.cause.reason is Reason.NOTHING_TO_COMPARE
    assert controller.kept.shadow is Shadow.PENDING


def test_requests_that_can_not_be_compared_hold_and_harm_that_was_shown_counts_all_the_same():
    controller = Controller(shadow_spec())
    assert controller.reconcile(seen_with(count=10, error="the port is closed.")) is None
    assert controller.kept.cause.reason is Reason.TEST_UNAVAILABLE
    controller.reconcile(seen_with(1.0, error="the port is closed."))
    assert controller.kept.phase is Phase.ROLLED_BACK


def test_a_candidate_that_stops_to_answer_copies_does_not_rise():
    controller = Controller(shadow_spec())
    while controller.live < 5:
        controller.reconcile(seen_with())
    for _ in range(20):
        controller.reconcile(seen_with(count=0, error="it gave no response."))
    assert controller.live == 5
    cause = controller.kept.cause
    assert (cause.reason, cause.test) == (Reason.TEST_UNAVAILABLE, "divergence")
    assert controller.until_end(seen=seen_with()) is Phase.PROMOTED


def test_the_user_may_skip_it():
    controller = Controller(shadow_spec(skip=Skip(traffic_percent=0, reason="no traffic yet")))
    assert controller.reconcile(seen_with(count=0)).percent == 1
    assert Reason.STEP_SKIPPED in events(controller)


def test_a_skip_does_not_overrule_a_test_that_failed():
    controller = Controller(shadow_spec(skip=Skip(traffic_percent=0, reason="no traffic yet")))
    assert controller.reconcile(seen_with(1.0)) is None
    assert controller.kept.phase is Phase.ROLLED_BACK


@pytest.mark.parametrize("off", [{"shadow": None}, {"analysis": BROAD.replace(divergence=None)}])
def test_it_is_off_without_its_setting_or_its_test(off):
    controller = Controller(quick_spec(**off))
    assert controller.reconcile(seen_with(count=0)).percent == 1


def test_a_test_that_is_required_must_pass():
    required = BROAD.replace(divergence=DivergenceTest(tolerance=0.1, required=True))
    controller = Controller(shadow_spec(minimum=10, analysis=required))
    controller.reconcile(seen_with(0.1, count=10))
    assert controller.kept.cause.reason is Reason.INSUFFICIENT_EVIDENCE
    for _ in range(10):
        write = controller.reconcile(seen_with(0.0))
        if write is not None:
            break
    assert write.percent == 1


def test_it_goes_on_while_paused_and_nothing_rises():
    controller = Controller(shadow_spec(paused=True))
    for _ in range(6):
        assert controller.reconcile(seen_with()) is None
    assert controller.kept.shadow is Shadow.PASSED
    assert controller.kept.phase is Phase.PAUSED


def test_an_abort_goes_through():
    controller = Controller(shadow_spec())
    controller.reconcile(seen_with(count=10))
    controller.edit(abort=True)
    assert controller.reconcile(seen_with(count=0, error="broken")) is None
    assert controller.kept.phase is Phase.ROLLED_BACK


def test_a_candidate_that_is_not_ready_or_whose_stable_can_not_be_read_is_waited_for():
    controller = Controller(shadow_spec())
    controller.servers.ready = False
    controller.reconcile(seen_with())
    assert controller.kept.cause.reason is Reason.CANDIDATE_NOT_READY
    controller.servers.ready = True

    def blind(found):
        return seen_with()(found).replace(stable=found.stable.replace(error="no page."))

    controller.reconcile(blind)
    assert controller.kept.cause.reason is Reason.METRICS_UNAVAILABLE
    assert controller.kept.shadow is Shadow.PENDING


def test_each_candidate_has_a_shadow_step_of_its_own_and_a_weight_of_0_later_needs_none():
    controller = Controller(shadow_spec())
    while controller.live < 5:
        controller.reconcile(seen_with())
    controller.servers.live_percent = 0  # somebody else wrote it
    assert controller.reconcile(seen_with(count=0)).percent == 1
    controller.edit(candidate=OTHER.model_dump())
    controller.servers.live_percent = 0
    assert controller.reconcile(seen_with(count=0)) is None
    assert controller.kept.shadow is Shadow.PENDING


def test_a_divergence_that_begins_later_is_found_at_its_step():
    controller = Controller(shadow_spec())
    while controller.live < 25:
        controller.reconcile(seen_with())
    assert controller.until_end(seen=seen_with(0.9)) is Phase.ROLLED_BACK
    assert controller.kept.cause.test == "divergence"


def flagged_with(served, flags=20, count=PAIRS, is_rare=True):
    """Return what adds pairs of a detector, a number of them flagged by the stable."""
    pairs = tuple(
        Pair(
            request_id=str(number), difference=float(answer != served(answer)),
            signed=float(answer != served(answer)), answer=answer, rare=bool(answer) and is_rare,
        )
        for number, answer in enumerate([0] * (count - flags) + [1] * flags)
    )  # fmt: skip
    return lambda found: found.replace(are_compared=True, pairs=pairs)


DETECTOR = {"model": "reliability_detector"}


@pytest.mark.parametrize("answer", [0, 1])
def test_a_detector_that_always_says_the_same_never_gets_traffic(answer):
    controller = Controller(shadow_spec(**DETECTOR))
    seen = flagged_with(lambda _: answer)
    assert controller.until_end(seen=seen) is Phase.ROLLED_BACK
    assert (controller.weights, controller.kept.exposed_requests) == ([0], 0)
    assert controller.kept.cause.test == "divergence"
    good = Controller(shadow_spec(**DETECTOR))
    assert good.until_end(seen=flagged_with(lambda flag: flag)) is Phase.PROMOTED


def test_without_flagged_requests_the_step_says_so_and_is_let_pass_in_two_ways():
    seen = flagged_with(lambda flag: flag, flags=0)
    controller = Controller(shadow_spec(**DETECTOR))
    for _ in range(6):
        assert controller.reconcile(seen) is None
    cause = controller.kept.cause
    assert (cause.reason, cause.value, cause.limit) == (Reason.FLAG_NOT_COMPARED, 0, 160)
    controller.edit(skip=Skip(traffic_percent=0, reason="no incident for a week").model_dump())
    assert controller.reconcile(seen).percent == 1
    without = Controller(
        quick_spec(shadow=ShadowStep(minimum_pairs=250, each_flag=False), **DETECTOR)
    )
    assert [without.reconcile(seen) for _ in range(2)] == [None, None]
    assert without.reconcile(seen).percent == 1


def test_a_step_that_has_begun_compares_and_does_not_wait():
    controller = Controller(shadow_spec())
    controller.reconcile(seen_with(count=0))
    cause = controller.kept.cause
    assert (cause.reason, cause.value, cause.limit) == (Reason.COMPARING, 0, 250)


def test_paused_in_the_shadow_step_it_says_so_and_goes_on_afterwards():
    controller = Controller(shadow_spec(paused=True))
    for count in (0, 10, 0):
        assert controller.reconcile(seen_with(count=count)) is None
        cause = controller.kept.cause
        assert (controller.kept.phase, cause.reason) == (Phase.PAUSED, Reason.PAUSED)
    assert controller.kept.evidence.divergence.pairs == 10
    controller.edit(paused=False)
    controller.reconcile(seen_with(count=10))
    assert (controller.kept.phase, controller.kept.cause.reason) == (
        Phase.PENDING, Reason.COMPARING,
    )  # fmt: skip
    assert controller.until_end(seen=seen_with()) is Phase.PROMOTED


def test_while_paused_what_is_broken_is_still_said():
    controller = Controller(shadow_spec(paused=True))
    controller.reconcile(seen_with(count=10, error="the port is closed."))
    assert controller.kept.cause.reason is Reason.TEST_UNAVAILABLE
