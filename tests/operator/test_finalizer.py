"""The end of the object: what becomes of the traffic, and how long its deletion waits."""

import pytest

from dwcp_ml.kube.api import MODEL_ROLLOUT
from dwcp_ml.operator.settings import FINALIZER, Pace
from tests.operator.fake_servers import shares_in
from tests.operator.scenario import KEY, Scene, at, digest, rollout

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("mode", "slow"), [
    ("Standard", False), ("Knative", False), ("Knative", True),
])  # fmt: skip
def test_deleted_with_restore_it_first_takes_the_candidate_back(mode, slow):
    scene = at(25, resource=rollout(deletionPolicy="Restore"), mode=mode, slow=slow)
    scene.api.delete(MODEL_ROLLOUT, *KEY)
    assert FINALIZER in scene.resource["metadata"]["finalizers"]
    scene.told.clear()
    for _ in range(20):
        scene.look(1.0)
    assert scene.resource is None
    assert shares_in(scene.service) == {digest(1): 100}
    assert "canary" not in scene.service["spec"]
    assert scene.kserve.broken == []
    assert scene.told == [], "that Knative is about to carry it out is no trouble"


def test_an_impatient_operator_restores_too():
    scene = at(25, resource=rollout(deletionPolicy="Restore"), pace=Pace(trouble_seconds=0))
    scene.api.delete(MODEL_ROLLOUT, *KEY)
    for _ in range(6):
        scene.look()
    assert scene.resource is None
    assert shares_in(scene.service) == {digest(1): 100}


def test_restore_leaves_what_was_promoted():
    scene = Scene(rollout(deletionPolicy="Restore"))
    scene.until_end()
    scene.api.delete(MODEL_ROLLOUT, *KEY)
    scene.look()
    assert scene.resource is None
    assert shares_in(scene.service) == {digest(2): 100}


def test_a_restore_that_is_not_possible_is_told_and_can_be_called_off():
    scene = at(25, resource=rollout(deletionPolicy="Restore"))
    scene.kserve.accepts = False
    scene.api.delete(MODEL_ROLLOUT, *KEY)
    scene.kserve.settle()
    for _ in range(6):
        scene.look()
        assert "Held" not in scene.conditions, "it may yet come about"
    for _ in range(2):
        scene.look()
    assert "set deletionPolicy to Keep" in scene.conditions["Held"]["message"]
    scene.edit(lambda one: one["spec"].update(deletionPolicy="Keep"))
    scene.look()
    assert scene.resource is None


def test_keep_after_restore_takes_the_finalizer_off():
    scene = at(5, resource=rollout(deletionPolicy="Restore"))
    scene.edit(lambda one: one["spec"].update(deletionPolicy="Keep"))
    scene.look()
    assert FINALIZER not in scene.resource["metadata"]["finalizers"]


def test_an_object_that_is_gone_is_not_looked_at_again():
    scene = Scene()
    scene.api.delete(MODEL_ROLLOUT, *KEY)
    assert scene.look().requeue_after is None
