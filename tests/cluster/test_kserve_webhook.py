"""KServe's own webhooks, really asked: what they fill in, what they refuse, what they take."""

import hashlib

import pytest
import yaml

from dwcp_ml.contract.models import MODELS
from dwcp_ml.kube.manifests import MODES, inference_service, manifests, revision_name
from tests.cluster.processes import eventually
from tests.cluster.rest import RequestRejected
from tests.cluster.services import CANDIDATE, MODEL, NAME, STABLE, runtime, uri
from tests.operator.fake_kserve_rules import rejection

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

_SERVICES = "/apis/serving.kserve.io/v1beta1/namespaces/{}/inferenceservices"
_ROLLOUTS = "/apis/ml.dwcp.io/v1alpha1/namespaces/{}/modelrollouts"


@pytest.fixture(scope="module")
def space(cluster):
    with cluster.namespace() as name:
        yield name


@pytest.fixture
def tried(cluster, space):
    """Send an InferenceService that is not kept; return what would be."""
    return lambda document: cluster.rest.create(f"{_SERVICES.format(space)}?dryRun=All", document)


def canary_service(change=lambda document: None, share=1):
    document = inference_service(MODEL, CANDIDATE, uri(CANDIDATE), uri(STABLE))
    document["spec"]["canary"][0]["trafficPercent"] = share
    change(document)
    return document


def of_canary(**fields):
    def change(document):
        document["spec"]["canary"][0]["predictor"].update(fields)

    return change


def another(share, name):
    def change(document):
        (canary,) = document["spec"]["canary"]
        predictor = {**canary["predictor"], "name": name}
        document["spec"]["canary"].append({"predictor": predictor, "trafficPercent": share})

    return change


def without(*path):
    def change(document):
        inside = document
        for part in path[:-1]:
            inside = inside[part]
        del inside[path[-1]]

    return change


def of_stable(**fields):
    return lambda document: document["spec"]["predictor"].update(fields)


def knative(document):
    document["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] = "Knative"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("spec", MODELS.values(), ids=lambda spec: spec.name)
def test_what_the_gate_writes_is_accepted(cluster, definitions, namespace, spec, mode):
    """As ``kubectl apply --server-side`` would: a first deployment, then a canary beside it."""
    service = f"{_SERVICES.format(namespace)}/{spec.kubernetes_name}"
    rollout = f"{_ROLLOUTS.format(namespace)}/{spec.kubernetes_name}"
    for version, stable in ((STABLE, ""), (CANDIDATE, f"pvc://dwcp-models/{spec.name}/{STABLE}")):
        address = f"pvc://dwcp-models/{spec.name}/{version}"
        digest = hashlib.sha256(version.encode()).hexdigest()
        files = manifests(spec, version, address, digest, stable, mode)
        desired = yaml.safe_load(files["inferenceservice.yaml"])
        live = cluster.rest.apply(service, desired)
        model = desired["spec"]["predictor"]["model"]
        assert live["spec"]["predictor"]["model"].items() >= model.items()
        assert [one["trafficPercent"] for one in live["spec"].get("canary", [])] == [
            one["trafficPercent"] for one in desired["spec"].get("canary", [])
        ]
        cluster.rest.apply(rollout, yaml.safe_load(files["modelrollout.yaml"]))


def test_the_webhook_fills_in_the_stable_and_not_the_canary(tried):
    """What it makes of a framework's own field tells it apart."""

    def old_way(document):
        for one in (document["spec"], document["spec"]["canary"][0]):
            model = one["predictor"].pop("model")
            one["predictor"]["sklearn"] = {"storageUri": model["storageUri"]}

    live = tried(canary_service(old_way))["spec"]
    assert live["predictor"]["model"]["modelFormat"]["name"] == "sklearn"
    assert "sklearn" not in live["predictor"]
    assert "model" not in live["canary"][0]["predictor"]


def test_the_mode_is_filled_in_where_it_is_left_out(tried):
    live = tried(canary_service(without("metadata", "annotations")))
    assert live["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Standard"


REFUSED = {
    "the stable's name": (of_canary(name=revision_name(STABLE)), "conflicts with stable"),
    "no name": (without("spec", "canary", 0, "predictor", "name"), "name is required"),
    "one name twice": (another(1, revision_name(CANDIDATE)), "duplicated"),
    "not of the form": (of_canary(name="2026"), "should match"),
    "over a hundred": (another(100, "other"), "101"),
    "nothing to serve": (without("spec", "canary", 0, "predictor", "model"), "exactly one"),
    "in Knative mode": (knative, "only supported in Standard"),
    "maxReplicas": (of_canary(maxReplicas=3), "maxReplicas"),
    "scaleTarget": (of_canary(scaleTarget=3), "scaleTarget"),
    "scaleMetric": (of_canary(scaleMetric="cpu"), "scaleMetric"),
    "workerSpec": (of_canary(workerSpec={}), "workerSpec"),
    "more pods than the stable": (of_canary(minReplicas=2), "must not exceed"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_it_refuses(tried, case):
    change, reason = REFUSED[case]
    with pytest.raises(RequestRejected, match=reason) as caught:
        tried(canary_service(change))
    assert caught.value.status in (400, 403, 422)


@pytest.mark.parametrize("case", REFUSED)
def test_the_rules_without_a_cluster_refuse_it_too(case):
    change, _ = REFUSED[case]
    assert rejection(canary_service(change))


TAKEN = {
    "as the gate writes it": lambda document: None,
    "a hundred in all": another(99, "other"),
    "no share": lambda document: document["spec"]["canary"][0].update(trafficPercent=0),
    "as many pods as the stable": lambda document: (
        of_stable(minReplicas=2)(document), of_canary(minReplicas=2)(document)
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TAKEN)
def test_it_takes(tried, case):
    tried(canary_service(TAKEN[case]))
    assert rejection(canary_service(TAKEN[case])) is None


def test_another_name_needs_another_model(cluster, namespace):
    path = f"{_SERVICES.format(namespace)}"
    cluster.rest.create(path, inference_service(MODEL, STABLE, uri(STABLE)))
    renamed = {"spec": {"predictor": {"name": revision_name(CANDIDATE)}}}
    with pytest.raises(RequestRejected, match="requires a model change"):
        cluster.rest.merge(f"{path}/{NAME}", renamed)
    renamed["spec"]["predictor"]["model"] = {"storageUri": uri(CANDIDATE)}
    cluster.rest.merge(f"{path}/{NAME}", renamed)


def test_a_service_does_not_change_its_mode(cluster, namespace):
    path = f"{_SERVICES.format(namespace)}"
    cluster.rest.create(path, inference_service(MODEL, STABLE, uri(STABLE)))
    eventually(lambda: cluster.rest.get(f"{path}/{NAME}").get("status", {}).get("deploymentMode"))
    other = {"metadata": {"annotations": {"serving.kserve.io/deploymentMode": "Knative"}}}
    with pytest.raises(RequestRejected, match=r"(?i)deploymentmode"):
        cluster.rest.merge(f"{path}/{NAME}", other)


def test_the_webhook_of_runtimes_is_asked_too(cluster, space):
    path = f"/apis/serving.kserve.io/v1alpha1/namespaces/{space}/servingruntimes?dryRun=All"
    cluster.rest.create(path, runtime())
    wrong = runtime()
    wrong["spec"]["containers"][0]["env"] = [{"name": "PYTHONPATH", "value": "/tmp/other"}]
    with pytest.raises(RequestRejected, match="PYTHONPATH"):
        cluster.rest.create(path, wrong)
