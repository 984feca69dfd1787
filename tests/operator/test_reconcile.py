"""Every path of a rollout on a cluster, in virtual time; the rules hold at each write.

The first ones of all are in test_reconcile_first, and are fast.
"""

import pytest

from dwcp_ml.operator.settings import Pace
from tests.operator.fake_servers import digest_of, shares_in, workload_of
from tests.operator.scenario import (
    SHARES,
    Scene,
    at,
    candidate,
    digest,
    rollout,
)

pytestmark = pytest.mark.slow


def asked(service):
    return shares_in(service).get(digest(2))


# where everything is well


@pytest.mark.parametrize("shares", [(1, 5, 25, 50, 100), (10, 100), (2, 3, 50, 100)])
def test_the_writes_of_a_rollout_are_bounded(shares):
    """Status and InferenceService together; Events and Leases are not counted."""
    scene = Scene(rollout(shares=shares))
    assert scene.until_end() == "Promoted"
    assert sum(scene.rules.writes.values()) <= 2 * (len(shares) + 2)


def test_nothing_is_written_once_it_has_ended():
    scene = Scene()
    scene.until_end()
    version = scene.api.version
    for _ in range(20):
        scene.look(300)
    assert scene.api.version == version


def test_how_long_it_takes_does_not_change_how_often_is_written():
    """Ten times as slow a rollout, looked at as often: evidence alone is not worth a write."""
    scene = Scene(rollout(requests=20_000))
    assert scene.until_end(looks=4000) == "Promoted"
    assert sum(scene.rules.writes.values()) <= 2 * (len(SHARES) + 2)


def test_evidence_can_be_stored_more_often_if_somebody_wants_to_see_it():
    scene = Scene(pace=Pace(evidence_seconds=20))
    scene.until_end()
    assert scene.rules.writes["status"] > 2 * len(SHARES)


def test_what_is_live_already_is_said_to_be():
    scene = Scene(rollout(1))
    before = scene.service
    assert scene.until_end() == "Promoted"
    assert scene.service == before


# back


@pytest.mark.parametrize("share", SHARES)
def test_it_is_taken_back_from_every_step(share):
    scene = at(share)
    scene.edit(lambda one: one["spec"].update(abort=True))
    assert scene.until_end() == "RolledBack"
    assert scene.final[1:] == (digest(1), [], [digest(2)])
    assert scene.kserve.broken == []
    assert sum(scene.rules.writes.values()) <= 2 * (len(SHARES) + 2) + 1


def test_a_candidate_that_crashes_before_it_has_traffic_is_taken_out():
    scene = Scene()
    scene.kserve.unready.add(workload_of(2))
    scene.look()
    scene.look()
    scene.kserve.crashes[workload_of(2)] = 3
    assert scene.until_end() == "RolledBack"
    assert scene.final[1:] == (digest(1), [], [digest(2)])
    assert scene.rules.weights == []


def test_a_first_deployment_that_crashes_is_taken_away_whole():
    scene = Scene(first=True)
    scene.kserve.unready.add(workload_of(2))
    scene.look()
    scene.look()
    scene.kserve.crashes[workload_of(2)] = 3
    assert scene.until_end() == "RolledBack"
    assert scene.service is None


def test_a_first_deployment_that_never_became_ready_makes_room_for_the_next():
    scene = Scene(first=True)
    scene.kserve.unready.add(workload_of(2))
    for _ in range(3):
        scene.look()
    scene.edit(lambda one: one["spec"].update(candidate=candidate(3)))
    assert scene.until_end() == "Promoted"
    assert scene.final[1] == digest(3)


def test_a_candidate_that_was_rolled_back_never_rises_again():
    scene = at(5)
    scene.edit(lambda one: one["spec"].update(abort=True))
    scene.until_end()
    for number, phase in ((3, "Promoted"), (2, "RolledBack")):
        changed = {"candidate": candidate(number), "abort": False}
        scene.edit(lambda one, changed=changed: one["spec"].update(changed))
        scene.look()
        assert scene.until_end() == phase
    assert digest_of(scene.service["spec"]["predictor"]) == digest(3)


# the other mode


@pytest.mark.parametrize("slow", [False, True])
def test_a_good_candidate_rises_in_knative_mode_too(slow):
    scene = Scene(mode="Knative", slow=slow)
    assert scene.until_end() == "Promoted"
    assert scene.rules.weights == list(SHARES)
    assert shares_in(scene.service) == {digest(2): 100}
    assert "canaryTrafficPercent" not in scene.service["spec"]["predictor"]
    assert scene.fleet.routed() == {digest(2): 100}
    assert sum(scene.rules.writes.values()) <= 2 * (len(SHARES) + 2)


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("share", SHARES)
def test_it_is_taken_back_from_every_step_in_knative_mode_too(share, slow):
    scene = at(share, mode="Knative", slow=slow)
    scene.edit(lambda one: one["spec"].update(abort=True))
    assert scene.until_end() == "RolledBack"
    assert shares_in(scene.service) == scene.fleet.routed() == {digest(1): 100}
    assert "canaryTrafficPercent" not in scene.service["spec"]["predictor"]


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("share", SHARES)
def test_a_new_candidate_in_the_middle_of_a_step_begins_anew_in_knative_mode_too(share, slow):
    """Also at 100, where KServe takes the former candidate for the stable."""
    scene = at(share, mode="Knative", slow=slow)
    scene.edit(lambda one: one["spec"].update(candidate=candidate(3)))
    scene.rules.weights.clear()
    assert scene.until("Progressing") == "Progressing"
    while not scene.fleet.routed().get(digest(3)):
        scene.look()
    assert digest(2) not in scene.fleet.routed(), "the rest is the stable's"
    assert scene.until_end() == "Promoted"
    assert scene.rules.weights == list(SHARES)
    assert scene.fleet.routed() == {digest(3): 100}
