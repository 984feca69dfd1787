"""What a TrainingRun can't do is said, once, and holds nothing else."""

import pytest

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.kube.api import TRAINING_RUN
from tests.operator.training_scenario import KEY, Stage


def no_pipeline(models):
    raise UsageError("there is no compiled pipeline for them.")


@pytest.mark.parametrize(
    ("reason", "word", "spec"),
    [
        ("NotRun", "no Kubeflow", {}),
        ("NotRun", "no compiled", {}),
        ("Malformed", "simulated", {"data": {}}),
    ],
)
def test_what_cant_be_submitted_is_reported_once(reason, word, spec):
    stage = Stage(**spec)
    kubeflow, pipelines = stage.kubeflow, stage.trainer.pipelines
    stage.trainer.kubeflow = None if "Kubeflow" in word else kubeflow
    stage.trainer.pipelines = no_pipeline if "compiled" in word else pipelines
    stage.look()
    writes = len(stage.api.writes)
    stage.look()
    assert len(stage.api.writes) == writes
    assert stage.conditions["Refused"] == "True"
    (told,) = [one for one in stage.status["conditions"] if one["type"] == "Refused"]
    assert (told["reason"], word in told["message"]) == (reason, True)
    assert word in stage.status["reason"]
    assert kubeflow.requests == []
    stage.trainer.kubeflow, stage.trainer.pipelines = kubeflow, pipelines
    stage.api.edit(TRAINING_RUN, *KEY, lambda one: one["spec"].update(data={"simulated": True}))
    stage.look()
    assert (stage.status["phase"], stage.conditions["Refused"]) == ("Running", "False")


@pytest.mark.parametrize(
    "garbage",
    [
        {"phase": 17},
        {"phase": "Done", "tasks": "none"},
        {"conditions": [{}], "startedAt": "today"},
        {"phase": None, "runId": None, "version": 5, "rollouts": [{}]},
    ],
)
def test_a_status_that_is_garbage_is_written_anew_and_nothing_is_done_twice(garbage):
    stage = Stage()
    stage.look()
    forge = lambda: stage.api.aside().replace(  # noqa: E731
        {**stage.api.at(TRAINING_RUN, *KEY), "status": {**stage.status, **garbage}}, status=True
    )
    forge()
    stage.look()
    assert (stage.status["phase"], len(stage.kubeflow.requests)) == ("Running", 1)
    stage.kubeflow.end("approved")
    stage.look()
    told = stage.status
    forge()
    assert stage.look() is None
    assert len(stage.kubeflow.requests) == 1
    for name in ("phase", "recommendation", "runId"):
        assert stage.status[name] == told[name]
