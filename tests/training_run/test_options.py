"""Options become settings and targets; what is wrong is refused with the right word."""

import pytest

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


def test_every_model_is_there_by_default():
    assert run_options().models == tuple(MODELS)
