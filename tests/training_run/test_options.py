"""Options become settings and targets; what is wrong is refused with the right word."""

import pytest

from dwcp_ml.contract.data_window import DataWindow
from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.contract.models import LATENCY, MODELS, RELIABILITY, model_spec, model_specs
from dwcp_ml.training_run.options import ModelOptions, parse_formats, run_options
from tests.errors import about


def test_the_validation_split_reaches_every_model_that_validates():
    chosen = ModelOptions(validation_fraction=0.2, window=30, form="high_latency")
    assert chosen.overrides(LATENCY) == {
        "form": "high_latency",
        "data": {"validation_fraction": 0.2, "window": 30},
    }
    # The forest's threshold is its own: there is nothing to validate, and 85/15 stays.
    assert ModelOptions(validation_fraction=0.2).overrides(RELIABILITY) == {}


def test_the_maximum_of_epochs_is_among_the_recorded_settings():
    chosen = ModelOptions(epochs=5, settings={"training": {"patience": 3}})
    assert chosen.overrides(LATENCY) == {"training": {"patience": 3, "epochs": 5}}
    # The forest is not trained in epochs and has no such setting.
    assert ModelOptions(epochs=5).overrides(RELIABILITY) == {}


def test_a_target_replaces_the_usual_one_and_no_other():
    targets = ModelOptions(targets={"recall": 0.9}).targets_of(RELIABILITY, "anomaly")
    assert [(t.metric, t.direction, t.value) for t in targets] == [
        ("recall", ">=", 0.9),
        ("pr_auc", ">=", 0.90),
        ("false_alarms_per_link_day", "<=", 2.85),
    ]


def test_formats_are_listed_once_and_in_order():
    assert parse_formats("savedmodel, onnx,onnx") == ("onnx", "savedmodel")
    with pytest.raises(UsageError, check=about(ErrorCode.UNKNOWN_NAME, "onxn")):
        parse_formats("onxn")


def test_leaks_are_accepted_by_the_names_of_inputs_and_of_what_is_in_no_column():
    assert run_options(accept_leak=" rtt_ms,split, rtt_ms").accept_leak == ("rtt_ms", "split")
    for wrong in ("rtt", "node_id", "throughput_gain_3"):
        with pytest.raises(UsageError, check=about(ErrorCode.UNKNOWN_NAME, wrong)):
            run_options(accept_leak=wrong)


@pytest.mark.parametrize("name", ["bandwidth", "bandwidth_predictor", "bandwidth-predictor"])
def test_a_model_answers_to_its_three_names(name):
    assert model_spec(name).name == "bandwidth_predictor"


def test_unknown_models_are_refused_with_the_nearest_name():
    with pytest.raises(UsageError, check=about(ErrorCode.UNKNOWN_NAME, "latancy")):
        model_specs("bandwidth,latancy")
    with pytest.raises(UsageError, check=about(ErrorCode.MISSING, "model")):
        model_specs(" , ")


def test_models_keep_their_usual_order():
    assert [s.short_name for s in model_specs("latency,bandwidth,latency")] == [
        "bandwidth",
        "latency",
    ]


def test_a_wrong_option_is_a_usage_error():
    with pytest.raises(UsageError, check=about(ErrorCode.INVALID_OPTION, "seed")):
        run_options(seed=-1)
    with pytest.raises(
        UsageError, check=about(ErrorCode.INVALID_OPTION, "model_options.bandwidth_predictor.epoch")
    ):
        run_options(model_options={"bandwidth_predictor": {"epoch": 3}})


def test_a_data_window_has_dates_or_times_with_a_zone():
    path = {"data_path": "/t.csv"}
    assert run_options(**path).data_window is None
    window = run_options(**path, data_start="2026-01-01", data_end="2026-01-01T02:00:00.5+01:00")
    assert window.data_window == DataWindow(start=1_767_225_600_000, end=1_767_229_200_500)
    bounds = "from 2026-01-01T00:00:00Z and before 2026-01-01T01:00:00.500Z"
    assert str(window.data_window) == bounds
    assert run_options(**path, data_end="1969-12-31").data_window == DataWindow(end=-86_400_000)
    for wrong in ("yesterday", "2026-02-30", "20260101", "2026-01-01T00:00:00", "2026-W01-1",
                  "2026-01-01T00:00Z", "2026-01-01 00:00:00Z", " 2026-01-01"):  # fmt: skip
        for name in ("data_start", "data_end"):
            with pytest.raises(UsageError, check=about(ErrorCode.INVALID_OPTION, name)):
                run_options(**path, **{name: wrong})


@pytest.mark.parametrize("end", ["2026-01-01", "2025-12-31", "2026-01-01T01:00:00+01:00"])
def test_a_data_window_that_ends_before_it_begins_is_a_usage_error(end):
    with pytest.raises(UsageError, check=about(ErrorCode.INVALID_OPTION, "data_end")):
        run_options(data_path="/t.csv", data_start="2026-01-01", data_end=end)


def test_simulated_telemetry_has_no_data_window():
    for name in ("data_start", "data_end"):
        with pytest.raises(UsageError, check=about(ErrorCode.UNSUPPORTED, name)):
            run_options(**{name: "2026-01-01"})


def test_every_model_is_there_by_default():
    assert run_options().models == tuple(MODELS)
