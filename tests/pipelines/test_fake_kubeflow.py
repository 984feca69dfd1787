"""The fake Kubeflow responds as a real API server 2.17.0 did, in status and in fields."""

import json
from pathlib import Path
from urllib.parse import urlencode

import pytest

from dwcp_ml.http_client import request
from dwcp_ml.kubeflow.package import read_package
from tests.pipelines.conftest import PACKAGE
from tests.pipelines.fake_kubeflow import polls

pytestmark = pytest.mark.server

RECORDED = json.loads(Path(__file__).with_name("recorded.json").read_text())
"""Trimmed: other experiments, page tokens and the output of plugins are left out."""

ABSENT = "00000000-0000-0000-0000-000000000000"
NAMED = urlencode({
    "filter": json.dumps(
        {"predicates": [{"operation": "EQUALS", "key": "name", "string_value": "dwcp-ml"}]}
    ),
    "page_size": "10", "namespace": "ignored",
})  # fmt: skip


def shape(value):
    """Return a JSON value with types in place of values; of a list the first element."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [shape(one) for one in value[:1]]
    return type(value).__name__


@pytest.fixture
def call(kubeflow):
    def send(method, path, body=None):
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        url = f"{kubeflow.address}/apis/v2beta1{path}"
        response = request(method, url, 10.0, headers=headers, body=content)
        return response.status, response.json()

    return send


def run_of(package, **parameters):
    return {
        "display_name": "full-1", "experiment_id": "experiment-1", "pipeline_spec": package,
        "runtime_config": {"parameters": parameters},
    }  # fmt: skip


@pytest.fixture(scope="module")
def package():
    return read_package(PACKAGE).body()


def test_each_recorded_response_has_the_status_and_the_fields_of_the_fakes(call, package):
    assert call("POST", "/experiments", {"display_name": "dwcp-ml"})[0] == 200
    assert call("POST", "/runs", run_of(package, seed=7))[0] == 200
    responses = {
        "run": call("GET", "/runs/run-1"),
        "missing": call("GET", f"/runs/{ABSENT}"),
        "experiments": call("GET", f"/experiments?{NAMED}"),
        "terminate": call("POST", "/runs/run-1:terminate", {}),
        "terminate again": call("POST", "/runs/run-1:terminate", {}),
        "after": call("GET", "/runs/run-1"),
    }
    assert responses.keys() == RECORDED.keys()
    for name, (status, content) in responses.items():
        real = RECORDED[name]
        assert (status, shape(content)) == (real["status"], shape(real["answer"])), name
    for name in ("run", "after"):
        for field in ("state", "finished_at", "storage_state", "service_account"):
            assert responses[name][1][field] == RECORDED[name]["answer"][field]
    assert responses["terminate again"][1]["code"] == RECORDED["terminate again"]["answer"]["code"]


def test_what_is_wrong_has_the_status_of_the_real_server(call, kubeflow, package):
    assert call("POST", "/runs", run_of({"root": 5}))[0] == 500
    kubeflow.violations.clear()
    assert call("POST", "/runs", run_of(package, sede=7))[0] == 400
    assert kubeflow.runs == {}


def test_names_of_runs_repeat_and_names_of_experiments_do_not(call, package):
    assert [call("POST", "/runs", run_of(package))[0] for _ in range(2)] == [200, 200]
    statuses = [call("POST", "/experiments", {"display_name": "dwcp-ml"})[0] for _ in range(2)]
    assert statuses == [200, 409]


def test_a_run_that_has_ended_cant_be_terminated(call, kubeflow, package):
    call("POST", "/runs", run_of(package))
    kubeflow.script = polls(["validate-data"])[-1:]
    assert call("POST", "/runs/run-1:terminate", {})[0] == 400
    assert call("GET", "/runs/run-1")[1]["state"] == "SUCCEEDED"
