"""Retraining against a real API server, with the rights of its account."""

import functools
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from kubernetes import client, config

from dwcp_ml.kube.api import MODEL_ROLLOUT, TRAINING_RUN, AccessDenied, Invalid
from dwcp_ml.kube.client import connect
from dwcp_ml.operator.settings import Clock
from dwcp_ml.retraining.decide import Skip
from dwcp_ml.retraining.start import MANAGER, start
from tests.cluster.build import ROOT
from tests.cluster.processes import eventually
from tests.cluster.rest import RequestRejected, Rest
from tests.documents import documents_of
from tests.retraining.retrainings import SUCCEEDED, document, retraining, rollout

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

COMPONENT = ROOT / "manifests/components/retraining"
ACCOUNT = "dwcp-ml-retraining"
PATHS = {
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "CronJob": "/apis/batch/v1/namespaces/{}/cronjobs",
    "Service": "/api/v1/namespaces/{}/services",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
}


class Retrainer:
    """The account of the component in a namespace, and what its pods would do."""

    def __init__(self, cluster, namespace, directory):
        self.cluster, self.namespace = cluster, namespace
        for one in documents_of(COMPONENT / "rbac.yaml"):
            one["metadata"]["namespace"] = namespace
            for subject in one.get("subjects", ()):
                subject["namespace"] = namespace
            cluster.rest.create(PATHS[one["kind"]].format(namespace), one)
        kubeconfig = cluster.kubeconfig_of(namespace, ACCOUNT, directory)
        self.api = connect(kubeconfig, manager=MANAGER)
        eventually(self._may, 30.0)
        settings = client.Configuration()
        config.load_kube_config(str(kubeconfig), client_configuration=settings)
        self.rest = Rest(client.ApiClient(settings))

    def start(self, days=0.0, **changes):
        """Start a run as if some days had gone by."""
        now = datetime.now(UTC) + timedelta(days=days)
        clock = Clock(wall=now.timestamp)
        return start(self.api, self.namespace, retraining(**changes), "schedule", clock)

    def path(self, kind, name):
        return f"/apis/{kind.api_version}/namespaces/{self.namespace}/{kind.plural}/{name}"

    def end(self, name, **status):
        """Write the status of a run, as the operator does."""
        path = self.path(TRAINING_RUN, name)
        body = self.cluster.rest.get(path)
        self.cluster.rest.put(f"{path}/status", {**body, "status": status})

    def names(self):
        return sorted(
            one["metadata"]["name"] for one in self.api.list(TRAINING_RUN, self.namespace)
        )

    def _may(self):
        """Rights that were just given are known a moment later."""
        try:
            return self.api.list(TRAINING_RUN, self.namespace) == []
        except AccessDenied:
            return False


@pytest.fixture
def retrainer(cluster, definitions, namespace, tmp_path):
    return Retrainer(cluster, namespace, tmp_path)


def test_a_run_is_created_with_its_window_and_the_next_waits(retrainer):
    assert retrainer.start().skip is None
    run = retrainer.cluster.rest.get(retrainer.path(TRAINING_RUN, "nightly-1"))
    found = run["spec"]["data"]
    length = datetime.fromisoformat(found["endTime"]) - datetime.fromisoformat(found["startTime"])
    assert length == timedelta(days=10)
    assert run["spec"]["trigger"] == "schedule"
    assert retrainer.start().skip is Skip.RUN_UNDER_WAY
    retrainer.end("nightly-1", **SUCCEEDED)
    assert retrainer.start().skip is Skip.COOLING_DOWN
    assert retrainer.start(days=1.5).skip is None
    assert retrainer.names() == ["nightly-1", "nightly-2"]


def test_a_rollout_that_was_rolled_back_delays_the_next_run(retrainer):
    retrainer.start()
    retrainer.end("nightly-1", **SUCCEEDED)
    body = rollout("v1")
    status = {**body.pop("status"), "phase": "RolledBack"}
    body["metadata"]["namespace"] = retrainer.namespace
    path = retrainer.path(MODEL_ROLLOUT, "bandwidth-predictor")
    retrainer.cluster.rest.create(path.rpartition("/")[0], body)
    assert retrainer.start(days=6).skip is Skip.ROLLOUT_UNDER_WAY  # the operator has not seen it
    stored = retrainer.cluster.rest.get(path)
    retrainer.cluster.rest.put(f"{path}/status", {**stored, "status": status})
    assert retrainer.start(days=4).skip is Skip.TOO_LITTLE_NEW_DATA
    assert retrainer.start(days=6).skip is None


def test_many_at_the_same_moment_start_one_run(retrainer):
    with ThreadPoolExecutor(8) as pool:
        found = [one.skip for one in pool.map(lambda _: retrainer.start(), range(8))]
    assert sorted(found, key=str) == [None, *[Skip.RUN_UNDER_WAY] * 7]
    assert retrainer.names() == ["nightly-1"]


def test_old_runs_are_deleted(retrainer):
    for number in range(1, 5):
        assert retrainer.start(days=2 * number, historyLimit=2).skip is None
        retrainer.end(f"nightly-{number}", phase="Failed", reason="RunFailed")
    assert retrainer.names() == ["nightly-2", "nightly-3", "nightly-4"]


def test_what_the_api_server_refuses_is_said(retrainer):
    template = {**document()["template"], "labels": {"team": "a value can't have spaces"}}
    with pytest.raises(Invalid):
        retrainer.start(template=template)
    assert retrainer.names() == []


def test_the_account_may_do_nothing_else(retrainer):
    rest, space = retrainer.rest, retrainer.namespace
    core = f"/api/v1/namespaces/{space}"
    runs = retrainer.path(TRAINING_RUN, "").rstrip("/")
    refused = [
        functools.partial(rest.get, f"{core}/secrets"),
        functools.partial(rest.get, f"{core}/pods"),
        functools.partial(rest.create, runs.replace("trainingruns", "modelrollouts"), rollout()),
        functools.partial(rest.get, runs.replace(space, "default")),
        functools.partial(rest.merge, f"{runs}/nightly-1", {"spec": {"cancel": True}}),
    ]
    for attempt in refused:
        with pytest.raises(RequestRejected) as caught:
            attempt()
        assert caught.value.status == 403


def test_the_component_is_taken_and_its_pods_run_under_the_restricted_standard(
    local_cluster, definitions, tmp_path
):
    """As docs/retraining.md has it; the kinds of the Prometheus operator are not served here."""
    (tmp_path / "retraining.yaml").write_text(yaml.safe_dump(document()))
    (tmp_path / "dwcp-ml").symlink_to(ROOT)
    generated = {
        "name": "dwcp-ml-retraining", "files": ["retraining.yaml"],
        "options": {"disableNameSuffixHash": True},
    }  # fmt: skip
    kustomization = {
        "namespace": "dwcp-ml",
        "components": ["dwcp-ml/manifests/components/retraining"],
        "configMapGenerator": [generated],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    program = local_cluster.control_plane.built.program("kubectl")
    done = subprocess.run(
        [program, "kustomize", tmp_path], capture_output=True, text=True, timeout=60, check=True
    )
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    with local_cluster.namespace(labels=labels) as space:
        for one in yaml.safe_load_all(done.stdout):
            if one["apiVersion"].startswith("monitoring.coreos.com/"):
                continue
            one["metadata"]["namespace"] = space
            for subject in one.get("subjects", ()):
                subject["namespace"] = space
            local_cluster.rest.create(PATHS[one["kind"]].format(space), one)
        where = PATHS["Deployment"].format(space)

        def runs():
            body = local_cluster.rest.get(f"{where}/dwcp-ml-retraining-webhook")
            return body.get("status", {}).get("availableReplicas") == 1

        eventually(runs, 60.0, alive=local_cluster.check)
        job = local_cluster.rest.get(f"{PATHS['CronJob'].format(space)}/dwcp-ml-retraining")
        pod = job["spec"]["jobTemplate"]["spec"]["template"]
        pod["metadata"]["name"] = "by-hand"
        local_cluster.rest.create(f"/api/v1/namespaces/{space}/pods", pod)
