"""Training examples read from a file: those of all rows of the training split, and no others."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from dwcp_ml.contract.errors import ErrorCode, TrainingFailed
from dwcp_ml.contract.examples import BandwidthData, CompressionData, LatencyData
from dwcp_ml.contract.models import BANDWIDTH, COMPRESSION, LATENCY
from dwcp_ml.data import training_stream as stream_module
from dwcp_ml.data.examples import prepare
from dwcp_ml.data.partition_validation import validate_partitions
from dwcp_ml.data.reading import Sampling, load_sample
from dwcp_ml.data.training_stream import training_stream
from dwcp_ml.data.validation import validate
from dwcp_ml.storage.partitions import parquet_files
from tests.data.conftest import START, make_telemetry

CASES = [
    (BANDWIDTH, "next_throughput_mbps", BandwidthData(window=4)),
    (BANDWIDTH, "bandwidth_class", BandwidthData(window=4)),
    (COMPRESSION, "compression_level", CompressionData()),
    (COMPRESSION, "compression_type", CompressionData(split="temporal")),
    (LATENCY, "high_latency", LatencyData(window=5)),
]
NAMES = [form for _, form, _ in CASES]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Chunks, blocks and buffers of a few rows, so that small telemetry has many."""
    monkeypatch.setattr(stream_module, "CHUNK_ROWS", 1)
    monkeypatch.setattr("dwcp_ml.data.source.PARQUET_ROWS", 97)
    monkeypatch.setattr(stream_module, "BLOCK", 8)
    monkeypatch.setattr(stream_module, "BUFFER_BLOCKS", 4)


def random_telemetry(seed, *, links=5, steps=150, labels=True):
    """Links with gaps: one begins late, one is polled less often, a node of one link ends early."""
    rng = np.random.default_rng(seed)
    frame = make_telemetry(links=links, steps=steps, seed=seed, labels=labels)
    time = frame["timestamp"].to_numpy(np.datetime64).astype("datetime64[s]").astype(np.int64)
    link = np.tile(np.arange(links), steps)
    dropped = rng.random(len(frame)) < 0.05
    dropped |= (link == 1) & (time < START + 60 * 30)
    dropped |= (link == 4) & (time > START + 24 * steps)
    dropped |= (link == 3) & (time // 60 % 3 != 0)
    for _ in range(3):
        gone = START + 60 * rng.integers(0, steps)
        dropped |= (rng.integers(0, links) == link) & (abs(time - gone) < 400)
    return frame[~dropped].reset_index(drop=True)


def dataset_of(frame, directory, partitions=3):
    """Validate telemetry in files of unequal size, and return the clean copy."""
    source = directory / "source"
    source.mkdir(parents=True)
    times = frame["timestamp"].unique()
    cuts = np.linspace(0, 1, partitions + 1)[1:-1] ** 2
    part = np.searchsorted(
        [times[int(len(times) * cut)] for cut in cuts], frame["timestamp"], "right"
    )
    for number in range(partitions):
        frame[part == number].to_parquet(source / f"{number}.parquet", index=False)
    specs = [BANDWIDTH, COMPRESSION, LATENCY]
    validate_partitions("set", parquet_files(source), specs=specs, output=directory / "clean")
    return directory / "clean" / "telemetry.parquet"


def load_of(path, spec, sampling=None):
    present = pd.read_parquet(path).columns
    labels = [name for name in spec.labels if name in present]
    return load_sample(path, [*spec.needed_columns, *labels], sampling)[0]


def whole(path, spec, form, settings):
    return prepare(spec, load_of(path, spec), settings, form=form)


def keys(examples):
    """Return inputs and truth of each example as bytes, sorted."""
    truth = np.asarray(examples.truth, np.float32)
    flat = np.column_stack([examples.inputs.reshape(len(examples), -1), truth])
    if examples.gains is not None:
        flat = np.column_stack([flat, examples.gains.astype(np.float32)])
    return sorted(row.astype(np.float32).tobytes() for row in flat)


def streamed(stream, *, seed=1, epoch=1, count=10**9):
    return [key for buffer in stream.buffers(seed, epoch, count) for key in keys(buffer)]


def to_learn(spec, train):
    """Return the examples that a model is trained on: the autoencoder on normal ones only."""
    return train.take(~train.truth) if spec is LATENCY else train


@pytest.mark.parametrize(("spec", "form", "settings"), CASES, ids=NAMES)
@pytest.mark.parametrize("seed", range(4))
def test_the_stream_holds_the_examples_of_the_training_split(spec, form, settings, seed, tmp_path):
    labels = seed % 2 == 0
    path = dataset_of(random_telemetry(seed, labels=labels), tmp_path, partitions=1 + seed)
    data = whole(path, spec, form, settings)
    stream = training_stream(path, data, settings, tmp_path)
    expected = keys(to_learn(spec, data.train))
    assert len(stream) == len(expected) > 50
    assert sorted(streamed(stream)) == expected
    held_out = {*keys(data.validation), *keys(data.test)}
    assert held_out.isdisjoint(expected)


@pytest.mark.parametrize(("spec", "form", "settings"), CASES, ids=NAMES)
def test_with_a_sample_it_holds_the_rows_beyond_it_and_none_of_its_other_splits(
    spec, form, settings, tmp_path
):
    path = dataset_of(random_telemetry(7, steps=900, labels=False), tmp_path)
    everything = load_of(path, spec)
    sample = load_of(path, spec, Sampling(1000, 60.0, 3))
    assert len(sample) < len(everything) / 2
    data = prepare(spec, sample, settings, form=form)
    stream = training_stream(path, data, settings, tmp_path)
    found = streamed(stream)
    assert len(found) == len(stream) > 1.5 * len(data.train)
    assert set(keys(to_learn(spec, data.train))) <= set(found)
    assert {*keys(data.validation), *keys(data.test)}.isdisjoint(found)
    if "validation_starts" in data.facts:
        early = everything[everything["timestamp"] < data.facts["validation_starts"]]
        values = set(early[spec.needed_columns[-1]].to_numpy(np.float32))
        last = np.concatenate([b.inputs for b in stream.buffers(1, 1, 10**9)])
        assert set(last.reshape(-1, last.shape[-1])[:, -1]) <= values


def one_stream(tmp_path, seed=0):
    path = dataset_of(random_telemetry(seed, steps=300), tmp_path / str(seed))
    spec, form, settings = CASES[0]
    return training_stream(path, whole(path, spec, form, settings), settings, tmp_path)


def test_the_order_depends_on_the_seed_and_the_epoch_alone(tmp_path):
    stream, again = one_stream(tmp_path), one_stream(tmp_path / "again")
    assert stream.digest == again.digest != one_stream(tmp_path, seed=1).digest
    assert streamed(stream) == streamed(again)
    assert streamed(stream) != streamed(stream, seed=2)
    assert streamed(stream) != streamed(stream, epoch=2)
    assert sorted(streamed(stream)) == sorted(streamed(stream, epoch=2))


def test_bounded_epochs_read_every_example_before_one_is_read_again(tmp_path):
    stream = one_stream(tmp_path)
    blocks = -(-len(stream) // stream_module.BLOCK)
    count = 5 * stream_module.BLOCK
    epochs = [streamed(stream, epoch=epoch, count=count) for epoch in range(1, 3 * blocks)]
    assert all(count - stream_module.BLOCK < len(keys_) <= count for keys_ in epochs)
    expected = sorted(streamed(stream))
    read = [key for epoch in epochs[: blocks // 5] for key in epoch]
    assert len(set(read)) == len(read)
    assert set(expected) == {key for epoch in epochs[: blocks // 5 + 1] for key in epoch}


def test_no_buffer_grows_with_the_telemetry(tmp_path):
    stream = one_stream(tmp_path)
    most = stream_module.BLOCK * stream_module.BUFFER_BLOCKS
    sizes = [len(buffer) for buffer in stream.buffers(1, 1, 10**9)]
    assert max(sizes) <= most
    assert len(sizes) > 5


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    path = dataset_of(random_telemetry(0), tmp_path)
    spec, form, settings = CASES[0]
    data = whole(path, spec, form, settings)
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def full(_descriptor, _offset, size):
        assert size > 1000
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(TrainingFailed, match="the disk is full; free some space") as error:
        training_stream(path, data, settings, scratch)
    assert error.value.code is ErrorCode.DISK_FULL
    assert list(scratch.iterdir()) == []


def test_the_file_has_no_name(tmp_path):
    """So nothing has to be removed after a crash."""
    path = dataset_of(random_telemetry(0), tmp_path)
    spec, form, settings = CASES[0]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    stream = training_stream(path, whole(path, spec, form, settings), settings, scratch)
    assert len(streamed(stream)) > 50
    assert list(scratch.iterdir()) == []


def test_rows_out_of_order_are_refused(tmp_path):
    frame = random_telemetry(0)
    frame.iloc[::-1].to_csv(tmp_path / "telemetry.csv", index=False)
    validate(tmp_path / "telemetry.csv", specs=[BANDWIDTH], output=tmp_path / "clean")
    path = tmp_path / "clean" / "telemetry.parquet"
    spec, form, settings = CASES[0]
    with pytest.raises(TrainingFailed, match="sort it by time") as error:
        training_stream(path, whole(path, spec, form, settings), settings, tmp_path)
    assert error.value.code is ErrorCode.CONTRACT


def test_no_example_left_is_an_error(tmp_path):
    path = dataset_of(random_telemetry(0), tmp_path)
    spec, form, settings = CASES[0]
    data = whole(path, spec, form, settings)
    early = dataclasses.replace(data, facts={"validation_starts": START + 90.0})
    with pytest.raises(TrainingFailed, match="no example in its training split"):
        training_stream(path, early, settings, tmp_path)
