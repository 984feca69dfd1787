"""Outcomes that reach any replica behind a real gateway count for the version that predicted."""

import http.client
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dwcp_ml.local_rollout.envoy import EnvoyProcess
from tests.serving.bundles import make_bundle, rows_for
from tests.serving.running import Server

pytestmark = [pytest.mark.server, pytest.mark.slow]

MODEL = "bandwidth_predictor"
VERSIONS = "20260101-000000", "20260201-000000"
CALLERS, EACH = 8, 250


@pytest.fixture(scope="module")
def replicas(tmp_path_factory):
    """Two replicas of the stable, and one of the candidate."""
    place = tmp_path_factory.mktemp("replicas")
    servers = []
    try:
        for number, version in enumerate((VERSIONS[0], *VERSIONS)):
            models = place / f"models-{number}"
            make_bundle(models, MODEL, version)
            servers.append(Server(models, place / str(number)))
        yield servers
    finally:
        for server in servers:
            server.kill()


def losses(servers, name):
    """Return version -> sum over the replicas of a metric about the reported losses."""
    found = Counter()
    for server in servers:
        _, _, page = server.request("GET", "/metrics")
        for family in text_string_to_metric_families(page.decode()):
            for sample in family.samples:
                if sample.name == name:
                    found[sample.labels["version"]] += sample.value
    return found


def test_the_counts_of_each_version_are_right_to_the_last_one(replicas):
    """At 99:1 the report of a prediction of the candidate almost never reaches the candidate."""
    addresses = [f"127.0.0.1:{server.http_port}" for server in replicas]
    body = json.dumps({"instances": rows_for(MODEL, 1).tolist()})

    def call(connection, path, text):
        connection.request("POST", path, text)
        response = connection.getresponse()
        content = json.loads(response.read())
        assert response.status == 200, content
        return response.headers, content

    def work(caller):
        """Predict, and report a loss of exactly a half."""
        predicted = Counter()
        connection = http.client.HTTPConnection(envoy.address, timeout=10)
        for number in range(EACH):
            headers, content = call(connection, f"/v1/models/{MODEL}:predict", body)
            version = headers["x-dwcp-model-version"]
            prediction = content["predictions"][0]["next_throughput_mbps"]
            predicted[version] += 1
            outcome = {
                "version": version, "prediction": prediction, "outcome": prediction * 2,
                "id": f"{caller}-{number}",
            }  # fmt: skip
            report = json.dumps({"outcomes": [outcome]})
            _, said = call(connection, f"/v1/models/{MODEL}:feedback", report)
            assert said == {"counted": 1, "duplicates": 0, "undefined": 0}
        connection.close()
        return predicted

    with EnvoyProcess(addresses[:2], addresses[2:]) as envoy:
        envoy.set(1)
        with ThreadPoolExecutor(CALLERS) as pool:
            predicted = sum(pool.map(work, range(CALLERS)), Counter())
    assert predicted.total() == CALLERS * EACH
    assert set(predicted) == set(VERSIONS)
    assert losses(replicas, "dwcp_reported_loss_count") == predicted
    for version, total in losses(replicas, "dwcp_reported_loss_sum").items():
        assert total == pytest.approx(0.5 * predicted[version], rel=1e-6)
