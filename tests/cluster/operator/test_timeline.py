"""``dwcp-ml rollout timeline`` against a real API server, by RBAC's rights."""

import json
import subprocess
import sys

import pytest

from tests.cluster.operator.installed import documents
from tests.operator.fake_servers import NAME

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

_RBAC = "/apis/rbac.authorization.k8s.io/v1"


def run(kubeconfig, *words):
    command = [sys.executable, "-m", "dwcp_ml.cli", "rollout", *words, f"--kubeconfig={kubeconfig}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def timeline(kubeconfig, story):
    done = run(kubeconfig, "timeline", NAME, "-n", story.namespace, "--format", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _account(cluster, namespace, name, role, directory):
    """Return the kubeconfig of a new account that has a ClusterRole in the namespace, or none."""
    identity = {"metadata": {"name": name, "namespace": namespace}}
    cluster.rest.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", identity)
    if role:
        cluster.rest.create(f"{_RBAC}/namespaces/{namespace}/rolebindings", {
            **identity,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                        "name": role},
            "subjects": [{"kind": "ServiceAccount", **identity["metadata"]}],
        })  # fmt: skip
    return cluster.kubeconfig_of(namespace, name, directory)


def test_a_rollout_is_shown_while_it_runs_when_it_ended_and_without_its_events(
    cluster, operator, told, tmp_path
):
    story = told({"timeline": {"bad_at": 25}})["timeline"]
    story.until("Progressing")
    running = timeline(cluster.kubeconfig, story)
    assert running["outcome"] in {"Progressing", "RollingBack"}
    assert running["events"]

    story.until("RolledBack")
    ended = timeline(cluster.kubeconfig, story)
    assert (ended["outcome"], ended["kubernetes_events"]) == ("RolledBack", "All")
    weights = [event["percent"] for event in ended["events"] if event["phase"] is not None]
    assert [share for share in (1, 5, 25, 0) if share in weights] == [1, 5, 25, 0]
    assert [event["at"] for event in ended["events"]] == sorted(
        event["at"] for event in ended["events"]
    )

    for role in documents("base/user-roles.yaml"):
        cluster.rest.apply(f"{_RBAC}/clusterroles/{role['metadata']['name']}", role)
    reader = _account(cluster, story.namespace, "reader", "dwcp-ml-view", tmp_path)
    assert timeline(reader, story)["kubernetes_events"] == "Forbidden"
    nobody = run(
        _account(cluster, story.namespace, "nobody", "", tmp_path),
        "timeline", NAME, "-n", story.namespace,
    )  # fmt: skip
    assert (nobody.returncode, nobody.stderr.count("\n")) == (1, 1)
    other = run(cluster.kubeconfig, "timeline", "other", "-n", story.namespace)
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)

    events = f"/api/v1/namespaces/{story.namespace}/events"
    for event in cluster.rest.get(events)["items"]:
        cluster.rest.delete(f"{events}/{event['metadata']['name']}")
    bare = timeline(cluster.kubeconfig, story)
    assert bare["kubernetes_events"] == "None"
    assert bare["events"] == [event for event in ended["events"] if event["phase"] is not None]

    pages = run(
        cluster.kubeconfig, "timeline", NAME, "-n", story.namespace, "--output", str(tmp_path / "t")
    )
    assert pages.returncode == 0, pages.stderr
    assert 'class="RolledBack"' in (tmp_path / "t" / "timeline.html").read_text()
