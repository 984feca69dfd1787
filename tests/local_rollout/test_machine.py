"""The parts of a rollout: two real servers, a real Envoy, scraped counters, paired logs."""

import json
import time

import pytest

from dwcp_ml.local_rollout.envoy import EnvoyProcess
from dwcp_ml.metrics_sources.samples import Expected
from dwcp_ml.metrics_sources.scrape import MetricsPages, is_ready
from dwcp_ml.prediction_log.pairs import Arms, read_pairs
from tests.metrics_sources.fakes import post
from tests.serving.bundles import make_bundle, rows_for
from tests.serving.running import Server

pytestmark = pytest.mark.server

MODEL = "bandwidth_predictor"
STABLE, CANDIDATE = "20260101-000000", "20260102-000000"


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    started = {}
    try:
        for version in (STABLE, CANDIDATE):
            place = tmp_path_factory.mktemp(version)
            make_bundle(place / "models", MODEL, version)
            started[version] = Server(
                place / "models", place, "--no-grpc", "--log-predictions", str(place / "log")
            )
            started[version].address = f"127.0.0.1:{started[version].http_port}"
            started[version].predictions = place / "log"
        yield started[STABLE], started[CANDIDATE]
    finally:
        for server in started.values():
            server.kill()


def test_a_rollouts_machine(servers):
    stable, candidate = servers
    started_at = time.time()
    n, share = 400, 25
    with EnvoyProcess(
        [stable.address], [candidate.address], percent=share, mirror_percent=100
    ) as envoy:
        arms = {"stable": set(), "candidate": set()}
        for number, row in enumerate(rows_for(MODEL, n).tolist()):
            body = json.dumps({"instances": [row]}).encode()
            path = f"/v1/models/{MODEL}:predict"
            name = f"r{number}"
            status, headers, _ = post(envoy.address, body, {"X-Request-Id": name}, path)
            assert status == 200
            assert headers["x-request-id"] == name
            arms[headers["x-dwcp-arm"]].add(name)
        responses = envoy.responses()
        assert responses["stable"] == {"2xx": len(arms["stable"])}
        assert responses["candidate"] == {"2xx": len(arms["candidate"])}

    sides = [(stable, STABLE), (candidate, CANDIDATE)]
    samples = [
        MetricsPages([server.address], Expected(MODEL, version)).read() for server, version in sides
    ]
    assert [each.error for each in samples] == ["", ""]
    assert all(len(each.digest) == 64 for each in samples)
    assert samples[0].digest != samples[1].digest
    counted = samples[0].replicas[0]
    assert (counted.requests, counted.errors) == (len(arms["stable"]), 0)
    assert counted.latency.counts[-1] == counted.requests
    assert samples[0].sketches["output:next_throughput_mbps"].counts[-1] == counted.requests
    assert all(is_ready(server.address) for server in servers)

    wrong = MetricsPages([stable.address], Expected(MODEL, CANDIDATE)).read()
    assert f"serves {MODEL} {STABLE}, not {CANDIDATE}" in wrong.error

    logs = Arms(
        MODEL, stable.predictions, candidate.predictions, STABLE, CANDIDATE, since=started_at - 1
    )
    deadline = time.monotonic() + 10.0
    while True:
        joined = read_pairs(logs, "", time.time() + 60.0)
        if len(joined.pairs) == len(arms["stable"]) or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    assert {pair.request_id for pair in joined.pairs} == arms["stable"]
    assert {pair.difference for pair in joined.pairs} == {0.0}
    assert joined.stable_only == 0
