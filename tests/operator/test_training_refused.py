"""A TrainingRun that can't be submitted is reported once, and blocks nothing else."""

import re
from pathlib import Path

import pytest

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.kube.api import TRAINING_RUN
from dwcp_ml.kubeflow.client import KubeflowError
from dwcp_ml.operator.api.training_status import TrainingReason, TrainingRunStatus
from dwcp_ml.operator.training_reconcile import MAX_RETRY_SECONDS, conditions_of
from tests.operator.training_scenario import KEY, TrainingScenario


def no_pipeline(models):
    raise UsageError("There is no compiled pipeline for them.")


@pytest.mark.parametrize(
    ("reason", "word", "spec"),
    [
        ("KubeflowNotConfigured", "no Kubeflow", {}),
        ("PipelineNotCompiled", "no compiled", {}),
        ("InvalidSpec", "simulated", {"data": {}}),
    ],
)
def test_what_cant_be_submitted_is_reported_once(reason, word, spec):
    scenario = TrainingScenario(**spec)
    kubeflow, pipelines = scenario.kubeflow, scenario.trainer.pipelines
    scenario.trainer.kubeflow = None if "Kubeflow" in word else kubeflow
    scenario.trainer.pipelines = no_pipeline if "compiled" in word else pipelines
    scenario.reconcile()
    writes = len(scenario.api.writes)
    scenario.reconcile()
    assert len(scenario.api.writes) == writes
    assert scenario.conditions == {"Ready": "False", "Reconciling": "False", "Stalled": "True"}
    (stalled,) = [one for one in scenario.status["conditions"] if one["type"] == "Stalled"]
    assert (stalled["reason"], word in stalled["message"]) == (reason, True)
    assert (scenario.status["reason"], word in scenario.status["message"]) == (reason, True)
    assert kubeflow.requests == []
    scenario.trainer.kubeflow, scenario.trainer.pipelines = kubeflow, pipelines
    scenario.api.edit(TRAINING_RUN, *KEY, lambda one: one["spec"].update(data={"simulated": True}))
    scenario.reconcile()
    assert scenario.status["phase"] == "Running"
    assert scenario.conditions == {"Ready": "False", "Reconciling": "True", "Stalled": "False"}


@pytest.mark.parametrize(
    "changes",
    [
        {"storagePrefix": "https://models.example.com/m"},
        {"data": {"uri": "hdfs://namenode/t.csv"}},
        {"models": "all", "seed": None},
    ],
)
@pytest.mark.parametrize("forgotten", [False, True])
def test_a_run_whose_spec_became_invalid_is_followed_and_can_be_cancelled(changes, forgotten):
    """A newer release may have rules that the stored object does not keep."""
    scenario = TrainingScenario()
    scenario.reconcile()
    scenario.api.edit(TRAINING_RUN, *KEY, lambda one: one["spec"].update(changes))
    if forgotten:  # a crash between the submission and the write of its id
        scenario.api.aside().replace(
            {**scenario.api.at(TRAINING_RUN, *KEY), "status": {}}, status=True
        )
    assert scenario.reconcile() == 10.0
    assert (scenario.status["phase"], scenario.status["reason"]) == ("Running", "Running")
    scenario.api.edit(TRAINING_RUN, *KEY, lambda one: one["spec"].update(cancel=True))
    scenario.reconcile()
    assert scenario.kubeflow.ended == ["run-1"]
    scenario.kubeflow.end(state="CANCELED")
    assert scenario.reconcile() is None
    assert (scenario.status["phase"], len(scenario.kubeflow.requests)) == ("Cancelled", 1)


def test_an_invalid_run_that_was_never_submitted_can_be_cancelled():
    scenario = TrainingScenario(data={})
    scenario.reconcile()
    assert (scenario.status["phase"], scenario.status["reason"]) == ("Pending", "InvalidSpec")
    scenario.api.edit(TRAINING_RUN, *KEY, lambda one: one["spec"].update(cancel=True))
    assert scenario.reconcile() is None
    assert (scenario.status["phase"], scenario.kubeflow.requests) == ("Cancelled", [])


def test_an_invalid_run_that_ends_has_the_gates_verdict():
    scenario = TrainingScenario()
    scenario.reconcile()
    scenario.api.edit(TRAINING_RUN, *KEY, lambda one: one["spec"].update(data={}))
    scenario.kubeflow.end("approved")
    assert scenario.reconcile() is None
    assert scenario.status["reason"] == "GateApproved"


@pytest.mark.parametrize(
    "garbage",
    [
        {"phase": 17},
        {"phase": "Done", "tasks": "none"},
        {"conditions": [{}], "startedAt": "today"},
        {"phase": None, "runId": None, "version": 5, "rollouts": [{}]},
        {"reason": "BecauseISaySo"},
    ],
)
def test_a_status_that_is_garbage_is_repaired_and_nothing_is_done_twice(garbage):
    scenario = TrainingScenario()
    scenario.reconcile()
    forge = lambda: scenario.api.aside().replace(  # noqa: E731
        {**scenario.api.at(TRAINING_RUN, *KEY), "status": {**scenario.status, **garbage}},
        status=True,
    )
    forge()
    scenario.reconcile()
    assert (scenario.status["phase"], len(scenario.kubeflow.requests)) == ("Running", 1)
    scenario.kubeflow.end("approved")
    scenario.reconcile()
    expected = scenario.status
    forge()
    assert scenario.reconcile() is None
    assert len(scenario.kubeflow.requests) == 1
    for name in ("phase", "verdict", "runId", "reason"):
        assert scenario.status[name] == expected[name]


@pytest.mark.parametrize(
    ("status", "submitted", "reason", "condition"),
    [
        (None, False, "KubeflowUnavailable", "Reconciling"),
        (503, True, "KubeflowUnavailable", "Reconciling"),
        (400, False, "SubmissionRejected", "Stalled"),
        (403, True, "RequestRejected", "Stalled"),
    ],
)
def test_an_error_of_kubeflow_is_a_condition_until_it_is_over(
    status, submitted, reason, condition, monkeypatch
):
    scenario = TrainingScenario()
    if submitted:
        scenario.reconcile()

    def fail(*given):
        raise KubeflowError("Kubeflow's words.", status)

    monkeypatch.setattr(scenario.kubeflow, "run" if submitted else "submit", fail)
    for _ in range(2):
        if condition == "Reconciling":
            with pytest.raises(KubeflowError):
                scenario.reconcile()
        else:
            assert scenario.reconcile() == 10.0, "it is tried again: a permission may be granted"
        assert (scenario.status["reason"], scenario.status["message"]) == (
            reason,
            "Kubeflow's words.",
        )
        expected = dict.fromkeys(("Ready", "Reconciling", "Stalled"), "False")
        assert scenario.conditions == {**expected, condition: "True"}
    assert [one.reason for one in scenario.events].count(reason) == 1
    monkeypatch.undo()
    scenario.time.pass_time(MAX_RETRY_SECONDS)
    scenario.reconcile()
    assert (scenario.status["phase"], scenario.conditions["Reconciling"]) == ("Running", "True")
    assert len(scenario.kubeflow.requests) == 1


def test_the_conditions_have_the_generation_and_the_reason_of_the_status():
    scenario = TrainingScenario(suspend=True)
    scenario.reconcile()
    assert scenario.status["observedGeneration"] == 1
    for one in scenario.status["conditions"]:
        assert (one["reason"], one["observedGeneration"]) == ("Suspended", 1)


def test_the_page_lists_every_reason_with_its_conditions():
    page = (Path(__file__).parents[2] / "docs/operator.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*`) \| (\w+) \| (\w+) \| (\w+) \|$", page, re.MULTILINE)
    listed = {
        reason: tuple(values)
        for reasons, *values in rows
        for reason in re.findall(r"`(\w+)`", reasons)
    }
    for reason in TrainingReason:
        conditions = conditions_of(TrainingRunStatus(observed_generation=1, reason=reason), 0.0)
        assert listed[reason] == tuple(one.status for one in conditions), reason
