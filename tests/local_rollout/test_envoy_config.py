"""Envoy's configuration, and how strictly the responses of its admin interface are parsed."""

import copy
from pathlib import Path

import pytest

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.http_client import HttpError
from dwcp_ml.local_rollout.envoy_admin import (
    LiveRoutes,
    listening_port,
    live_routes,
    responses_by_cluster,
)
from dwcp_ml.local_rollout.envoy_config import (
    Upstreams,
    address,
    bootstrap,
    mirrored_hundredths,
    routes,
)


def dump(percent=5, mirror_percent=0, version="v"):
    configuration = routes(percent, mirror_percent, version, 15.0)["resources"][0]
    return {"configs": [{"version_info": version, "route_config": configuration}]}


@pytest.mark.parametrize("percent", [0, 1, 5, 25, 50, 100])
def test_weights_sum_to_a_hundred_and_are_read_back(percent):
    route = routes(percent, 0, "v", 15.0)["resources"][0]["virtual_hosts"][0]["routes"][0]
    weights = [each["weight"] for each in route["route"]["weighted_clusters"]["clusters"]]
    assert weights == [100 - percent, percent]
    assert live_routes(dump(percent)) == LiveRoutes(percent, 0, "v")


@pytest.mark.parametrize("share", [-1, 101, 1.5, "5", True, None])
def test_a_share_is_a_whole_percent(share):
    for shares in ((share, 0), (0, share)):
        with pytest.raises(UsageError, match="whole number from 0 to 100"):
            routes(*shares, "v", 15.0)


@pytest.mark.parametrize(
    ("percent", "mirror", "expected"),
    [(0, 0, 0), (0, 100, 100), (0, 1, 1), (50, 100, 50), (50, 1, 1), (99, 1, 1), (100, 100, 0)],
)
def test_the_mirrored_never_exceed_the_stables_share(percent, mirror, expected):
    assert mirrored_hundredths(percent, mirror) == expected


def test_every_mirrored_share_fits_into_the_stables():
    for percent in range(101):
        for mirror in range(101):
            assert 0 <= mirrored_hundredths(percent, mirror) <= 100 - percent


def test_only_requests_that_reached_no_server_are_retried():
    route = routes(5, 0, "v", 15.0)["resources"][0]["virtual_hosts"][0]["routes"][0]["route"]
    assert route["retry_policy"]["retry_on"] == "connect-failure,refused-stream"


@pytest.mark.parametrize("text", ["", "a", "a:", ":1", "a:0", "a:65536", "a:x", "a:-1", "a:٣"])
def test_an_address_has_host_and_port(text):
    with pytest.raises(UsageError, match="write host:port"):
        address(text)


def test_addresses_of_either_kind():
    assert address("127.0.0.1:80") == ("127.0.0.1", 80)
    assert address("[::1]:80") == ("::1", 80)


def test_an_arm_has_a_server():
    with pytest.raises(UsageError, match="candidate has no server"):
        bootstrap(Upstreams(["a:1"], []), port=0, admin=Path("a"), routes=Path("r"))


def test_names_are_resolved_and_limits_are_not_the_defaults():
    configuration = bootstrap(
        Upstreams(["localhost:1"], ["127.0.0.1:2"]), port=0, admin=Path("a"), routes=Path("r")
    )
    stable, candidate, mirror = configuration["static_resources"]["clusters"]
    assert (stable["type"], candidate["type"], mirror["type"]) == ("STRICT_DNS", "STATIC", "STATIC")
    limits = [
        each["circuit_breakers"]["thresholds"][0]["max_requests"]
        for each in (stable, candidate, mirror)
    ]
    assert limits[0] == limits[1] > 1024 > limits[2]
    assert configuration["admin"]["address"]["pipe"]["mode"] == 0o600


def changed(function):
    changed_dump = copy.deepcopy(dump())
    function(changed_dump["configs"][0]["route_config"]["virtual_hosts"][0]["routes"][0]["route"])
    return changed_dump


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"configs": []},
        {"configs": [{}]},
        {"configs": [1]},
        {"configs": dump()["configs"] * 2},
        changed(lambda route: route.clear()),
        changed(lambda route: route["weighted_clusters"]["clusters"].pop()),
        changed(lambda route: route["weighted_clusters"]["clusters"][0].update(weight=90)),
        changed(lambda route: route["weighted_clusters"]["clusters"][0].update(weight=None)),
        changed(lambda route: route["weighted_clusters"]["clusters"][0].update(name="other")),
    ],
)
def test_routes_of_another_form_are_an_error(broken):
    with pytest.raises(HttpError):
        live_routes(broken)


@pytest.mark.parametrize("broken", [{}, {"stats": [{}]}, {"stats": [{"name": "a", "value": 1}]}])
def test_counts_that_cant_be_read_are_an_error(broken):
    with pytest.raises(HttpError, match="counts can't be read"):
        responses_by_cluster(broken)


def test_a_listener_that_is_not_there_is_an_error():
    with pytest.raises(HttpError, match="where it listens"):
        listening_port({"listener_statuses": []})
