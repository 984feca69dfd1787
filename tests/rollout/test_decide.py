"""The decision, one situation a test; the evidence is real, the environment is simulated."""

import pytest

from dwcp_ml.rollout.analysis import Evidence
from dwcp_ml.rollout.cause import Cause
from dwcp_ml.rollout.reason import Reason
from dwcp_ml.rollout.simulated_environment import Traffic
from dwcp_ml.rollout.spec import (
    Analysis,
    DivergenceTest,
    ErrorRateTest,
    GroundTruthTest,
    Revision,
    Skip,
    Step,
)
from dwcp_ml.rollout.status import Phase
from dwcp_ml.rollout.verdict import Outcome
from tests.rollout.histories import CANDIDATE, SHARES, Run, spec_of


def test_a_good_candidate_goes_step_by_step_to_all_traffic():
    run = Run()
    status = run.until(Phase.PROMOTED)
    assert run.weights == [0, *SHARES]
    assert run.world.promoted
    assert [event.phase for event in status.events][-1] is Phase.PROMOTED


def test_a_bad_candidate_is_taken_back_and_stays_away():
    run = Run(traffic=Traffic(candidate_errors=0.05))
    status = run.until(Phase.ROLLED_BACK)
    assert run.world.live_percent == 0
    assert (status.cause.reason, status.cause.test) == (Reason.TEST_FAILED, "error_rate")
    assert CANDIDATE.digest in status.blocked
    before = run.world.writes
    for _ in range(20):
        assert run.reconcile() is None
    assert run.world.writes == before


def test_a_slow_candidate_is_taken_back():
    run = Run(traffic=Traffic(slower=2.0))
    cause = run.until(Phase.ROLLED_BACK).cause
    assert (cause.reason, cause.test) == (Reason.TEST_FAILED, "latency")
    assert "took longer than" in cause.sentence


def test_a_candidate_that_answers_otherwise_is_taken_back():
    spec = spec_of(analysis=Analysis(divergence=DivergenceTest(tolerance=0.1)))
    run = Run(spec, Traffic(divergence=0.25))
    cause = run.until(Phase.ROLLED_BACK).cause
    assert (cause.reason, cause.test) == (Reason.TEST_FAILED, "divergence")


def test_a_candidate_that_turns_out_wrong_after_promotion_is_reverted():
    analysis = Analysis(ground_truth=GroundTruthTest(margin=0.01))
    late = Traffic(candidate_loss=0.12, labelled_share=0.5, label_delay_seconds=1500)
    run = Run(spec_of(analysis=analysis, watch_seconds=4000.0), late)
    status = run.until(Phase.ROLLED_BACK)
    assert max(run.weights) == 100, "its truth came only then"
    assert (status.cause.reason, status.cause.test) == (Reason.TEST_FAILED, "ground_truth")


def test_errors_that_begin_with_all_traffic_are_reverted():
    run = Run(spec_of(watch_seconds=2000.0))
    run.until(Phase.WATCHING)
    object.__setattr__(run.world.traffic, "candidate_errors", 0.08)
    cause = run.until(Phase.ROLLED_BACK).cause
    assert (cause.reason, cause.test) == (Reason.TEST_FAILED, "watch")


def test_without_traffic_it_holds_and_says_so():
    run = Run(traffic=Traffic(requests_per_second=0.0))
    for _ in range(500):
        run.reconcile()
    assert run.status.phase is Phase.PROGRESSING
    assert run.world.live_percent == 1
    cause = run.status.cause
    assert cause.reason is Reason.INSUFFICIENT_REQUESTS
    assert (cause.value, cause.limit, cause.percent) == (0, 100, 1)


def broken_arm(name, why="connection refused"):
    def change(seen):
        arm = getattr(seen, name).replace(error=why, replicas=())
        return seen.replace(**{name: arm})

    return change


@pytest.mark.parametrize("name", ["stable", "candidate"])
def test_while_metrics_are_down_it_holds_and_then_goes_on_by_itself(name):
    run = Run()
    run.until(Phase.PROGRESSING)
    for _ in range(180):
        run.reconcile(broken_arm(name)(run.world.observe()))
        assert run.world.live_percent == 1
    cause = run.status.cause
    assert (cause.reason, cause.arm) == (Reason.METRICS_UNAVAILABLE, name)
    assert cause.detail == "connection refused"
    assert {verdict.outcome for verdict in run.status.verdicts} == {Outcome.ERROR}
    run.until(Phase.PROMOTED)
    assert run.weights == [0, *SHARES]


def test_a_router_that_does_not_answer_holds():
    run = Run()
    run.until(Phase.PROGRESSING)
    blind = run.world.observe().replace(live_percent=None, router_error="connection refused")
    assert run.reconcile(blind) is None
    assert run.status.cause.reason is Reason.WEIGHT_UNKNOWN
    assert run.status.cause.detail == "connection refused"


def test_a_crash_looping_candidate_is_taken_back_though_it_serves_nothing():
    run = Run(traffic=Traffic(requests_per_second=0.0))
    run.until(Phase.PROGRESSING)
    for restarts in range(1, 10):
        seen = run.world.observe()
        arm = seen.candidate.replace(restarts=restarts, ready=False)
        run.reconcile(seen.replace(candidate=arm))
        if run.status.phase in (Phase.ROLLING_BACK, Phase.ROLLED_BACK):
            break
    assert restarts == 3
    assert run.status.cause.reason is Reason.CANDIDATE_CRASHED
    assert run.status.cause.value == 3


def observed_with(run, restarts, stable_restarts=0, pods=1, stable_pods=1, **candidate):
    """Reconcile once more with these restarts of both arms."""
    seen = run.world.observe()
    arm = seen.candidate.replace(restarts=restarts, pods=pods, **candidate)
    stable = seen.stable.replace(restarts=stable_restarts, pods=stable_pods)
    seen = seen.replace(candidate=arm, stable=stable)
    run.status = run.status.with_stable(seen)
    run.reconcile(seen)
    return run.status


@pytest.mark.parametrize(
    ("restarts", "stable_restarts", "pods", "stable_pods", "is_rolled_back"),
    [
        (3, 0, 1, 1, True),
        (3, 1, 1, 1, False),
        (4, 1, 1, 1, True),
        (20, 20, 1, 1, False),
        (3, 9, 1, 10, False),
        (3, 0, 1, 10, True),
        (4, 9, 1, 10, True),
        (9, 3, 3, 1, False),
        (3, 3, 0, 0, False),
    ],
)
def test_restarts_count_as_far_as_the_stable_does_not_restart_as_often(
    restarts, stable_restarts, pods, stable_pods, is_rolled_back
):
    """Per pod: nine restarts of ten pods are about one of one pod."""
    run = Run()
    run.until(Phase.PROGRESSING)
    observed_with(run, 0, 7)
    status = observed_with(run, restarts, 7 + stable_restarts, pods, stable_pods)
    assert (status.phase in (Phase.ROLLING_BACK, Phase.ROLLED_BACK)) == is_rolled_back
    if is_rolled_back:
        assert status.cause.reason is Reason.CANDIDATE_CRASHED


def test_restarts_of_a_stable_pod_that_was_replaced_still_count():
    run = Run()
    run.until(Phase.PROGRESSING)
    observed_with(run, 0, 0)
    observed_with(run, 2, 2)
    status = observed_with(run, 4, 0)
    assert status.phase is Phase.PROGRESSING


@pytest.mark.parametrize("trouble", ["none", "the cluster's", "the stable's too"])
def test_a_candidate_is_rolled_back_for_readiness_only_if_it_may_be_its_own_fault(trouble):
    run = Run()
    run.until(Phase.PROGRESSING)
    problem = Cause(reason=Reason.CLUSTER_PROBLEM, detail="Unschedulable of the pod p")
    for _ in range(60):
        seen = run.world.observe()
        arm = seen.candidate.replace(
            ready=False, problem=problem if trouble == "the cluster's" else None
        )
        stable = seen.stable.replace(ready=trouble != "the stable's too")
        seen = seen.replace(candidate=arm, stable=stable)
        run.status = run.status.with_stable(seen)
        run.reconcile(seen)
    if trouble == "none":
        assert run.status.phase is Phase.ROLLED_BACK
        assert run.status.cause.reason is Reason.CANDIDATE_UNREADY
    else:
        assert run.status.phase is Phase.PROGRESSING
        run.until(Phase.PROMOTED)


def test_a_candidate_that_crashes_before_it_ever_shows_a_metric_is_taken_back():
    run = Run()
    for restarts in range(6):
        seen = run.world.observe()
        arm = seen.candidate.replace(restarts=restarts, ready=False, error="refused", replicas=())
        run.reconcile(seen.replace(candidate=arm))
    assert run.status.phase is Phase.ROLLED_BACK
    assert run.weights == [0]


def test_a_candidate_that_stays_unready_is_taken_back():
    run = Run()
    run.until(Phase.PROGRESSING)
    for _ in range(40):
        seen = run.world.observe()
        arm = seen.candidate.replace(ready=False)
        run.reconcile(seen.replace(candidate=arm))
    assert run.status.phase is Phase.ROLLED_BACK
    assert run.status.cause.reason is Reason.CANDIDATE_UNREADY


def test_pause_holds_the_rise_and_not_the_way_back():
    spec = spec_of()
    run = Run(spec, Traffic(candidate_errors=0.05))
    run.until(Phase.PROGRESSING)
    run.spec = spec.replace(paused=True)
    run.until(Phase.ROLLED_BACK)
    assert run.weights == [0, 1, 0]
    good = Run(spec)
    good.until(Phase.PROGRESSING)
    good.spec = spec.replace(paused=True)
    for _ in range(500):
        good.reconcile()
    assert (good.status.phase, good.world.live_percent) == (Phase.PAUSED, 1)
    good.spec = spec
    good.until(Phase.PROMOTED)


def test_abort_takes_it_back():
    run = Run()
    run.until(Phase.PROGRESSING)
    run.spec = run.spec.replace(abort=True)
    assert run.until(Phase.ROLLED_BACK).cause.reason is Reason.ABORTED


def test_a_skipped_step_names_the_reason_and_goes_on():
    spec = spec_of(skip=Skip(traffic_percent=1, reason="checked by hand"))
    run = Run(spec, Traffic(requests_per_second=1.0))
    for _ in range(30):
        run.reconcile()
    assert run.world.live_percent == 5
    skipped = [each for each in run.status.events if each.cause.reason is Reason.STEP_SKIPPED]
    assert [each.cause.detail for each in skipped] == ["checked by hand"]


def test_a_new_candidate_in_mid_step_begins_anew_with_fresh_evidence():
    run = Run()
    while run.world.live_percent < 25:
        run.reconcile()
    another = Revision(version="3", digest="c" * 64)
    run.spec = run.spec.replace(candidate=another)
    run.world.spec = run.spec
    run.reconcile()
    assert run.status.revision == another
    assert run.world.live_percent == 0
    assert run.status.passed_percent == 0
    assert run.status.evidence.error_rate is None or (
        run.status.evidence.error_rate.harm.candidate.requests < 100
    )
    run.until(Phase.PROMOTED)


def test_a_revision_that_was_rolled_back_never_rises_again():
    run = Run(traffic=Traffic(candidate_errors=0.05))
    run.until(Phase.ROLLED_BACK)
    other = Revision(version="3", digest="c" * 64)
    for candidate in (other, CANDIDATE):
        run.spec = run.spec.replace(candidate=candidate)
        run.world.spec = run.spec
        run.reconcile()
    for _ in range(50):
        run.reconcile()
    assert run.status.phase is Phase.ROLLED_BACK
    assert run.status.cause.reason is Reason.PREVIOUSLY_ROLLED_BACK
    assert run.world.live_percent == 0


@pytest.mark.parametrize(("live", "then"), [(80, 5), (0, 1), (3, 1), (2, 1)])
def test_a_weight_that_somebody_else_set_leads_to_the_nearest_lower_step(live, then):
    run = Run()
    while run.world.live_percent < 5:
        run.reconcile()
    run.reconcile()
    run.world.live_percent = live
    seen = []
    for _ in range(3):
        run.reconcile(seconds=1.0)
        seen.append(run.world.live_percent)
    assert then in seen
    assert max(seen) <= 5


def test_an_edited_step_goes_to_the_nearest_lower_one():
    run = Run()
    while run.world.live_percent < 25:
        run.reconcile()
    steps = tuple(
        Step(traffic_percent=share, minimum_requests=100, dwell_seconds=30)
        for share in (1, 10, 60, 100)
    )
    run.spec = run.spec.replace(steps=steps)
    run.reconcile()
    assert run.world.live_percent == 10
    run.until(Phase.PROMOTED)
    assert run.weights[-3:] == [10, 60, 100]


def test_a_write_that_was_lost_is_made_again():
    run = Run()
    run.until(Phase.PROGRESSING)
    run.world.live_percent = 0  # the write never reached the router
    assert run.reconcile(seconds=1.0).percent == 1


def test_a_clock_that_jumps_does_not_shorten_a_dwell():
    run = Run(
        spec_of(
            steps=(
                Step(traffic_percent=1, minimum_requests=0, dwell_seconds=600),
                Step(traffic_percent=100),
            )
        )
    )
    run.until(Phase.PROGRESSING)
    run.world.now += 3600
    run.reconcile()
    assert run.status.step_elapsed <= 60
    run.world.now -= 7200
    run.reconcile()
    assert 0 <= run.status.step_elapsed <= 60


def test_a_first_deployment_has_nothing_to_compare_with():
    run = Run(spec_of(stable=None))
    run.reconcile()
    assert run.status.phase is Phase.FIRST_DEPLOYMENT
    assert run.world.live_percent == 100
    run.reconcile()
    assert run.status.phase is Phase.PROMOTED


def test_what_the_candidate_answers_while_warming_up_does_not_count():
    run = Run(spec_of(analysis=Analysis(warm_up_seconds=120)))
    run.reconcile()

    def young():
        seen = run.world.observe()
        replicas = tuple(
            each.replace(started_at=run.status.started_at + 1.0) for each in seen.candidate.replicas
        )
        return seen.replace(candidate=seen.candidate.replace(replicas=replicas))

    for _ in range(10):
        run.reconcile(young())
    assert run.status.warm_up_requests > 0
    assert run.status.evidence.error_rate.harm.candidate.requests == 0
    assert run.status.step_requests == 0
    assert run.status.exposed_requests == run.status.warm_up_requests
    assert run.status.cause.reason is Reason.WARMING_UP


def test_a_candidate_that_rejects_everything_is_rolled_back():
    """It expects another shape, say: every response is a 4xx, and none is an error of a server."""
    run = Run()

    def rejecting(arm):
        replicas = tuple(each.replace(rejected=each.requests) for each in arm.replicas)
        return arm.replace(replicas=replicas)

    for _ in range(60):
        seen = run.world.observe()
        run.reconcile(seen.replace(candidate=rejecting(seen.candidate)))
        if run.status.ended:
            break
    assert run.status.phase is Phase.ROLLED_BACK
    assert run.status.cause.test == "rejection_rate"
    assert run.world.live_percent == 0


def test_servers_of_another_revision_are_not_believed():
    run = Run()
    run.until(Phase.PROGRESSING)
    seen = run.world.observe()
    arm = seen.candidate.replace(digest="d" * 64, version="0")
    run.reconcile(seen.replace(candidate=arm))
    assert run.status.cause.reason is Reason.BUNDLE_MISMATCH
    assert run.status.cause.version == "0"


def test_a_first_deployment_waits_while_paused():
    run = Run(spec_of(stable=None, paused=True))
    for _ in range(3):
        assert run.reconcile() is None
    assert run.status.cause.reason is Reason.PAUSED
    run.spec = run.spec.replace(paused=False)
    run.until(Phase.PROMOTED)


def test_what_is_set_again_waits_while_paused_and_comes_down_at_once():
    run = Run()
    while run.world.live_percent < 5:
        run.reconcile()
    run.spec = run.spec.replace(paused=True)
    run.world.live_percent = 1
    assert run.reconcile(seconds=1.0) is None
    assert run.status.cause.sentence == "Paused by the user at 1 %."
    run.world.live_percent = 50
    assert run.reconcile(seconds=1.0).percent <= 5


def test_once_promoted_there_is_nothing_to_go_back_to():
    run = Run()
    run.until(Phase.PROMOTING)
    assert run.world.promoted
    run.spec = run.spec.replace(abort=True)
    seen = run.world.observe()
    bad = seen.candidate.replace(restarts=9)
    gone = seen.replace(candidate=bad, live_percent=None)
    assert run.reconcile(gone) is None
    assert run.status.phase is Phase.PROMOTED


def test_a_weight_that_somebody_sets_while_it_is_promoted_is_proved_again():
    run = Run()
    run.until(Phase.PROMOTING)
    run.world.promoted = False  # the write was lost
    run.world.live_percent = 0
    weights = []
    for _ in range(2000):
        run.reconcile()
        weights.append(run.world.live_percent)
        if run.status.ended:
            break
    assert list(dict.fromkeys(weights)) == list(SHARES)
    assert run.status.phase is Phase.PROMOTED


def test_a_status_that_bars_its_own_revision_is_not_believed_in_the_rest():
    run = Run()
    while run.world.live_percent < 25:
        run.reconcile()
    run.status = run.status.replace(blocked=(CANDIDATE.digest,))
    assert run.reconcile().percent == 0
    assert run.until(Phase.ROLLED_BACK)


def test_nothing_known_of_the_stable_at_100_percent_does_not_blind_the_watch():
    """An operator of another release stored the evidence: this one can't read it."""
    run = Run()
    run.until(Phase.WATCHING)
    run.status = run.status.replace(evidence=Evidence(), verdicts=())
    run.world.traffic = Traffic(candidate_errors=1.0)
    run.until(Phase.ROLLED_BACK, Phase.PROMOTED)
    assert run.status.phase is Phase.ROLLED_BACK
    assert run.status.cause.test == "watch"


def test_a_margin_that_is_edited_in_the_watch_does_not_blind_it():
    run = Run()
    run.until(Phase.WATCHING)
    analysis = run.spec.analysis.replace(error_rate=ErrorRateTest(margin=0.02))
    run.spec = run.spec.replace(analysis=analysis, generation=2)
    run.world.traffic = Traffic(candidate_errors=1.0)
    run.until(Phase.ROLLED_BACK, Phase.PROMOTED)
    assert run.status.phase is Phase.ROLLED_BACK


def test_a_stable_that_is_not_scraped_once_does_not_fix_the_bound_of_the_watch():
    run = Run(traffic=Traffic(requests_per_second=20.0))
    while run.world.live_percent < 25:
        run.reconcile()
    seen = run.world.observe()
    run.reconcile(seen.replace(stable=seen.stable.replace(error="timed out", replicas=())))
    run.reconcile()
    assert run.status.evidence.watch is None
