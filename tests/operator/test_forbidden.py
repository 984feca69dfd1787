"""What the API server forbids, to the operator or to a ReplicaSet, is said in its own words."""

import pytest

from dwcp_ml.kube.api import (
    DEPLOYMENT,
    INFERENCE_SERVICE,
    KNATIVE_SERVICE,
    MODEL_ROLLOUT,
    AccessDenied,
)
from dwcp_ml.operator.metrics import Metrics
from tests.operator.fake_servers import shares_in, workload_of
from tests.operator.scenario import KEY, Scenario, at, digest, stalled

pytestmark = pytest.mark.slow

QUOTA = (
    "The API server does not replace InferenceService bandwidth-predictor: "
    "inferenceservices.serving.kserve.io is forbidden: exceeded quota: models."
)


def forbid(scenario, *forbidden, sentence=QUOTA):
    """Let the API server forbid each (verb, kind) from now on."""

    def before(call):
        if (call.verb, call.kind) in forbidden:
            raise AccessDenied(sentence)

    scenario.api.before = before


def allow(scenario):
    scenario.api.before = lambda call: None


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("mode", ["Standard", "Knative"])
def test_a_forbidden_write_is_said_within_two_reconciliations_and_counted(mode, first):
    scenario, metrics = Scenario(mode=mode, first=first), Metrics()
    forbid(scenario, ("replace", INFERENCE_SERVICE), ("create", INFERENCE_SERVICE))
    for _ in range(2):
        metrics.reconciled(KEY, scenario.operator.reconcile(KEY))
        scenario.pass_time(10)
    conditions = stalled(scenario)
    assert conditions["Stalled"]["reason"] == scenario.status["reason"] == "WriteForbidden"
    assert QUOTA.rstrip(".") in conditions["Stalled"]["message"]
    assert [each.reason for each in scenario.events if each.warning] == ["WriteForbidden"]
    assert 'rollouts_stalled{reason="WriteForbidden"} 1.0' in metrics.page().decode()
    allow(scenario)
    assert scenario.until_end() == "Promoted"
    assert not scenario.is_stalled


def test_a_write_that_stays_forbidden_is_written_once_in_an_hour():
    """Beyond the deadline of a candidate that is not ready, too."""
    scenario = Scenario()
    forbid(scenario, ("replace", INFERENCE_SERVICE))
    for _ in range(3):
        scenario.reconcile()
    written = scenario.rules.writes["status"]
    for _ in range(360):
        assert scenario.reconcile().stalled == "WriteForbidden"
    assert scenario.rules.writes["status"] == written
    assert scenario.conditions["Stalled"]["reason"] == "WriteForbidden"


def test_a_roll_back_that_is_forbidden_is_tried_at_every_reconciliation():
    scenario = at(5)
    forbid(scenario, ("replace", INFERENCE_SERVICE))
    scenario.edit(lambda obj: obj["spec"].update(abort=True))
    scenario.reconcile()
    assert (scenario.phase, scenario.status["reason"]) == ("RollingBack", "WriteForbidden")
    scenario.reconcile()
    allow(scenario)
    scenario.reconcile()
    assert shares_in(scenario.service).get(digest(2), 0) == 0
    assert scenario.until_end() == "RolledBack"
    assert scenario.status["reason"] == "Aborted"


def test_without_the_right_to_write_the_status_a_candidate_is_still_rolled_back():
    scenario, metrics = at(5), Metrics()
    forbid(scenario, ("replace status", MODEL_ROLLOUT))
    scenario.edit(lambda obj: obj["spec"].update(abort=True))
    scenario.reconcile()
    assert shares_in(scenario.service).get(digest(2), 0) == 0
    for _ in range(5):
        metrics.reconciled(KEY, scenario.operator.reconcile(KEY))
        scenario.pass_time(10)
    assert scenario.final[2] == [], "the candidate is gone"
    assert 'rollouts_stalled{reason="WriteForbidden"} 1.0' in metrics.page().decode()
    scenario.restart()
    for _ in range(5):
        scenario.reconcile()
    assert digest(2) not in shares_in(scenario.service)
    allow(scenario)
    assert scenario.until_end() == "RolledBack"


def test_without_the_right_to_write_the_status_no_weight_rises():
    scenario, metrics = at(5), Metrics()
    forbid(scenario, ("replace status", MODEL_ROLLOUT))
    for _ in range(60):
        scenario.pass_time(10)
        metrics.reconciled(KEY, scenario.operator.reconcile(KEY))
    assert scenario.rules.weights[-1] == 5
    assert 'rollouts_stalled{reason="WriteForbidden"} 1.0' in metrics.page().decode()
    allow(scenario)
    assert scenario.until_end() == "Promoted"


def test_an_inference_service_that_may_not_be_read_is_said():
    scenario = at(5)
    forbid(scenario, ("get", INFERENCE_SERVICE), sentence="The API server does not read it.")
    conditions = stalled(scenario)
    assert conditions["Stalled"]["reason"] == "ReadForbidden"
    allow(scenario)
    assert scenario.until_end() == "Promoted"


def test_a_knative_service_that_may_not_be_read_does_not_block_an_abort():
    scenario = at(5, mode="Knative")
    forbid(scenario, ("get", KNATIVE_SERVICE))
    for _ in range(3):
        scenario.reconcile()
    assert scenario.conditions["Stalled"]["reason"] == "ReadForbidden"
    scenario.edit(lambda obj: obj["spec"].update(abort=True))
    scenario.operator.reconcile(KEY)
    assert shares_in(scenario.service).get(digest(2), 0) == 0


@pytest.mark.parametrize("allowed_again", [True, False])
def test_a_deletion_that_is_forbidden_blocks_and_says_so(allowed_again):
    scenario = at(5)
    scenario.edit(lambda obj: obj["spec"].update(deletionPolicy="Restore"))
    scenario.reconcile()
    forbid(scenario, ("replace", INFERENCE_SERVICE))
    scenario.api.delete(MODEL_ROLLOUT, *KEY)
    scenario.reconcile()
    assert scenario.conditions["Stalled"]["reason"] == "DeletionBlocked"
    assert "exceeded quota" in scenario.status["message"]
    if allowed_again:
        allow(scenario)
        for _ in range(5):
            scenario.reconcile()
        assert scenario.resource is None


def refuse_pods(scenario, workload, message="pods is forbidden: exceeded quota: models"):
    """Let the Deployment report what KServe's ReplicaSet may not do."""
    scenario.kserve.unready.add(workload)
    failure = {
        "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message,
    }  # fmt: skip
    scenario.kserve.conditions[workload] = [failure]


@pytest.mark.parametrize("share", [0, 5])
def test_pods_that_a_quota_forbids_hold_the_candidate_and_do_not_roll_it_back(share):
    scenario = at(5) if share else Scenario()
    refuse_pods(scenario, workload_of(2))
    for _ in range(2):
        scenario.reconcile()
    assert scenario.conditions["Stalled"]["reason"] == "PodCreationFailed"
    assert "exceeded quota: models" in scenario.conditions["Stalled"]["message"]
    for _ in range(60):
        assert scenario.reconcile().stalled == "PodCreationFailed"
    assert scenario.phase not in ("RollingBack", "RolledBack")
    scenario.kserve.unready.clear()
    scenario.kserve.conditions.clear()
    assert scenario.until_end() == "Promoted"


def test_a_template_is_corrected_while_its_pods_are_forbidden():
    scenario = Scenario()
    refuse_pods(scenario, workload_of(2))
    for _ in range(3):
        scenario.reconcile()
    scenario.edit(lambda obj: obj["spec"]["template"]["predictor"].update(nodeSelector={"a": "b"}))
    scenario.reconcile()
    assert scenario.service["spec"]["canary"][0]["predictor"]["nodeSelector"] == {"a": "b"}


def test_pods_of_a_revision_that_a_quota_forbids_are_said_in_knative_mode():
    scenario = Scenario(mode="Knative")
    scenario.kserve.unready.add("bandwidth-predictor-predictor-00002")
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}
    scenario.api.create({
        "apiVersion": DEPLOYMENT.api_version, "kind": DEPLOYMENT.kind,
        "metadata": {
            "namespace": KEY[0], "name": "bandwidth-predictor-predictor-00002-deployment",
        },
    })  # fmt: skip
    deployment = scenario.api.at(
        DEPLOYMENT, KEY[0], "bandwidth-predictor-predictor-00002-deployment"
    )
    scenario.api.replace(
        {**deployment, "status": {"conditions": [{**failure, "message": "exceeded quota"}]}},
        status=True,
    )
    for _ in range(3):
        scenario.reconcile()
    assert scenario.conditions["Stalled"]["reason"] == "PodCreationFailed"
