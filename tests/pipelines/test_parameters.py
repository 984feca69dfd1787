"""Kubeflow needs literal signatures: they agree with ``RunOptions``, which names every option."""

import inspect
from typing import get_args, get_origin

import pytest
import yaml

from components import partitions
from components.check_api import check_api
from components.dataset import validate_data
from components.evaluate import evaluate
from components.export import export
from components.find_champions import find_champions
from components.gate import gate
from components.publish_candidate import publish_candidate
from dwcp_ml.contract.models import MODELS
from dwcp_ml.training_run.options import PIPELINE_PARAMETERS, RunOptions
from pipelines.training import COMPILED, TRAINERS

TYPES = {bool: "BOOLEAN", int: "NUMBER_INTEGER", float: "NUMBER_DOUBLE", dict: "STRUCT"}
OTHERS = {"enabled", "model_name", "data_digest", "verdict", "group", "champions"}
"""Inputs of components that are no option of a run."""


def kind_of(name):
    """Return the type that an option has in Kubeflow; lists and choices are texts there."""
    kind = RunOptions.model_fields[name].annotation
    return TYPES.get(get_origin(kind) or kind, "STRING")


def test_the_compiled_pipeline_has_the_options_with_their_types_and_defaults():
    compiled = next(yaml.safe_load_all(COMPILED.read_text(encoding="utf-8")))
    inputs = compiled["root"]["inputDefinitions"]["parameters"]
    assert set(inputs) == set(PIPELINE_PARAMETERS)
    assert {name: one["parameterType"] for name, one in inputs.items()} == {
        name: kind_of(name) for name in PIPELINE_PARAMETERS
    }
    defaults = RunOptions().pipeline_arguments()
    assert {name: one["defaultValue"] for name, one in inputs.items()} == defaults


def test_another_data_window_is_another_input_of_the_cached_validation():
    """Kubeflow takes a cached result only if all inputs of a task are the same."""
    compiled = next(yaml.safe_load_all(COMPILED.read_text(encoding="utf-8")))
    inputs = compiled["root"]["dag"]["tasks"]["validate-data"]["inputs"]["parameters"]
    for name in ("data_start", "data_end"):
        assert inputs[name] == {"componentInputParameter": name}


@pytest.mark.parametrize(
    "component",
    [
        validate_data,
        partitions.validate_partitions,
        partitions.validate_data,
        *TRAINERS.values(),
        find_champions,
        evaluate,
        export,
        check_api,
        gate,
        publish_candidate,
    ],
)
def test_the_inputs_of_a_component_are_options_of_the_same_type(component):
    parameters = inspect.signature(component.python_func).parameters.values()
    given = {one.name: one.annotation for one in parameters if one.annotation in (str, *TYPES)}
    assert given.keys() <= {*RunOptions.model_fields, *OTHERS}
    for name in given.keys() - OTHERS:
        assert TYPES.get(given[name], "STRING") == kind_of(name), name


def test_the_arguments_of_a_run_are_read_back_as_its_options():
    options = RunOptions(
        data_path="/data/t.csv", incidents_path="/data/i.json", seed=7, version="v1",
        data_start="2026-01-01", data_end="2026-02-01T12:00:00Z",
        model_options={"bandwidth_predictor": {"epochs": 3}}, packet_loss_unit="percent",
        accept_leak="rtt_ms,split",
        congestion_window_unit="segments", export_formats="onnx", kserve_mode="knative",
        stable_uri=f"{next(iter(MODELS))}=s3://m/v0", storage_prefix="s3://m",
        champion_rule="better", trigger="drift of rtt_ms",
        rollout_namespace="models", strict=True, check_api=False, requests_per_second=5.0,
    )  # fmt: skip
    arguments = options.pipeline_arguments()
    assert RunOptions(**arguments) == options
    defaults = RunOptions().pipeline_arguments()
    assert not [name for name in defaults if arguments[name] == defaults[name]], "all are chosen"
    assert get_args(RunOptions.model_fields["kserve_mode"].annotation) == ("standard", "knative")
