"""KServe writes the two HTTPRoutes of a service some seconds apart, the predictor's first.

A busy KServe 0.21 took up to six seconds. Until both agree the split is neither known nor counted.
"""

import pytest

from dwcp_ml.kube.api import HTTP_ROUTE
from dwcp_ml.operator.settings import Intervals
from tests.operator.fake_servers import NAME, NAMESPACE, shares_in, workload_of
from tests.operator.rules import state_of
from tests.operator.scenario import SHARES, Scenario, candidate, digest, rollout

pytestmark = pytest.mark.slow

GAP_SECONDS = 6.0
ROUTES = (NAME, f"{NAME}-predictor")


@pytest.fixture
def scenario():
    """A rollout that is reconciled every second, and stores its evidence every time."""
    scenario = Scenario(rollout(dwell=20), intervals=Intervals(evidence_seconds=1.0))
    scenario.kserve.gap = GAP_SECONDS
    return scenario


def splits(scenario):
    """Return the weights above 0 of each HTTPRoute, by backend."""
    found = [scenario.api.at(HTTP_ROUTE, NAMESPACE, name) for name in ROUTES]
    return [
        {
            one["name"]: one.get("weight", 1)
            for one in route["spec"]["rules"][0]["backendRefs"]
            if one.get("weight", 1)
        }
        for route in found
    ]


def are_apart(scenario):
    own, predictors = splits(scenario)
    return own != predictors and (len(own) > 1 or len(predictors) > 1)


def share(scenario):
    return shares_in(scenario.service).get(digest(2), 0)


def until_apart(scenario, percent):
    """Reconcile until the routes differ on the way to this share."""
    for _ in range(2000):
        scenario.reconcile(1.0)
        scenario.settle()
        if share(scenario) == percent and are_apart(scenario):
            return
    raise AssertionError(scenario.status)


def test_nothing_is_promoted_or_counted_before_both_routes_agree(scenario):
    seen = 0
    for _ in range(2000):
        before = scenario.service
        scenario.pass_time(1.0)
        apart = are_apart(scenario)
        scenario.operator.reconcile((NAMESPACE, NAME))
        scenario.settle()
        if apart:
            seen += 1
            assert scenario.service["spec"] == before["spec"], scenario.status["message"]
            stored = state_of(scenario.resource)["rollout"]
            assert (stored["step_elapsed"], stored["step_requests"]) == (0.0, 0)
            assert "livePercent" not in scenario.status
        if scenario.phase == "Promoted":
            break
    assert scenario.phase == "Promoted"
    assert scenario.rules.weights == list(SHARES)
    assert seen >= len(SHARES) * (GAP_SECONDS - 1)
    assert scenario.kserve.broken == []


@pytest.mark.parametrize("percent", SHARES)
def test_an_abort_goes_through_while_the_routes_differ(scenario, percent):
    until_apart(scenario, percent)
    scenario.edit(lambda one: one["spec"].update(abort=True))
    scenario.operator.reconcile((NAMESPACE, NAME))
    assert share(scenario) == 0, "in the next reconciliation, whatever is live"
    assert scenario.until("RolledBack", seconds=1.0) == "RolledBack"
    assert scenario.kserve.broken == [], "no route led to pods that were gone"


def test_a_bad_candidate_is_rolled_back_while_the_routes_differ(scenario):
    until_apart(scenario, 50)
    scenario.fleet.errors[digest(2)] = 0.8
    assert scenario.until("RolledBack", seconds=1.0) == "RolledBack"
    assert scenario.kserve.broken == []


def test_a_candidate_that_was_never_ready_leaves_a_weight_of_100_behind():
    """A single backend gets everything, whatever its weight is."""
    scenario = Scenario()
    scenario.kserve.unready.add(workload_of(2))
    for _ in range(5):
        scenario.reconcile()
    scenario.edit(lambda one: one["spec"].update(abort=True))
    assert scenario.until("RolledBack") == "RolledBack"
    for _ in range(3):
        scenario.reconcile()
    assert [list(one.values()) for one in splits(scenario)] == [[100], [100]]
    assert not scenario.service["spec"].get("canary")
    assert scenario.status["livePercent"] == 0
    scenario.kserve.unready.clear()
    scenario.edit(lambda one: one["spec"].update(abort=False, candidate=candidate(3)))
    assert scenario.until_end() == "Promoted"
    assert [list(one.values()) for one in splits(scenario)] == [[1], [1]]
