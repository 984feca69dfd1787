"""A real Envoy between clients and two fake servers: its admin interface shows what clients get."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from scipy.stats import binom

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.local_rollout.envoy import EnvoyProcess
from tests.metrics_sources.fakes import LONGEST, FakeServer, count_arms, post

pytestmark = pytest.mark.server


@pytest.fixture
def stable():
    with FakeServer() as server:
        yield server


@pytest.fixture
def candidate():
    with FakeServer() as server:
        yield server


@pytest.fixture
def envoy(stable, candidate):
    with EnvoyProcess([stable.address], [candidate.address]) as running:
        yield running


def until(condition):
    deadline = time.monotonic() + LONGEST
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.01)


def is_alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("percent", [1, 5, 25, 50])
def test_share_is_what_clients_get(envoy, stable, candidate, percent):
    envoy.set(percent)
    assert envoy.read() == percent
    n = 20_000
    counts = count_arms(envoy.address, n)
    low, high = binom.interval(1 - 1e-9, n, percent / 100)
    assert low <= counts["candidate", 200] <= high
    assert counts["candidate", 200] + counts["stable", 200] == n
    assert len(candidate.seen) == counts["candidate", 200]
    assert len(stable.seen) == counts["stable", 200]


@pytest.mark.parametrize(("percent", "arm"), [(0, "stable"), (100, "candidate")])
def test_all_or_nothing_is_exact(envoy, percent, arm):
    envoy.set(50)
    envoy.set(percent)
    assert envoy.read() == percent
    assert count_arms(envoy.address, 5_000) == {(arm, 200): 5_000}


def test_the_same_share_set_again_has_a_new_version(envoy):
    versions = set()
    for _ in range(3):
        envoy.set(5)
        versions.add(envoy.live().version)
    assert len(versions) == 3


def test_changes_under_load_fail_nothing_and_close_nothing(envoy):
    done = threading.Event()
    results, errors = Counter(), []

    def hammer(number):
        import http.client

        connection = http.client.HTTPConnection(envoy.address, timeout=LONGEST)
        connection.connect()
        first = connection.sock
        try:
            while not done.is_set():
                connection.request("POST", "/", b"{}", {"X-Request-Id": f"c{number}"})
                response = connection.getresponse()
                response.read()
                results[response.status] += 1
                if connection.sock is not first:
                    errors.append("the connection was closed")
                    return
        except Exception as error:
            errors.append(repr(error))
        finally:
            connection.close()

    clients = [threading.Thread(target=hammer, args=(number,)) for number in range(4)]
    for client in clients:
        client.start()
    for percent in [0, 1, 5, 25, 50, 100] * 8:
        envoy.set(percent, mirror_percent=percent)
        assert envoy.read() == percent
        time.sleep(0.02)
    done.set()
    for client in clients:
        client.join(LONGEST)
    assert errors == []
    assert results.keys() == {200}
    assert results[200] > 200


@pytest.mark.parametrize("percent", [0, 25, 50])
@pytest.mark.parametrize("share", [10, 50, 100])
def test_only_requests_to_stable_are_mirrored_with_their_id(
    envoy, stable, candidate, percent, share
):
    envoy.set(percent, mirror_percent=share)
    n = 4_000
    counts = count_arms(envoy.address, n)
    ids = {headers["x-request-id"] for _, headers, _ in stable.seen}
    low, high = binom.interval(1 - 1e-9, n, envoy.live().mirrored_percent / 100)

    def mirrored():
        return [h for _, h, _ in list(candidate.seen) if h.get("x-dwcp-mirrored") == "true"]

    until(
        lambda: (
            len(candidate.seen)
            == counts["candidate", 200] + sum(envoy.responses()["mirror"].values())
        )
    )
    copies = mirrored()
    assert low <= len(copies) <= high
    assert {headers["x-request-id"] for headers in copies} <= ids
    assert len({headers["x-request-id"] for headers in copies}) == len(copies)
    assert not any("x-dwcp-mirrored" in headers for _, headers, _ in stable.seen)
    if share == 100:
        assert {headers["x-request-id"] for headers in copies} == ids


def test_a_large_body_is_mirrored_whole(envoy, stable, candidate):
    envoy.set(0, mirror_percent=100)
    body = os.urandom(3_000_000)
    assert post(envoy.address, body)[0] == 200
    until(lambda: candidate.seen)
    assert stable.seen[0][2] == body
    assert candidate.seen[0][2] == body


def test_a_client_cant_forge_envoys_headers(envoy, stable):
    forged = {
        "X-DWCP-Mirrored": "true",
        "X-Envoy-Retry-On": "5xx",
        "X-Envoy-Internal": "true",
        "X-Envoy-Max-Retries": "3",
        "X-Envoy-Upstream-Rq-Timeout-Ms": "1",
    }
    stable.answer = (500, b"no")
    trusted = {"X-Forwarded-For": "127.0.0.1"}
    status, headers, _ = post(envoy.address, headers=forged | trusted)
    assert status == 500
    assert headers["x-dwcp-arm"] == "stable"
    assert len(stable.seen) == 1
    seen = stable.seen[0][1]
    assert not {name.lower() for name in forged} & seen.keys()


@pytest.mark.parametrize("name", ["abc-1", "0f14fa46-d242-4cd9-ac1b-d98027f73a41"])
def test_request_id_is_kept_and_returned(envoy, stable, name):
    _, headers, _ = post(envoy.address, headers={"X-Request-Id": name})
    assert headers["x-request-id"] == name
    assert stable.seen[0][1]["x-request-id"] == name


def test_request_id_is_made_and_mirrored(envoy, stable, candidate):
    envoy.set(0, mirror_percent=100)
    _, headers, _ = post(envoy.address)
    until(lambda: candidate.seen)
    name = headers["x-request-id"]
    assert name
    assert stable.seen[0][1]["x-request-id"] == name
    assert candidate.seen[0][1]["x-request-id"] == name


def test_connections_to_the_servers_are_kept(envoy, stable):
    count_arms(envoy.address, 500)
    assert len(stable.seen) == 500
    assert stable.connections == 1


def test_a_killed_candidate_costs_its_share_only(envoy, candidate):
    envoy.set(25, mirror_percent=100)
    candidate.stop()
    n = 4_000
    counts = count_arms(envoy.address, n)
    assert counts.keys() == {("stable", 200), ("candidate", 503)}
    low, high = binom.interval(1 - 1e-9, n, 0.25)
    assert low <= counts["candidate", 503] <= high
    responses = envoy.responses()
    assert responses["candidate"]["5xx"] == counts["candidate", 503]
    assert responses["stable"].get("5xx", 0) == 0
    envoy.set(0)
    assert count_arms(envoy.address, 500) == {("stable", 200): 500}


def test_a_server_that_comes_back_is_used_again(envoy, candidate):
    envoy.set(100)
    candidate.stop()
    assert count_arms(envoy.address, 10) == {("candidate", 503): 10}
    with FakeServer(port=candidate.port):
        assert count_arms(envoy.address, 100) == {("candidate", 200): 100}


def test_replicas_share_the_requests_of_their_arm(stable, candidate):
    with (
        FakeServer() as second,
        EnvoyProcess([stable.address, second.address], [candidate.address]) as envoy,
    ):
        count_arms(envoy.address, 400)
        assert len(stable.seen) == len(second.seen) == 200


def test_a_killed_envoy_is_an_error(envoy):
    os.kill(envoy.pid, signal.SIGKILL)
    until(lambda: not is_alive(envoy.pid))
    for act in (envoy.read, lambda: envoy.set(5), envoy.responses):
        with pytest.raises(DwcpError, match=r"admin interface does not respond .*SIGKILL"):
            act()


def test_a_stopped_envoy_leaves_nothing(stable, candidate, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with EnvoyProcess([stable.address], [candidate.address]) as envoy:
        pid = envoy.pid
        assert is_alive(pid)
        assert list(tmp_path.iterdir())
    assert not is_alive(pid)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DwcpError, match="not running"):
        envoy.read()


def test_envoy_ends_with_its_parent(stable, candidate, tmp_path):
    program = (
        "import sys, time\n"
        "from dwcp_ml.local_rollout.envoy import EnvoyProcess\n"
        "envoy = EnvoyProcess([sys.argv[1]], [sys.argv[2]])\n"
        "envoy.start()\n"
        "print(envoy.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, stable.address, candidate.address]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as parent:
        try:
            pid = int(parent.stdout.readline())
            assert is_alive(pid)
        finally:
            parent.kill()
    until(lambda: not is_alive(pid))


def test_a_taken_port_is_an_error(stable, candidate):
    envoy = EnvoyProcess([stable.address], [candidate.address], port=stable.port)
    with pytest.raises(DwcpError, match=r"Envoy did not start .*Address already in use"):
        envoy.start()


def test_a_missing_binary_is_an_error(stable, candidate, tmp_path):
    envoy = EnvoyProcess([stable.address], [candidate.address], binary=tmp_path / "envoy")
    with pytest.raises(DwcpError, match=r"did not start|can't start"):
        envoy.start()


def test_set_fails_when_envoy_does_not_respond(envoy):
    os.kill(envoy.pid, signal.SIGSTOP)
    try:
        with pytest.raises(DwcpError, match="admin interface does not respond"):
            envoy.set(5, timeout_seconds=0.1)
    finally:
        os.kill(envoy.pid, signal.SIGCONT)
    until(lambda: envoy.read() == 5)


def test_the_share_is_read_from_envoy_not_from_the_file(envoy):
    envoy.set(5)
    routes = Path(f"/proc/{envoy.pid}/cwd/routes.json")
    written = json.loads(routes.read_text())
    clusters = written["resources"][0]["virtual_hosts"][0]["routes"][0]["route"]
    clusters["weighted_clusters"]["clusters"][1]["weight"] = 77
    routes.write_text(json.dumps(written))  # in place: Envoy follows renames only
    time.sleep(0.2)
    assert envoy.read() == 5
