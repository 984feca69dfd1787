"""What is live is what the cluster says; nobody who was taken back gets anything again."""

import pytest

from dwcp_ml.kube.api import (
    HTTP_ROUTE,
    KNATIVE_SERVICE,
)
from tests.kube.kserve.fakes import (
    CANDIDATE,
    NAME,
    NEXT,
    SPACE,
    STABLE,
    Playing,
)


def share_of(playing, wanted):
    """Return what a bundle gets of a Knative Service, whatever KServe thinks of it."""
    status = playing.api.at(KNATIVE_SERVICE, SPACE, f"{NAME}-predictor")["status"]
    digests = [one["metadata"]["annotations"]["ml.dwcp.io/digest"] for one in status["made"]]
    return sum(
        one["percent"]
        for one in status["traffic"]
        if digests[int(one["revisionName"][-5:]) - 1] == wanted.digest
    )


def nothing_new_is_ready(playing):
    made = len(
        playing.api.at(KNATIVE_SERVICE, SPACE, f"{NAME}-predictor")["status"]["made"]
    )  # fmt: skip
    later = range(made + 1, made + 5)
    playing.kserve.unready = {f"{NAME}-predictor-{number:05d}" for number in later}


@pytest.mark.parametrize("percent", [25, 100])
def test_a_candidate_that_was_taken_back_gets_nothing_while_the_next_one_starts(percent):
    """In Knative mode "the latest" is the candidate before until the next one is ready."""
    playing = Playing("Knative")
    playing.deploy()
    playing.raise_to(percent)
    playing.take_back()
    nothing_new_is_ready(playing)
    for asked in (0, 1, 5, 25):  # whatever is asked of a candidate that is not ready
        playing.router.set(playing.read(NEXT), NEXT, asked)
        for _ in range(4):
            playing.kserve.step()
            assert share_of(playing, CANDIDATE) == 0
    playing.kserve.unready = set()
    playing.kserve.settle()
    playing.raise_to(100, NEXT)
    assert share_of(playing, CANDIDATE) == 0


def test_a_candidate_loses_its_traffic_with_the_write_that_brings_the_next_one():
    playing = Playing("Knative")
    playing.deploy()
    playing.raise_to(25)
    nothing_new_is_ready(playing)
    playing.router.set(playing.read(NEXT), NEXT, 25)
    playing.kserve.settle()
    assert share_of(playing, CANDIDATE) == 0
    assert playing.read(NEXT).percent == 0


def test_a_candidate_that_is_dropped_gets_nothing_while_its_stable_comes_back():
    playing = Playing("Knative")
    playing.deploy()
    playing.raise_to(25)
    playing.set(0)
    nothing_new_is_ready(playing)
    for _ in range(4):
        playing.router.drop(playing.read())
        playing.kserve.settle()
        assert share_of(playing, CANDIDATE) == 0
    playing.kserve.unready = set()
    playing.kserve.settle()
    playing.router.drop(playing.read())
    playing.kserve.settle()
    live = playing.read()
    assert (live.candidate, share_of(playing, STABLE)) == (None, 100)


@pytest.mark.parametrize("which", [NAME, f"{NAME}-predictor"])
def test_a_share_that_is_not_live_everywhere_is_none(which):
    playing = Playing()
    playing.deploy()
    playing.raise_to(5)
    route = playing.api.at(HTTP_ROUTE, SPACE, which)
    route["spec"]["rules"][0]["backendRefs"][0]["weight"] = 75
    route["spec"]["rules"][0]["backendRefs"][1]["weight"] = 25
    changed = playing.api.replace(route)
    changed["status"]["parents"][0]["conditions"][0]["observedGeneration"] += 1
    playing.api.replace(changed, status=True)
    live = playing.read()
    assert live.percent is None
    assert "share the traffic out differently" in live.error
    playing.kserve.settle()
    assert playing.read().percent == 5


@pytest.mark.parametrize(("change", "why"), [
    (lambda status: status["conditions"][0].update(status="Unknown"), "not carried"),
    (lambda status: status.update(observedGeneration=0), "not carried"),
    (lambda status: status["traffic"][0].update(percent=7), "not 100 % together"),
    (lambda status: status.update(traffic=[]), "no Knative Service"),
])  # fmt: skip
def test_a_knative_share_that_can_not_be_told_is_none(change, why):
    playing = Playing("Knative")
    playing.deploy()
    playing.raise_to(5)
    service = playing.api.at(KNATIVE_SERVICE, SPACE, f"{NAME}-predictor")
    change(service["status"])
    playing.api.replace(service, status=True)
    live = playing.read()
    assert live.percent is None
    assert why in live.error
    playing.kserve.settle()
    assert playing.read().percent == 5
