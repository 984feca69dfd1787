"""The compiled pipeline as a file, its arguments, and the verdict of a finished run."""

import io
from dataclasses import replace

import pytest
import yaml

from dwcp_ml.cli.run_progress import picture
from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.evaluation.gate import gate_model, gate_session
from dwcp_ml.kubeflow.arguments import parse_arguments
from dwcp_ml.kubeflow.client import KubeflowError, RunState, TaskState
from dwcp_ml.kubeflow.package import read_package
from dwcp_ml.kubeflow.verdict import publication_failed, verdict_of
from pipelines.training import COMPILED
from tests.errors import about
from tests.evaluation.conftest import good_records

SMALL = {
    "pipelineInfo": {"name": "other"},
    "components": {
        "comp-a": {"executorLabel": "exec-a"},
        "comp-group": {
            "dag": {"tasks": {"inner": {"componentRef": {"name": "comp-a"},
                                        "cachingOptions": {"enableCache": True}}}}
        },
    },
    "deploymentSpec": {"executors": {"exec-a": {"container": {"image": "i"}}}},
    "root": {
        "dag": {
            "tasks": {
                "last": {"componentRef": {"name": "comp-group"}, "dependentTasks": ["first"]},
                "first": {"componentRef": {"name": "comp-a"}, "taskInfo": {"name": "the first"},
                          "cachingOptions": {"cacheKey": "known-data"}},
            }
        },
        "inputDefinitions": {
            "parameters": {
                "must": {"parameterType": "STRING"},
                "may": {"parameterType": "LIST", "isOptional": True},
                "odd": {"parameterType": "TASK_FINAL_STATUS", "isOptional": True},
                "seed": {"parameterType": "NUMBER_INTEGER", "defaultValue": 1.0},
            }
        },
    },
}  # fmt: skip


@pytest.fixture
def package(tmp_path):
    def write(*documents):
        path = tmp_path / "p.yaml"
        path.write_text(yaml.safe_dump_all(documents))
        return read_package(path)

    return write


def test_tasks_stand_in_the_order_that_they_run_in_and_groups_are_opened(package):
    found = package(SMALL)
    assert found.titles == {"first": "the first", "inner": "inner"}
    assert list(found.titles) == ["first", "inner"]
    assert found.body() == SMALL, "a document alone stands for itself"
    both = package(SMALL, {"platforms": {"kubernetes": {}}}).body()
    assert both == {"pipeline_spec": SMALL, "platform_spec": {"platforms": {"kubernetes": {}}}}


def test_the_cache_is_decided_for_groups_as_well_and_the_package_stays(package):
    found = package(SMALL)
    known = found.with_cache(off=False, data_known=True)
    assert known.spec["root"]["dag"]["tasks"]["first"]["cachingOptions"] == {"enableCache": True}
    unknown = found.with_cache(off=False, data_known=False)
    assert unknown.spec["root"]["dag"]["tasks"]["first"]["cachingOptions"] == {"enableCache": False}
    off = found.with_cache(off=True, data_known=True).spec
    inner = off["components"]["comp-group"]["dag"]["tasks"]["inner"]
    assert inner["cachingOptions"] == {"enableCache": False}
    assert found.spec == SMALL


def test_a_pipeline_that_is_not_ours_is_held_to_its_own_inputs(package):
    found = package(SMALL)
    assert parse_arguments(found, ["must=a=b", "may=[1, 2]", "seed=-1"]) == {
        "must": "a=b", "may": [1, 2], "seed": -1,
    }  # fmt: skip
    with pytest.raises(UsageError, check=about(ErrorCode.MISSING, "must")):
        parse_arguments(found, [])
    with pytest.raises(UsageError, check=about(ErrorCode.WRONG_TYPE, "may")):
        parse_arguments(found, ["must=x", "may=1"])
    with pytest.raises(UsageError, check=about(ErrorCode.UNSUPPORTED, "odd")):
        parse_arguments(found, ["must=x", "odd=1"])


def test_one_uri_is_the_stable_bundle_of_a_package_for_one_model():
    whole = read_package(COMPILED)
    one = replace(whole, titles={"train-bandwidth-predictor": "train bandwidth"})
    words = ["stable_uri=s3://models/bandwidth_predictor/v0"]
    assert parse_arguments(one, words) == {"stable_uri": "s3://models/bandwidth_predictor/v0"}
    with pytest.raises(UsageError, check=about(ErrorCode.AMBIGUOUS, "--stable-uri")):
        parse_arguments(whole, words)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "a: b", "a: [", "\xff", "root: 3\n---\nx: 1", "{}\n---\n{}\n---\n{}",
     yaml.safe_dump({**SMALL, "components": {}}), yaml.safe_dump({**SMALL, "deploymentSpec": {}}),
     yaml.safe_dump({**SMALL, "root": {"dag": {"tasks": {}}}})],
)  # fmt: skip
def test_what_is_no_compiled_pipeline_is_refused(tmp_path, content):
    path = tmp_path / "p.yaml"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(UsageError, match=r"p\.yaml"):
        read_package(path)
    with pytest.raises(UsageError, check=about(ErrorCode.CANT_READ, tmp_path)):
        read_package(tmp_path)


class Reports:
    """A named fake: a Kubeflow with an artifact service."""

    def __init__(self, content):
        self.content = content

    def artifact(self, artifact_id):
        if isinstance(self.content, Exception):
            raise self.content
        return self.content


def ended(*names, state="SUCCEEDED", artifacts=None):
    tasks = tuple(TaskState(name, state) for name in names)
    return RunState("r", "SUCCEEDED", tasks=tasks, artifacts=artifacts)


@pytest.mark.parametrize(
    ("run", "verdict"),
    [
        (ended("gate", "approved"), "APPROVED"),
        (ended("gate", "rejected"), "REJECTED"),
        (ended("gate"), None),
        (ended("approved", "rejected"), None),
        (ended("approved", state="SKIPPED"), None),
        (ended("approved", state="FAILED"), None),
    ],
)
def test_the_verdict_is_the_task_that_has_run(run, verdict):
    assert verdict_of(run, Reports(b"")) == verdict


def session_report(said):
    training, evaluation, export, data = good_records("bandwidth_predictor")
    if said == "REJECTED":
        export = export.replace(success=False, reason="no graph")
    return gate_session("20260101-000000", [gate_model(training, evaluation, export, data)], data)


def test_without_such_a_task_the_gates_report_is_read_where_there_is_one():
    run = ended("gate", artifacts={"report": "17"})
    for said in ("APPROVED", "REJECTED"):
        content = session_report(said).to_json().encode()
        assert verdict_of(run, Reports(content)) == said
    for bad in (b"{}", b"no JSON", KubeflowError("responded with 404", 404)):
        assert verdict_of(run, Reports(bad)) is None
    with pytest.raises(KubeflowError, check=about(ErrorCode.STATUS, 503)):
        verdict_of(run, Reports(KubeflowError("responded with 503", 503)))


def test_a_publication_that_failed_takes_nothing_from_the_verdict():
    tasks = (TaskState("approved", "SUCCEEDED"), TaskState("publish-candidate", "FAILED"))
    run = RunState("r", "FAILED", tasks=tasks)
    assert (verdict_of(run, Reports(b"")), publication_failed(run)) == ("APPROVED", True)
    assert not publication_failed(ended("approved", "publish-candidate"))
    assert not publication_failed(RunState("r", "FAILED", tasks=(TaskState("gate", "FAILED"),)))


def test_the_table_shows_every_task_and_what_is_in_the_way():
    from rich.console import Console

    titles = {
        "validate-data": "validate-data",
        "evaluate-2": "evaluate compression",
        "gate": "gate",
    }
    run = RunState("r", "RUNNING", tasks=(
        TaskState("validate-data", "SUCCEEDED", "2026-01-01T00:00:00Z", "2026-01-01T00:00:09Z"),
        TaskState("evaluate compression", "FAILED", message="[bold] is no markup"),
        TaskState("executor", "RUNNING"),
    ))  # fmt: skip
    out = Console(file=io.StringIO(), width=100)
    out.print(picture(run, titles, "Kubeflow gave no response: [x]."))
    text = out.file.getvalue()
    for word in ("9 s", "FAILED", "[bold] is no markup", "waiting", "gave no response: [x]."):
        assert word in text
    assert "executor" not in text
    out.print(picture(None, titles))
    assert "PENDING" in out.file.getvalue()
