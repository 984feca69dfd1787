"""Names, shares, replicas, pods: the parts that need no cluster."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcp_ml.contract.models import MODELS
from dwcp_ml.kube.kserve import ChangeRejected, deployment_name, predictor_name
from dwcp_ml.kube.kserve.objects import (
    DIGEST,
    SOURCE,
    VERSION,
    is_available,
    is_made_of,
    is_ready,
)
from dwcp_ml.kube.kserve.pods import addresses, report_of
from dwcp_ml.kube.kserve.predictors import predictor_of
from dwcp_ml.kube.kserve.router import TrafficUnknown
from dwcp_ml.kube.kserve.standard import shares_of
from dwcp_ml.kube.manifests import revision_name
from tests.kube.kserve.fakes import (
    NAME,
    SPACE,
    STABLE,
    RouterScenario,
    bundle,
)
from tests.operator.fake_kserve_rules import rejection

VERSIONS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}", fullmatch=True)


@given(VERSIONS)
def test_every_version_makes_a_name_that_kserve_accepts(version):
    name = predictor_name(SPACE, NAME, version)
    service = {
        "metadata": {"name": NAME},
        "spec": {
            "predictor": predictor_of(STABLE, "stable"),
            "canary": [{"predictor": predictor_of(STABLE, name), "trafficPercent": 1}],
        },
    }
    assert rejection(service) is None
    assert len(f"isvc.{deployment_name(NAME, name)}") <= 63
    assert len(f"{deployment_name(NAME, name)}-{SPACE}") <= 63


@given(st.lists(VERSIONS, min_size=2, max_size=2, unique=True))
def test_two_versions_never_have_one_name(versions):
    assert predictor_name(SPACE, NAME, versions[0]) != predictor_name(SPACE, NAME, versions[1])


@pytest.mark.parametrize(("one", "other"), [
    ("1.0", "1-0"), ("a", "A"), ("1_0", "1.0"), ("a" * 60 + "1", "a" * 60 + "2"), ("1-", "1"),
])  # fmt: skip
def test_versions_that_look_alike(one, other):
    assert predictor_name(SPACE, NAME, one) != predictor_name(SPACE, NAME, other)


@pytest.mark.parametrize("spec", MODELS.values(), ids=lambda spec: spec.name)
def test_an_ordinary_version_has_the_name_that_the_gate_gives_it(spec):
    version = "20260101-000000"
    assert predictor_name(SPACE, spec.kubernetes_name, version) == revision_name(version)


def test_another_bundle_of_the_same_version_has_a_name_of_its_own():
    one = predictor_name(SPACE, NAME, "1", digest="sha256:a", taken=["v1"])
    other = predictor_name(SPACE, NAME, "1", digest="b", taken=["v1", one])
    assert len({"v1", one, other}) == 3
    assert predictor_name(SPACE, NAME, "1", digest="a", taken=["v1"]) == one


def test_the_same_bundle_in_another_runtime_has_another_name():
    names = {
        predictor_name(SPACE, NAME, "20260101-000000", digest="a", runtime=runtime)
        for runtime in ("", "dwcp-ml-server", "dwcp-ml-60303ae2")
    }
    assert len(names) == 3
    assert "v20260101-000000" in names


@pytest.mark.parametrize(("namespace", "service"), [("a", "b" * 45), ("a" * 45, "b")])
def test_other_names_may_be_too_long(namespace, service):
    with pytest.raises(ChangeRejected, match="too long"):
        predictor_name(namespace, service, "1")


@pytest.mark.parametrize("length", [1, 4, 15, 16, 20, 23])
def test_the_namespace_shortens_the_name(length):
    name = predictor_name("n" * length, NAME, "20260101-000000")
    assert len(f"{deployment_name(NAME, name)}-{'n' * length}") <= 63
    assert (name == "v20260101-000000") == (length <= 16)


def test_another_digest_of_the_same_version_is_rolled_out_beside_it():
    scenario = RouterScenario()
    scenario.deploy()
    rebuilt = bundle(1, digest="f" * 64, storage_uri="s3://models/rebuilt")
    scenario.raise_to(100, rebuilt)
    assert scenario.promote(rebuilt).stable.digest == "f" * 64
    assert scenario.kserve.broken == []


def route(*rules, accepted="True", generation=1, seen=1):
    condition = {"type": "Accepted", "status": accepted, "observedGeneration": seen}
    return {
        "metadata": {"generation": generation},
        "spec": {
            "parentRefs": [{"name": "gateway"}],
            "rules": [
                {"backendRefs": [
                    {"name": name} if weight is None else {"name": name, "weight": weight}
                    for name, weight in rule.items()
                ]}
                for rule in rules
            ],
        },
        "status": {"parents": [{"conditions": [condition]}]},
    }  # fmt: skip


@pytest.mark.parametrize(("rules", "shares"), [
    ([{"a": None}], {"a": 100}),
    ([{"a": 99, "b": 1}], {"a": 99, "b": 1}),
    ([{"a": 0, "b": 100}], {"a": 0, "b": 100}),
    ([{"a": 3, "b": 1}], {"a": 75, "b": 25}),
    ([{"explainer": None}, {"a": 95, "b": 5}, {"a": 95, "b": 5}], {"a": 95, "b": 5}),
    ([{"a": 100, "gone": 0}], {"a": 100, "gone": 0}),
])  # fmt: skip
def test_shares(rules, shares):
    assert shares_of({"r": route(*rules)}, {"a", "b"}) == shares


@pytest.mark.parametrize(("rules", "why"), [
    ([], "no rule"),
    ([{"explainer": None}], "no rule"),
    ([{"a": 0, "b": 0}], "no weight above 0"),
    ([{"a": 99, "other": 1}], "names the backend other"),
    ([{"a": 2, "b": 1}], "a share of 2 in 3"),
    ([{"a": 99, "b": 1}, {"a": 95, "b": 5}], "the rules of the HTTPRoute r"),
])  # fmt: skip
def test_unknown_shares(rules, why):
    with pytest.raises(TrafficUnknown, match=why):
        shares_of({"r": route(*rules)}, {"a", "b"})


@pytest.mark.parametrize(("changes", "why"), [
    ({"accepted": "False"}, "does not accept"),
    ({"generation": 2}, "not seen the newest"),
])  # fmt: skip
def test_a_route_that_is_not_in_force(changes, why):
    with pytest.raises(TrafficUnknown, match=why):
        shares_of({"r": route({"a": 1}, **changes)}, {"a"})


def test_a_route_that_no_gateway_has_seen():
    unseen = {**route({"a": 1}), "status": {}}
    with pytest.raises(TrafficUnknown, match="no gateway"):
        shares_of({"r": unseen}, {"a"})
    with pytest.raises(TrafficUnknown, match="no HTTPRoute q"):
        shares_of({"r": route({"a": 1}), "q": None}, {"a"})


def deployment(replicas=4, available=4, updated=4, total=4, condition="True", generation=1):
    return {
        "metadata": {"generation": generation},
        "spec": {"replicas": replicas},
        "status": {
            "observedGeneration": 1, "replicas": total, "updatedReplicas": updated,
            "availableReplicas": available,
            "conditions": [{"type": "Available", "status": condition}],
        },
    }  # fmt: skip


@pytest.mark.parametrize(("changes", "ready", "available"), [
    ({}, True, True),
    ({"available": 2, "condition": "False"}, True, False),
    ({"available": 1, "condition": "False"}, False, False),
    ({"available": 0, "replicas": 0, "total": 0, "updated": 0}, False, False),
    ({"total": 5}, False, False),
    ({"generation": 2}, False, False),
])  # fmt: skip
def test_what_can_take_traffic(changes, ready, available):
    assert is_ready(deployment(**changes), {}) is ready
    assert is_available(deployment(**changes), {}) is available
    assert not is_ready(None, {})
    assert not is_available(None, {})


@pytest.mark.parametrize(("annotations", "expected"), [
    ({VERSION: "1", DIGEST: "sha256:a", SOURCE: "s3://a"}, True),
    ({VERSION: "1", DIGEST: "sha256:a"}, True),
    ({VERSION: "1", DIGEST: "sha256:b", SOURCE: "s3://a"}, False),
    ({VERSION: "2", DIGEST: "sha256:a", SOURCE: "s3://a"}, False),
    ({VERSION: "1", DIGEST: "sha256:a", SOURCE: "s3://b"}, False),
    ({}, False),
])  # fmt: skip
def test_a_template_is_made_from_this_predictor_or_from_a_former_one(annotations, expected):
    predictor = {"model": {"storageUri": "s3://a"},
                 "annotations": {VERSION: "1", DIGEST: "sha256:a"}}  # fmt: skip
    assert is_made_of({"metadata": {"annotations": annotations}}, predictor) is expected
    by_hand = {"model": {"storageUri": "s3://a"}}
    assert is_made_of({"metadata": {"annotations": annotations}}, by_hand) is (
        annotations.get(SOURCE) != "s3://b"
    )


def pod(ready="True", ip="10.0.0.1", ports=(8080,), restarts=0, init=0, **status):
    return {
        "metadata": {"name": "p"},
        "spec": {"containers": [
            {"name": "queue-proxy", "ports": [{"containerPort": 8012}]},
            {"name": "kserve-container", "ports": [{"containerPort": port} for port in ports]},
        ]},
        "status": {
            "podIP": ip,
            "conditions": [{"type": "Ready", "status": ready}],
            "containerStatuses": [{"restartCount": restarts}],
            "initContainerStatuses": [{"restartCount": init}],
            **status,
        },
    }  # fmt: skip


def test_addresses_of_ready_pods():
    going = pod()
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    found = [pod(ip="10.0.0.2"), pod(ready="False"), pod(ip=""), going, pod(ip="::1", ports=()),
             pod(ports=(9000, 9001))]  # fmt: skip
    assert addresses(found) == ("10.0.0.1:9000", "10.0.0.2:8080", "[::1]:8080")


def test_restarts_of_all_containers_and_pods_that_failed():
    found = [pod(restarts=2, init=1), pod(phase="Failed"), pod(phase="Running")]
    assert report_of(found).restarts == 4
    assert report_of([]).restarts == 0


def waiting(reason, message=""):
    """Return the status of a pod whose container waits."""
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "containerStatuses": [{"restartCount": 0, "state": state}]}


def unscheduled(reason="Unschedulable", message="0/3 nodes are available"):
    condition = {
        "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
    }  # fmt: skip
    return {"phase": "Pending", "conditions": [condition], "containerStatuses": []}


def disrupted(reason):
    condition = {"type": "DisruptionTarget", "status": "True", "reason": reason}
    return {"phase": "Failed", "conditions": [condition]}


BY_THE_CLUSTER = {
    **{
        reason: waiting(reason)
        for reason in (
            "ImagePullBackOff", "ErrImagePull", "CreateContainerConfigError", "InvalidImageName",
        )
    },
    **{
        reason: {"phase": "Failed", "reason": reason}
        for reason in (
            "Evicted", "NodeShutdown", "Terminated", "NodeAffinity", "Preempted",
            "UnexpectedAdmissionError",
        )
    },
    "Unschedulable": unscheduled(),
    "EvictionByEvictionAPI": disrupted("EvictionByEvictionAPI"),
    "PreemptionByScheduler": {**disrupted("PreemptionByScheduler"), "phase": "Running"},
}  # fmt: skip


@pytest.mark.parametrize("reason", BY_THE_CLUSTER)
def test_what_the_cluster_does_to_a_pod_is_named_and_is_no_restart(reason):
    report = report_of([pod("False", **BY_THE_CLUSTER[reason])] * 3)
    assert report.restarts == 0
    assert report.problem.startswith(f"{reason} of the pod p")


def test_a_problem_has_the_words_of_the_cluster():
    report = report_of([pod("False", **waiting("ErrImagePull", "no such image."))])
    assert report.problem == "ErrImagePull of the pod p (no such image)"


OWN = {
    "a crash loop": waiting("CrashLoopBackOff") | {"phase": "Running"},
    "a command that is missing": waiting("RunContainerError") | {"phase": "Running"},
    "an init container that failed": {
        "phase": "Pending", "initContainerStatuses": [{"restartCount": 1}],
    },
    "an init container that just failed": {
        "phase": "Pending",
        "initContainerStatuses": [{"restartCount": 0, "state": {"terminated": {"exitCode": 1}}}],
    },
    "a probe that fails": {"phase": "Running"},
}  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_what_a_pod_does_itself_is_not_hidden_by_what_the_cluster_does_to_another(name):
    own = pod("False", **OWN[name])
    for pods in ([own], [own, pod("False", **unscheduled())], [pod("False", **unscheduled()), own]):
        report = report_of(pods)
        assert (report.problem, report.starting) == ("", False)


def test_pods_that_the_cluster_ended_matter_until_others_take_their_place():
    evicted = pod("False", phase="Failed", reason="Evicted")
    assert report_of([evicted]).problem
    assert report_of([evicted]).count == 0
    report = report_of([evicted, pod("False", **waiting("ContainerCreating"))])
    assert (report.count, report.problem, report.starting) == (1, "", True)
    report = report_of([evicted, pod("False", phase="Running")])
    assert (report.problem, report.starting) == ("", False)
    assert report_of([]).starting


def test_a_template_can_not_smuggle_in_a_share_or_another_bundle():
    desired = bundle(2, predictor={
        "name": "v9", "canaryTrafficPercent": 100,
        "model": {"storageUri": "s3://other"}, "annotations": {"ml.dwcp.io/digest": "sha256:0"},
    })  # fmt: skip
    made = predictor_of(desired, "v2")
    assert made["name"] == "v2"
    assert "canaryTrafficPercent" not in made
    assert made["model"]["storageUri"] == desired.storage_uri
    assert made["annotations"]["ml.dwcp.io/digest"] == desired.digest
    assert desired.predictor["name"] == "v9"
    assert json.loads(json.dumps(made)) == made
