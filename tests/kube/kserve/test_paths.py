"""Every path of a rollout in both modes, over a fake KServe with its known faults."""

import pytest

from dwcp_ml.kube.api import POD
from dwcp_ml.kube.kserve import ChangeRejected
from tests.kube.kserve.fakes import (
    CANDIDATE,
    MODES,
    NEXT,
    SPACE,
    STABLE,
    STEPS,
    RouterScenario,
    bundle,
    replicas,
)


@pytest.fixture(params=MODES)
def scenario(request):
    return RouterScenario(request.param)


def deployed(one):
    return one and (one.version, one.digest, one.uri)


def names(desired):
    return (desired.version, desired.digest.removeprefix("sha256:"), desired.storage_uri)


def test_nothing_is_there(scenario):
    live = scenario.read()
    assert (live.exists, live.percent, live.stable, live.candidate) == (False, 0, None, None)
    assert (live.promoted, live.candidate_ready, live.resource_version) == (False, False, "")


def test_a_first_deployment_is_one_write(scenario):
    scenario.router.set(scenario.read(STABLE), STABLE, 100)
    waiting = scenario.read(STABLE)
    assert (waiting.exists, waiting.percent, waiting.promoted) == (True, 0, False)
    assert not waiting.candidate_ready
    scenario.kserve.settle()
    live = scenario.read(STABLE)
    assert (live.percent, live.error, live.promoted, live.candidate_ready) == (100, "", True, True)
    assert deployed(live.stable) == names(STABLE)
    assert live.candidate is None
    assert live.pods["stable"] == ()
    assert len(live.pods["candidate"]) == 1
    assert scenario.writes() == 1


def test_a_first_deployment_gets_everything_or_nothing(scenario):
    with pytest.raises(ChangeRejected, match="gets 100 %"):
        scenario.router.set(scenario.read(STABLE), STABLE, 1)
    assert scenario.writes() == 0


def test_a_first_deployment_is_corrected_in_its_place(scenario):
    wrong = bundle(1, storage_uri="s3://models/typo")
    scenario.kserve.unready = {"bandwidth-predictor-v20260101-000000-predictor",
                              "bandwidth-predictor-predictor-00001"}  # fmt: skip
    scenario.set(100, wrong)
    assert not scenario.read(wrong).candidate_ready
    scenario.kserve.unready = set()
    scenario.deploy(STABLE)
    assert scenario.predictor["model"]["storageUri"] == STABLE.storage_uri


def test_the_only_one_can_not_lose_its_traffic(scenario):
    live = scenario.deploy()
    with pytest.raises(ChangeRejected, match="nothing that could take its traffic"):
        scenario.router.set(live, STABLE, 0)


def test_a_candidate_is_first_put_beside_the_stable_without_traffic(scenario):
    scenario.deploy()
    live = scenario.set(0)
    assert (live.percent, live.candidate_ready, live.promoted) == (0, True, False)
    assert deployed(live.stable) == names(STABLE)
    assert deployed(live.candidate) == names(CANDIDATE)
    assert len(live.pods["stable"]) == len(live.pods["candidate"]) == 1
    assert set(live.pods["stable"]).isdisjoint(live.pods["candidate"])


def test_both_arms_are_seen_at_every_step(scenario):
    scenario.deploy()
    stable = scenario.read().pods["stable"]
    assert len(stable) == 1
    for percent in (0, *STEPS):
        pods = scenario.set(percent).pods
        assert pods["stable"] == stable
        assert len(pods["candidate"]) == 1


def test_a_candidate_is_not_ready_before_kserve_has_made_it(scenario):
    scenario.deploy()
    wrong = bundle(2, storage_uri="s3://models/typo")
    for desired in (wrong, CANDIDATE):  # one digest, two addresses
        scenario.router.set(scenario.read(desired), desired, 0)
        live = scenario.read(desired)
        assert (live.percent, live.candidate.uri) == (0, desired.storage_uri)
        assert not live.candidate_ready
        scenario.kserve.settle()
        assert scenario.read(desired).candidate_ready


def test_every_step_and_promotion_in_seven_writes(scenario):
    scenario.deploy()
    before = scenario.writes()
    scenario.raise_to(100)
    live = scenario.promote()
    assert (live.percent, live.candidate, live.error) == (100, None, "")
    assert deployed(live.stable) == names(CANDIDATE)
    assert scenario.writes() - before == len(STEPS) + 2
    assert scenario.kserve.broken == []


@pytest.mark.parametrize("percent", [0, *STEPS])
def test_a_candidate_is_rolled_back_from_every_step(scenario, percent):
    scenario.deploy()
    scenario.raise_to(percent)
    before, spec = scenario.writes(), scenario.service["spec"]
    live = scenario.roll_back()
    assert (live.percent, live.candidate, live.promoted) == (0, None, False)
    assert deployed(live.stable) == names(STABLE)
    assert scenario.writes() - before <= 3
    assert scenario.kserve.broken == []
    assert spec != scenario.service["spec"]
    assert scenario.read(STABLE).percent == 100


@pytest.mark.parametrize("percent", [1, 100])
def test_the_next_candidate_after_one_was_rolled_back(scenario, percent):
    scenario.deploy()
    scenario.raise_to(percent)
    scenario.roll_back()
    scenario.raise_to(100, NEXT)
    assert deployed(scenario.promote(NEXT).stable) == names(NEXT)
    assert scenario.kserve.broken == []


def test_one_rollout_after_the_other_leaves_nothing_behind(scenario):
    scenario.deploy()
    sizes = []
    for day in range(2, 6):
        desired = bundle(day)
        scenario.raise_to(100, desired)
        scenario.promote(desired)
        sizes.append(len(str(scenario.service["spec"])))
    assert len(set(sizes[1:])) == 1


@pytest.mark.parametrize("percent", [0, 25, 100])
def test_a_new_candidate_takes_the_place_of_one_that_has_traffic(scenario, percent):
    scenario.deploy()
    scenario.raise_to(percent)

    def act(live):
        if live.percent is None:
            return  # Wait.
        assert live.percent == 0
        scenario.router.set(live, NEXT, 0)

    def done(live):
        return live.candidate is not None and live.candidate.version == NEXT.version

    live = scenario.until(lambda live: done(live) and live.candidate_ready, act, NEXT)
    assert (live.percent, deployed(live.stable)) == (0, names(STABLE))
    assert scenario.kserve.broken == []
    scenario.raise_to(100, NEXT)
    assert scenario.promote(NEXT).promoted


def test_the_stable_wins_over_a_candidate_that_is_given_up(scenario):
    """The candidate is the bundle that is live already."""
    scenario.deploy()
    scenario.raise_to(25)
    assert scenario.read(STABLE).percent == 75
    live = scenario.until(
        lambda live: live.promoted, lambda live: scenario.router.set(live, STABLE, 100), STABLE
    )
    assert (live.percent, live.candidate) == (100, None)
    assert scenario.kserve.broken == []


def test_nothing_is_written_without_a_change(scenario):
    scenario.deploy()
    for percent in (0, 5):
        scenario.set(percent)
        before = scenario.writes()
        for _ in range(3):
            assert scenario.set(percent).percent == percent
        assert scenario.writes() == before
    scenario.raise_to(100)
    live = scenario.promote()
    before = scenario.writes()
    scenario.router.promote(live, CANDIDATE)
    scenario.router.drop(live)
    assert scenario.writes() == before


def test_an_address_that_was_wrong_is_corrected(scenario):
    scenario.deploy()
    wrong = bundle(2, storage_uri="s3://models/typo")
    scenario.set(0, wrong)
    live = scenario.set(0)
    assert deployed(live.candidate) == names(CANDIDATE)
    assert live.candidate_ready
    assert scenario.raise_to(5).percent == 5


def test_crashes_are_those_of_the_candidate(scenario):
    scenario.deploy()
    live = scenario.set(0)
    candidate, stable = sorted(
        {pod["metadata"]["ownerReferences"][0]["uid"] + pod["metadata"]["name"]
         for pod in scenario.api.list(POD, SPACE)}
    )[:2]  # fmt: skip
    assert (candidate, stable, live.restarts) != ("", "", 1)
    names_ = {pod["metadata"]["name"].rsplit("-", 1)[0] for pod in scenario.api.list(POD, SPACE)}
    scenario.kserve.crashes = dict.fromkeys(names_, 2)
    scenario.kserve.settle()
    assert scenario.read().restarts == 2
    scenario.kserve.crashes = {name: 2 for name in names_ if "v20260101" in name or "00001" in name}
    scenario.kserve.settle()
    assert scenario.read().restarts == 0


def test_a_service_that_is_deleted_or_stopped_has_an_unknown_weight(scenario):
    scenario.deploy()
    scenario.set(1)

    def stop(found):
        found["metadata"]["annotations"]["serving.kserve.io/stop"] = "true"

    scenario.api.edit(*service_of(scenario), stop)
    assert (scenario.read().percent, scenario.read().error) == (
        None, "the InferenceService is stopped.",
    )  # fmt: skip

    def begin(found):
        found["metadata"]["finalizers"] = ["inferenceservice.finalizers"]

    scenario.api.edit(*service_of(scenario), begin)
    scenario.api.aside().delete(*service_of(scenario))
    assert scenario.read().error == "the InferenceService is being deleted."


def service_of(scenario):
    from dwcp_ml.kube.api import INFERENCE_SERVICE

    return INFERENCE_SERVICE, scenario.service["metadata"]["namespace"], "bandwidth-predictor"


def test_several_replicas(scenario):
    scenario.deploy(bundle(1, predictor=replicas(3, 5)))
    desired = bundle(2, predictor=replicas(3, 6))
    live = scenario.raise_to(100, desired)
    assert len(live.pods["candidate"]) == 3
    scenario.promote(desired)
    assert (scenario.predictor["minReplicas"], scenario.predictor["maxReplicas"]) == (3, 6)
