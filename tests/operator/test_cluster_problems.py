"""What the cluster does to a candidate holds it; what the candidate does rolls it back."""

import pytest

from dwcp_ml.kube.kserve import deployment_name
from dwcp_ml.operator.metrics import Metrics
from tests.kube.kserve.test_pure import BY_THE_CLUSTER
from tests.operator.fake_servers import NAME, workload_of
from tests.operator.scenario import KEY, Scenario, at, digest

pytestmark = pytest.mark.slow

NOT_READY = {"conditions": [{"type": "Ready", "status": "False"}]}


def disturb(scenario, status, workload=None, pods=1):
    workload = workload or workload_of(2)
    scenario.kserve.unready.add(workload)
    scenario.kserve.scaled[workload] = pods
    scenario.kserve.pod_status[workload] = {**NOT_READY, **status}


def restore(scenario):
    scenario.kserve.unready.clear()
    scenario.kserve.pod_status.clear()


@pytest.mark.parametrize("share", [0, 25])
@pytest.mark.parametrize("reason", BY_THE_CLUSTER)
def test_a_candidate_that_the_cluster_keeps_from_running_is_held(reason, share):
    """Three pods of a node that shut down, a missing secret: 15 minutes of it."""
    scenario, metrics = at(share) if share else Scenario(), Metrics()
    disturb(scenario, BY_THE_CLUSTER[reason], pods=3)
    for _ in range(90):
        metrics.reconciled(KEY, scenario.reconcile())
    assert scenario.conditions["Stalled"]["status"] == "True"
    assert scenario.status["reason"] == "ClusterProblem"
    assert f"{reason} of the pod {workload_of(2)}-0" in scenario.status["message"]
    assert 'rollouts_stalled{reason="ClusterProblem"} 1.0' in metrics.page().decode()
    assert scenario.status.get("blockedDigests", []) == []
    restore(scenario)
    assert scenario.until_end() == "Promoted"
    assert not scenario.is_stalled


def test_a_first_deployment_that_the_cluster_keeps_from_running_is_held():
    scenario = Scenario(first=True)
    disturb(scenario, BY_THE_CLUSTER["ImagePullBackOff"])
    for _ in range(30):
        scenario.reconcile()
    assert scenario.status["reason"] == "ClusterProblem"
    scenario.edit(lambda obj: obj["spec"]["template"]["predictor"].update(nodeSelector={"a": "b"}))
    scenario.reconcile()
    assert scenario.service["spec"]["predictor"]["nodeSelector"] == {"a": "b"}
    restore(scenario)
    assert scenario.until_end() == "Promoted"


def test_a_node_that_is_full_for_half_a_minute_stalls_nothing():
    scenario = Scenario()
    disturb(scenario, BY_THE_CLUSTER["Unschedulable"])
    for _ in range(3):
        assert scenario.reconcile().stalled is None
    assert not scenario.is_stalled


def test_a_candidate_that_crashes_alone_is_rolled_back():
    scenario = at(5)
    scenario.kserve.crashes[workload_of(2)] = 3
    scenario.reconcile()
    assert scenario.phase in ("RollingBack", "RolledBack")
    assert scenario.until_end() == "RolledBack"
    assert scenario.status["reason"] == "CandidateCrashed"


def test_a_crash_loop_is_rolled_back_while_the_cluster_does_something_to_another_pod():
    scenario = at(5)
    crashing = {
        "containerStatuses": [
            {"restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
        ]
    }
    disturb(scenario, crashing)
    assert scenario.until_end() == "RolledBack"
    assert scenario.status["reason"] == "CandidateCrashed"


@pytest.mark.parametrize("mode", ["Standard", "Knative"])
def test_restarts_of_both_arms_roll_nothing_back(mode):
    scenario = at(5, mode=mode)
    both = [deployment_name(NAME, "v1"), workload_of(2)]
    if mode == "Knative":
        both = [f"bandwidth-predictor-predictor-0000{number}" for number in (1, 2)]
    for count in range(1, 10):
        scenario.kserve.crashes.update(dict.fromkeys(both, count))
        scenario.reconcile()
    assert scenario.phase == "Progressing"
    assert scenario.until_end() == "Promoted"


def test_a_candidate_with_all_traffic_is_rolled_back_where_the_stable_is_scaled_to_0():
    """In Knative mode a revision without requests has no pods: that hides nothing."""
    scenario = at(100, mode="Knative")
    scenario.kserve.crashes["bandwidth-predictor-predictor-00002"] = 3
    assert scenario.until_end() == "RolledBack"
    assert scenario.fleet.routed() == {digest(1): 100}
