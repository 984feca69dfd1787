"""The operator's own router and client, over a real API server: steps, promotion, roll-back."""

import time

import pytest

from dwcp_ml.kube.api import INFERENCE_SERVICE, LEASE, AccessDenied, Conflict, Invalid
from dwcp_ml.kube.client import KubeApi
from dwcp_ml.kube.kserve import ROUTERS, DesiredRevision
from dwcp_ml.kube.manifests import RUNTIME
from tests.cluster.processes import eventually
from tests.cluster.services import NAME, Service, uri

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

STEPS = (1, 5, 25, 50, 100)
_SECONDS = 60.0


def bundle(day, replicas=1):
    version = f"202601{day:02d}-000000"
    return DesiredRevision(
        version=version,
        digest=f"sha256:{day:064x}",
        storage_uri=uri(version),
        predictor={
            "model": {
                "modelFormat": {"name": "dwcp-ml-bundle"},
                "runtime": RUNTIME,
                "protocolVersion": "v1",
            },
            "minReplicas": replicas,
        },
        model="bandwidth_predictor",
    )


class Rollout:
    """A router that is asked again and again, as the operator asks it."""

    def __init__(self, cluster, namespace):
        self.cluster = cluster
        self.api = KubeApi(cluster.api)
        self.router = ROUTERS["Standard"](self.api, namespace, NAME)
        self.wrote = 0

    def until(self, desired, act, done):
        """Act in each reconciliation until it is done; return the live traffic then."""

        def reconcile():
            live = self.router.read(desired)
            if done(live):
                return live
            before = live.resource_version
            try:
                act(live)
            except Conflict:  # the controller wrote its status meanwhile
                return None
            time.sleep(0.05)
            self.wrote += before != self.router.read(desired).resource_version
            return None

        return eventually(reconcile, _SECONDS, alive=self.cluster.check)

    def set(self, desired, percent):
        return self.until(
            desired,
            lambda live: self.router.set(live, desired, percent),
            lambda live: live.percent == percent and live.candidate_ready,
        )

    def promote(self, desired):
        return self.until(
            desired, lambda live: self.router.promote(live, desired), lambda live: live.promoted
        )

    def roll_back(self, desired):
        def act(live):
            if live.percent == 0:
                self.router.drop(live)
            elif live.percent is not None:  # else a look holds
                self.router.set(live, desired, 0)

        return self.until(desired, act, lambda live: live.percent == 0 and live.candidate is None)


@pytest.fixture
def service(cluster, namespace):
    service = Service(cluster, namespace)
    if cluster.is_local:
        service.install_runtime()
    return service


@pytest.fixture
def rollout(cluster, namespace, service):
    return Rollout(cluster, namespace)


@pytest.mark.parametrize("replicas", [1, 3])
def test_every_step_and_promotion(rollout, service, replicas):
    first, second = bundle(1, replicas), bundle(2, replicas)
    live = rollout.set(first, 100)
    assert live.promoted
    for share in (0, *STEPS):
        live = rollout.set(second, share)
        assert (live.error, live.unsupported) == ("", "")
        if share:
            expected = {"v20260101": 100 - share, "v20260102": share}
            found = service.weights()
            assert {name[len(NAME) + 1 :][:9]: weight for name, weight in found.items()} == expected
    eventually(
        lambda: len(rollout.router.read(second).pods["candidate"]) == replicas, _SECONDS,
        alive=rollout.cluster.check,
    )  # fmt: skip
    pods = rollout.router.read(second).pods
    assert len(pods["stable"]) == replicas
    live = rollout.promote(second)
    assert live.pods["candidate"] == pods["candidate"]
    assert list(service.deployments()) == [f"{NAME}-v20260102-000000-predictor"]


@pytest.mark.parametrize("share", [0, 25, 100])
def test_a_candidate_is_rolled_back(rollout, service, share):
    rollout.set(bundle(1), 100)
    before = service.live()["spec"]
    rollout.set(bundle(2), 0)
    if share:
        rollout.set(bundle(2), share)
    live = rollout.roll_back(bundle(2))
    assert live.stable.version == bundle(1).version
    assert service.live()["spec"] == before
    service.until_weights({f"{NAME}-v20260101-000000-predictor": 1})


def test_a_split_is_unknown_until_both_routes_agree_and_an_abort_goes_through(
    local_cluster, rollout, service
):
    """A busy KServe 0.21 wrote them up to six seconds apart."""
    second = bundle(2)
    rollout.set(bundle(1), 100)
    rollout.set(second, 0)
    rollout.set(second, 5)
    with local_cluster.kserve.route_gap(6):
        rollout.until(
            second,
            lambda live: rollout.router.set(live, second, 25),
            lambda live: are_apart(service),
        )
        live = rollout.router.read(second)
        assert (live.percent, live.promoted) == (None, False)
        assert live.error
        rollout.until(
            second,
            lambda live: rollout.router.set(live, second, 0),
            lambda live: service.live()["spec"]["canary"][0]["trafficPercent"] == 0,
        )
        assert are_apart(service), "the abort did not wait for the second route"
        live = rollout.roll_back(second)
    assert live.stable.version == bundle(1).version
    service.until_weights({f"{NAME}-v20260101-000000-predictor": 1})


def are_apart(service):
    return service.weights(NAME) != service.weights(f"{NAME}-predictor")


def test_what_stands_is_left_alone(rollout, service):
    rollout.set(bundle(1), 100)
    rollout.set(bundle(2), 0)
    generation = service.live()["metadata"]["generation"]
    asked = []

    def ask(live):
        rollout.router.set(live, bundle(2), 0)
        asked.append(live)

    rollout.until(bundle(2), ask, lambda live: len(asked) == 3)
    assert service.live()["metadata"]["generation"] == generation


def test_a_stale_write_fails(rollout, service):
    rollout.set(bundle(1), 100)
    stale = rollout.router.read(bundle(2))
    service.patch({"metadata": {"labels": {"noted": "yes"}}})
    with pytest.raises(Conflict):
        rollout.router.set(stale, bundle(2), 0)
    found = rollout.api.get(INFERENCE_SERVICE, service.namespace, NAME)
    found["metadata"]["resourceVersion"] = stale.resource_version
    with pytest.raises(Conflict):
        rollout.api.replace(found)


def test_a_webhook_refuses(rollout, service):
    rollout.set(bundle(1), 100)

    def is_refused():
        found = rollout.api.get(INFERENCE_SERVICE, service.namespace, NAME)
        found["spec"]["canary"] = [{"predictor": {"name": "Wrong"}, "trafficPercent": 1}]
        with pytest.raises((Invalid, Conflict)) as caught:
            rollout.api.replace(found)
        return caught.type is Invalid  # a conflict: the controller wrote its status meanwhile

    eventually(is_refused, _SECONDS, alive=rollout.cluster.check)


def test_the_client(cluster, namespace):
    api = KubeApi(cluster.api)
    lease = {
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "a", "namespace": namespace}, "spec": {"holderIdentity": "me"},
    }  # fmt: skip
    made = api.create(lease)
    with pytest.raises(Conflict):
        api.create(lease)
    after = api.replace({**made, "spec": {"holderIdentity": "you"}})
    with pytest.raises(Conflict):
        api.replace({**made, "spec": {"holderIdentity": "me"}})
    with pytest.raises(Conflict):
        api.delete(LEASE, namespace, "a", uid="another")
    with pytest.raises(Conflict):
        api.apply(lease, manager="other", resource_version=None)
    forced = api.apply(lease, manager="other", resource_version=None, force=True)
    assert forced["spec"]["holderIdentity"] == "me"
    version = after["metadata"]["resourceVersion"]
    with pytest.raises(Conflict):
        api.apply(lease, manager="other", resource_version=version)
    (listed,) = api.list(LEASE, namespace)
    assert (listed["kind"], listed["metadata"]["name"]) == ("Lease", "a")
    api.delete(LEASE, namespace, "a", resource_version=forced["metadata"]["resourceVersion"])
    api.delete(LEASE, namespace, "a")
    assert api.get(LEASE, namespace, "a") is None


def test_a_service_account_without_rights(cluster, namespace, tmp_path):
    from dwcp_ml.kube.client import connect

    api = connect(cluster.kubeconfig_of(namespace, "default", tmp_path))
    with pytest.raises(AccessDenied):
        api.get(INFERENCE_SERVICE, namespace, NAME)


def test_a_policy_denies_the_object_not_the_operator(cluster, namespace):
    api = KubeApi(cluster.api)
    root = "/apis/admissionregistration.k8s.io/v1"
    policies = f"{root}/validatingadmissionpolicies"
    bindings = f"{root}/validatingadmissionpolicybindings"
    rules = [{
        "apiGroups": ["coordination.k8s.io"], "apiVersions": ["v1"], "operations": ["CREATE"],
        "resources": ["leases"],
    }]  # fmt: skip
    name = f"no-leases-{namespace}"
    metadata = {"name": name}
    only_here = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    cluster.rest.create(policies, {
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": metadata,
        "spec": {
            "matchConstraints": {"resourceRules": rules, "namespaceSelector": only_here},
            "validations": [{"expression": "false", "message": "no", "reason": "Forbidden"}],
        },
    })  # fmt: skip
    cluster.rest.create(bindings, {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": metadata, "spec": {"policyName": name, "validationActions": ["Deny"]},
    })  # fmt: skip
    lease = {
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "a", "namespace": namespace}, "spec": {},
    }  # fmt: skip

    def is_denied():
        try:
            api.create(lease)
        except Invalid:
            return True
        api.delete(LEASE, namespace, "a")
        return False

    try:
        eventually(is_denied, _SECONDS, alive=cluster.check)
    finally:
        cluster.rest.delete(f"{bindings}/{name}")
        cluster.rest.delete(f"{policies}/{name}")


class Knative(Rollout):
    def __init__(self, cluster, namespace):
        super().__init__(cluster, namespace)
        self.router = ROUTERS["Knative"](self.api, namespace, NAME)


@pytest.fixture
def knative(local_cluster, namespace, service):
    return Knative(local_cluster, namespace)


def test_every_step_and_promotion_in_knative_mode(knative):
    assert knative.set(bundle(1), 100).promoted
    for day in (2, 3):
        for share in (0, *STEPS):
            live = knative.set(bundle(day), share)
            assert (live.error, live.unsupported) == ("", "")
        assert knative.promote(bundle(day)).stable.version == bundle(day).version


@pytest.mark.parametrize("share", [0, 25, 100])
def test_a_candidate_is_rolled_back_in_knative_mode(knative, share):
    knative.set(bundle(1), 100)
    knative.set(bundle(2), 0)
    if share:
        knative.set(bundle(2), share)
    live = knative.roll_back(bundle(2))
    assert live.stable.version == bundle(1).version
    # The stable comes back as a new revision, and until it is ready its share is unknown.
    stable = eventually(
        lambda: next((live for live in [knative.router.read(bundle(1))] if live.promoted), None),
        _SECONDS, alive=knative.cluster.check,
    )  # fmt: skip
    assert (stable.percent, stable.candidate_ready) == (100, True)
    for step in (0, *STEPS):
        knative.set(bundle(3), step)
    assert knative.promote(bundle(3)).promoted
