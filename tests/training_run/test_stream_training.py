"""Training on all rows by a stream: the same metric, the same weights again, all rows counted."""

from __future__ import annotations

import numpy as np
import pytest

from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.contract.models import BANDWIDTH, COMPRESSION, LATENCY
from dwcp_ml.data.partition_validation import validate_partitions
from dwcp_ml.models import FitContext, create
from dwcp_ml.storage.partitions import parquet_files
from dwcp_ml.training_run.model_data import load_model_data, load_stream
from dwcp_ml.training_run.options import ModelOptions
from dwcp_ml.training_run.training_step import train_model
from tests.data.conftest import make_telemetry

pytestmark = pytest.mark.train

COUNT = 2000
LINKS, STEPS = 6, 1500


def settings(count=COUNT, **data):
    return {"training": {"examples_per_epoch": count}, "data": data}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Links whose throughput returns to its mean, so that a network can beat the last value."""
    directory = tmp_path_factory.mktemp("stream")
    frame = make_telemetry(links=LINKS, steps=STEPS)
    rng, level = np.random.default_rng(1), np.zeros((STEPS, LINKS))
    for step in range(1, STEPS):
        level[step] = 0.3 * level[step - 1] + 0.4 * rng.normal(size=LINKS)
    frame["is_high_latency"] = np.repeat(np.arange(STEPS) % 100 >= 97, LINKS).astype(int)
    frame["throughput_mbps"] = 50 * np.exp(level.ravel())
    source = directory / "source"
    source.mkdir()
    for number in range(3):
        part = frame.iloc[number * len(frame) // 3 : (number + 1) * len(frame) // 3]
        part.to_parquet(source / f"{number}.parquet", index=False)
    specs = [BANDWIDTH, COMPRESSION, LATENCY]
    validate_partitions("set", parquet_files(source), specs=specs, output=directory / "dataset")
    return directory / "dataset"


def train(dataset, tmp_path, spec, epochs, **values):
    options = ModelOptions(epochs=epochs, settings=values)
    return train_model(dataset, tmp_path / spec.name, spec, options, version="1", seed=42)


def test_it_is_as_good_as_the_training_in_memory(dataset, tmp_path):
    usual = train(dataset, tmp_path / "usual", BANDWIDTH, 3)
    streamed = train(dataset, tmp_path / "stream", BANDWIDTH, 9, **settings())
    assert usual.success, usual.reason
    assert streamed.success, streamed.reason
    best, by_stream = (
        min(epoch.validation_loss for epoch in record.epochs) for record in (usual, streamed)
    )
    assert best < 0.7, "the network learns: a constant has a loss of 0.8"
    assert by_stream == pytest.approx(best, rel=0.03)
    assert streamed.rows == usual.rows, "validation and test are the same"


@pytest.mark.parametrize("spec", [BANDWIDTH, COMPRESSION, LATENCY], ids=lambda spec: spec.name)
def test_all_rows_are_counted_and_a_second_run_gives_the_same_weights(dataset, tmp_path, spec):
    values = settings(max_rows=2500)
    records = [train(dataset, tmp_path / name, spec, 2, **values) for name in ("one", "other")]
    assert records[0].success, records[0].reason
    use = records[0].data_use
    assert use.rows == LINKS * STEPS
    assert use.streamed_examples > 1.5 * records[0].rows["train"] / (3 if spec is LATENCY else 1)
    assert use.trained_examples == min(use.streamed_examples, 2 * COUNT)
    assert use.left_out == {}
    first, second = (
        (tmp_path / name / spec.name / "arrays.npz").read_bytes() for name in ("one", "other")
    )
    assert first == second
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_interrupted_training_continues_with_the_same_result(dataset, tmp_path):
    model = create("bandwidth_predictor", settings())
    data = load_model_data(dataset, model.spec, model.settings.data, model.form, 42)

    def fit(checkpoints, progress):
        model = create("bandwidth_predictor", settings())
        stream = load_stream(dataset, data, model.settings.data, tmp_path, lambda _share: None)
        context = FitContext(
            epochs=3, checkpoint_directory=checkpoints, progress=progress, stream=stream
        )
        model.fit(data, context)
        return model.weights

    def interrupt(progress):
        if progress.epoch == 3:
            raise KeyboardInterrupt

    seen = []
    expected = fit(tmp_path / "whole", lambda _progress: None)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "parts", interrupt)
    again = fit(tmp_path / "parts", lambda progress: seen.append(progress.epoch))
    assert set(seen) == {3}
    for one, other in zip(expected, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_progress_reaches_the_end_of_each_bounded_epoch(dataset, tmp_path):
    model = create("bandwidth_predictor", settings())
    data = load_model_data(dataset, model.spec, model.settings.data, model.form, 42)
    stream = load_stream(dataset, data, model.settings.data, tmp_path, lambda _share: None)
    seen = []
    model.fit(data, FitContext(epochs=2, progress=seen.append, stream=stream))
    shares = [each.fraction for each in seen if each.epoch == 2]
    assert shares == sorted(shares)
    assert 0.8 < shares[-1] <= 1.0
    assert len(shares) >= 15


@pytest.mark.parametrize(
    ("model", "training", "code"),
    [
        ("bandwidth_predictor", {"examples_per_epoch": 999}, ErrorCode.OUT_OF_RANGE),
        (
            "bandwidth_predictor",
            {"examples_per_epoch": 1000, "batch_size": 501},
            ErrorCode.OUT_OF_RANGE,
        ),
        (
            "bandwidth_predictor",
            {"examples_per_epoch": 100_000, "batch_size": 20_000},
            ErrorCode.OUT_OF_RANGE,
        ),
        ("reliability_detector", {"examples_per_epoch": 1000}, ErrorCode.UNKNOWN_NAME),
    ],
)
def test_settings_that_can_not_be_are_refused(model, training, code):
    with pytest.raises(UsageError) as error:
        create(model, {"training": training})
    assert error.value.code is code
