"""A digest that was rolled back, and that somebody wants to be tried again."""

import pytest

from dwcp_ml.rollout.reason import Reason
from dwcp_ml.rollout.spec import Retry
from dwcp_ml.rollout.status import Phase
from tests.rollout.histories import CANDIDATE, OTHER, Controller, quick_spec


def retry(reason="the node was broken", revision=CANDIDATE):
    return Retry(digest=revision.digest, reason=reason, manager="kubectl-patch")


def rolled_back(**changes):
    """Return a rollout whose candidate failed every request, and was rolled back."""
    controller = Controller(quick_spec(**changes))
    controller.servers.errors["candidate"] = 1.0
    assert controller.until_end() is Phase.ROLLED_BACK
    return controller


def tried_again(controller, **changes):
    """Let the candidate be tried again, which is good now; its replicas are new ones."""
    controller.servers.errors["candidate"] = 0.0
    controller.servers.begin_again("candidate")
    controller.edit(**{"retry": retry(), **changes})
    return controller


def stays_blocked(controller, reconciliations=5):
    for _ in range(reconciliations):
        assert controller.reconcile() is None
    assert controller.kept.phase is Phase.ROLLED_BACK
    assert CANDIDATE.digest in controller.kept.blocked
    return True


def test_a_retry_starts_the_candidate_at_the_first_step_without_the_old_evidence():
    controller = tried_again(rolled_back())
    controller.reconcile()
    status = controller.kept
    assert status.blocked == ()
    assert (status.exposed_requests, status.passed_percent) == (0, 0)
    event = status.events[0]
    assert event.cause.reason is Reason.RETRIED
    assert "the node was broken" in event.cause.sentence
    assert "kubectl-patch" in event.cause.sentence
    assert controller.until_end() is Phase.PROMOTED
    assert controller.weights[-5:] == [1, 5, 25, 50, 100]


def test_a_second_roll_back_blocks_the_digest_again_and_the_old_retry_does_not_help():
    controller = tried_again(rolled_back())
    controller.servers.errors["candidate"] = 1.0
    assert controller.until_end() is Phase.ROLLED_BACK
    assert stays_blocked(controller)
    controller.edit(watch_seconds=61.0)
    assert stays_blocked(controller), "an edit of something else is no retry"
    controller.edit(retry=None)
    controller.reconcile()
    controller.edit(retry=retry())
    assert stays_blocked(controller), "the same reason was used"
    tried_again(controller, retry=retry("the second node was broken, too"))
    assert controller.until_end() is Phase.PROMOTED
    assert [record.unblocked for record in controller.kept.retries] == [True, True]


def test_a_retry_of_another_digest_does_nothing():
    controller = rolled_back()
    controller.edit(retry=retry(revision=OTHER))
    assert stays_blocked(controller)
    assert controller.kept.retries == ()


def test_a_retry_that_was_written_before_the_roll_back_is_used_up():
    controller = rolled_back(retry=retry())
    assert stays_blocked(controller)
    assert [record.unblocked for record in controller.kept.retries] == [False]


@pytest.mark.parametrize("dies", ["before store", "before write"])
def test_a_retry_is_neither_lost_nor_used_twice_when_the_controller_dies(dies):
    controller = tried_again(rolled_back())
    controller.reconcile(dies=dies)
    assert controller.until_end() is Phase.PROMOTED
    assert len(controller.kept.retries) == 1


def test_while_it_is_rolled_back_a_retry_waits_until_the_traffic_is_gone():
    controller = Controller(quick_spec())
    while controller.live != 5:
        controller.reconcile()
    controller.edit(abort=True)
    controller.reconcile(dies="before write")
    assert controller.kept.phase is Phase.ROLLING_BACK
    controller.edit(abort=False, retry=retry())
    controller.reconcile()
    assert (controller.kept.phase, controller.live) == (Phase.ROLLING_BACK, 0)
    controller.reconcile()
    assert controller.kept.phase is Phase.ROLLED_BACK
    tried_again(controller)
    assert controller.until_end() is Phase.PROMOTED


def test_a_retry_waits_until_abort_is_false():
    controller = rolled_back()
    controller.edit(abort=True, retry=retry())
    assert stays_blocked(controller)
    tried_again(controller, abort=False)
    assert controller.until_end() is Phase.PROMOTED


def test_abort_ends_a_retry_and_blocks_the_digest():
    controller = tried_again(rolled_back())
    while controller.live != 5:
        controller.reconcile()
    controller.edit(abort=True)
    assert controller.until_end() is Phase.ROLLED_BACK
    controller.edit(abort=False)
    assert stays_blocked(controller)
    assert controller.live == 0


def test_a_blocked_candidate_that_comes_back_later_can_bring_its_retry():
    controller = rolled_back()
    controller.servers.errors["candidate"] = 0.0
    controller.edit(candidate=OTHER, retry=retry())
    for _ in range(3):
        controller.reconcile()
    assert CANDIDATE.digest in controller.kept.blocked, "a retry is about the candidate only"
    controller.servers.live_percent = 0
    tried_again(controller, candidate=CANDIDATE)
    controller.reconcile()
    assert controller.kept.blocked == ()
    assert controller.until_end() is Phase.PROMOTED


IN_RUNTIME = CANDIDATE.replace(runtime="dwcp-ml-60303ae2")


def test_the_same_bundle_in_another_runtime_is_another_candidate():
    controller = rolled_back()
    controller.servers.errors["candidate"] = 0.0
    controller.servers.begin_again("candidate")
    controller.edit(candidate=IN_RUNTIME)
    controller.reconcile()
    assert controller.kept.revision == IN_RUNTIME
    assert controller.kept.exposed_requests == 0
    assert controller.until_end() is Phase.PROMOTED
    controller.servers.live_percent, controller.servers.promoted = 0, False
    controller.edit(candidate=CANDIDATE)
    assert controller.until_end() is Phase.ROLLED_BACK
    assert controller.kept.cause.reason is Reason.PREVIOUSLY_ROLLED_BACK


def test_a_status_that_a_release_without_retries_wrote_unblocks_nothing():
    """It dropped which ones were used: of two releases that take turns, none unblocks twice."""
    controller = tried_again(rolled_back())
    controller.servers.errors["candidate"] = 1.0
    assert controller.until_end() is Phase.ROLLED_BACK
    stored = controller.kept.model_dump(exclude={"retries", "knows_retries"})
    controller.kept = type(controller.kept).model_validate(stored)
    assert stays_blocked(controller)
    controller.servers.errors["candidate"] = 0.0
    controller.servers.begin_again("candidate")
    controller.edit(retry=retry("another reason"))
    assert controller.until_end() is Phase.PROMOTED
