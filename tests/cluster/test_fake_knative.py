"""What the fake Knative makes of a Knative Service, without a cluster."""

import pytest

from tests.cluster.fake_knative import REVISION, deployment, digest, status

OLD, NEW = "one-00001", "one-00002"
LATEST = {"latestRevision": True}


def knative(*traffic, **before):
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "one", "namespace": "ours", "uid": "1", "generation": 3},
        "spec": {
            "traffic": list(traffic),
            "template": {
                "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
                "spec": {"containers": [{"name": "kserve-container"}], "timeoutSeconds": 60},
            },
        },
        "status": before,
    }


def settled(found, created, ready):
    """Return the status once the gateway has the traffic."""
    return status({**found, "status": status(found, created, ready)}, created, ready)


def shares(found):
    return [(one["revisionName"], one["percent"], one.get("tag")) for one in found["traffic"]]


def conditions(found):
    return {one["type"]: one["status"] for one in found["conditions"]}


def test_nothing_is_routed_before_the_first_revision_is_ready():
    found = status(knative({**LATEST, "percent": 100}), OLD, set())
    assert (found["traffic"], "latestReadyRevisionName" in found) == ([], False)
    assert set(conditions(found).values()) == {"Unknown"}


def test_the_latest_is_the_latest_that_is_ready():
    split = ({**LATEST, "percent": 1}, {"revisionName": OLD, "percent": 99, "tag": "prev"})
    waiting = settled(knative(*split), NEW, {OLD})
    assert shares(waiting) == [(OLD, 1, None), (OLD, 99, "prev")]
    assert conditions(waiting) == {
        "ConfigurationsReady": "Unknown", "Ready": "Unknown", "RoutesReady": "True",
    }  # fmt: skip
    done = settled(knative(*split), NEW, {OLD, NEW})
    assert shares(done) == [(NEW, 1, None), (OLD, 99, "prev")]
    assert set(conditions(done).values()) == {"True"}


def test_another_traffic_is_not_ready_before_the_gateway_has_it():
    found = {**knative({**LATEST, "percent": 100}), "status": settled(knative(), OLD, {OLD})}
    changed = status(found, OLD, {OLD})
    assert (shares(changed), conditions(changed)["RoutesReady"]) == ([(OLD, 100, None)], "Unknown")
    assert conditions(settled(found, OLD, {OLD}))["RoutesReady"] == "True"


def test_one_that_was_ready_once_stays_the_latest():
    found = knative({**LATEST, "percent": 100}, latestReadyRevisionName=NEW)
    assert status(found, NEW, {OLD})["latestReadyRevisionName"] == NEW


def test_a_share_of_a_revision_that_is_not_ready_is_not_routed():
    found = knative({"revisionName": NEW, "percent": 100})
    assert conditions(settled(found, NEW, {OLD}))["RoutesReady"] == "Unknown"


def test_a_condition_keeps_the_time_of_its_last_change():
    kind, then = "ConfigurationsReady", "2026-01-01T00:00:00Z"
    before = [{"type": kind, "status": "True", "lastTransitionTime": then}]
    found = knative({**LATEST, "percent": 100}, conditions=before)
    times = {
        one["type"]: one["lastTransitionTime"] for one in status(found, OLD, {OLD})["conditions"]
    }
    assert times[kind] == then < times["RoutesReady"]


def test_a_revision_s_pods_are_those_of_the_template():
    made = deployment(knative(), OLD)
    pod = made["spec"]["template"]
    assert made["metadata"]["name"] == f"{OLD}-deployment"
    assert pod["metadata"]["labels"].items() >= {"a": "b", REVISION: OLD}.items()
    assert pod["metadata"]["annotations"] == {"c": "d"}
    assert pod["spec"] == {"containers": [{"name": "kserve-container"}]}
    assert made["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()


@pytest.mark.parametrize("change", [{"spec": {}}, {"metadata": {"labels": {"a": "z"}}}])
def test_another_template_is_another_revision(change):
    template = knative()["spec"]["template"]
    assert digest(template) == digest(dict(reversed(template.items())))
    assert digest(template) != digest({**template, **change})
