"""Live weights are read from the cluster; a candidate that was rolled back gets no traffic."""

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
    RouterScenario,
)


def share_of(scenario, desired):
    """Return what a bundle gets of a Knative Service, whatever KServe thinks of it."""
    status = scenario.api.at(KNATIVE_SERVICE, SPACE, f"{NAME}-predictor")["status"]
    digests = [one["metadata"]["annotations"]["ml.dwcp.io/digest"] for one in status["made"]]
    return sum(
        one["percent"]
        for one in status["traffic"]
        if digests[int(one["revisionName"][-5:]) - 1] == desired.digest
    )


def nothing_new_is_ready(scenario):
    made = len(
        scenario.api.at(KNATIVE_SERVICE, SPACE, f"{NAME}-predictor")["status"]["made"]
    )  # fmt: skip
    later = range(made + 1, made + 5)
    scenario.kserve.unready = {f"{NAME}-predictor-{number:05d}" for number in later}


@pytest.mark.parametrize("percent", [25, 100])
def test_a_candidate_that_was_rolled_back_gets_nothing_while_the_next_one_starts(percent):
    """In Knative mode "the latest" is the candidate before until the next one is ready."""
    scenario = RouterScenario("Knative")
    scenario.deploy()
    scenario.raise_to(percent)
    scenario.roll_back()
    nothing_new_is_ready(scenario)
    for asked in (0, 1, 5, 25):  # whatever is asked of a candidate that is not ready
        scenario.router.set(scenario.read(NEXT), NEXT, asked)
        for _ in range(4):
            scenario.kserve.step()
            assert share_of(scenario, CANDIDATE) == 0
    scenario.kserve.unready = set()
    scenario.kserve.settle()
    scenario.raise_to(100, NEXT)
    assert share_of(scenario, CANDIDATE) == 0


def test_a_candidate_loses_its_traffic_with_the_write_that_brings_the_next_one():
    scenario = RouterScenario("Knative")
    scenario.deploy()
    scenario.raise_to(25)
    nothing_new_is_ready(scenario)
    scenario.router.set(scenario.read(NEXT), NEXT, 25)
    scenario.kserve.settle()
    assert share_of(scenario, CANDIDATE) == 0
    assert scenario.read(NEXT).percent == 0


def test_a_candidate_that_is_dropped_gets_nothing_while_its_stable_comes_back():
    scenario = RouterScenario("Knative")
    scenario.deploy()
    scenario.raise_to(25)
    scenario.set(0)
    nothing_new_is_ready(scenario)
    for _ in range(4):
        scenario.router.drop(scenario.read())
        scenario.kserve.settle()
        assert share_of(scenario, CANDIDATE) == 0
    scenario.kserve.unready = set()
    scenario.kserve.settle()
    scenario.router.drop(scenario.read())
    scenario.kserve.settle()
    live = scenario.read()
    assert (live.candidate, share_of(scenario, STABLE)) == (None, 100)


@pytest.mark.parametrize("which", [NAME, f"{NAME}-predictor"])
def test_a_share_that_is_not_live_everywhere_is_none(which):
    scenario = RouterScenario()
    scenario.deploy()
    scenario.raise_to(5)
    route = scenario.api.at(HTTP_ROUTE, SPACE, which)
    route["spec"]["rules"][0]["backendRefs"][0]["weight"] = 75
    route["spec"]["rules"][0]["backendRefs"][1]["weight"] = 25
    changed = scenario.api.replace(route)
    changed["status"]["parents"][0]["conditions"][0]["observedGeneration"] += 1
    scenario.api.replace(changed, status=True)
    live = scenario.read()
    assert live.percent is None
    assert "have different weights" in live.error
    scenario.kserve.settle()
    assert scenario.read().percent == 5


@pytest.mark.parametrize(("change", "why"), [
    (lambda status: status["conditions"][0].update(status="Unknown"), "not carried"),
    (lambda status: status.update(observedGeneration=0), "not carried"),
    (lambda status: status["traffic"][0].update(percent=7), "not 100 % together"),
    (lambda status: status.update(traffic=[]), "no Knative Service"),
])  # fmt: skip
def test_a_knative_share_that_can_not_be_told_is_none(change, why):
    scenario = RouterScenario("Knative")
    scenario.deploy()
    scenario.raise_to(5)
    service = scenario.api.at(KNATIVE_SERVICE, SPACE, f"{NAME}-predictor")
    change(service["status"])
    scenario.api.replace(service, status=True)
    live = scenario.read()
    assert live.percent is None
    assert why in live.error
    scenario.kserve.settle()
    assert scenario.read().percent == 5
