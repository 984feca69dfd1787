"""The task publish-candidate: it runs behind the verdict, and only if a namespace is named."""

from pathlib import Path

import pytest
import yaml

PACKAGE = Path(__file__).parents[2] / "pipelines/training.yaml"


@pytest.fixture(scope="module")
def spec():
    return next(yaml.safe_load_all(PACKAGE.read_text()))


def group_of(spec, task):
    """Return the tasks of a task's group, and the condition under which they run."""
    dags = {name: one["dag"]["tasks"] for name, one in spec["components"].items() if "dag" in one}
    (name,) = [name for name, tasks in dags.items() if task in tasks]
    outer = [one for tasks in dags.values() for one in tasks.values()]
    (group,) = [one for one in outer if one["componentRef"]["name"] == name]
    return dags[name], group


@pytest.mark.parametrize(
    ("verdict", "task"), [("approved", "publish-candidate"), ("rejected", "publish-candidate-2")]
)
def test_it_stands_behind_each_verdict_and_runs_where_a_namespace_is_named(spec, verdict, task):
    tasks, group = group_of(spec, task)
    assert set(tasks) == {task}
    assert group["triggerPolicy"]["condition"] == (
        "inputs.parameter_values['pipelinechannel--rollout_namespace'] != ''"
    )
    assert group["dependentTasks"] == [verdict], "the verdict is shown before it runs"
    others, _ = group_of(spec, verdict)
    assert group in others.values()


def test_by_default_a_run_publishes_nothing(spec):
    usual = spec["root"]["inputDefinitions"]["parameters"]
    assert usual["rollout_namespace"]["defaultValue"] == ""
    assert usual["storage_prefix"]["defaultValue"] == ""


def test_it_gets_what_the_gate_wrote_and_the_verdict_that_was_told(spec):
    given = group_of(spec, "publish-candidate")[0]["publish-candidate"]["inputs"]
    assert given["artifacts"]["manifests"]["componentInputArtifact"].endswith("gate-manifests")
    assert given["parameters"]["verdict"]["componentInputParameter"].endswith("approved-Output")
    assert set(given["parameters"]) == {
        "rollout_namespace", "storage_prefix", "verdict", "version",
    }  # fmt: skip
