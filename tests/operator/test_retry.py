"""A candidate that was rolled back, and that its owner wants to be tried again."""

import json

import pytest

from dwcp_ml.kube.api import MODEL_ROLLOUT
from tests.matrix import few
from tests.operator.rules import state_of
from tests.operator.scenario import KEY, SHARES, Scenario, at, candidate, digest, rollout

MODES = ("Standard", "Knative")


def retry(number=2, reason="the node was broken"):
    return {"digest": f"sha256:{digest(number)}", "reason": reason}


def ask(scenario, **fields):
    scenario.edit(lambda one: one["spec"].update(fields))


def rolled_back(mode, **spec):
    scenario = Scenario(rollout(**spec), mode=mode)
    scenario.fleet.errors[digest(2)] = 1.0
    assert scenario.until_end() == "RolledBack"
    return scenario


def stays_blocked(scenario, rounds=5):
    version = scenario.service["metadata"]["resourceVersion"]
    for _ in range(rounds):
        scenario.reconcile()
    assert scenario.phase == "RolledBack"
    assert scenario.status["blockedDigests"] == [f"sha256:{digest(2)}"]
    assert scenario.service["metadata"]["resourceVersion"] == version
    return True


@pytest.mark.parametrize("mode", few(MODES, "Knative"))
def test_a_retry_goes_through_every_step_and_the_status_says_why(mode):
    scenario = rolled_back(mode)
    scenario.fleet.errors[digest(2)] = 0.0
    scenario.rules.weights.clear()
    ask(scenario, retry=retry())
    assert scenario.until_end() == "Promoted"
    assert scenario.rules.weights == list(SHARES)
    assert scenario.status.get("blockedDigests", []) == []
    shown = scenario.status["retries"]
    assert [(one["digest"], one["reason"]) for one in shown] == [
        (f"sha256:{digest(2)}", "the node was broken")
    ]
    events = [event for event in scenario.events if event.reason == "Retried"]
    assert len(events) == 1
    assert "the node was broken" in events[0].message
    assert scenario.kserve.broken == []


@pytest.mark.parametrize("mode", few(MODES, "Knative"))
def test_a_second_roll_back_blocks_it_again_whatever_process_reads_the_old_retry(mode):
    scenario = rolled_back(mode)
    ask(scenario, retry=retry())
    scenario.until("Progressing")
    assert scenario.until_end() == "RolledBack"
    assert stays_blocked(scenario)
    scenario.restart()
    ask(scenario, watchSeconds=61)
    assert stays_blocked(scenario)
    scenario.fleet.errors[digest(2)] = 0.0
    ask(scenario, retry=retry(reason="the second node was broken, too"))
    assert scenario.until_end() == "Promoted"
    assert len(scenario.status["retries"]) == 2


@pytest.mark.parametrize("mode", few(MODES, "Knative"))
def test_a_retry_of_another_digest_does_nothing(mode):
    scenario = rolled_back(mode)
    ask(scenario, retry=retry(3))
    assert stays_blocked(scenario)
    assert "retries" not in scenario.status


@pytest.mark.parametrize("mode", few(MODES, "Knative"))
def test_after_an_abort_a_retry_waits_until_abort_is_false(mode):
    scenario = at(25, mode=mode)
    ask(scenario, abort=True)
    assert scenario.until_end() == "RolledBack"
    ask(scenario, retry=retry())
    assert stays_blocked(scenario)
    ask(scenario, abort=False)
    assert scenario.until_end() == "Promoted"


@pytest.mark.parametrize("mode", few(MODES, "Knative"))
def test_a_retry_is_compared_with_what_is_the_stable_now(mode):
    scenario = rolled_back(mode)
    scenario.fleet.errors[digest(2)] = 0.0
    ask(scenario, candidate=candidate(3))
    assert scenario.until_end() == "Promoted"
    ask(scenario, candidate=candidate(2), retry=retry())
    assert scenario.until_end() == "Promoted"
    assert scenario.status["stable"]["version"] == "v3"


def test_an_aborted_first_deployment_can_be_tried_again():
    scenario = Scenario(rollout(), first=True)
    scenario.reconcile()
    ask(scenario, abort=True)
    assert scenario.until_end() == "RolledBack"
    assert scenario.service is None
    ask(scenario, abort=False, retry=retry())
    assert scenario.until_end() == "Promoted"


def test_the_field_manager_of_the_retry_is_in_the_status_and_the_event():
    scenario = rolled_back("Standard")
    scenario.fleet.errors[digest(2)] = 0.0

    def change(one):
        one["spec"]["retry"] = retry()
        one["metadata"]["managedFields"] = [
            {"manager": "argocd", "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:spec": {}}},
            {
                "manager": "kubectl-patch",
                "time": "2026-01-02T00:00:00Z",
                "fieldsV1": {"f:spec": {"f:retry": {"f:reason": {}}}},
            },
        ]

    scenario.edit(change)
    for _ in range(2):
        scenario.reconcile()
    assert scenario.status["retries"][0]["manager"] == "kubectl-patch"
    assert "kubectl-patch" in str([event.message for event in scenario.events])


def test_a_state_that_is_older_than_retries_is_read():
    scenario = rolled_back("Standard")

    def older(status):
        state = state_of({"status": status})
        del state["rollout"]["retries"], state["rollout"]["knows_retries"]
        status["state"] = json.dumps(state)

    scenario.edit_status(older)
    scenario.restart()
    scenario.reconcile()
    scenario.fleet.errors[digest(2)] = 0.0
    ask(scenario, retry=retry())
    assert scenario.until_end() == "Promoted"


@pytest.mark.parametrize("mode", few(MODES, "Knative"))
def test_a_new_object_whose_bundle_is_live_is_written_once(mode):
    """Nothing is left to learn later: that nothing was retried is known at once."""
    scenario = Scenario(rollout(), mode=mode)
    assert scenario.until_end() == "Promoted"
    again = {**rollout(), "spec": scenario.resource["spec"]}
    scenario.api.delete(MODEL_ROLLOUT, *KEY)
    if scenario.resource is not None:  # a finalizer holds it: a person takes it out
        scenario.edit(lambda one: one["metadata"].update(finalizers=[]))
    scenario.api.create(again)
    assert scenario.until_end() == "Promoted"
    version = scenario.api.version
    for _ in range(3):
        scenario.reconcile()
    assert scenario.api.version == version
