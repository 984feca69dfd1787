"""The file that describes a retraining, and the TrainingRuns that are made of it."""

import pytest
import yaml

from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.operator.api.training_run import TrainingRun
from dwcp_ml.retraining.settings import LABEL, chosen, read_retraining, read_retrainings
from tests.errors import about
from tests.retraining.retrainings import NAMESPACE, NOW, document, retraining


def written(path, content):
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_a_run_is_the_template_with_a_number_a_window_and_a_trigger(tmp_path):
    found = read_retraining(written(tmp_path / "a.yaml", document()))
    made = found.training_run(NAMESPACE, 3, found.window_at(NOW), "alert/DwcpFeatureDrift")
    assert made["metadata"] == {
        "name": "nightly-3",
        "namespace": NAMESPACE,
        "labels": {"team": "network", LABEL: "nightly"},
        "annotations": {},
    }
    assert made["spec"] == {
        "data": {
            "uri": "s3://telemetry/",
            "incidentsUri": "s3://telemetry/incidents.json",
            "startTime": "2026-03-10T11:00:00Z",
            "endTime": "2026-03-20T11:00:00Z",
        },
        "models": ["bandwidth_predictor"],
        "storagePrefix": "s3://models",
        "trigger": "alert/DwcpFeatureDrift",
    }
    assert TrainingRun.model_validate(made).spec.trigger == "alert/DwcpFeatureDrift"


def test_field_names_of_python_become_those_of_kubernetes():
    template = {"spec": {"data": {"uri": "s3://a/"}, "storage_prefix": "s3://models"}}
    assert retraining(template=template).template.spec["storagePrefix"] == "s3://models"


def with_spec(**changes):
    made = document()
    made["template"]["spec"].update(changes)
    return made


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("a: [", "a.yaml"),
        ("", "the file"),
        (document(name="Nightly"), "name"),
        (document(name="n" * 41), "name"),
        (document(windowDays=0), "windowDays"),
        (document(windowDays=1e-12), "windowDays"),
        (document(minimumNewData=1.5), "minimumNewData"),
        (document(widow=3), "widow"),
        (document(template={}), "template.spec"),
        (with_spec(trigger="manual"), "template.spec"),
        (with_spec(data={"uri": "s3://a/", "startTime": "2026-01-01T00:00:00Z"}), "template.spec"),
        (with_spec(data={"uri": "s3://a/", "end_time": "2026-01-01T00:00:00Z"}), "template.spec"),
        (with_spec(data={"simulated": True}), "template.spec"),
        (with_spec(data={}), "template.spec.data"),
        (with_spec(models=["bandwith"]), "template.spec.models.0"),
        (with_spec(data="s3://a/"), "template.spec.data"),
        (
            with_spec(targets=[{"model": "consensus_latency", "metric": "x", "value": 1}]),
            "template.spec.targets.0",
        ),
    ],
)
def test_an_invalid_file_is_refused_with_one_sentence(tmp_path, content, named):
    with pytest.raises(UsageError, check=about(ErrorCode.MALFORMED, named)) as caught:
        read_retraining(written(tmp_path / "a.yaml", content))
    assert "\n" not in str(caught.value)


def test_a_directory_holds_several(tmp_path):
    written(tmp_path / "a.yaml", document())
    written(tmp_path / "b.yaml", document(name="weekly"))
    written(tmp_path / "notes.txt", "none")
    found = read_retrainings(tmp_path)
    assert sorted(found) == ["nightly", "weekly"]
    assert chosen(found, "weekly").name == "weekly"
    with pytest.raises(UsageError, match="Name one of the retrainings: nightly, weekly"):
        chosen(found, None)
    with pytest.raises(UsageError, check=about(ErrorCode.UNKNOWN_NAME, "nightl")):
        chosen(found, "nightl")
    written(tmp_path / "c.yaml", document())
    with pytest.raises(UsageError, match="another file"):
        read_retrainings(tmp_path)


@pytest.mark.parametrize(
    ("name", "code"), [("missing.yaml", ErrorCode.CANT_READ), (".", ErrorCode.MISSING)]
)
def test_a_missing_file_is_said(tmp_path, name, code):
    with pytest.raises(UsageError, check=about(code, tmp_path / name)):
        read_retrainings(tmp_path / name)
