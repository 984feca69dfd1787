"""What the tests on the node are made of, without a node."""

import json
import shutil
from collections import Counter

import pytest

from tests.node import __main__ as command
from tests.node import needs
from tests.node.gateway import EnvoyGateway
from tests.node.traffic import Shares, Stretch

SPACE = "models"


class Files:
    """In the place of ``Processes``."""

    def __init__(self, directory):
        self.directory = directory


@pytest.fixture
def gateway(tmp_path):
    return EnvoyGateway(None, Files(tmp_path))


def route(*weights, host="m.example.com", path=None):
    names = ("stable", "candidate")
    backends = [
        {"name": name, "port": 80, "weight": weight}
        for name, weight in zip(names, weights, strict=False)
    ]
    match = path or {"type": "RegularExpression", "value": "^/.*$"}
    rule = {"matches": [{"path": match}], "backendRefs": backends}
    return {"metadata": {"name": "m"}, "spec": {"hostnames": [host], "rules": [rule]}}


def endpoint(address, ready):
    return {"addresses": [address], "conditions": {"ready": ready, "serving": True}}


def give(gateway, routes, slices=()):
    gateway.routes.objects = {(SPACE, str(number)): one for number, one in enumerate(routes)}
    ports = [{"name": "http", "port": 80}, {"name": "metrics", "port": 9000}]
    gateway._services.objects = {
        (SPACE, name): {"spec": {"ports": ports}} for name in ("stable", "candidate")
    }
    gateway._slices.objects = {
        (SPACE, f"{name}-{number}"): {
            "metadata": {"labels": {"kubernetes.io/service-name": name}},
            "ports": [{"name": "http", "port": 8080}, {"name": "metrics", "port": 9000}],
            "endpoints": endpoints,
        }
        for number, (name, endpoints) in enumerate(slices)
    }
    gateway.look(("", "envoy"))


def told(gateway, file):
    return json.loads((gateway._directory / file).read_text())["resources"]


def test_envoy_is_told_the_weights_of_a_route(gateway):
    give(gateway, [route(95, 5)])
    ((host,),) = [one["virtual_hosts"] for one in told(gateway, "routes.json")]
    assert host["domains"] == ["m.example.com", "m.example.com:*"]
    (found,) = host["routes"]
    assert found["match"] == {"safe_regex": {"regex": "^/.*$"}}
    clusters = found["route"]["weighted_clusters"]["clusters"]
    assert [(one["name"], one["weight"]) for one in clusters] == [
        ("models/stable/80", 95), ("models/candidate/80", 5),
    ]  # fmt: skip
    assert {one["name"] for one in told(gateway, "clusters.json")} == {
        "models/stable/80", "models/candidate/80",
    }  # fmt: skip


def test_envoy_is_told_the_ready_endpoints_at_the_port_of_the_service(gateway):
    slices = [
        ("stable", [endpoint("198.18.0.5", True), endpoint("198.18.0.6", False)]),
        ("stable", [endpoint("198.18.0.7", True)]),
        ("other", [endpoint("198.18.0.8", True)]),
    ]
    give(gateway, [route(100)], slices)
    (found,) = told(gateway, "models_stable_80.json")
    (group,) = found["endpoints"]
    addresses = [one["endpoint"]["address"]["socket_address"] for one in group["lb_endpoints"]]
    assert [(one["address"], one["port_value"]) for one in addresses] == [
        ("198.18.0.5", 8080), ("198.18.0.7", 8080),
    ]  # fmt: skip


def test_a_route_that_goes_is_taken_away_and_what_did_not_change_is_not_written(gateway):
    give(gateway, [route(100)])
    before = (gateway._directory / "clusters.json").stat().st_ino
    give(gateway, [route(100)])
    assert (gateway._directory / "clusters.json").stat().st_ino == before
    gone = route(100)
    gone["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    give(gateway, [gone])
    assert told(gateway, "routes.json")[0]["virtual_hosts"] == []


def test_backends_without_any_weight_answer_500(gateway):
    give(gateway, [route(0, 0, path={"type": "PathPrefix", "value": "/v1"})])
    (host,) = told(gateway, "routes.json")[0]["virtual_hosts"]
    (found,) = host["routes"]
    assert found == {"match": {"prefix": "/v1"}, "direct_response": {"status": 500}}


@pytest.mark.parametrize(
    ("percent", "candidate", "total", "agrees"),
    [
        (0, 0, 1000, True), (0, 3, 1000, False), (1, 11, 1000, True), (1, 45, 1000, False),
        (5, 52, 1000, True), (25, 50, 1000, False), (50, 480, 1000, True), (50, 380, 1000, False),
        (100, 1000, 1000, True), (100, 980, 1000, False), (5, 0, 1000, False), (5, 0, 10, True),
    ],
)  # fmt: skip
def test_a_split_agrees_with_a_weight_or_does_not(percent, candidate, total, agrees):
    assert Stretch(percent, candidate, total).agrees() is agrees


def test_a_stretch_leaves_out_what_may_belong_to_other_weights():
    shares = Shares(None, None)
    steps = [(0, {"a": 100}), (10, {"a": 90, "b": 10}), (50, {"a": 50, "b": 50})]
    counts = Counter()
    for number in range(90):
        percent, weights = steps[number // 30]
        counts = counts + Counter({"a": 100 - percent, "b": percent})
        shares._samples.append((number * 0.2, weights, counts))
    found = shares.stretches("a")
    assert [(one.percent, one.candidate, one.total) for one in found] == [
        (0, 0, 1800), (10, 180, 1800), (50, 900, 1800),
    ]  # fmt: skip


def test_what_is_missing_is_said_in_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(needs.os, "geteuid", lambda: 0)
    found = {name: f"/bin/{name}" for name in needs.NEEDS}
    del found["containerd"], found["dockerd"]
    monkeypatch.setattr(shutil, "which", found.get)
    assert command.main([]) == command.CAN_NOT
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "apt-get install containerd" in said
    assert "docker.io" in said
    monkeypatch.setattr(needs.os, "geteuid", lambda: 1000)
    assert "root" in needs.missing()
