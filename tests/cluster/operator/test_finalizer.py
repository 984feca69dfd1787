"""A ModelRollout that is deleted in mid-rollout leaves nothing behind, and nobody waits for it."""

import copy
import time

import numpy as np
import pytest

from dwcp_ml.kube.api import INFERENCE_SERVICE, MODEL_ROLLOUT
from dwcp_ml.operator.settings import FINALIZER
from tests.cluster.operator.in_process import ClusterScenario
from tests.cluster.operator.installed import documents, path_of
from tests.cluster.processes import eventually
from tests.operator.fake_servers import NAME, digest_of
from tests.operator.faulty import Strikes, count
from tests.operator.scenario import Crash, digest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]

_OTHERS = "example.com/backup"
_CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/modelrollouts.ml.dwcp.io"


def _workloads(play):
    found = play.rest.get(f"/apis/apps/v1/namespaces/{play.namespace}/deployments")["items"]
    return sorted(one["metadata"]["name"] for one in found)


def _look_until(play, question, rounds=400):
    for _ in range(rounds):
        if question():
            return
        try:
            play.reconcile()
        except Crash:
            play.restart()
        time.sleep(0.03)
    raise AssertionError(f"never: {play.status}")


def _delete(play):
    play.rest.delete(path_of(MODEL_ROLLOUT, play.namespace, NAME))


def _trial(cluster, namespace, rng):
    """Delete it at a moment of chance; sometimes the process dies in one of the next writes."""
    policy = str(rng.choice(["Restore", "Keep"]))
    play = ClusterScenario(cluster, namespace, deletionPolicy=policy)
    for _ in range(int(rng.integers(1, 40))):
        play.reconcile()
        time.sleep(0.03)
    before = play.service
    if digest_of(before["spec"]["predictor"]) == digest(2):
        policy = "Promoted"  # it may not be said yet; there is nothing to go back to
    is_held = rng.random() < 0.2
    if is_held:
        finalizers = [*play.resource["metadata"].get("finalizers", []), _OTHERS]
        _set_finalizers(play, finalizers)
    _delete(play)
    if rng.random() < 0.5:
        number = int(rng.integers(1, 4))
        Strikes(play, [(number, str(rng.choice(["before", "after"])))], Crash)
    _look_until(play, lambda: FINALIZER not in _finalizers(play))
    if is_held:
        written = play.resource["metadata"]["resourceVersion"]
        for _ in range(3):
            play.reconcile()
        assert play.resource["metadata"]["resourceVersion"] == written, "it waits for another's"
        _set_finalizers(play, None)
    eventually(lambda: play.resource is None, 10.0)
    _check_what_is_left(play, policy, before)


def _finalizers(play):
    found = play.resource
    return [] if found is None else found["metadata"].get("finalizers", [])


def _set_finalizers(play, desired):
    path = path_of(MODEL_ROLLOUT, play.namespace, NAME)
    play.rest.merge(path, {"metadata": {"finalizers": desired}})


def _check_what_is_left(play, policy, before):
    found = play.service
    if policy == "Restore":
        assert digest_of(found["spec"]["predictor"]) == digest(1)
        assert not found["spec"].get("canary")
    else:
        assert found["spec"] == before["spec"]
    beside = [one["predictor"] for one in found["spec"].get("canary") or []]
    names = [f"{NAME}-{one['name']}-predictor" for one in [*beside, found["spec"]["predictor"]]]
    eventually(lambda: _workloads(play) == sorted(names), 30.0)


def test_what_is_deleted_in_mid_rollout_leaves_no_orphan(cluster, installed, record_property):
    rng = np.random.default_rng(7)
    trials = count(100)
    for _ in range(trials):
        with cluster.namespace() as namespace:
            _trial(cluster, namespace, rng)
    record_property("tried", trials)


def test_its_deletion_waits_for_an_operator_that_is_away(cluster, installed, namespace):
    play = ClusterScenario(cluster, namespace, deletionPolicy="Restore")
    _look_until(play, lambda: play.fleet.routed().get(digest(2), 0) >= 10)
    _delete(play)
    time.sleep(1.0)
    assert "deletionTimestamp" in play.resource["metadata"]
    assert play.service["spec"]["canary"], "nobody looked"
    play.restart()
    _look_until(play, lambda: play.resource is None)
    assert not play.service["spec"].get("canary")


def test_an_inference_service_that_is_gone_holds_no_deletion(cluster, installed, namespace):
    play = ClusterScenario(cluster, namespace, deletionPolicy="Restore")
    _look_until(play, lambda: play.fleet.routed().get(digest(2), 0) >= 10)
    play.rest.delete(path_of(INFERENCE_SERVICE, namespace, NAME))
    eventually(lambda: play.service is None, 30.0)
    _delete(play)
    _look_until(play, lambda: play.resource is None)


def test_a_rollout_goes_on_through_an_upgrade_of_its_definition(cluster, installed, namespace):
    """Another version is deployed beside ours, with a field more, and then is not any more."""
    play = ClusterScenario(cluster, namespace)
    _look_until(play, lambda: play.fleet.routed().get(digest(2), 0) >= 10)
    before = play.status["state"]
    (definition,) = documents("crds/ml.dwcp.io_modelrollouts.yaml")
    upgraded = copy.deepcopy(definition)
    newer = copy.deepcopy(upgraded["spec"]["versions"][0])
    newer |= {"name": "v1beta1", "storage": False}
    properties = newer["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    properties["note"] = {"type": "string"}
    upgraded["spec"]["versions"].append(newer)
    try:
        play.rest.apply(_CRD, upgraded)
        path = f"/apis/ml.dwcp.io/v1beta1/namespaces/{namespace}/modelrollouts/{NAME}"
        eventually(lambda: play.rest.find(path), 30.0)
        assert play.status["state"] == before
        _look_until(play, lambda: play.fleet.routed().get(digest(2), 0) >= 50)
    finally:
        play.rest.apply(_CRD, definition)
    assert play.play()[0] == "Promoted"
