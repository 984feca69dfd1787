"""What can't be done holds, leaves everything as it is, and is said in one sentence."""

import pytest

from dwcp_ml.kube.api import INFERENCE_SERVICE
from dwcp_ml.kube.kserve import ChangeRejected
from dwcp_ml.operator.metrics import Metrics
from tests.operator.fake_servers import shares_in
from tests.operator.random_rollouts import accepted_by_kserve
from tests.operator.scenario import (
    KEY,
    SHARES,
    Scenario,
    at,
    digest,
    rollout,
    stalled,
)

pytestmark = pytest.mark.slow


def asked(service):
    return shares_in(service).get(digest(2))


@pytest.mark.parametrize(
    "forge",
    [
        lambda state: state.replace('"phase":"Progressing"', '"phase":"Lost"'),
        lambda state: state.replace('"version":1,', '"version":0,'),
        lambda _: '{"rollout": {"phase": 7}}',
    ],
)
def test_a_state_that_can_not_be_read_stalls_and_is_removed_to_start_over(forge):
    scenario = at(5)
    scenario.edit_status(lambda status: status.update(state=forge(status["state"])))
    conditions = stalled(scenario)
    assert conditions["Stalled"]["reason"] == "InvalidState"
    assert scenario.events[-1].warning
    assert scenario.events[-1].reason == "InvalidState"
    scenario.edit_status(lambda status: status.pop("state"))
    assert scenario.until_end() == "Promoted"
    assert not scenario.is_stalled


@pytest.mark.parametrize("shown", [1, 50, 100])
def test_a_state_that_is_forged_changes_no_weight_that_is_not_proved(shown):
    """Who may write a status is RBAC's; a forged weight still is not the live one."""
    scenario = at(5)
    scenario.edit_status(
        lambda status: status.update(
            state=status["state"].replace('"target_percent":5', f'"target_percent":{shown}')
        )
    )
    assert scenario.until_end() == "Promoted"
    assert sorted(set(scenario.rules.weights)) == list(SHARES)


def test_a_rollout_whose_metrics_are_silent_counts_as_held():
    scenario = at(25)
    assert scenario.reconcile().stalled is None
    scenario.fleet.broken["candidate"] = "its pages do not answer."
    for _ in range(60):
        result = scenario.reconcile()
    assert scenario.conditions["Stalled"]["reason"] == "MetricsUnavailable"
    assert result.stalled == scenario.status["reason"] == "MetricsUnavailable"
    scenario.fleet.broken.clear()
    assert scenario.until_end() == "Promoted"
    assert scenario.reconcile().stalled is None


def test_arms_with_different_latency_buckets_stall_after_a_minute_and_are_counted():
    """A serving image that was upgraded: its histogram has other bounds than the stable's."""
    scenario = at(5)
    metrics = Metrics()
    scenario.fleet.edges["candidate"] = (0.02, 0.2)
    stalled_after = None
    for number in range(1, 40):
        result = scenario.reconcile()
        metrics.reconciled(KEY, result)
        if scenario.is_stalled and stalled_after is None:
            stalled_after = 10 * number
    assert 60 <= stalled_after <= 90, "it passes its dwell first"
    assert (result.stalled, scenario.status["reason"]) == ("TestUnavailable", "TestUnavailable")
    assert "latency" in scenario.conditions["Stalled"]["message"]
    assert 'rollouts_stalled{reason="TestUnavailable"} 1.0' in metrics.page().decode()
    assert scenario.rules.weights[-1] == 5, "the weight does not rise"
    scenario.fleet.edges.clear()
    assert scenario.until_end() == "Promoted"
    metrics.reconciled(KEY, scenario.reconcile())
    assert "rollouts_stalled{" not in metrics.page().decode()


def test_an_emptied_status_is_not_the_word_that_nothing_is_live():
    scenario = at(25)
    scenario.edit_status(lambda status: status.clear())
    scenario.rules.weights.clear()
    scenario.reconcile()
    assert scenario.status["stable"]["version"] == "v1"
    assert scenario.until_end() == "Promoted"
    assert scenario.rules.weights == list(SHARES), "it begins at the first step again"


def test_weights_and_verdicts_in_the_status_are_never_read():
    plain, forged = at(5), at(5)
    for scenario in (plain, forged):
        for _ in range(60):
            if scenario is forged:
                scenario.edit_status(
                    lambda status: status.update(
                        livePercent=100, targetPercent=100, passedPercent=100, phase="Promoted",
                        verdicts=[{"test": "error_rate", "outcome": "Pass", "sentence": "well"}],
                        blockedDigests=[f"sha256:{digest(7)}"],
                    )
                )  # fmt: skip
            scenario.reconcile()
    assert forged.rules.weights == plain.rules.weights == [*SHARES]
    assert forged.service["spec"] == plain.service["spec"]


def test_a_status_that_is_invalid_but_for_its_state_is_replaced():
    scenario = at(5)
    scenario.edit_status(lambda status: status.update(phase=17, verdicts="none", conditions=[{}]))
    assert scenario.until_end() == "Promoted"


def test_a_test_that_nothing_here_can_feed_is_refused_at_once():
    scenario = Scenario(rollout(analysis={"groundTruth": {"required": True}}))
    conditions = stalled(scenario)
    assert conditions["Stalled"]["reason"] == "TestNotSupported"
    assert "ground_truth" in conditions["Stalled"]["message"]
    assert [event.warning for event in scenario.events if event.reason == "TestNotSupported"] == [
        True
    ], "once, however long it lasts"


def test_an_inference_service_that_is_gone_in_the_middle_holds():
    scenario = at(5)
    scenario.api.delete(INFERENCE_SERVICE, *KEY)
    conditions = stalled(scenario)
    assert conditions["Stalled"]["reason"] == "InferenceServiceMissing"
    scenario.edit_status(lambda status: status.pop("state"))
    assert scenario.until_end() == "Promoted"
    assert scenario.final[1] == digest(2), "it was made a first deployment"


def test_metrics_that_are_down_are_told_once_they_are_down_for_long():
    scenario = at(5)
    scenario.fleet.broken["candidate"] = "connection refused"
    for _ in range(4):
        scenario.reconcile()
    assert not scenario.is_stalled
    for _ in range(60):
        scenario.reconcile()
    assert scenario.conditions["Stalled"]["reason"] == "MetricsUnavailable"
    assert "connection refused" in scenario.conditions["Stalled"]["message"]
    assert scenario.conditions["Reconciling"]["status"] == "False"
    assert asked(scenario.service) == 5
    writes = scenario.rules.writes["status"]
    for _ in range(60):
        scenario.reconcile()
    assert scenario.rules.writes["status"] == writes
    scenario.fleet.broken.clear()
    assert scenario.until_end() == "Promoted"
    assert not scenario.is_stalled


def refusing(routers):
    """Return the routers as they are, but for that they can't do what is asked."""

    def refuse(*given):
        raise ChangeRejected("the name is too long.")

    def refusing_router(*place):
        router = routers["Standard"](*place)
        router.set = refuse
        return router

    return {"Standard": refusing_router}


def tolerated(one):
    one["spec"]["template"]["predictor"]["tolerations"] = [
        {"key": "edge", "operator": "Exists", "value": "yes"}
    ]


@pytest.mark.parametrize("by", ["the API server", "the router"])
def test_a_write_that_is_refused_is_told_once_and_what_was_decided_is_kept(by):
    scenario = Scenario()
    routers = scenario.operator.routers
    if by == "the router":
        scenario.operator.routers = refusing(routers)
    else:
        scenario.edit(tolerated)
        scenario.api.admit = accepted_by_kserve
    scenario.reconcile()
    stored = scenario.status["state"]
    conditions = stalled(scenario)
    assert conditions["Stalled"]["reason"] == "WriteRejected"
    assert ("too long" if by == "the router" else "tolerations") in conditions["Stalled"]["message"]
    assert scenario.status["state"] == stored, "an older one would be written every time"
    scenario.operator.routers = routers
    scenario.edit(lambda one: one["spec"]["template"]["predictor"].pop("tolerations", None))
    assert scenario.until_end() == "Promoted"
    assert not scenario.is_stalled


@pytest.mark.parametrize("mode", ["Standard", "Knative"])
def test_a_candidate_with_another_contract_gets_no_traffic_and_stalls_at_once(mode):
    scenario = Scenario(mode=mode)
    scenario.fleet.contracts[digest(2)] = "d" * 64
    for _ in range(30):
        scenario.reconcile()
        assert scenario.fleet.routed().get(digest(2), 0) == 0
    assert scenario.conditions["Stalled"]["reason"] == "ContractDiffers"
    assert "another model name" in scenario.conditions["Stalled"]["message"]
    scenario.fleet.contracts.clear()
    assert scenario.until_end() == "Promoted"


@pytest.mark.parametrize("mode", ["Standard", "Knative"])
@pytest.mark.parametrize("share", [5, 100])
def test_a_contract_that_changes_under_traffic_holds_the_weight(mode, share):
    scenario = at(share, mode=mode)
    scenario.fleet.contracts[digest(2)] = "d" * 64
    for _ in range(30):
        scenario.reconcile()
        assert scenario.fleet.routed()[digest(2)] == share
    assert scenario.conditions["Stalled"]["reason"] == "ContractDiffers"
    scenario.fleet.errors[digest(2)] = 1.0
    assert scenario.until_end() == "RolledBack"


@pytest.mark.parametrize("mode", ["Standard", "Knative"])
def test_servers_of_an_older_release_in_one_arm_wait_and_in_both_do_not(mode):
    scenario = Scenario(mode=mode)
    scenario.fleet.contracts[digest(1)] = ""
    for _ in range(30):
        scenario.reconcile()
        assert scenario.fleet.routed().get(digest(2), 0) == 0
    assert scenario.conditions["Stalled"]["reason"] == "ContractUnknown"
    scenario.fleet.contracts[digest(2)] = ""
    assert scenario.until_end() == "Promoted"
