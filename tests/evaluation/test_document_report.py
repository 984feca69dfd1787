"""The reports, key by key, beside the two examples of the architecture document."""

import json
from pathlib import Path

import pytest

from dwcp_ml.contract.models import MODELS
from dwcp_ml.contract.records import Epoch, ModelReport, ProductionReadiness, SessionReport
from dwcp_ml.evaluation import gate_model, gate_session
from dwcp_ml.evaluation.document_fields import METRIC_NAMES, hyperparameters
from dwcp_ml.models import create

ROOT = Path(__file__).resolve().parents[2]
MODEL_EXAMPLE = json.loads("""
{
  "model_name": "bandwidth_predictor_lstm",
  "version": "1.0.0",
  "training_date": "2025-11-14T12:00:00Z",
  "target_metrics": {
    "correlation": 0.98,
    "mape": 5.0
  },
  "achieved_metrics": {
    "correlation": 0.985,
    "mape": 4.2,
    "mae": 12.3,
    "rmse": 18.5
  },
  "test_set_size": 2000,
  "training_time_seconds": 847,
  "model_size_mb": 2.4,
  "success": true,
  "hyperparameters": {
    "lstm_units": [64, 32],
    "dropout": 0.2,
    "learning_rate": 0.001,
    "batch_size": 32,
    "epochs_trained": 45
  },
  "deployment_ready": true
}
""")
SESSION_EXAMPLE = json.loads("""
{
  "training_session": "dwcp_neural_v1_20251114",
  "overall_success": true,
  "models_trained": 4,
  "models_passed": 4,
  "total_training_time_seconds": 3245,
  "models": {
    "bandwidth_predictor": {},
    "compression_selector": {},
    "reliability_detector": {},
    "consensus_latency": {}
  },
  "production_readiness": {
    "all_targets_met": true,
    "integration_tests_passed": true,
    "go_api_compatibility": true,
    "deployment_recommendation": "APPROVED"
  }
}
""")


def shape(value):
    """Return a JSON value with the type of each leaf in its place; int and float are one type."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value]
    return "number" if type(value) in (int, float) else type(value).__name__


def reduced(value, example):
    """Return the keys of ``value`` that the example has; a missing key fails."""
    if isinstance(example, dict):
        return {key: reduced(value[key], each) for key, each in example.items()}
    return value


@pytest.fixture
def report(records, worse):
    """Return the report of one model with its real settings and every metric that it has."""

    def make(name="bandwidth_predictor"):
        training, evaluation, export, data = records(name)
        settings = create(name).settings.model_dump(mode="json")
        epochs = tuple(Epoch(epoch=n, loss=0.5, validation_loss=0.4) for n in range(1, 46))
        training = worse(training, hyperparameters=settings, epochs=epochs)
        if name == "bandwidth_predictor":
            values = {"mape_percent": 4.2, "mae_mbps": 12.3, "rmse_mbps": 18.5}
            evaluation = worse(evaluation, metrics={**evaluation.metrics, **values})
        return gate_model(training, evaluation, export, data)

    return make


def test_a_model_report_has_the_keys_types_and_numbers_of_the_document(report):
    stored = json.loads(report().to_json())
    ours = reduced(stored, MODEL_EXAMPLE)
    assert shape(ours) == shape(MODEL_EXAMPLE)
    assert ours["target_metrics"] == MODEL_EXAMPLE["target_metrics"]
    assert ours["hyperparameters"] == MODEL_EXAMPLE["hyperparameters"]
    assert ours["achieved_metrics"] == {
        "correlation": 0.995,
        "mape": 4.2,
        "mae": 12.3,
        "rmse": 18.5,
    }
    assert ours["training_date"].endswith("Z") == MODEL_EXAMPLE["training_date"].endswith("Z")


def test_the_report_of_a_run_has_the_keys_and_types_of_the_document(report):
    reports = [report(name) for name in MODELS]
    session = gate_session(
        "20251114-120000",
        reports,
        reports[0].data,
        integration_tests_passed=True,
        go_api_compatibility=True,
    )
    stored = json.loads(session.to_json())
    assert shape(reduced(stored, SESSION_EXAMPLE)) == shape(SESSION_EXAMPLE)
    assert list(stored["models"]) == list(SESSION_EXAMPLE["models"])
    assert (
        reduced(stored["production_readiness"], SESSION_EXAMPLE["production_readiness"])
        == (SESSION_EXAMPLE["production_readiness"])
    )
    for name in ("overall_success", "models_trained", "models_passed"):
        assert stored[name] == SESSION_EXAMPLE[name]
    assert stored["models"]["bandwidth_predictor"] == json.loads(reports[0].to_json())


@pytest.mark.parametrize("name", list(MODELS))
def test_every_value_of_a_target_or_metric_is_a_number_under_one_name(report, name):
    """Our names with a unit stand in the records below, never beside the document's."""
    stored = json.loads(report(name).to_json())
    assert stored["target_metrics"] == {
        METRIC_NAMES.get(target["metric"], target["metric"]): target["value"]
        for target in stored["evaluation"]["targets"]
    }
    assert list(stored["achieved_metrics"].values()) == list(
        stored["evaluation"]["metrics"].values()
    )
    assert not stored["achieved_metrics"].keys() & METRIC_NAMES.keys()
    assert all(type(value) is float for value in stored["target_metrics"].values())
    assert set(stored["target_metrics"]) <= set(stored["achieved_metrics"])


@pytest.mark.parametrize("name", list(MODELS))
def test_the_hyperparameters_are_the_settings_without_their_sections(report, name):
    made = report(name)
    flat = dict(made.hyperparameters)
    assert flat.pop("epochs_trained", None) == (None if name == "reliability_detector" else 45)
    for section, settings in made.training.hyperparameters.items():
        for key, value in (settings if isinstance(settings, dict) else {section: settings}).items():
            assert flat.pop(key) == value
    assert flat == {}


def test_two_settings_of_one_name_are_an_error(records, worse):
    training = worse(records()[0], hyperparameters={"network": {"units": 1}, "data": {"units": 2}})
    with pytest.raises(ValueError, match="called 'units'"):
        hyperparameters(training)


def test_every_difference_has_a_row_in_the_map():
    page = (ROOT / "docs" / "architecture-map.md").read_text(encoding="utf-8")
    section = page.partition("## Reports")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    extra = ModelReport.model_fields.keys() - MODEL_EXAMPLE.keys()
    extra |= SessionReport.model_fields.keys() - SESSION_EXAMPLE.keys()
    readiness = SESSION_EXAMPLE["production_readiness"].keys()
    extra |= ProductionReadiness.model_fields.keys() - readiness
    differing = {"model_name", "version", "training_session", *METRIC_NAMES}
    for name in extra | differing:
        assert any(f"`{name}`" in row for row in rows), name
