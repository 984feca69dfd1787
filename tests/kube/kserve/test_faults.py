"""Lost writes, lost responses, other writers: nothing is written twice or unconditionally."""

import pytest

from dwcp_ml.kube.api import (
    INFERENCE_SERVICE,
    ApiUnavailable,
    Conflict,
)
from dwcp_ml.kube.kserve import ROUTERS, ChangeRejected
from tests.kube.kserve.fakes import (
    CANDIDATE,
    MODES,
    NAME,
    SPACE,
    STABLE,
    RouterScenario,
    bundle,
)


@pytest.fixture(params=MODES)
def scenario(request):
    made = RouterScenario(request.param)
    made.deploy()
    return made


def lose(api, where):
    """Lose the next write: before it is carried out, or only its response."""

    def hook(call):
        if call.is_write:
            setattr(api, where, lambda call: None)
            raise ApiUnavailable("no answer in time.")

    setattr(api, where, hook)


ACTS = {
    "put beside": (0, lambda scenario, live: scenario.router.set(live, CANDIDATE, 0)),
    "raise": (5, lambda scenario, live: scenario.router.set(live, CANDIDATE, 25)),
    "take away": (25, lambda scenario, live: scenario.router.set(live, CANDIDATE, 0)),
    "drop": (0, lambda scenario, live: scenario.router.drop(live)),
    "promote": (100, lambda scenario, live: scenario.router.promote(live, CANDIDATE)),
}


def prepared(scenario, name):
    percent, act = ACTS[name]
    if name != "put beside":
        scenario.raise_to(percent)
    return act


@pytest.mark.parametrize("name", ACTS)
def test_a_write_that_is_lost_is_made_again(scenario, name):
    act = prepared(scenario, name)
    before = scenario.service
    lose(scenario.api, "before")
    with pytest.raises(ApiUnavailable):
        act(scenario, scenario.read())
    assert scenario.service == before
    act(scenario, scenario.read())
    assert scenario.service["spec"] != before["spec"]


@pytest.mark.parametrize("name", ACTS)
def test_a_write_whose_response_is_lost_is_not_made_again(scenario, name):
    act = prepared(scenario, name)
    lose(scenario.api, "after")
    with pytest.raises(ApiUnavailable):
        act(scenario, scenario.read())
    scenario.kserve.settle()
    there, writes = scenario.service["spec"], scenario.writes()
    if name != "drop" or scenario.mode == "Standard":  # in Knative mode two writes make the drop
        act(scenario, scenario.read())
        assert (scenario.service["spec"], scenario.writes()) == (there, writes)


@pytest.mark.parametrize("name", ACTS)
def test_a_write_of_another_client_wins(scenario, name):
    """A leader that was paused never overwrites what another leader wrote."""
    act = prepared(scenario, name)
    live = scenario.read()

    def note(found):
        found["metadata"].setdefault("labels", {})["noted"] = "yes"

    scenario.api.edit(INFERENCE_SERVICE, SPACE, NAME, note)
    before = scenario.service
    with pytest.raises(Conflict):
        act(scenario, live)
    assert scenario.service == before


@pytest.mark.parametrize("name", ACTS)
def test_a_write_between_our_read_and_our_write_wins(scenario, name):
    act = prepared(scenario, name)
    live = scenario.read()

    def between(call):
        if call.is_write:
            scenario.api.before = lambda call: None
            labels = {"noted": "yes"}
            scenario.api.edit(
                INFERENCE_SERVICE, SPACE, NAME, lambda it: it["metadata"].update(labels=labels)
            )

    scenario.api.before = between
    with pytest.raises(Conflict):
        act(scenario, live)
    assert "noted" in scenario.service["metadata"]["labels"]


@pytest.mark.parametrize("name", ACTS)
def test_a_write_during_our_reads_wins(scenario, name):
    """What is written is on the condition of what was read first, not of what is there by now."""
    act = prepared(scenario, name)
    live, edited = scenario.read(), []

    def between(call):
        if call.kind is not INFERENCE_SERVICE and not edited:
            edited.append(scenario.api.edit(INFERENCE_SERVICE, SPACE, NAME, lambda found: found[
                "metadata"].update(labels={"noted": "yes"})))  # fmt: skip

    scenario.api.before = between
    if name == "take away" or (scenario.mode, name) == ("Knative", "put beside"):
        act(scenario, live)  # It reads nothing else.
        assert edited == []
    else:
        with pytest.raises(Conflict):
            act(scenario, live)
        assert scenario.service == edited[0]


def test_nothing_is_dropped_before_it_is_without_traffic(scenario):
    scenario.raise_to(25)
    scenario.router.drop(scenario.read())
    there, writes = scenario.service["spec"], scenario.writes()
    for _ in range(3):
        scenario.router.drop(scenario.read())
    assert (scenario.service["spec"], scenario.writes()) == (there, writes)
    scenario.kserve.settle()
    scenario.router.drop(scenario.read())
    assert scenario.writes() == writes + 1


def test_nothing_is_promoted_before_it_has_everything(scenario):
    scenario.raise_to(50)
    for _ in range(3):
        scenario.router.promote(scenario.read(), CANDIDATE)
    live = scenario.read()
    assert (live.percent, live.stable.version) == (50, STABLE.version)
    scenario.kserve.settle()
    assert scenario.promote().promoted


def test_promotion_takes_up_a_candidate_that_another_writer_lowered(scenario):
    scenario.raise_to(100)
    edit_share(scenario, 5)
    scenario.kserve.settle()
    assert scenario.promote().promoted
    assert scenario.kserve.broken == []


def test_two_create_the_same_service(scenario):
    other = RouterScenario(scenario.mode)
    live = other.read(STABLE)
    other.router.set(live, STABLE, 100)
    with pytest.raises(Conflict):
        other.router.set(live, STABLE, 100)
    assert other.writes() == 1


def test_a_service_that_is_gone_is_not_written_to(scenario):
    live = scenario.raise_to(5)
    scenario.api.aside().delete(INFERENCE_SERVICE, SPACE, NAME)
    for act in (
        lambda: scenario.router.set(live, CANDIDATE, 25),
        lambda: scenario.router.promote(live, CANDIDATE),
        lambda: scenario.router.drop(live),
    ):
        with pytest.raises(Conflict):
            act()
    gone = scenario.read()
    with pytest.raises(ChangeRejected, match="no InferenceService"):
        scenario.router.promote(gone, CANDIDATE)
    scenario.router.drop(gone)
    assert scenario.service is None


def edit_share(scenario, percent):
    def change(found):
        if scenario.mode == "Standard":
            found["spec"]["canary"][0]["trafficPercent"] = percent
        else:
            found["spec"]["predictor"]["canaryTrafficPercent"] = percent

    scenario.api.edit(INFERENCE_SERVICE, SPACE, NAME, change)


def test_the_share_of_another_writer_is_reported_once_it_is_live(scenario):
    scenario.raise_to(5)
    edit_share(scenario, 60)
    assert scenario.read().percent == 5
    scenario.kserve.settle()
    assert scenario.read().percent == 60
    assert scenario.set(5).percent == 5


def test_another_writer_removes_the_candidate(scenario):
    scenario.raise_to(5)

    def change(found):
        if scenario.mode == "Standard":
            del found["spec"]["canary"]
        else:
            del found["spec"]["predictor"]["canaryTrafficPercent"]
            found["spec"]["predictor"]["model"]["storageUri"] = STABLE.storage_uri
            found["spec"]["predictor"]["annotations"] = {}

    scenario.api.edit(INFERENCE_SERVICE, SPACE, NAME, change)
    scenario.kserve.settle()
    live = scenario.read()
    assert (live.percent, live.candidate, live.stable.uri) == (0, None, STABLE.storage_uri)
    assert scenario.raise_to(5).percent == 5


def test_another_writer_replaces_the_stable(scenario):
    scenario.raise_to(5)
    other = bundle(9)

    def change(found):
        if scenario.mode == "Standard":
            model = found["spec"]["predictor"]["model"]
            found["spec"]["predictor"]["annotations"] = {}
        else:
            model = found["spec"]["predictor"]["model"]
            found["spec"]["predictor"]["annotations"] = {}
            del found["spec"]["predictor"]["canaryTrafficPercent"]
        model["storageUri"] = other.storage_uri

    scenario.api.edit(INFERENCE_SERVICE, SPACE, NAME, change)
    scenario.kserve.settle()
    stable = scenario.read().stable
    assert (stable.uri, stable.version, stable.digest) == (other.storage_uri, other.version, "")


def test_a_stale_read_can_not_lead_to_a_write(scenario):
    scenario.raise_to(5)
    api, fresh = scenario.api, scenario.router

    at = scenario.service["metadata"]["resourceVersion"]
    scenario.set(25)
    stale = ROUTERS[scenario.mode](api.lagging(api.version - int(at)), SPACE, NAME)
    seen = stale.read(CANDIDATE)
    assert seen.percent == 5
    with pytest.raises(Conflict):
        stale.set(seen, CANDIDATE, 25)
    assert fresh.read(CANDIDATE).percent == 25
