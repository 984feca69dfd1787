"""Hyperparameters: YAML, overrides, and rejected values."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dwcp_ml.contract.errors import DwcpError, ErrorCode, UsageError
from dwcp_ml.contract.models import MODELS
from dwcp_ml.models import create, load
from dwcp_ml.models.protocol import EpochProgress
from dwcp_ml.models.settings import Training, merged, read_yaml
from tests.errors import about


@pytest.mark.parametrize("name", MODELS)
def test_the_yaml_says_everything(name):
    """No hyperparameter hides in a default of the class."""
    model = create(name)
    assert read_yaml(model.defaults) == model.settings.model_dump(mode="json")
    assert model.form == model.spec.forms[0].name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bandwidth_predictor", {"batch_size": 32, "learning_rate": 0.001, "patience": 10}),
        ("compression_selector", {"batch_size": 32, "learning_rate": 0.001, "patience": 10}),
        ("consensus_latency", {"batch_size": 32, "learning_rate": 0.001, "patience": 10}),
        ("reliability_detector", {"n_estimators": 100}),
    ],
)
def test_the_design_tables_numbers(name, expected):
    settings = create(name).settings.model_dump()
    section = settings.get("training") or settings["forest"]
    assert {key: section[key] for key in expected} == expected


def test_names_may_be_short():
    assert create("bandwidth").spec.name == "bandwidth_predictor"
    with pytest.raises(UsageError, check=about(ErrorCode.UNKNOWN_NAME, "bandwith")):
        create("bandwith")


def test_overrides_reach_the_settings():
    model = create("latency", {"data": {"window": 8}, "training": {"epochs": 3}})
    assert model.settings.training.epochs == 3
    assert model.settings.training.batch_size == 32
    assert model.spec.input.shape == (8,)


def test_form_is_an_option_of_the_settings_and_of_the_call():
    assert create("compression", {"form": "compression_type"}).form == "compression_type"
    assert create("bandwidth", form="bandwidth_class").form == "bandwidth_class"
    with pytest.raises(UsageError, check=about(ErrorCode.UNKNOWN_NAME, "class")):
        create("bandwidth", form="class")


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        ({"trainin": {}}, (ErrorCode.UNKNOWN_NAME, "trainin")),
        ({"training": {"batchsize": 1}}, (ErrorCode.UNKNOWN_NAME, "training.batchsize")),
        ({"training": {"epochs": 0}}, (ErrorCode.OUT_OF_RANGE, "training.epochs")),
        ({"training": {"epochs": "many"}}, (ErrorCode.OUT_OF_RANGE, "training.epochs")),
        ({"training": {"learning_rate": 2}}, (ErrorCode.OUT_OF_RANGE, "training.learning_rate")),
        ({"training": {"anneal_from": 0.9}}, (ErrorCode.OUT_OF_RANGE, "training")),
        ({"network": {"lstm_units": [64]}}, (ErrorCode.OUT_OF_RANGE, "network.lstm_units")),
        ({"network": 5}, (ErrorCode.OUT_OF_RANGE, "network")),
        (
            {"data": {"validation_fraction": 0.7, "test_fraction": 0.5}},
            (ErrorCode.OUT_OF_RANGE, "data"),
        ),
        ({"predicts": "everything"}, (ErrorCode.OUT_OF_RANGE, "predicts")),
    ],
)
def test_wrong_settings_are_one_sentence(overrides, fault):
    with pytest.raises(UsageError, check=about(*fault)) as caught:
        create("bandwidth", overrides)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "overrides", "fault"),
    [
        ("compression", {"training": {"loss": "mse"}}, (ErrorCode.OUT_OF_RANGE, "training.loss")),
        (
            "bandwidth",
            {"training": {"loss": "expected_regret"}},
            (ErrorCode.OUT_OF_RANGE, "training.loss"),
        ),
        ("compression", {"data": {"split": "random"}}, (ErrorCode.OUT_OF_RANGE, "data.split")),
        ("reliability", {"threshold": {"rule": "f1"}}, (ErrorCode.OUT_OF_RANGE, "threshold.rule")),
        (
            "latency",
            {"threshold": {"percentile_range": [97, 99]}},
            (ErrorCode.OUT_OF_RANGE, "threshold"),
        ),
        (
            "latency",
            {"threshold": {"percentile_without_episodes": 99.95}},
            (ErrorCode.OUT_OF_RANGE, "threshold"),
        ),
        (
            "reliability",
            {"forest": {"contamination": 0.9}},
            (ErrorCode.OUT_OF_RANGE, "forest.contamination"),
        ),
        (
            "reliability",
            {"forest": {"max_samples": 1}},
            (ErrorCode.OUT_OF_RANGE, "forest.max_samples"),
        ),
        ("reliability", {"forest": {"n_trees": 10}}, (ErrorCode.UNKNOWN_NAME, "forest.n_trees")),
    ],
)
def test_each_models_own_ranges(name, overrides, fault):
    with pytest.raises(UsageError, check=about(*fault)):
        create(name, overrides)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"trainin": {}}, "no setting 'trainin': did you mean 'training'"),
        ({"training": {"epochs": 0}}, r"'training\.epochs': .*greater than or equal to 1, got 0"),
        ({"training": {"anneal_from": 0.9}}, "'training': anneal_to must not be less"),
    ],
)
def test_a_wrong_setting_is_explained(overrides, sentence):
    with pytest.raises(UsageError, match=sentence):
        create("bandwidth", overrides)


def test_a_settings_file_must_be_a_mapping(tmp_path):
    path = tmp_path / "settings.yaml"
    for content, code in (
        ("- 1", ErrorCode.WRONG_TYPE),
        ("a: [", ErrorCode.MALFORMED),
        ("", ErrorCode.WRONG_TYPE),
    ):
        path.write_text(content)
        with pytest.raises(UsageError, check=about(code, path)):
            read_yaml(path)
    with pytest.raises(UsageError, check=about(ErrorCode.CANT_READ, "missing.yaml")):
        read_yaml(tmp_path / "missing.yaml")


def test_merging_changes_neither_side():
    base, overrides = {"a": {"x": 1}}, {"a": {"y": 2}}
    assert merged(base, overrides) == {"a": {"x": 1, "y": 2}}
    assert (base, overrides) == ({"a": {"x": 1}}, {"a": {"y": 2}})


def test_dropout_is_annealed():
    training = Training(
        epochs=10, batch_size=32, learning_rate=0.001, patience=10,
        anneal_from=0.3, anneal_to=0.6, loss="mae",
    )  # fmt: skip
    shares = [training.dropout_share(epoch, 10) for epoch in range(1, 11)]
    assert shares[:4] == [1.0] * 4
    assert shares[4:6] == pytest.approx([2 / 3, 1 / 3])
    assert shares[6:] == [0.0] * 4


def test_no_dropout_falls_at_once():
    training = Training(
        epochs=2, batch_size=1, learning_rate=0.1, patience=1,
        anneal_from=0.5, anneal_to=0.5, loss="mse",
    )  # fmt: skip
    assert [training.dropout_share(epoch, 2) for epoch in (1, 2)] == [1.0, 0.0]


def test_progress_in_words():
    progress = EpochProgress(1, 4, 0.5, 0.25)
    assert progress.done == 0.125
    assert progress.describe() == "epoch 1/4, loss 0.2500"


def test_loading_nothing_says_where(tmp_path):
    with pytest.raises(DwcpError, check=about(ErrorCode.CANT_READ, "model.json")):
        load(tmp_path)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(DwcpError, check=about(ErrorCode.MALFORMED, "model.json")):
        load(tmp_path)
    (tmp_path / "model.json").write_text('{"name": "other"}')
    with pytest.raises(DwcpError, check=about(ErrorCode.UNKNOWN_NAME, "other")):
        load(tmp_path)
    (tmp_path / "model.json").write_text('{"name": "reliability_detector"}')
    with pytest.raises(DwcpError, check=about(ErrorCode.INCOMPLETE, "settings")):
        load(tmp_path)


def test_settings_import_neither_tensorflow_nor_sklearn():
    program = (
        "import sys; from dwcp_ml.models.registry import create; import dwcp_ml.models\n"
        "for name in ('bandwidth', 'compression', 'reliability', 'latency'): create(name)\n"
        "print([m for m in ('tensorflow', 'keras', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.decode().strip() == "[]"
