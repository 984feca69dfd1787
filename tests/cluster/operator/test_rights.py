"""What the operator asks of the API server is what ``manifests/base/rbac.yaml`` allows, no more.

That nothing is missing every test of the operator shows: the API server refuses what is not
allowed, and a refused request fails the session. Here all that it ever does is done once.
"""

import pytest

from dwcp_ml.kube.api import MODEL_ROLLOUT, TRAINING_RUN
from tests.cluster.build import ROOT
from tests.cluster.operator.installed import SYSTEM, USER, documents, path_of
from tests.cluster.processes import eventually
from tests.operator.fake_servers import NAME
from tests.pipelines.fake_kubeflow import FakeKubeflow, polls

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture
def kubeflow():
    found = FakeKubeflow()
    found.script = polls(["validate-data"], ["gate"], ["approved"], ["publish-candidate"])
    yield found
    found.stop()


def allowed():
    """Return every (group, resource, verb) of the operator's roles."""
    return {
        (group, resource, verb)
        for one in documents("base/rbac.yaml")
        for rule in one.get("rules", [])
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def used(cluster):
    """Return the same of every request that it made in this session."""
    found = set()
    for call in cluster.calls(USER):
        about = call.get("objectRef")
        if about is not None:
            resource = "/".join(filter(None, (about["resource"], about.get("subresource"))))
            found.add((about.get("apiGroup", ""), resource, call["verb"]))
    return found


def training(space, name, **spec):
    spec = {"data": {"simulated": True}, "storagePrefix": "s3://models", **spec}
    metadata = {"name": name, "namespace": space}
    return {
        "apiVersion": TRAINING_RUN.api_version, "kind": "TrainingRun", "metadata": metadata,
        "spec": spec,
    }  # fmt: skip


def until(cluster, space, name, *phases):
    """Wait until a TrainingRun is at a phase; return its status."""

    def there():
        found = cluster.rest.get(path_of(TRAINING_RUN, space, name)).get("status") or {}
        assert found.get("phase") in phases, found
        return found

    return eventually(there, 60.0, alive=cluster.check)


def told_again(cluster, space, name):
    """Forget what was said of a TrainingRun, for a process that does not know that it was said."""
    path = path_of(TRAINING_RUN, space, name)
    cluster.rest.put(f"{path}/status", {**cluster.rest.get(path), "status": {}})


def test_every_right_is_used_and_no_other(cluster, installed, prometheus, told, kubeflow):
    words = (
        prometheus.address, f"--kubeflow={kubeflow.address}", f"--pipelines={ROOT / 'pipelines'}",
    )  # fmt: skip
    # The Lease of an earlier test is none that the operator has created.
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/dwcp-ml-operator"
    if cluster.rest.find(lease) is not None:
        cluster.rest.delete(lease)
    name, _ = installed.start("rights", *words)
    stories = told({
        "promoted": {"deletionPolicy": "Restore"},
        "Knative": {"mode": "Knative", "bad_at": 1},
        "first, crashing": {"first": True, "pods": "crash-looping"},
    })  # fmt: skip
    space = stories["promoted"].namespace
    cluster.rest.create(path_of(TRAINING_RUN, space), training(space, "nightly"))
    cluster.rest.create(path_of(TRAINING_RUN, space), training(space, "later", suspend=True))
    stories["promoted"].until("Promoted")
    stories["Knative"].until("RolledBack")
    # Trouble alone deletes no first deployment: its owner does.
    stories["first, crashing"].until_reason("FirstDeploymentUnhealthy")
    stories["first, crashing"].edit(abort=True)
    stories["first, crashing"].until("RolledBack")
    cluster.rest.delete(path_of(MODEL_ROLLOUT, space, NAME))
    eventually(lambda: stories["promoted"].resource is None, 30.0)
    status = until(cluster, space, "nightly", "Succeeded", "Failed")
    assert (status["phase"], status.get("verdict")) == ("Succeeded", "APPROVED"), status
    assert kubeflow.run["runtime_config"]["parameters"]["rollout_namespace"] == space
    until(cluster, space, "later", "Suspended")
    assert installed.stop(name) == 0
    told_again(cluster, space, "later")
    again, _ = installed.start("rights-again", *words)
    until(cluster, space, "later", "Suspended")
    assert installed.stop(again) == 0
    assert not kubeflow.violations
    assert used(cluster) == allowed()
