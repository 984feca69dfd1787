"""A rollout in Standard mode by plain writes, through KServe's own controller."""

from pathlib import Path

import pytest
import yaml

from dwcp_ml.kube.manifests import STEPS_PERCENT, inference_service, revision_name
from tests.cluster.fake_controllers import ROUTES
from tests.cluster.informer import Informer
from tests.cluster.kserve import USER
from tests.cluster.processes import eventually
from tests.cluster.services import CANDIDATE, MODEL, NAME, STABLE, Service, uri
from tests.operator.fake_kserve_rules import route

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

MANIFESTS = Path(__file__).parents[2] / "manifests"
OLD = f"{NAME}-{revision_name(STABLE)}-predictor"
NEW = f"{NAME}-{revision_name(CANDIDATE)}-predictor"
ROUTE = "/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes/{}"
BOTH_ROUTES = (NAME, f"{NAME}-predictor")


@pytest.fixture
def service(local_cluster, namespace):
    service = Service(local_cluster, namespace)
    service.install_runtime()
    service.create()
    service.until_ready(60.0)
    return service


@pytest.fixture
def seen(service):
    """Name of an HTTPRoute -> every version of it, as weights by backend."""
    found = {}

    def changed(key):
        live = informer.objects.get(key)
        if live is not None and key[0] == service.namespace:
            backends = live["spec"]["rules"][0]["backendRefs"]
            weights = {one["name"]: one.get("weight", 1) for one in backends}
            found.setdefault(key[1], []).append(weights)

    informer = Informer(service.rest, ROUTES, changed)
    informer.start()
    yield found
    informer.stop()


def with_share(percent):
    document = inference_service(MODEL, CANDIDATE, uri(CANDIDATE), uri(STABLE))
    document["spec"]["canary"][0]["trafficPercent"] = percent
    return {"spec": document["spec"]}


def promoted():
    spec = inference_service(MODEL, CANDIDATE, uri(CANDIDATE))["spec"]
    return {"spec": {**spec, "canary": []}}


def test_a_candidate_rises_step_by_step_and_is_promoted_with_its_pods(service, seen):
    for percent in STEPS_PERCENT:
        service.patch(with_share(percent))
        service.until_weights({OLD: 100 - percent, NEW: percent})
        expected = {"name": revision_name(CANDIDATE), "ready": True, "trafficPercent": percent}
        eventually(lambda expected=expected: service.canary_status().items() >= expected.items())
        assert service.condition("CanaryPredictorReady") == "True"
    before = {pod["metadata"]["uid"] for pod in service.pods(NEW)}
    service.patch(promoted())
    service.until_weights({NEW: 1})
    eventually(lambda: list(service.deployments()) == [NEW])
    service.until_ready()
    assert {pod["metadata"]["uid"] for pod in service.pods(NEW)} == before
    assert len(before) == 1
    eventually(lambda: service.condition("CanaryPredictorReady") is None)
    assert not service.canary_status()
    assert len(seen) == 2
    for versions in seen.values():
        splits = [one for one in versions if len(one) > 1]
        strange = [one for one in splits if sum(one.values()) != 100]
        assert not strange, "between two steps a route had other weights"
        shares = [one[NEW] for one in splits]
        assert shares == sorted(shares), "a share went down on the way up"


def test_a_route_is_as_the_tests_without_a_cluster_have_it(service):
    service.patch(with_share(25))
    service.until_weights({OLD: 75, NEW: 25})
    found = service.live()
    live = service.deployments()
    ingress = {"kserveIngressGateway": "kserve/kserve-ingress-gateway",
               "ingressDomain": "example.com"}  # fmt: skip
    for name in (NAME, f"{NAME}-predictor"):
        path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{service.namespace}/httproutes"
        real = service.rest.get(f"{path}/{name}")
        expected = route(found, name, ingress, live[OLD], [live[NEW]])
        assert real["spec"] == expected["spec"]
        (owner,) = real["metadata"]["ownerReferences"]
        assert owner == expected["metadata"]["ownerReferences"][0]
        assert real["metadata"]["labels"].items() >= expected["metadata"]["labels"].items()


def test_the_old_deployment_goes_before_the_routes_change(service):
    """A fault of KServe's that a rollout has to live with."""
    service.patch(with_share(50))
    service.until_weights({OLD: 50, NEW: 50})
    service.patch({"spec": {"canary": []}})
    service.until_weights({OLD: 1})
    asked = [(call["verb"], call.get("objectRef", {})) for call in service.cluster.calls(USER)]
    calls = [
        (verb, about["resource"])
        for verb, about in asked
        if about.get("namespace") == service.namespace and "subresource" not in about
    ]
    last = max(place for place, call in enumerate(calls) if call == ("update", "httproutes"))
    assert ("delete", "deployments") in calls[:last]


def test_a_canary_that_was_never_ready_leaves_the_weight_of_100_behind(service):
    document = with_share(25)
    selector = {"kubernetes.io/hostname": "none"}
    document["spec"]["canary"][0]["predictor"]["nodeSelector"] = selector
    service.patch(document)
    eventually(lambda: NEW in service.deployments())
    eventually(lambda: raw_weights(service) == [[100], [100]])
    service.patch({"spec": {"canary": []}})
    eventually(lambda: list(service.deployments()) == [OLD])
    service.until_ready()
    assert raw_weights(service) == [[100], [100]]
    service.patch(with_share(25))
    service.until_weights({OLD: 75, NEW: 25})
    service.patch({"spec": {"canary": []}})
    eventually(lambda: raw_weights(service) == [[1], [1]])


def test_the_predictors_route_is_written_first_and_the_services_after_the_gap(service, seen):
    service.patch(with_share(1))
    service.until_weights({OLD: 99, NEW: 1})
    seen.clear()
    with service.cluster.kserve.route_gap(3):
        service.patch(with_share(50))
        eventually(lambda: f"{NAME}-predictor" in seen)
        assert service.weights() == {OLD: 99, NEW: 1}
        service.until_weights({OLD: 50, NEW: 50})


def test_canaries_are_made_before_the_stable(local_cluster, namespace):
    service = Service(local_cluster, namespace)
    service.install_runtime()
    service.create(inference_service(MODEL, CANDIDATE, uri(CANDIDATE), uri(STABLE)))
    eventually(lambda: service.deployments().keys() == {OLD, NEW})
    made = [
        call["objectRef"]["name"]
        for call in local_cluster.calls(USER)
        if call["verb"] == "create"
        and call["objectRef"]["resource"] == "deployments"
        and call["objectRef"]["namespace"] == namespace
        and call["responseStatus"]["code"] == 201
    ]
    assert made == [NEW, OLD]


def raw_weights(service):
    """Return the weights of the two routes, as they are."""
    found = [service.rest.get(ROUTE.format(service.namespace, name)) for name in BOTH_ROUTES]
    backends = [one["spec"]["rules"][0]["backendRefs"] for one in found]
    return [[one.get("weight", 1) for one in each] for each in backends]


def test_a_share_of_nothing_is_a_backend_of_weight_nothing(service):
    document = with_share(0)
    document["spec"]["canary"][0]["predictor"]["minReplicas"] = 1
    service.patch(document)
    service.until_weights({OLD: 100, NEW: 0})


def test_an_address_of_an_unknown_kind_is_told_by_the_controller_only(service):
    document = with_share(1)
    document["spec"]["canary"][0]["predictor"]["model"]["storageUri"] = "ftp://models/b"
    service.patch(document)
    eventually(lambda: "StorageURI not supported" in service.told())
    assert NEW not in service.deployments()
    assert service.weights() == {OLD: 1}
    assert service.is_ready(), "of a canary's fault only the Event tells"
    assert service.condition("CanaryPredictorReady") is None


def test_a_service_whose_host_is_over_63_letters_never_gets_ready(local_cluster):
    """The namespace counts: KServe makes a host of a predictor's name and of it."""
    longest = 63 - len(f"{OLD}-")
    with local_cluster.namespace(
        prefix="n" * (longest - 8)
    ) as namespace:  # "-" and eight letters follow
        service = Service(local_cluster, namespace)
        service.install_runtime()
        service.create()
        eventually(lambda: "must be no more than 63" in service.told())
        eventually(lambda: service.condition("Ready") == "False")
        assert not service.deployments()


def test_a_rollout_goes_on_after_the_manager_was_killed(service):
    service.patch(with_share(1))
    service.until_weights({OLD: 99, NEW: 1})
    service.cluster.kserve.restart()
    service.patch(with_share(5))
    service.until_weights({OLD: 95, NEW: 5}, seconds=60.0)


def test_the_manager_is_told_apart_in_the_audit_log(service):
    calls = [call for call in service.cluster.calls(USER) if call["verb"] == "create"]
    written = {call["objectRef"]["resource"] for call in calls}
    assert written >= {"deployments", "services", "httproutes"}


def test_a_runtime_with_grpc_has_a_rule_for_each_protocol_and_one_split(service):
    """The runtime as it is installed; a call over gRPC goes to the port named h2c."""
    document = yaml.safe_load((MANIFESTS / "base/serving-runtime-grpc.yaml").read_text())
    service.rest.create(
        f"/apis/serving.kserve.io/v1alpha1/namespaces/{service.namespace}/servingruntimes",
        document,
    )
    for percent in (1, 50):
        body = with_share(percent)
        for predictor in (body["spec"]["predictor"], body["spec"]["canary"][0]["predictor"]):
            predictor["model"]["runtime"] = document["metadata"]["name"]
        service.patch(body)

        def rules(share=percent):
            rules = service.rest.get(ROUTE.format(service.namespace, NAME))["spec"]["rules"]
            weights = [
                {one["name"]: one.get("weight", 1) for one in rule["backendRefs"]} for rule in rules
            ]
            return rules if weights == [{OLD: 100 - share, NEW: share}] * 2 else None

        both = eventually(rules)
        grpc, http = both
        assert "GRPCInferenceService" in grpc["matches"][0]["path"]["value"]
        ports = [{one["port"] for one in rule["backendRefs"]} for rule in (grpc, http)]
        assert ports == [{8081}, {80}]
    for name in (OLD, NEW):
        live = service.rest.get(f"/api/v1/namespaces/{service.namespace}/services/{name}")
        ports = {one["name"]: one for one in live["spec"]["ports"]}
        assert ports["h2c"]["appProtocol"] == "kubernetes.io/h2c"
        assert "appProtocol" not in ports["http1"]
