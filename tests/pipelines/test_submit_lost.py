"""A submission is made exactly once, whatever becomes of the response to it."""

import json

import pytest

from dwcp_ml.contract.errors import ErrorCode
from dwcp_ml.kubeflow import client, wait
from dwcp_ml.kubeflow.client import (
    KubeflowApi,
    KubeflowError,
    RunRequest,
    SubmissionLost,
    SubmissionRejected,
)
from dwcp_ml.kubeflow.package import read_package
from dwcp_ml.kubeflow.wait import RetryPolicy
from tests.errors import about
from tests.pipelines.conftest import PACKAGE

pytestmark = pytest.mark.server

POLICY = RetryPolicy(poll=0.1, first_retry=0.1, appear=1.0)


@pytest.fixture
def api(kubeflow):
    return KubeflowApi(kubeflow.address)


@pytest.fixture(scope="module")
def request_():
    return RunRequest("nightly", "dwcp-ml", "", read_package(PACKAGE).body(), {}, submission="a")


def submissions(kubeflow):
    return len(kubeflow.sent("POST", "/runs")) + kubeflow.aborted


@pytest.mark.slow
def test_a_busy_server_has_the_time_that_it_takes(api, kubeflow, request_):
    """A real one took up to 15 s; the limit of the other requests would end it."""
    kubeflow.creation_seconds = [client.TIMEOUT_SECONDS + 1.0]
    said = []
    assert wait.submit(api, request_, said.append, policy=POLICY) == "run-1"
    assert (kubeflow.aborted, said) == (0, [])


def test_what_the_server_aborted_is_submitted_again(api, kubeflow, request_, monkeypatch):
    monkeypatch.setattr(client, "SUBMIT_SECONDS", 0.3)
    kubeflow.creation_seconds = [2.0]
    said = []
    assert wait.submit(api, request_, said.append, policy=POLICY) == "run-1"
    assert (kubeflow.aborted, submissions(kubeflow)) == (1, 2)
    assert list(kubeflow.runs) == ["run-1"]
    assert "not within 0.3 s. Looking for the run." in said[0]


@pytest.mark.parametrize("fault", ["late", "lost"])
def test_a_run_that_appears_after_its_response_was_lost_is_the_only_one(
    api, kubeflow, request_, fault
):
    kubeflow.faults = {("POST", "/runs"): [fault]}
    assert wait.submit(api, request_, lambda sentence: None, policy=POLICY) == "run-1"
    assert (list(kubeflow.runs), submissions(kubeflow)) == (["run-1"], 1)


@pytest.mark.parametrize("fault", ["dropped", 502, 504, 429])
def test_a_submission_that_nothing_came_of_is_repeated_after_a_while(
    api, kubeflow, request_, fault
):
    kubeflow.faults = {("POST", "/runs"): [fault]}
    assert wait.submit(api, request_, lambda sentence: None, policy=POLICY) == "run-1"
    assert submissions(kubeflow) == 2
    searches = [url for method, url, *_ in kubeflow.requests if method == "GET" and "/runs?" in url]
    assert len(searches) > 5, "looked for all the time"


def test_a_run_of_another_client_with_the_same_name_is_not_taken_for_ours(api, kubeflow, request_):
    """Names of runs are not unique on the server."""
    kubeflow.faults = {("POST", "/runs"): ["dropped"]}

    def other():
        if len(kubeflow.sent("POST", "/runs")) == 1:
            kubeflow.runs.setdefault("theirs", {
                "run_id": "theirs", "display_name": "nightly", "description": "b",
                "state": "PENDING",
            })  # fmt: skip

    kubeflow.before = other
    assert wait.submit(api, request_, lambda sentence: None, policy=POLICY) == "run-2"
    assert kubeflow.runs["run-2"]["description"] == "a"


def test_a_server_that_never_responds_is_given_up(api, kubeflow, request_):
    kubeflow.faults = {("POST", "/runs"): ["dropped"] * 10}
    policy = RetryPolicy(poll=0.05, first_retry=0.1, appear=0.2, submission=0.5)
    with pytest.raises(SubmissionLost, check=about(ErrorCode.NO_RESPONSE)):
        wait.submit(api, request_, lambda sentence: None, policy=policy)
    assert 1 < submissions(kubeflow) < 10
    assert kubeflow.runs == {}


def test_a_run_that_exists_despite_an_internal_error_is_found(api, kubeflow, request_):
    """Kubeflow starts the workflow before it stores the run; a database may fail in between."""
    kubeflow.faults = {("POST", "/runs"): [500]}

    def appear():
        for method, url, _, body in kubeflow.requests:
            if method == "POST" and url.endswith("/runs") and not kubeflow.runs:
                kubeflow._act(method, url, json.loads(body))

    said, kubeflow.before = [], appear
    assert wait.submit(api, request_, said.append, policy=POLICY) == "run-1"
    assert "Looking for the run." in said[0]
    assert (list(kubeflow.runs), submissions(kubeflow)) == (["run-1"], 1)


def test_an_internal_error_without_a_run_is_a_rejection(api, kubeflow, request_):
    kubeflow.faults = {("POST", "/runs"): [500]}
    with pytest.raises(SubmissionRejected, check=about(ErrorCode.STATUS, 500)) as rejection:
        wait.submit(api, request_, lambda sentence: None, policy=POLICY)
    assert not rejection.value.transient
    assert (kubeflow.runs, submissions(kubeflow)) == ({}, 1)


@pytest.mark.slow
def test_an_invalid_pipeline_is_rejected_with_the_servers_sentence(
    submit, kubeflow, failures, tmp_path
):
    package = tmp_path / "package.yaml"
    package.write_text(PACKAGE.read_text().replace("schemaVersion:", "schemaVersions:", 1))
    code, out, err = submit("--package", str(package))
    assert (code, out) == (1, "")
    assert isinstance(failures[-1], SubmissionRejected)
    assert "schemaVersions" in err.splitlines()[-1]
    assert len(kubeflow.sent("POST", "/runs")) == 1
    assert kubeflow.violations
    kubeflow.violations.clear()


def test_bad_arguments_are_rejected_at_once(api, kubeflow, request_):
    wrong = RunRequest("n", "dwcp-ml", "", request_.pipeline, {"sede": 7})
    with pytest.raises(KubeflowError, check=about(ErrorCode.STATUS, 400)) as rejection:
        wait.submit(api, wrong, lambda sentence: None, policy=POLICY)
    assert not rejection.value.transient
    assert submissions(kubeflow) == 1


def test_an_experiment_that_another_client_creates_at_the_same_time_is_used(
    api, kubeflow, request_
):
    def create():
        looked = [url for method, url, *_ in kubeflow.requests if "/experiments?" in url]
        if looked:
            kubeflow.experiments.setdefault(
                "theirs", {"experiment_id": "theirs", "display_name": "dwcp-ml"}
            )

    kubeflow.before = create
    assert api.submit(request_) == "run-1"
    assert len(kubeflow.sent("POST", "/experiments")) == 1
    assert kubeflow.run["experiment_id"] == "theirs"


def test_a_run_is_terminated_once_and_a_second_request_is_no_error(api, kubeflow, request_):
    run_id = api.submit(request_)
    api.terminate(run_id)
    run = api.run(run_id)
    assert (run.state, run.ended, run.finished_at[:4]) == ("CANCELING", False, "1970")
    api.terminate(run_id)
    kubeflow.script = [{"state": "CANCELED", "finished_at": "2026-01-01T00:10:00Z"}]
    api.terminate(run_id)
    assert api.run(run_id).ended
    assert len(kubeflow.sent("POST", f"/runs/{run_id}:terminate")) == 3


def test_a_run_that_is_missing_cant_be_terminated(api):
    with pytest.raises(KubeflowError, check=about(ErrorCode.STATUS, 404)):
        api.terminate("run-9")


def test_a_rejected_termination_of_a_run_under_way_is_an_error(api, kubeflow, request_):
    run_id = api.submit(request_)
    kubeflow.faults = {("POST", ":terminate"): [403]}
    with pytest.raises(KubeflowError, check=about(ErrorCode.STATUS, 403)):
        api.terminate(run_id)
