"""The harness itself: real programs respond, fake ones do their part, nothing stays behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dwcp_ml.kube.manifests import RUNTIME, inference_service, revision_name
from tests.cluster.build import PINS
from tests.cluster.cluster import ExistingCluster
from tests.cluster.control_plane import FAKE_PODS, NODE
from tests.cluster.processes import ClusterFailed, eventually
from tests.cluster.rest import RequestRejected, Rest
from tests.cluster.services import CANDIDATE, MODEL, NAME, STABLE, Service, runtime, uri
from tests.cluster.sockets import listening_addresses, remote_addresses

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

STABLE_DEPLOYMENT = f"{NAME}-{revision_name(STABLE)}-predictor"
CANDIDATE_DEPLOYMENT = f"{NAME}-{revision_name(CANDIDATE)}-predictor"


@pytest.fixture
def service(cluster, namespace):
    service = Service(cluster, namespace)
    runtimes = f"/apis/serving.kserve.io/v1alpha1/clusterservingruntimes/{RUNTIME}"
    if cluster.is_local:
        service.install_runtime()
    elif cluster.rest.find(runtimes) is None:
        pytest.skip(f"the cluster has no ClusterServingRuntime {RUNTIME}")
    return service


@pytest.fixture
def with_canary(service):
    """A ready service whose candidate has the gate's first step."""
    service.create()
    service.until_ready()
    document = inference_service(MODEL, CANDIDATE, uri(CANDIDATE), uri(STABLE))
    service.patch({"spec": document["spec"]})
    return service


def test_the_api_server_is_the_pinned_one(local_cluster):
    pinned = re.search(r"k8s.io/kubernetes (v\S+)", (PINS / "kubernetes" / "go.mod").read_text())[1]
    version = local_cluster.rest.get("/version")
    # Without the linker flags of a release, the server says its minor version only.
    assert f"v{version['major']}.{version['minor']}" == pinned.rpartition(".")[0]


def test_the_client_of_the_operator_reaches_it(cluster, namespace):
    from kubernetes.client import CoreV1Api

    names = [one.metadata.name for one in CoreV1Api(cluster.api).list_namespace().items]
    assert namespace in names


def test_pods_are_made_scheduled_and_ready(service):
    service.create()
    service.until_ready()
    (pod,) = service.pods(STABLE_DEPLOYMENT)
    assert pod["status"]["phase"] == "Running"
    if service.cluster.is_local:
        assert pod["spec"]["nodeName"] == NODE
        assert pod["status"]["podIP"].startswith("198.18.")


def test_a_first_deployment_gets_a_deployment_and_two_routes(service):
    service.create()
    service.until_ready()
    assert list(service.deployments()) == [STABLE_DEPLOYMENT]
    for route in (NAME, f"{NAME}-predictor"):
        assert service.weights(route) == {STABLE_DEPLOYMENT: 1}
    assert service.condition("CanaryPredictorReady") is None


def test_a_canary_at_one_percent_gets_one_of_a_hundred(with_canary):
    with_canary.until_weights({STABLE_DEPLOYMENT: 99, CANDIDATE_DEPLOYMENT: 1})
    eventually(lambda: with_canary.condition("CanaryPredictorReady") == "True")
    expected = {"name": revision_name(CANDIDATE), "ready": True, "trafficPercent": 1}
    assert with_canary.canary_status().items() >= expected.items()


def test_a_promotion_keeps_the_pods_of_the_candidate(with_canary):
    with_canary.until_weights({STABLE_DEPLOYMENT: 99, CANDIDATE_DEPLOYMENT: 1})
    before = {pod["metadata"]["uid"] for pod in with_canary.pods(CANDIDATE_DEPLOYMENT)}
    promoted = inference_service(MODEL, CANDIDATE, uri(CANDIDATE))["spec"]
    with_canary.patch({"spec": {**promoted, "canary": []}})
    with_canary.until_weights({CANDIDATE_DEPLOYMENT: 1})
    eventually(lambda: list(with_canary.deployments()) == [CANDIDATE_DEPLOYMENT])
    after = {pod["metadata"]["uid"] for pod in with_canary.pods(CANDIDATE_DEPLOYMENT)}
    assert before <= after
    assert before


def test_a_rollback_leaves_the_stable_alone(with_canary):
    with_canary.until_weights({STABLE_DEPLOYMENT: 99, CANDIDATE_DEPLOYMENT: 1})
    with_canary.patch({"spec": {"canary": []}})
    with_canary.until_weights({STABLE_DEPLOYMENT: 1})
    eventually(lambda: list(with_canary.deployments()) == [STABLE_DEPLOYMENT])
    eventually(lambda: with_canary.condition("CanaryPredictorReady") is None)
    assert "canaryStatuses" not in with_canary.live()["status"]


@pytest.mark.parametrize("pods", ["crash-looping", "pending"])
def test_a_canary_that_is_not_ready_has_no_share_and_the_status_hides_it(
    local_cluster, service, pods
):
    service.create()
    service.until_ready()
    document = inference_service(MODEL, CANDIDATE, uri(CANDIDATE), uri(STABLE))
    (canary,) = document["spec"]["canary"]
    canary["predictor"]["annotations"] = {FAKE_PODS: pods}
    service.patch({"spec": document["spec"]})
    if pods == "crash-looping":
        eventually(lambda: _restarts(service.pods(CANDIDATE_DEPLOYMENT)) >= 2)
    service.until_weights({STABLE_DEPLOYMENT: 1})  # alone: any weight is all of it
    (pod,) = eventually(lambda: service.pods(CANDIDATE_DEPLOYMENT))
    assert pod["status"]["phase"] == ("Running" if pods == "crash-looping" else "Pending")
    status = eventually(service.canary_status)
    assert (status["ready"], status["trafficPercent"]) == (False, 1)
    assert service.condition("Ready") == "True"


def _restarts(pods):
    containers = [one for pod in pods for one in pod["status"].get("containerStatuses", [])]
    return sum(one["restartCount"] for one in containers)


def test_what_a_deleted_service_owned_is_collected(service):
    service.create()
    service.until_ready()
    service.rest.delete(service.path)
    eventually(lambda: not service.deployments() and service.weights() is None)


def test_a_restricted_namespace_takes_our_pods_and_no_others(cluster):
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    with cluster.namespace(labels=restricted) as namespace:
        pods = f"/api/v1/namespaces/{namespace}/pods?dryRun=All"
        (container,) = runtime()["spec"]["containers"]
        pod = {"metadata": {"name": "one"}, "spec": {"containers": [container]}}
        cluster.rest.create(pods, pod)
        with pytest.raises(RequestRejected, match="violates PodSecurity"):
            del container["securityContext"]["capabilities"]
            cluster.rest.create(pods, pod)


def test_a_service_visible_in_the_cluster_only_is_never_split(local_cluster, service):
    local = {"networking.kserve.io/visibility": "cluster-local"}
    service.create(change=lambda document: document["metadata"]["labels"].update(local))
    service.until_ready()
    document = inference_service(MODEL, CANDIDATE, uri(CANDIDATE), uri(STABLE))
    service.patch({"spec": document["spec"]})
    eventually(lambda: service.condition("CanaryPredictorReady") == "True")
    assert service.weights() is None
    assert service.canary_status()["trafficPercent"] == 1


def _same_name(document):
    document["spec"]["canary"][0]["predictor"]["name"] = revision_name(STABLE)


def _no_name(document):
    del document["spec"]["canary"][0]["predictor"]["name"]


def _more_than_all(document):
    (canary,) = document["spec"]["canary"]
    other = {**canary, "predictor": {**canary["predictor"], "name": "other"}}
    document["spec"]["canary"] = [{**canary, "trafficPercent": 60}, {**other, "trafficPercent": 41}]


def _autoscaled(document):
    document["spec"]["canary"][0]["predictor"]["maxReplicas"] = 3


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_same_name, "name"),
        (_no_name, "name"),
        (_more_than_all, "100"),
        (_autoscaled, "maxReplicas"),
    ],
)
def test_the_webhook_refuses(service, spoil, reason):
    document = inference_service(MODEL, CANDIDATE, uri(CANDIDATE), uri(STABLE))
    with pytest.raises(RequestRejected, match=reason) as caught:
        service.create(document, spoil)
    assert "denied the request" in str(caught.value)


def test_the_definition_refuses_a_share_over_a_hundred(service):
    document = inference_service(MODEL, CANDIDATE, uri(CANDIDATE), uri(STABLE))
    document["spec"]["canary"][0]["trafficPercent"] = 101
    with pytest.raises(RequestRejected, match="trafficPercent") as caught:
        service.create(document)
    assert caught.value.status == 422


def test_an_account_without_rights_may_do_nothing(cluster, namespace, tmp_path):
    from kubernetes import config

    path = cluster.kubeconfig_of(namespace, "default", tmp_path)
    api = config.new_client_from_config(config_file=str(path))
    with pytest.raises(RequestRejected) as caught:
        Rest(api).get(f"/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices")
    api.close()
    assert caught.value.status == 403
    if cluster.is_local:
        (call,) = cluster.calls(f"system:serviceaccount:{namespace}:default")
        assert call["verb"] == "list"
        assert call["objectRef"]["resource"] == "inferenceservices"
        assert call["responseStatus"]["code"] == 403


def test_a_rollout_goes_on_after_the_api_server_was_killed(local_cluster, with_canary):
    with_canary.until_weights({STABLE_DEPLOYMENT: 99, CANDIDATE_DEPLOYMENT: 1})
    local_cluster.restart_api_server()
    with_canary.patch({"spec": {"canary": []}})
    with_canary.until_weights({STABLE_DEPLOYMENT: 1}, seconds=60.0)


def test_what_a_paused_kserve_left_undone_is_done_afterwards(local_cluster, service):
    service.create()
    service.until_ready()
    document = inference_service(MODEL, CANDIDATE, uri(CANDIDATE), uri(STABLE))
    with local_cluster.kserve.pause():
        service.patch({"spec": document["spec"]})
        time.sleep(0.5)
        assert service.weights() == {STABLE_DEPLOYMENT: 1}
        assert list(service.deployments()) == [STABLE_DEPLOYMENT]
    service.until_weights({STABLE_DEPLOYMENT: 99, CANDIDATE_DEPLOYMENT: 1})


def test_nothing_speaks_beyond_this_machine(local_cluster, with_canary):
    with_canary.until_weights({STABLE_DEPLOYMENT: 99, CANDIDATE_DEPLOYMENT: 1})
    addresses = remote_addresses(local_cluster.processes.ids().values())
    assert addresses, "no connection was seen at all: the look itself is broken"
    assert {address for address in addresses if not address.is_loopback} == set()


def test_every_program_listens_on_this_machine_only(local_cluster):
    addresses = listening_addresses(local_cluster.processes.ids().values())
    assert addresses, "nothing listens at all: the look itself is broken"
    assert {address for address in addresses if not address.is_loopback} == set()


def test_a_cluster_that_is_there_already_is_taken_as_it_is(local_cluster, tmp_path):
    existing = ExistingCluster(local_cluster.kubeconfig)
    assert not existing.is_local
    with existing.namespace() as namespace:
        assert local_cluster.rest.find(f"/api/v1/namespaces/{namespace}")
        path = existing.kubeconfig_of(namespace, "default", tmp_path)
        with pytest.raises(ClusterFailed, match="KServe is not installed there"):
            ExistingCluster(path)  # to that account, nothing is there
    existing.end()


def test_nothing_stays_when_the_tests_are_killed():
    program = (
        "import json, time\n"
        "from tests.cluster.build import build\n"
        "from tests.cluster.own import KwokCluster\n"
        "found = KwokCluster(build())\n"
        "told = [str(found.processes.directory), list(found.processes.ids().values())]\n"
        "print(json.dumps(told), flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as tests:
        directory, ids = json.loads(tests.stdout.readline())
        assert len(ids) == 7
        assert all(_runs(one) for one in ids)
        tests.send_signal(signal.SIGKILL)
    eventually(lambda: not any(_runs(one) for one in ids), 20.0)
    eventually(lambda: not Path(directory).exists(), 20.0)


def _runs(process_id):
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True
