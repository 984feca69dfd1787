"""The end of the object: what becomes of the traffic, and how long its deletion waits."""

import pytest

from dwcp_ml.kube.api import MODEL_ROLLOUT
from dwcp_ml.operator.settings import FINALIZER, Intervals
from tests.operator.fake_servers import shares_in
from tests.operator.scenario import KEY, Scenario, at, digest, rollout

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("mode", "slow"), [
    ("Standard", False), ("Knative", False), ("Knative", True),
])  # fmt: skip
def test_deleted_with_restore_it_first_takes_the_candidate_back(mode, slow):
    scenario = at(25, resource=rollout(deletionPolicy="Restore"), mode=mode, slow=slow)
    scenario.api.delete(MODEL_ROLLOUT, *KEY)
    assert FINALIZER in scenario.resource["metadata"]["finalizers"]
    scenario.events.clear()
    for _ in range(20):
        scenario.reconcile(1.0)
    assert scenario.resource is None
    assert shares_in(scenario.service) == {digest(1): 100}
    assert "canary" not in scenario.service["spec"]
    assert scenario.kserve.broken == []
    assert scenario.events == [], "nothing is reported while Knative carries it out"


def test_an_impatient_operator_restores_too():
    scenario = at(
        25, resource=rollout(deletionPolicy="Restore"), intervals=Intervals(stall_seconds=0)
    )
    scenario.api.delete(MODEL_ROLLOUT, *KEY)
    for _ in range(6):
        scenario.reconcile()
    assert scenario.resource is None
    assert shares_in(scenario.service) == {digest(1): 100}


def test_restore_leaves_what_was_promoted():
    scenario = Scenario(rollout(deletionPolicy="Restore"))
    scenario.until_end()
    scenario.api.delete(MODEL_ROLLOUT, *KEY)
    scenario.reconcile()
    assert scenario.resource is None
    assert shares_in(scenario.service) == {digest(2): 100}


def test_a_restore_that_is_not_possible_is_told_and_can_be_called_off():
    scenario = at(25, resource=rollout(deletionPolicy="Restore"))
    scenario.kserve.accepts = False
    scenario.api.delete(MODEL_ROLLOUT, *KEY)
    scenario.kserve.settle()
    for _ in range(6):
        scenario.reconcile()
        assert not scenario.is_stalled, "the weight may become known again"
    for _ in range(2):
        scenario.reconcile()
    assert scenario.is_stalled
    assert scenario.status["reason"] == "DeletionBlocked"
    assert "Set deletionPolicy to Keep" in scenario.conditions["Stalled"]["message"]
    scenario.edit(lambda one: one["spec"].update(deletionPolicy="Keep"))
    scenario.reconcile()
    assert scenario.resource is None


def test_keep_after_restore_takes_the_finalizer_off():
    scenario = at(5, resource=rollout(deletionPolicy="Restore"))
    scenario.edit(lambda one: one["spec"].update(deletionPolicy="Keep"))
    scenario.reconcile()
    assert FINALIZER not in scenario.resource["metadata"]["finalizers"]


def test_an_object_that_is_gone_is_not_looked_at_again():
    scenario = Scenario()
    scenario.api.delete(MODEL_ROLLOUT, *KEY)
    assert scenario.reconcile().requeue_after is None
