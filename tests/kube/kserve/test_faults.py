"""Lost writes, lost answers, other writers: nothing is written twice, or blindly."""

import pytest

from dwcp_ml.kube.api import (
    INFERENCE_SERVICE,
    Conflict,
    Unavailable,
)
from dwcp_ml.kube.kserve import Refused
from tests.kube.kserve.fakes import (
    CANDIDATE,
    MODES,
    NAME,
    SPACE,
    STABLE,
    Playing,
    bundle,
)


@pytest.fixture(params=MODES)
def playing(request):
    made = Playing(request.param)
    made.deploy()
    return made


def lose(api, where):
    """Lose the next write: before it is carried out, or only its answer."""

    def hook(call):
        if call.is_write:
            setattr(api, where, lambda call: None)
            raise Unavailable("no answer in time.")

    setattr(api, where, hook)


ACTS = {
    "put beside": (0, lambda playing, live: playing.router.set(live, CANDIDATE, 0)),
    "raise": (5, lambda playing, live: playing.router.set(live, CANDIDATE, 25)),
    "take away": (25, lambda playing, live: playing.router.set(live, CANDIDATE, 0)),
    "drop": (0, lambda playing, live: playing.router.drop(live)),
    "promote": (100, lambda playing, live: playing.router.promote(live, CANDIDATE)),
}


def prepared(playing, name):
    percent, act = ACTS[name]
    if name != "put beside":
        playing.raise_to(percent)
    return act


@pytest.mark.parametrize("name", ACTS)
def test_a_write_that_is_lost_is_made_again(playing, name):
    act = prepared(playing, name)
    before = playing.service
    lose(playing.api, "before")
    with pytest.raises(Unavailable):
        act(playing, playing.read())
    assert playing.service == before
    act(playing, playing.read())
    assert playing.service["spec"] != before["spec"]


@pytest.mark.parametrize("name", ACTS)
def test_a_write_whose_answer_is_lost_is_not_made_again(playing, name):
    act = prepared(playing, name)
    lose(playing.api, "after")
    with pytest.raises(Unavailable):
        act(playing, playing.read())
    playing.kserve.settle()
    there, writes = playing.service["spec"], playing.writes()
    if name != "drop" or playing.mode == "Standard":  # in Knative mode two writes make the drop
        act(playing, playing.read())
        assert (playing.service["spec"], playing.writes()) == (there, writes)


@pytest.mark.parametrize("name", ACTS)
def test_whoever_wrote_meanwhile_wins(playing, name):
    """A leader that was paused writes on what it had read: never on what another one wrote."""
    act = prepared(playing, name)
    live = playing.read()

    def note(found):
        found["metadata"].setdefault("labels", {})["noted"] = "yes"

    playing.api.edit(INFERENCE_SERVICE, SPACE, NAME, note)
    before = playing.service
    with pytest.raises(Conflict):
        act(playing, live)
    assert playing.service == before


@pytest.mark.parametrize("name", ACTS)
def test_a_write_between_our_read_and_our_write_wins(playing, name):
    act = prepared(playing, name)
    live = playing.read()

    def between(call):
        if call.is_write:
            playing.api.before = lambda call: None
            playing.api.edit(INFERENCE_SERVICE, SPACE, NAME, lambda found: found["metadata"].update(
                labels={"noted": "yes"}))  # fmt: skip

    playing.api.before = between
    with pytest.raises(Conflict):
        act(playing, live)
    assert "noted" in playing.service["metadata"]["labels"]


@pytest.mark.parametrize("name", ACTS)
def test_a_write_while_we_look_around_wins(playing, name):
    """What is written is on the condition of what was read first, not of what is there by now."""
    act = prepared(playing, name)
    live, edited = playing.read(), []

    def between(call):
        if call.kind is not INFERENCE_SERVICE and not edited:
            edited.append(playing.api.edit(INFERENCE_SERVICE, SPACE, NAME, lambda found: found[
                "metadata"].update(labels={"noted": "yes"})))  # fmt: skip

    playing.api.before = between
    if name == "take away" or (playing.mode, name) == ("Knative", "put beside"):
        act(playing, live)  # looks at nothing else
        assert edited == []
    else:
        with pytest.raises(Conflict):
            act(playing, live)
        assert playing.service == edited[0]


def test_nothing_is_dropped_before_it_is_without_traffic(playing):
    playing.raise_to(25)
    playing.router.drop(playing.read())
    there, writes = playing.service["spec"], playing.writes()
    for _ in range(3):
        playing.router.drop(playing.read())
    assert (playing.service["spec"], playing.writes()) == (there, writes)
    playing.kserve.settle()
    playing.router.drop(playing.read())
    assert playing.writes() == writes + 1


def test_nothing_is_promoted_before_it_has_everything(playing):
    playing.raise_to(50)
    for _ in range(3):
        playing.router.promote(playing.read(), CANDIDATE)
    live = playing.read()
    assert (live.percent, live.stable.version) == (50, STABLE.version)
    playing.kserve.settle()
    assert playing.promote().promoted


def test_promotion_takes_up_a_candidate_that_somebody_lowered(playing):
    playing.raise_to(100)
    edit_share(playing, 5)
    playing.kserve.settle()
    assert playing.promote().promoted
    assert playing.kserve.broken == []


def test_two_create_the_same_service(playing):
    other = Playing(playing.mode)
    live = other.read(STABLE)
    other.router.set(live, STABLE, 100)
    with pytest.raises(Conflict):
        other.router.set(live, STABLE, 100)
    assert other.writes() == 1


def test_a_service_that_is_gone_is_not_written_to(playing):
    live = playing.raise_to(5)
    playing.api.aside().delete(INFERENCE_SERVICE, SPACE, NAME)
    for act in (
        lambda: playing.router.set(live, CANDIDATE, 25),
        lambda: playing.router.promote(live, CANDIDATE),
        lambda: playing.router.drop(live),
    ):
        with pytest.raises(Conflict):
            act()
    gone = playing.read()
    with pytest.raises(Refused, match="no InferenceService"):
        playing.router.promote(gone, CANDIDATE)
    playing.router.drop(gone)
    assert playing.service is None


def edit_share(playing, percent):
    def change(found):
        if playing.mode == "Standard":
            found["spec"]["canary"][0]["trafficPercent"] = percent
        else:
            found["spec"]["predictor"]["canaryTrafficPercent"] = percent

    playing.api.edit(INFERENCE_SERVICE, SPACE, NAME, change)


def test_somebody_elses_share_is_told_when_it_is_live(playing):
    playing.raise_to(5)
    edit_share(playing, 60)
    assert playing.read().percent == 5
    playing.kserve.settle()
    assert playing.read().percent == 60
    assert playing.set(5).percent == 5


def test_somebody_takes_the_candidate_out(playing):
    playing.raise_to(5)

    def change(found):
        if playing.mode == "Standard":
            del found["spec"]["canary"]
        else:
            del found["spec"]["predictor"]["canaryTrafficPercent"]
            found["spec"]["predictor"]["model"]["storageUri"] = STABLE.storage_uri
            found["spec"]["predictor"]["annotations"] = {}

    playing.api.edit(INFERENCE_SERVICE, SPACE, NAME, change)
    playing.kserve.settle()
    live = playing.read()
    assert (live.percent, live.candidate, live.stable.uri) == (0, None, STABLE.storage_uri)
    assert playing.raise_to(5).percent == 5


def test_somebody_exchanges_the_stable(playing):
    playing.raise_to(5)
    other = bundle(9)

    def change(found):
        if playing.mode == "Standard":
            model = found["spec"]["predictor"]["model"]
            found["spec"]["predictor"]["annotations"] = {}
        else:
            model = found["spec"]["predictor"]["model"]
            found["spec"]["predictor"]["annotations"] = {}
            del found["spec"]["predictor"]["canaryTrafficPercent"]
        model["storageUri"] = other.storage_uri

    playing.api.edit(INFERENCE_SERVICE, SPACE, NAME, change)
    playing.kserve.settle()
    stable = playing.read().stable
    assert (stable.uri, stable.version, stable.digest) == (other.storage_uri, other.version, "")


def test_a_stale_read_can_not_lead_to_a_write(playing):
    playing.raise_to(5)
    api, fresh = playing.api, playing.router
    from dwcp_ml.kube.kserve import router_of

    at = playing.service["metadata"]["resourceVersion"]
    playing.set(25)
    stale = router_of(api.lagging(api.version - int(at)), SPACE, NAME, playing.mode)
    seen = stale.read(CANDIDATE)
    assert seen.percent == 5
    with pytest.raises(Conflict):
        stale.set(seen, CANDIDATE, 25)
    assert fresh.read(CANDIDATE).percent == 25
