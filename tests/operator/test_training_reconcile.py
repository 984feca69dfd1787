"""A TrainingRun is submitted once, and its status mirrors the run with what the gate said."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dwcp_ml.contract.errors import ErrorCode
from dwcp_ml.contract.models import MODELS
from dwcp_ml.kube.api import MODEL_ROLLOUT, TRAINING_RUN
from dwcp_ml.kubeflow.client import (
    APPEAR_SECONDS,
    SUBMIT_SECONDS,
    KubeflowApi,
    KubeflowError,
    RunRequest,
    RunState,
    SubmissionLost,
    TaskState,
)
from dwcp_ml.operator.training_reconcile import pipelines_in
from tests.errors import about
from tests.operator.scenario import Crash
from tests.operator.training_scenario import KEY, TrainingScenario

FINISHED = {"finished_at": "2026-01-01T00:10:00Z"}


def test_a_run_is_submitted_once_and_mirrored():
    scenario = TrainingScenario(seed=7, experiment="nightly")
    for _ in range(5):
        assert scenario.reconcile() == 10.0
    assert len(scenario.kubeflow.requests) == 1
    request = scenario.kubeflow.requests[0]
    assert (request.experiment, request.namespace) == ("nightly", "models")
    assert request.arguments["seed"] == 7
    assert request.pipeline["pipeline_spec"]["for"] == sorted(MODELS)
    assert (scenario.status["phase"], scenario.status["runId"]) == ("Running", "run-1")
    writes = len(scenario.api.writes)
    tasks = (TaskState("validate", "SUCCEEDED", "2026-01-01T00:00:00Z"), TaskState("gate", ""))
    scenario.kubeflow.runs["run-1"] = RunState("run-1", "RUNNING", tasks=tasks)
    scenario.reconcile()
    assert [(one["name"], one["state"]) for one in scenario.status["tasks"]] == [
        ("validate", "Succeeded"), ("gate", "Pending"),
    ]  # fmt: skip
    scenario.reconcile()
    assert len(scenario.api.writes) == writes + 1, "what did not change is not written"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_around_the_first_write_does_not_make_a_second_run(when):
    scenario = TrainingScenario()

    def crash(call):
        if call.is_write:
            raise Crash

    setattr(scenario.api, when, crash)
    with pytest.raises(Crash):
        scenario.reconcile()
    setattr(scenario.api, when, lambda call: None)
    if when == "after":  # a submission was announced: it may have been sent
        with pytest.raises(SubmissionLost):
            scenario.reconcile()
        assert scenario.kubeflow.requests == []
        scenario.time.pass_time(SUBMIT_SECONDS + APPEAR_SECONDS)
    scenario.reconcile()
    assert len(scenario.kubeflow.requests) == 1
    assert scenario.status["runId"] == "run-1"


def test_the_run_is_told_where_to_publish_and_as_whom():
    scenario = TrainingScenario(serviceAccountName="runner", deploymentMode="Knative")
    scenario.reconcile()
    (request,) = scenario.kubeflow.requests
    found = {name: request.arguments[name] for name in ("rollout_namespace", "storage_prefix")}
    assert found == {"rollout_namespace": "models", "storage_prefix": "s3://models"}
    assert request.service_account == "runner"
    assert request.arguments["version"] == scenario.status["version"] == "20260101-000000-uid-"


@pytest.mark.parametrize(
    ("task", "said", "approved", "stalled"),
    [("approved", "APPROVED", "True", "False"), ("rejected", "REJECTED", "False", "True")],
)
def test_the_verdict_is_the_task_that_has_run_and_nothing_but_the_status_is_written(
    task, said, approved, stalled
):
    scenario = TrainingScenario()
    scenario.reconcile()
    scenario.publish("consensus_latency", "bandwidth_predictor")
    before = scenario.rollouts()
    scenario.kubeflow.end("gate", task, "publish-candidate")
    assert scenario.reconcile() is None
    assert (scenario.status["phase"], scenario.status["verdict"]) == ("Succeeded", said)
    assert scenario.status["message"] == f"The gate said {said}."
    assert scenario.status["reason"] == ("GateApproved" if said == "APPROVED" else "GateRejected")
    assert scenario.conditions == {"Ready": approved, "Reconciling": "False", "Stalled": stalled}
    assert scenario.status["rollouts"] == ["bandwidth-predictor", "consensus-latency"]
    assert scenario.rollouts() == before
    assert {call.verb for call in scenario.api.writes} == {"replace status"} | {"create"}
    assert [call.kind for call in scenario.api.writes if call.verb == "create"] == [TRAINING_RUN]
    version = scenario.api.version
    assert scenario.reconcile() is None
    assert scenario.api.version == version


def test_a_rollout_of_another_bundle_is_not_this_runs():
    scenario = TrainingScenario()
    scenario.reconcile()
    scenario.publish("bandwidth_predictor", "compression_selector", "consensus_latency")
    for name, spec in (("bandwidth-predictor", {"candidate": {"version": "newer"}}),
                       ("compression-selector", {"candidate": "text"})):  # fmt: skip
        scenario.api.edit(MODEL_ROLLOUT, "models", name, lambda one, s=spec: one["spec"].update(s))
    scenario.api.edit(MODEL_ROLLOUT, "models", "consensus-latency", lambda one: one.update(spec=5))
    scenario.kubeflow.end("approved")
    scenario.reconcile()
    assert scenario.status["rollouts"] == []


@pytest.mark.parametrize("task", ["-publish-candidate", "-publish-candidate-2"])
def test_what_could_not_be_published_fails_the_run_and_the_verdict_is_told(task):
    scenario = TrainingScenario()
    scenario.reconcile()
    scenario.publish("bandwidth_predictor")
    scenario.kubeflow.end("approved", task, state="FAILED")
    assert scenario.reconcile() is None
    assert (scenario.status["phase"], scenario.status["verdict"]) == ("Failed", "APPROVED")
    assert scenario.status["reason"] == "PublicationFailed"
    assert scenario.status["rollouts"] == ["bandwidth-predictor"]
    assert scenario.conditions == {"Ready": "False", "Reconciling": "False", "Stalled": "True"}


def test_without_an_address_nothing_is_rolled_out_and_it_says_so():
    scenario = TrainingScenario(storagePrefix=None)
    scenario.reconcile()
    assert scenario.kubeflow.requests[0].arguments["rollout_namespace"] == ""
    scenario.kubeflow.end("approved")
    scenario.reconcile()
    assert scenario.status["phase"] == "Succeeded"
    assert "storagePrefix" in scenario.status["message"]


@pytest.mark.parametrize(
    ("fields", "phase", "reason"),
    [
        ({"state": "FAILED", "error": "Train failed."}, "Failed", "RunFailed"),
        ({"state": "FAILED"}, "Failed", "RunFailed"),
        ({"state": "CANCELED"}, "Cancelled", "RunCancelled"),
        ({"state": "SUCCEEDED"}, "Failed", "VerdictUnknown"),
        ({"state": "SKIPPED"}, "Failed", "RunSkipped"),
        ({"state": "", **FINISHED}, "Failed", "RunStateUnknown"),
        ({"state": "TIMED_OUT", **FINISHED}, "Failed", "RunStateUnknown"),
    ],
)
def test_a_run_that_ends_without_a_verdict_has_failed(fields, phase, reason):
    scenario = TrainingScenario()
    scenario.reconcile()
    scenario.kubeflow.end(**fields)
    assert scenario.reconcile() is None
    assert (scenario.status["phase"], scenario.status["reason"]) == (phase, reason)
    assert scenario.status["message"] == fields.get("error", scenario.status["message"])
    assert scenario.conditions == {"Ready": "False", "Reconciling": "False", "Stalled": "True"}
    assert "verdict" not in scenario.status
    assert scenario.events[-1].warning == (phase == "Failed")


def test_an_unknown_state_without_an_end_stalls_until_a_known_one_follows():
    scenario = TrainingScenario()
    scenario.reconcile()
    scenario.kubeflow.end(state="QUEUED")
    assert scenario.reconcile() == 10.0
    assert (scenario.status["phase"], scenario.status["reason"]) == ("Running", "RunStateUnknown")
    assert "'QUEUED'" in scenario.status["message"]
    assert scenario.conditions["Stalled"] == "True"
    writes = len(scenario.api.writes)
    scenario.reconcile()
    assert len(scenario.api.writes) == writes
    scenario.kubeflow.end("approved")
    assert scenario.reconcile() is None
    assert scenario.status["reason"] == "GateApproved"


@pytest.mark.parametrize("state", ["", "PENDING", "RUNNING", "PAUSED", "CANCELING"])
def test_a_state_under_way_is_no_end(state):
    assert not RunState("run-1", state, finished_at="1970-01-01T00:00:00Z").ended


def test_a_run_that_kubeflow_forgot_has_failed():
    scenario = TrainingScenario()
    scenario.reconcile()
    scenario.kubeflow.runs.clear()
    scenario.reconcile()
    assert (scenario.status["phase"], scenario.status["reason"]) == ("Failed", "RunNotFound")


def test_suspended_it_waits_and_cancelled_it_ends():
    scenario = TrainingScenario(suspend=True)
    scenario.reconcile()
    assert (scenario.status["phase"], scenario.kubeflow.requests) == ("Suspended", [])
    scenario.api.edit(TRAINING_RUN, *KEY, lambda one: one["spec"].update(suspend=False))
    scenario.reconcile()
    assert scenario.status["phase"] == "Running"
    scenario.api.edit(TRAINING_RUN, *KEY, lambda one: one["spec"].update(cancel=True))
    scenario.reconcile()
    scenario.reconcile()
    assert scenario.kubeflow.ended == ["run-1"]
    assert scenario.status["phase"] == "Running", "its tasks may still run"
    scenario.kubeflow.end(state="CANCELED")
    assert scenario.reconcile() is None
    assert scenario.status["phase"] == "Cancelled"


def test_the_compiled_pipelines_are_found_by_their_models(tmp_path):
    (tmp_path / "training.yaml").write_text("name: all\n---\nplatforms: {}\n")
    (tmp_path / "training-bandwidth-latency.yaml").write_text("name: two\n")
    find = pipelines_in(tmp_path)
    assert find(list(MODELS)) == {
        "pipeline_spec": {"name": "all"}, "platform_spec": {"platforms": {}},
    }  # fmt: skip
    two = find(["consensus_latency", "bandwidth_predictor"])
    assert two == {"pipeline_spec": {"name": "two"}}
    with pytest.raises(Exception, match="no compiled pipeline for reliability"):
        find(["reliability_detector"])


# over HTTP


@pytest.fixture
def server():
    responses, seen = {}, []

    class Handler(BaseHTTPRequestHandler):
        def respond(self):
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            path = self.path.partition("?")[0]
            seen.append((self.command, self.path, dict(self.headers), body))
            status, content = responses.get((self.command, path), (404, {"message": "not found"}))
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = respond

        def log_message(self, *given):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", responses, seen
    server.shutdown()
    server.server_close()


def test_a_run_over_http(server, tmp_path):
    address, responses, seen = server
    token = tmp_path / "token"
    token.write_text("secret\n")
    kubeflow, root = KubeflowApi(address, token), "/apis/v2beta1"
    responses["GET", f"{root}/experiments"] = (200, {})
    responses["POST", f"{root}/experiments"] = (200, {"experiment_id": "e1"})
    responses["POST", f"{root}/runs"] = (200, {"run_id": "r1"})
    request = RunRequest(
        "n", "exp", "models", {"pipeline_spec": {}}, {"seed": 1}, "s3://root", "runner"
    )
    assert kubeflow.submit(request) == "r1"
    sent = json.loads(seen[-1][3])
    assert sent["experiment_id"] == "e1"
    assert sent["runtime_config"] == {"parameters": {"seed": 1}, "pipeline_root": "s3://root"}
    assert sent["service_account"] == "runner"
    assert seen[-1][2]["Authorization"] == "Bearer secret"
    responses["GET", f"{root}/runs"] = (200, {"runs": [{"run_id": "r1"}]})
    assert kubeflow.find("n", "models") == "r1"
    gate = {"display_name": "gate", "outputs": {"report": {"artifact_ids": ["17"]}}}
    responses["GET", f"{root}/runs/r1"] = (
        200,
        {"run_id": "r1", "state": "SUCCEEDED", "run_details": {"task_details": [gate]}},
    )
    assert kubeflow.run("r1").artifacts == {"report": "17"}
    assert kubeflow.run("r2") is None
    responses["GET", f"{root}/artifacts/17"] = (200, {"download_url": f"{address}/signed"})
    responses["GET", "/signed"] = (200, b"content")
    assert kubeflow.artifact("17") == b"content"
    assert "Authorization" not in seen[-1][2]
    responses["POST", f"{root}/runs/r1:terminate"] = (200, {})
    kubeflow.terminate("r1")


@pytest.mark.parametrize(
    ("response", "word"),
    [
        ((500, {"message": "database\nis down"}), "responded with 500: database is down"),
        ((200, b"<html>"), "without JSON"),
        ((200, {}), "has no run_id"),
        ((403, b"RBAC: access denied"), "responded with 403: RBAC: access denied"),
        ((401, b"<html>log in</html>"), "responded with 401: no reason"),
    ],
)
def test_a_bad_response_is_one_sentence(server, response, word):
    address, responses, _ = server
    responses["GET", "/apis/v2beta1/experiments"] = (200, {"experiments": [{"experiment_id": "e"}]})
    responses["POST", "/apis/v2beta1/runs"] = response
    with pytest.raises(KubeflowError, match=word):
        KubeflowApi(address).submit(RunRequest("n", "e", "", {}, {}))


@pytest.mark.parametrize("path", ["experiments", "runs"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
def test_a_rejected_submission_is_a_condition_with_the_sentence_of_the_server(server, path, status):
    address, responses, _ = server
    root = "/apis/v2beta1"
    responses["GET", f"{root}/runs"] = responses["GET", f"{root}/experiments"] = (200, {})
    responses["POST", f"{root}/experiments"] = (200, {"experiment_id": "e1"})
    responses["POST", f"{root}/{path}"] = (status, {"message": "The pipeline has no root"})
    scenario = TrainingScenario()
    scenario.trainer.kubeflow = KubeflowApi(address)
    for _ in range(3):
        assert scenario.reconcile() == 10.0
    (stalled,) = [one for one in scenario.status["conditions"] if one["type"] == "Stalled"]
    assert (stalled["status"], stalled["reason"]) == ("True", "SubmissionRejected")
    assert "The pipeline has no root" in stalled["message"]
    assert [event.reason for event in scenario.events] == ["SubmissionRejected"]


def test_a_token_that_cant_be_read_is_a_condition(tmp_path):
    scenario = TrainingScenario()
    scenario.trainer.kubeflow = KubeflowApi("http://127.0.0.1:9", tmp_path / "token")
    assert scenario.reconcile() == 10.0
    assert scenario.status["reason"] == "KubeflowNotConfigured"
    assert str(tmp_path / "token") in scenario.status["message"]


def test_nobody_there_is_one_sentence():
    with pytest.raises(KubeflowError, check=about(ErrorCode.NO_RESPONSE)):
        KubeflowApi("http://127.0.0.1:9").find("n", "")
