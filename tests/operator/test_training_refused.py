"""What a TrainingRun can't do is said, once, and holds nothing else."""

import pytest

from dwcp_ml.adapters.kube import MODEL_ROLLOUT, TRAINING_RUN
from dwcp_ml.contract.errors import UsageError
from dwcp_ml.contract.models import MODELS
from tests.operator.training_stage import KEY, Stage, report


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
def test_what_it_cant_hand_over_it_refuses_and_says_so_once(reason, word, spec):
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
    assert kubeflow.orders == []
    stage.trainer.kubeflow, stage.trainer.pipelines = kubeflow, pipelines
    stage.api.edit(TRAINING_RUN, *KEY, lambda one: one["spec"].update(data={"simulated": True}))
    stage.look()
    assert (stage.status["phase"], stage.conditions["Refused"]) == ("Running", "False")


@pytest.mark.parametrize("spec", [None, "text", {"abort": True}])
def test_a_rollout_that_does_not_take_its_candidate_does_not_hold_the_run(spec):
    stage = Stage()
    stage.look()
    metadata = {"namespace": "models", "name": "bandwidth-predictor"}
    theirs = {"apiVersion": MODEL_ROLLOUT.api_version, "kind": "ModelRollout"}
    stage.api.create({**theirs, "metadata": metadata, "spec": spec})
    stage.api.admit = lambda one: "abort is on" if one["spec"].get("abort") else None
    stage.kubeflow.end(report(*MODELS), state="SUCCEEDED")
    assert stage.look() is None
    assert stage.status["phase"] == "Succeeded"
    assert len(stage.rollouts()) == 4
    candidate = (stage.rollouts()["bandwidth-predictor"]["spec"] or {}).get("candidate")
    assert (
        (candidate is None)
        == ("abort is on" in stage.status["reason"])
        == (spec == {"abort": True})
    )


@pytest.mark.parametrize(
    "garbage",
    [{"phase": 17}, {"phase": "Done", "tasks": "none"}, {"conditions": [{}], "startedAt": "today"}],
)
def test_a_status_that_is_garbage_is_written_anew_and_nothing_is_done_twice(garbage):
    stage = Stage()
    stage.look()
    forge = lambda: stage.api.aside().replace(  # noqa: E731
        {**stage.api.at(TRAINING_RUN, *KEY), "status": {**stage.status, **garbage}}, status=True
    )
    forge()
    stage.look()
    assert (stage.status["phase"], len(stage.kubeflow.orders)) == ("Running", 1)
    stage.kubeflow.end(report(*MODELS), state="SUCCEEDED")
    stage.look()
    forge()
    changed = lambda one: one["spec"].update(candidate={"version": "newer"})  # noqa: E731
    stage.api.edit(MODEL_ROLLOUT, "models", "bandwidth-predictor", changed)
    assert stage.look() is None
    assert stage.status["phase"] == "Succeeded"
    assert stage.rollouts()["bandwidth-predictor"]["spec"]["candidate"] == {"version": "newer"}
