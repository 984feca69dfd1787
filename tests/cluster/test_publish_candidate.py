"""The pipeline's last task against a real API server, with the rights of its account."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from kubernetes import client, config

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.contract.models import MODELS
from dwcp_ml.export.verify import bundle_digest, open_bundle
from dwcp_ml.kube.api import INFERENCE_SERVICE, MODEL_ROLLOUT, TRAINING_RUN, AccessDenied
from dwcp_ml.kube.client import connect
from dwcp_ml.kube.publish_candidate import MANAGER, publish_candidates
from tests.cluster.processes import eventually
from tests.cluster.rest import APPLY, RequestRejected, Rest
from tests.kube.publishing import NAMES, PREFIX, written
from tests.serving.bundles import make_bundle

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
ACCOUNT = "dwcp-ml-pipeline"
_ACCESS = "/apis/rbac.authorization.k8s.io/v1/namespaces"

_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
_POLICIES = {
    "ValidatingAdmissionPolicy": f"{_ADMISSION}/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": f"{_ADMISSION}/validatingadmissionpolicybindings",
}

PROGRAM = """
import sys
from types import SimpleNamespace
from components.publish_candidate import publish_candidate
from dwcp_ml.contract.models import MODELS
path, version, namespace, prefix = sys.argv[1:]
bundles = {name: SimpleNamespace(path=f"{path}/bundles") for name in MODELS}
publish_candidate.python_func(manifests=SimpleNamespace(path=f"{path}/manifests"),
                              published=SimpleNamespace(path=f"{path}/published"),
                              verdict="APPROVED", version=version, rollout_namespace=namespace,
                              storage_prefix=prefix, **bundles)
"""


class Pipeline:
    """The account of ``manifests/base`` in a namespace, and what its pods would do."""

    def __init__(self, cluster, namespace, directory):
        self.cluster, self.namespace, self.directory = cluster, namespace, directory
        paths = {
            "ServiceAccount": f"/api/v1/namespaces/{namespace}/serviceaccounts",
            "Role": f"{_ACCESS}/{namespace}/roles",
            "RoleBinding": f"{_ACCESS}/{namespace}/rolebindings",
        }
        text = (ROOT / "manifests/base/pipeline-rbac.yaml").read_text()
        self.documents = list(yaml.safe_load_all(text))
        for one in self.documents:
            for subject in one.get("subjects", ()):
                subject["namespace"] = namespace  # as kustomize does
            if one["kind"] in paths:
                cluster.rest.create(paths[one["kind"]], one)
        self.kubeconfig = cluster.kubeconfig_of(namespace, ACCOUNT, directory)
        self.api = connect(self.kubeconfig, manager=MANAGER)
        eventually(self._may, 30.0)
        settings = client.Configuration()
        config.load_kube_config(str(self.kubeconfig), client_configuration=settings)
        self.rest = Rest(client.ApiClient(settings))

    def __call__(self, version, *names):
        """Publish a version, with a digest of its own; return what was said."""
        said = []
        root = written(
            self.directory / version, *names, version=version, digest=version[-1] * 64
        )  # fmt: skip
        publish_candidates(
            root, self.namespace, self.api, version=version, storage_prefix=PREFIX,
            verdict="APPROVED", say=said.append, deliver=lambda name, digest: None,
        )  # fmt: skip
        return said

    def path(self, kind, name="", namespace=""):
        where = f"/apis/{kind.api_version}/namespaces/{namespace or self.namespace}/{kind.plural}"
        return f"{where}/{name}" if name else where

    def rollout(self, name="bandwidth-predictor"):
        return self.cluster.rest.get(self.path(MODEL_ROLLOUT, name))

    def edit(self, name="bandwidth-predictor", **spec):
        self.cluster.rest.merge(self.path(MODEL_ROLLOUT, name), {"spec": spec})

    def _may(self):
        """Rights that were just given are known a moment later."""
        try:
            return self.api.get(MODEL_ROLLOUT, self.namespace, "none") is None
        except AccessDenied:
            return False


@pytest.fixture(scope="module")
def policies(cluster):
    """The admission policy of the cluster; what was not there goes again."""
    text = (ROOT / "manifests/base/pipeline-rbac.yaml").read_text()
    made = []
    for one in yaml.safe_load_all(text):
        path = f"{_POLICIES.get(one['kind'])}/{one['metadata']['name']}"
        if one["kind"] in _POLICIES and cluster.rest.find(path) is None:
            cluster.rest.apply(path, one)
            made.append(path)
    yield made
    for path in made:
        cluster.rest.delete(path)


@pytest.fixture
def pipeline(cluster, definitions, policies, namespace, tmp_path):
    return Pipeline(cluster, namespace, tmp_path)


def test_a_second_field_manager_applies_the_policy_without_a_conflict(cluster, policies):
    """The API server's defaults are in it: as the field is atomic, they would be a difference."""
    text = (ROOT / "manifests/base/pipeline-rbac.yaml").read_text()
    for one in yaml.safe_load_all(text):
        if one["kind"] in _POLICIES:
            path = f"{_POLICIES[one['kind']]}/{one['metadata']['name']}"
            cluster.rest.request("PATCH", f"{path}?fieldManager=another", one, APPLY)


def test_it_makes_rollouts_and_then_changes_their_candidates_alone(pipeline):
    said = pipeline("v1", *MODELS)
    assert len(said) == 4
    assert all("was created" in one for one in said)
    for name in NAMES:
        found = pipeline.rollout(name)
        assert found["spec"]["candidate"]["digest"] == f"sha256:{'1' * 64}"
        assert [one["manager"] for one in found["metadata"]["managedFields"]] == [MANAGER]
    pipeline.edit(
        paused=True, watchSeconds=60, deletionPolicy="Restore", analysis={"alpha": 0.01},
        steps=[{"trafficPercent": 50}, {"trafficPercent": 100}],
    )  # fmt: skip
    path = pipeline.path(MODEL_ROLLOUT, "bandwidth-predictor")
    told = {**pipeline.rollout(), "status": {"phase": "Progressing", "livePercent": 5}}
    before = pipeline.cluster.rest.put(f"{path}/status", told)
    assert (
        pipeline("v2", *MODELS)[0] == "ModelRollout bandwidth-predictor was given the candidate v2."
    )
    after = pipeline.rollout()
    assert after["spec"].pop("candidate")["version"] == "v2"
    assert before["spec"].pop("candidate")["version"] == "v1"
    assert (after["spec"], after["status"]) == (before["spec"], before["status"])
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1
    assert (
        pipeline("v2", *MODELS)[0]
        == "ModelRollout bandwidth-predictor already has the candidate v2."
    )
    assert pipeline.rollout()["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]


def test_what_the_api_server_refuses_is_named_and_the_others_go_on(pipeline):
    pipeline("v1", *MODELS)
    pipeline.edit(abort=True)
    with pytest.raises(DwcpError) as refused:
        pipeline("v2", *MODELS)
    assert str(refused.value).startswith("bandwidth_predictor was not published: ")
    assert "abort is true" in str(refused.value)
    assert "\n" not in str(refused.value)
    versions = {name: pipeline.rollout(name)["spec"]["candidate"]["version"] for name in NAMES}
    assert versions == {**dict.fromkeys(NAMES, "v2"), "bandwidth-predictor": "v1"}
    pipeline.edit(abort=False)
    pipeline("v2", *MODELS)
    assert pipeline.rollout()["spec"]["candidate"]["version"] == "v2"


def test_several_runs_and_a_person_at_once(pipeline):
    """Each is published; what the person wrote stays."""
    pipeline("v0", *MODELS)
    with ThreadPoolExecutor(5) as pool:
        runs = [pool.submit(pipeline, f"v{number}", *MODELS) for number in range(1, 5)]
        for seconds in range(1, 11):
            pipeline.edit(watchSeconds=seconds)
        said = [one.result() for one in runs]
    assert all(len(one) == 4 for one in said)
    found = pipeline.rollout()["spec"]
    assert found["watchSeconds"] == 10
    assert found["candidate"]["version"] in {"v1", "v2", "v3", "v4"}
    assert found["candidate"]["digest"] == f"sha256:{found['candidate']['version'][-1] * 64}"


def test_the_account_may_do_nothing_else(pipeline, cluster):
    pipeline("v1", "bandwidth_predictor")
    rollout, name = pipeline.rollout(), "bandwidth-predictor"
    mine, rest = pipeline.path(MODEL_ROLLOUT, name), pipeline.rest
    service = {
        "apiVersion": INFERENCE_SERVICE.api_version, "kind": "InferenceService",
        "metadata": {"name": name}, "spec": {"predictor": {}},
    }  # fmt: skip
    core = f"/api/v1/namespaces/{pipeline.namespace}"
    for request in (
        ("POST", pipeline.path(INFERENCE_SERVICE), service),
        ("GET", pipeline.path(INFERENCE_SERVICE, name)),
        ("GET", pipeline.path(INFERENCE_SERVICE)),
        ("DELETE", pipeline.path(INFERENCE_SERVICE, name)),
        ("PUT", f"{mine}/status", {**rollout, "status": {"phase": "Promoted"}}),
        ("PATCH", mine, {"spec": {"paused": True}}, "application/merge-patch+json"),
        ("DELETE", mine),
        ("GET", pipeline.path(MODEL_ROLLOUT)),
        ("GET", pipeline.path(MODEL_ROLLOUT, name, "default")),
        ("POST", pipeline.path(MODEL_ROLLOUT, namespace="default"), rollout),
        ("GET", pipeline.path(TRAINING_RUN, "nightly")),
        ("GET", f"{core}/secrets"),
        ("GET", f"{core}/pods"),
        ("POST", f"{_ACCESS}/{pipeline.namespace}/rolebindings", pipeline.documents[-1]),
    ):
        with pytest.raises(RequestRejected) as refused:
            rest.request(*request)
        assert refused.value.status == 403, request
    forged = {**rollout, "status": {"phase": "Promoted", "livePercent": 100}}
    status = rest.put(mine, forged).get("status") or {}
    assert not status.keys() & {"phase", "livePercent"}, "the spec's path writes no status"


def test_it_changes_the_candidate_alone(pipeline):
    """Whoever has the account's token can't abort, pause, redirect or loosen a rollout with it."""
    pipeline("v1", "bandwidth_predictor")
    mine, rest = pipeline.path(MODEL_ROLLOUT, "bandwidth-predictor"), pipeline.rest

    def refused(change, **metadata):
        rollout = pipeline.rollout()
        changed = {
            **rollout, "spec": {**rollout["spec"], **change},
            "metadata": {**rollout["metadata"], **metadata},
        }  # fmt: skip
        try:
            rest.put(mine, changed)
        except RequestRejected as error:
            return is_by_the_policy(error)
        return False

    # The policy is enforced a moment after it was created.
    eventually(lambda: refused({"paused": True}), 30.0)
    spec = pipeline.rollout()["spec"]
    immutable = {"inferenceService", "model"}
    for field in sorted(spec_fields() - immutable - {"candidate"}):
        assert refused({field: _CHANGES[field](spec)}), field
    assert refused({}, labels={"team": "mine"})
    assert refused({}, annotations={"note": "mine"})
    assert refused({}, finalizers=["mine.example/stays"])
    pipeline("v2", "bandwidth_predictor")
    assert pipeline.rollout()["spec"]["candidate"]["version"] == "v2"

    def created(**change):
        rollout = pipeline.rollout()
        name = "another"
        fresh = {
            "apiVersion": rollout["apiVersion"], "kind": rollout["kind"],
            "metadata": {"name": name},
            "spec": {**rollout["spec"], "inferenceService": name, **change},
        }  # fmt: skip
        return rest.create(f"{pipeline.path(MODEL_ROLLOUT)}?dryRun=All", fresh)

    for change in (
        {"abort": True}, {"paused": True}, {"deletionPolicy": "Restore"},
        {"steps": [{"trafficPercent": 50}, {"trafficPercent": 100}]},
        {"shadow": {"enabled": False}}, {"shadow": {"minimumPairs": 1}},
        {"analysis": {"divergence": {"enabled": False}}},
        {"analysis": {"divergence": {"tolerance": 0.9}}},
        {"analysis": {"divergence": {"margin": 0.4}}},
        {"analysis": {"errorRate": {"enabled": False}}},
        {"analysis": {"latency": {"margin": 0.5}}},
        {"analysis": {"alpha": 1e-9}},
        {"analysis": {"maxRestarts": 1000}},
        {"watchSeconds": 0},
    ):  # fmt: skip
        with pytest.raises(RequestRejected) as error:
            created(**change)
        assert is_by_the_policy(error.value), change
    created()


def is_by_the_policy(error):
    return error.status == 422 and f"ValidatingAdmissionPolicy '{ACCOUNT}'" in str(error)


def spec_fields():
    """Return every field of a ModelRollout's spec, as its CRD has them."""
    document = yaml.safe_load(
        (ROOT / "manifests/crds/ml.dwcp.io_modelrollouts.yaml").read_text()
    )  # fmt: skip
    schema = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return set(schema["properties"]["spec"]["properties"])


_CHANGES = {
    "template": lambda spec: {
        **spec["template"], "predictor": {**spec["template"]["predictor"], "minReplicas": 9},
    },
    "steps": lambda spec: [{"trafficPercent": 50}, {"trafficPercent": 100}],
    "shadow": lambda spec: {"minimumPairs": 1},
    "analysis": lambda spec: {"alpha": 0.01},
    "watchSeconds": lambda spec: 1.0,
    "paused": lambda spec: True,
    "abort": lambda spec: True,
    "skip": lambda spec: {
        "trafficPercent": 1, "version": spec["candidate"]["version"], "reason": "in a hurry",
    },
    "retry": lambda spec: {"digest": spec["candidate"]["digest"], "reason": "again"},
    "deletionPolicy": lambda spec: "Restore",
}  # fmt: skip


def test_it_uses_every_right_that_it_has(pipeline, local_cluster):
    pipeline("v1", "bandwidth_predictor")
    pipeline("v2", "bandwidth_predictor")
    calls = local_cluster.calls(f"system:serviceaccount:{pipeline.namespace}:{ACCOUNT}")
    used = {
        (call["objectRef"]["apiGroup"], call["objectRef"]["resource"], call["verb"])
        for call in calls
        if call["responseStatus"]["code"] != 403  # before its rights were known
    }
    (rules,) = [one["rules"] for one in pipeline.documents if one["kind"] == "Role"]
    (rule,) = rules
    allowed = {
        (group, resource, verb)
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert used == allowed


def test_the_task_itself_publishes_and_fails_with_a_sentence(pipeline):
    claims = pipeline.directory / "claims"
    (claims / "models").mkdir(parents=True)

    def task(version, prefix="pvc://models"):
        root = pipeline.directory / "task"
        for name in MODELS:
            bundle = root / "bundles" / name / version
            if not bundle.exists():
                make_bundle(root / "bundles", name, version)
            written(
                root / "manifests", name, version=version, digest=bundle_digest(bundle),
                prefix="pvc://models",
            )  # fmt: skip
        return subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PROGRAM, str(root), version,
             pipeline.namespace, prefix],
            cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
            env={
                "PATH": "", "KUBECONFIG": str(pipeline.kubeconfig), "DWCP_PVC_ROOT": str(claims),
            },
        )  # fmt: skip

    done = task("v3")
    assert done.returncode == 0, done.stderr
    for name in MODELS:
        open_bundle(claims / "models" / name / "v3", strict_location=True)
    assert "ModelRollout reliability-detector was created with the candidate v3." in done.stdout
    assert {pipeline.rollout(name)["spec"]["candidate"]["version"] for name in NAMES} == {"v3"}
    done = task("v4", "s3://elsewhere")
    assert done.returncode != 0
    assert "bandwidth_predictor was not published: Its modelrollout.yaml" in done.stderr
    done = task("v3", "")
    assert done.returncode != 0
    assert "needs storage_prefix" in done.stderr.splitlines()[-1]
