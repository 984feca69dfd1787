"""Every path of a rollout in both modes, over a played KServe with its known faults."""

import pytest

from dwcp_ml.kube.api import POD
from dwcp_ml.kube.kserve import Refused
from tests.kube.kserve.fakes import (
    CANDIDATE,
    MODES,
    NEXT,
    SPACE,
    STABLE,
    STEPS,
    Playing,
    bundle,
    replicas,
)


@pytest.fixture(params=MODES)
def playing(request):
    return Playing(request.param)


def served(one):
    return one and (one.version, one.digest, one.uri)


def names(wanted):
    return (wanted.version, wanted.digest.removeprefix("sha256:"), wanted.storage_uri)


def test_nothing_is_there(playing):
    live = playing.read()
    assert (live.exists, live.percent, live.stable, live.candidate) == (False, 0, None, None)
    assert (live.promoted, live.candidate_ready, live.resource_version) == (False, False, "")


def test_a_first_deployment_is_one_write(playing):
    playing.router.set(playing.read(STABLE), STABLE, 100)
    waiting = playing.read(STABLE)
    assert (waiting.exists, waiting.percent, waiting.promoted) == (True, 0, False)
    assert not waiting.candidate_ready
    playing.kserve.settle()
    live = playing.read(STABLE)
    assert (live.percent, live.error, live.promoted, live.candidate_ready) == (100, "", True, True)
    assert served(live.stable) == names(STABLE)
    assert live.candidate is None
    assert live.pods["stable"] == ()
    assert len(live.pods["candidate"]) == 1
    assert playing.writes() == 1


def test_a_first_deployment_gets_everything_or_nothing(playing):
    with pytest.raises(Refused, match="gets 100 %"):
        playing.router.set(playing.read(STABLE), STABLE, 1)
    assert playing.writes() == 0


def test_a_first_deployment_is_corrected_in_its_place(playing):
    wrong = bundle(1, storage_uri="s3://models/typo")
    playing.kserve.unready = {"bandwidth-predictor-v20260101-000000-predictor",
                              "bandwidth-predictor-predictor-00001"}  # fmt: skip
    playing.set(100, wrong)
    assert not playing.read(wrong).candidate_ready
    playing.kserve.unready = set()
    playing.deploy(STABLE)
    assert playing.predictor["model"]["storageUri"] == STABLE.storage_uri


def test_the_only_one_can_not_lose_its_traffic(playing):
    live = playing.deploy()
    with pytest.raises(Refused, match="nothing that could take its traffic"):
        playing.router.set(live, STABLE, 0)


def test_a_candidate_is_first_put_beside_the_stable_without_traffic(playing):
    playing.deploy()
    live = playing.set(0)
    assert (live.percent, live.candidate_ready, live.promoted) == (0, True, False)
    assert served(live.stable) == names(STABLE)
    assert served(live.candidate) == names(CANDIDATE)
    assert len(live.pods["stable"]) == len(live.pods["candidate"]) == 1
    assert set(live.pods["stable"]).isdisjoint(live.pods["candidate"])


def test_both_arms_are_seen_at_every_step(playing):
    playing.deploy()
    stable = playing.read().pods["stable"]
    assert len(stable) == 1
    for percent in (0, *STEPS):
        pods = playing.set(percent).pods
        assert pods["stable"] == stable
        assert len(pods["candidate"]) == 1


def test_a_candidate_is_not_ready_before_kserve_has_made_it(playing):
    playing.deploy()
    wrong = bundle(2, storage_uri="s3://models/typo")
    for wanted in (wrong, CANDIDATE):  # one digest, two addresses
        playing.router.set(playing.read(wanted), wanted, 0)
        live = playing.read(wanted)
        assert (live.percent, live.candidate.uri) == (0, wanted.storage_uri)
        assert not live.candidate_ready
        playing.kserve.settle()
        assert playing.read(wanted).candidate_ready


def test_every_step_and_promotion_in_seven_writes(playing):
    playing.deploy()
    before = playing.writes()
    playing.raise_to(100)
    live = playing.promote()
    assert (live.percent, live.candidate, live.error) == (100, None, "")
    assert served(live.stable) == names(CANDIDATE)
    assert playing.writes() - before == len(STEPS) + 2
    assert playing.kserve.broken == []


@pytest.mark.parametrize("percent", [0, *STEPS])
def test_a_candidate_is_taken_back_from_every_step(playing, percent):
    playing.deploy()
    playing.raise_to(percent)
    before, spec = playing.writes(), playing.service["spec"]
    live = playing.take_back()
    assert (live.percent, live.candidate, live.promoted) == (0, None, False)
    assert served(live.stable) == names(STABLE)
    assert playing.writes() - before <= 3
    assert playing.kserve.broken == []
    assert spec != playing.service["spec"]
    assert playing.read(STABLE).percent == 100


@pytest.mark.parametrize("percent", [1, 100])
def test_the_next_candidate_after_one_was_taken_back(playing, percent):
    playing.deploy()
    playing.raise_to(percent)
    playing.take_back()
    playing.raise_to(100, NEXT)
    assert served(playing.promote(NEXT).stable) == names(NEXT)
    assert playing.kserve.broken == []


def test_one_rollout_after_the_other_leaves_nothing_behind(playing):
    playing.deploy()
    sizes = []
    for day in range(2, 6):
        wanted = bundle(day)
        playing.raise_to(100, wanted)
        playing.promote(wanted)
        sizes.append(len(str(playing.service["spec"])))
    assert len(set(sizes[1:])) == 1


@pytest.mark.parametrize("percent", [0, 25, 100])
def test_a_new_candidate_takes_the_place_of_one_that_has_traffic(playing, percent):
    playing.deploy()
    playing.raise_to(percent)

    def act(live):
        if live.percent is None:
            return  # a look holds
        assert live.percent == 0
        playing.router.set(live, NEXT, 0)

    def done(live):
        return live.candidate is not None and live.candidate.version == NEXT.version

    live = playing.until(lambda live: done(live) and live.candidate_ready, act, NEXT)
    assert (live.percent, served(live.stable)) == (0, names(STABLE))
    assert playing.kserve.broken == []
    playing.raise_to(100, NEXT)
    assert playing.promote(NEXT).promoted


def test_the_stable_wins_over_a_candidate_that_is_given_up(playing):
    """Somebody names as the candidate what is live already."""
    playing.deploy()
    playing.raise_to(25)
    assert playing.read(STABLE).percent == 75
    live = playing.until(
        lambda live: live.promoted, lambda live: playing.router.set(live, STABLE, 100), STABLE
    )
    assert (live.percent, live.candidate) == (100, None)
    assert playing.kserve.broken == []


def test_what_stands_is_left_alone(playing):
    playing.deploy()
    for percent in (0, 5):
        playing.set(percent)
        before = playing.writes()
        for _ in range(3):
            assert playing.set(percent).percent == percent
        assert playing.writes() == before
    playing.raise_to(100)
    live = playing.promote()
    before = playing.writes()
    playing.router.promote(live, CANDIDATE)
    playing.router.drop(live)
    assert playing.writes() == before


def test_an_address_that_was_wrong_is_corrected(playing):
    playing.deploy()
    wrong = bundle(2, storage_uri="s3://models/typo")
    playing.set(0, wrong)
    live = playing.set(0)
    assert served(live.candidate) == names(CANDIDATE)
    assert live.candidate_ready
    assert playing.raise_to(5).percent == 5


def test_crashes_are_those_of_the_candidate(playing):
    playing.deploy()
    live = playing.set(0)
    candidate, stable = sorted(
        {pod["metadata"]["ownerReferences"][0]["uid"] + pod["metadata"]["name"]
         for pod in playing.api.list(POD, SPACE)}
    )[:2]  # fmt: skip
    assert (candidate, stable, live.restarts) != ("", "", 1)
    names_ = {pod["metadata"]["name"].rsplit("-", 1)[0] for pod in playing.api.list(POD, SPACE)}
    playing.kserve.crashes = dict.fromkeys(names_, 2)
    playing.kserve.settle()
    assert playing.read().restarts == 2
    playing.kserve.crashes = {name: 2 for name in names_ if "v20260101" in name or "00001" in name}
    playing.kserve.settle()
    assert playing.read().restarts == 0


def test_a_service_that_is_deleted_or_stopped_tells_nothing(playing):
    playing.deploy()
    playing.set(1)

    def stop(found):
        found["metadata"]["annotations"]["serving.kserve.io/stop"] = "true"

    playing.api.edit(*service_of(playing), stop)
    assert (playing.read().percent, playing.read().error) == (
        None, "the InferenceService is stopped.",
    )  # fmt: skip

    def begin(found):
        found["metadata"]["finalizers"] = ["inferenceservice.finalizers"]

    playing.api.edit(*service_of(playing), begin)
    playing.api.aside().delete(*service_of(playing))
    assert playing.read().error == "the InferenceService is being deleted."


def service_of(playing):
    from dwcp_ml.kube.api import INFERENCE_SERVICE

    return INFERENCE_SERVICE, playing.service["metadata"]["namespace"], "bandwidth-predictor"


def test_several_replicas(playing):
    playing.deploy(bundle(1, predictor=replicas(3, 5)))
    wanted = bundle(2, predictor=replicas(3, 6))
    live = playing.raise_to(100, wanted)
    assert len(live.pods["candidate"]) == 3
    playing.promote(wanted)
    assert (playing.predictor["minReplicas"], playing.predictor["maxReplicas"]) == (3, 6)
