"""A TrainingRun and Kubeflow's own ways: lost submissions, invalid pipelines, slow cancellations.

Kubeflow is the fake that was held against a real API server; see ``fake_kubeflow.py``.
"""

import contextlib
import itertools
from pathlib import Path

import pytest

from dwcp_ml.kube.api import TRAINING_RUN
from dwcp_ml.kubeflow.client import APPEAR_SECONDS, SUBMIT_SECONDS, KubeflowApi, SubmissionLost
from dwcp_ml.operator.training_reconcile import MAX_RETRY_SECONDS, Trainer, pipelines_in
from tests.operator.scenario import Crash
from tests.operator.training_scenario import KEY, TrainingScenario
from tests.pipelines.fake_kubeflow import FakeKubeflow

pytestmark = pytest.mark.server

PIPELINES = Path(__file__).parents[2] / "pipelines"
RECONCILIATION_SECONDS = 10.0


@pytest.fixture
def kubeflow():
    fake = FakeKubeflow()
    yield fake
    fake.stop()
    assert fake.violations == []


@pytest.fixture
def scenario(kubeflow):
    scenario = TrainingScenario()
    scenario.trainer.kubeflow = KubeflowApi(kubeflow.address)
    scenario.trainer.pipelines = pipelines_in(PIPELINES)
    return scenario


def submissions(kubeflow):
    return len(kubeflow.sent("POST", "/runs"))


def lose(scenario, kubeflow, fault):
    kubeflow.faults = {("POST", "/runs"): [fault]}
    with pytest.raises(SubmissionLost):
        scenario.reconcile()
    assert (scenario.status["phase"], scenario.status["reason"]) == (
        "Pending",
        "KubeflowUnavailable",
    )
    assert scenario.conditions["Reconciling"] == "True"


def test_a_lost_submission_is_found_by_its_name(scenario, kubeflow):
    lose(scenario, kubeflow, "lost")
    assert scenario.reconcile() == 10.0
    assert (scenario.status["phase"], scenario.status["runId"]) == ("Running", "run-1")
    assert (list(kubeflow.runs), submissions(kubeflow)) == (["run-1"], 1)


def test_a_run_that_appears_late_is_the_only_one(scenario, kubeflow):
    """A proxy gave up, and the server went on."""
    kubeflow.late_seconds = 3600.0
    lose(scenario, kubeflow, "late")
    method, url, _, body = kubeflow.requests[-1]
    with pytest.raises(SubmissionLost):
        scenario.reconcile()
    kubeflow._act_late(method, url, body)
    assert scenario.reconcile() == 10.0
    assert scenario.status["runId"] == "run-1"
    assert (list(kubeflow.runs), submissions(kubeflow)) == (["run-1"], 1)


@pytest.mark.parametrize("fault", ["dropped", 504])
def test_what_nothing_came_of_is_submitted_again_when_it_cant_appear_any_more(
    scenario, kubeflow, fault
):
    lose(scenario, kubeflow, fault)
    for _ in range(int(APPEAR_SECONDS / RECONCILIATION_SECONDS) - 1):
        with pytest.raises(SubmissionLost):
            scenario.reconcile()
        assert submissions(kubeflow) == 1
    assert scenario.reconcile() == 10.0
    assert (list(kubeflow.runs), submissions(kubeflow)) == (["run-1"], 2)
    assert "submission" not in scenario.status


def test_a_run_that_may_still_appear_is_not_cancelled_before_it_can_be_terminated(
    scenario, kubeflow
):
    lose(scenario, kubeflow, "lost")
    kubeflow.faults = {("GET", "/runs"): [503]}
    scenario.api.edit(TRAINING_RUN, *KEY, lambda one: one["spec"].update(cancel=True))
    with pytest.raises(Exception, match="503"):
        scenario.reconcile()
    assert scenario.status["phase"] == "Pending"
    scenario.reconcile()
    assert kubeflow.run["state"] == "CANCELING"


def test_a_cancelled_submission_that_never_appears_is_cancelled(scenario, kubeflow):
    lose(scenario, kubeflow, "dropped")
    scenario.api.edit(TRAINING_RUN, *KEY, lambda one: one["spec"].update(cancel=True))
    with pytest.raises(SubmissionLost):
        scenario.reconcile()
    assert scenario.status["phase"] == "Pending"
    scenario.time.pass_time(APPEAR_SECONDS)
    assert scenario.reconcile() is None
    assert scenario.status["phase"] == "Cancelled"
    assert kubeflow.runs == {}


def restarted(scenario):
    """Let another process go on: it knows what the object says."""
    old = scenario.trainer
    scenario.trainer = Trainer(
        old.api, old.kubeflow, old.pipelines, old.clock, recorder=old.recorder
    )


@pytest.mark.parametrize("fault", ["dropped", 500])
def test_a_restart_does_not_shorten_the_search_for_a_lost_submission(scenario, kubeflow, fault):
    """Also of a status 500: a database may have failed after the run was started."""
    lose(scenario, kubeflow, fault)
    restarted(scenario)
    with pytest.raises(SubmissionLost):
        scenario.reconcile()
    assert submissions(kubeflow) == 1
    scenario.api.edit(TRAINING_RUN, *KEY, lambda one: one["spec"].update(cancel=True))
    with pytest.raises(SubmissionLost):
        scenario.reconcile()
    assert scenario.status["phase"] == "Pending", "the run may still appear"
    scenario.time.pass_time(APPEAR_SECONDS)
    assert scenario.reconcile() is None
    assert (scenario.status["phase"], submissions(kubeflow)) == ("Cancelled", 1)


def test_a_process_that_dies_while_it_submits_has_announced_it(scenario, kubeflow, monkeypatch):
    def die(request):
        KubeflowApi.submit(api, request)
        raise Crash

    api = scenario.trainer.kubeflow
    monkeypatch.setattr(api, "submit", die)
    with pytest.raises(Crash):
        scenario.reconcile()
    monkeypatch.undo()
    assert scenario.status["submission"]["attempts"] == 1
    runs, kubeflow.runs = kubeflow.runs, {}
    restarted(scenario)
    for _ in range(int((SUBMIT_SECONDS + APPEAR_SECONDS) / RECONCILIATION_SECONDS) - 1):
        with pytest.raises(SubmissionLost):
            scenario.reconcile()
    kubeflow.runs = runs
    assert scenario.reconcile() == 10.0
    assert (scenario.status["runId"], submissions(kubeflow)) == ("run-1", 1)
    assert "submission" not in scenario.status


def test_a_run_that_exists_despite_an_internal_error_is_followed(scenario, kubeflow):
    """Kubeflow makes the workflow before it stores the run."""
    lose(scenario, kubeflow, 500)
    (method, url, _, body) = kubeflow.requests[-1]
    kubeflow._act_late(method, url, body)
    assert scenario.reconcile() == 10.0
    assert (scenario.status["runId"], submissions(kubeflow)) == ("run-1", 1)


def test_internal_errors_are_tried_again_less_and_less_often(scenario, kubeflow):
    kubeflow.faults = {("POST", "/runs"): [500] * 100}
    times, reasons = [], []
    for _ in range(120):
        before = submissions(kubeflow)
        with contextlib.suppress(SubmissionLost):
            scenario.reconcile()
        if submissions(kubeflow) > before:
            times.append(scenario.time.now)
        reasons.append(scenario.status["reason"])
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses[:5] == [40.0, 50.0, 70.0, 110.0, 190.0]
    assert set(pauses[5:]) == {APPEAR_SECONDS + MAX_RETRY_SECONDS}
    assert reasons == sorted(reasons), "reported once, and from then on"
    assert [one.reason for one in scenario.events].count("SubmissionRejected") == 1
    kubeflow.faults = {}
    scenario.time.pass_time(APPEAR_SECONDS + MAX_RETRY_SECONDS)
    scenario.reconcile()
    assert (scenario.status["phase"], list(kubeflow.runs)) == ("Running", ["run-1"])


def test_an_invalid_pipeline_stalls_the_run_with_the_servers_sentence(scenario, kubeflow):
    scenario.trainer.pipelines = lambda models: {"root": {}, "schema": 1}
    for _ in range(int(APPEAR_SECONDS / RECONCILIATION_SECONDS)):
        with pytest.raises(SubmissionLost):
            scenario.reconcile()
    assert scenario.reconcile() == 10.0
    assert scenario.conditions["Stalled"] == "True"
    assert scenario.status["reason"] == "SubmissionRejected"
    assert "the pipeline:" in scenario.status["message"]
    assert kubeflow.violations
    kubeflow.violations.clear()


def test_a_run_is_cancelled_when_its_tasks_have_ended(scenario, kubeflow):
    scenario.reconcile()
    scenario.api.edit(TRAINING_RUN, *KEY, lambda one: one["spec"].update(cancel=True))
    for _ in range(3):
        assert scenario.reconcile() == 10.0
        assert (scenario.status["phase"], "finishedAt" in scenario.status) == ("Running", False)
    assert len(kubeflow.sent("POST", "/runs/run-1:terminate")) == 1
    kubeflow.script = [{"state": "CANCELED", "finished_at": "2026-01-01T00:10:00Z"}]
    assert scenario.reconcile() is None
    assert scenario.status["phase"] == "Cancelled"
    assert scenario.status["finishedAt"]


def test_a_run_that_somebody_else_terminates_first_is_no_error(scenario, kubeflow):
    scenario.reconcile()
    scenario.api.edit(TRAINING_RUN, *KEY, lambda one: one["spec"].update(cancel=True))

    def terminate():
        if any(url.endswith("/runs/run-1") for method, url, *_ in kubeflow.requests[seen:]):
            kubeflow.runs["run-1"]["state"] = "CANCELING"

    seen = len(kubeflow.requests)
    kubeflow.before = terminate
    assert scenario.reconcile() == 10.0
    assert len(kubeflow.sent("POST", "/runs/run-1:terminate")) == 1
    assert (scenario.status["phase"], scenario.status["reason"]) == ("Running", "Running")


def test_a_run_whose_cancellation_comes_too_late_has_the_gates_verdict(scenario, kubeflow):
    scenario.reconcile()
    scenario.api.edit(TRAINING_RUN, *KEY, lambda one: one["spec"].update(cancel=True))
    scenario.reconcile()
    gate = {"display_name": "approved", "task_id": "1", "state": "SUCCEEDED"}
    kubeflow.script = [{"state": "SUCCEEDED", "run_details": {"task_details": [gate]}}]
    assert scenario.reconcile() is None
    assert scenario.status["reason"] == "GateApproved"
