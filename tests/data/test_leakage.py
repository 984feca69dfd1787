"""A poisoned row of the future changes nothing that a model is trained on."""

import numpy as np
import pytest

from dwcp_ml.contract.columns import COLUMNS, GAIN_COLUMNS, ColumnType
from dwcp_ml.contract.examples import (
    BandwidthData,
    CompressionData,
    LatencyData,
    ReliabilityData,
)
from dwcp_ml.contract.models import BANDWIDTH, COMPRESSION, LATENCY, RELIABILITY
from dwcp_ml.data.examples import prepare
from dwcp_ml.data.incidents import Incident
from dwcp_ml.data.reading import load

START = 1_704_067_200
MEASURED = [c.name for c in COLUMNS.values() if c.kind in (ColumnType.FLOAT, ColumnType.INTEGER)]
CASES = [
    (BANDWIDTH, BandwidthData(), "next_throughput_mbps"),
    (BANDWIDTH, BandwidthData(), "bandwidth_class"),
    (RELIABILITY, ReliabilityData(validation_fraction=0.15), "anomaly"),
    (LATENCY, LatencyData(window=4), "high_latency"),
]


@pytest.fixture
def frame(make, write):
    telemetry = make(links=3, steps=200)
    return load(write(telemetry), telemetry.columns)


@pytest.fixture
def incidents():
    return [
        Incident(timestamp=m, node_id="n0", incident_type="x", start=m, end=m + 300)
        for m in (START + 600, START + 60 * 190)
    ]


def same(one, two):
    return all(
        np.array_equal(getattr(one, name), getattr(two, name))
        for name in ("inputs", "truth", "timestamp", "series", "event")
    )


def poison(frame, since, columns=MEASURED):
    poisoned = frame.copy()
    poisoned.loc[poisoned["timestamp"] >= since, columns] = 1e9
    return poisoned


@pytest.mark.parametrize(("spec", "settings", "form"), CASES)
@pytest.mark.parametrize("labelled", [True, False])
def test_the_future_changes_no_training_example_and_no_cut(
    frame, incidents, spec, settings, form, labelled
):
    if not labelled:
        frame = frame.drop(columns=["is_high_latency"])
    clean = prepare(spec, frame, settings, incidents=incidents, form=form)
    columns = [name for name in MEASURED if name in frame and name != "is_high_latency"]
    future = poison(frame, clean.facts["validation_starts"], columns)
    found = prepare(spec, future, settings, incidents=incidents, form=form)
    assert found.facts == clean.facts
    assert found.cadence_seconds == clean.cadence_seconds
    assert same(found.train, clean.train)
    assert not same(found.test, clean.test)


@pytest.mark.parametrize(("spec", "settings", "form"), CASES)
def test_the_test_split_changes_no_validation_example(frame, incidents, spec, settings, form):
    clean = prepare(spec, frame, settings, incidents=incidents, form=form)
    columns = [name for name in MEASURED if name != "is_high_latency"]
    future = poison(frame, clean.facts["test_starts"], columns)
    found = prepare(spec, future, settings, incidents=incidents, form=form)
    assert same(found.train, clean.train)
    assert same(found.validation, clean.validation)


def test_a_label_of_the_future_changes_no_training_example(frame, incidents):
    clean = prepare(LATENCY, frame, LatencyData(window=4))
    future = poison(frame, clean.facts["validation_starts"], ["is_high_latency"])
    found = prepare(LATENCY, future, LatencyData(window=4))
    assert same(found.train, clean.train)
    later = Incident(
        timestamp=START + 60 * 150,
        node_id="n1",
        incident_type="x",
        start=START + 60 * 150,
        end=START + 60 * 199,
    )
    settings = ReliabilityData(validation_fraction=0.15)
    before = prepare(RELIABILITY, frame, settings, incidents=incidents)
    after = prepare(RELIABILITY, frame, settings, incidents=[*incidents, later])
    assert same(before.train, after.train)
    assert after.test.truth.sum() > before.test.truth.sum()


@pytest.mark.parametrize("form", ["compression_level", "compression_type"])
def test_poisoned_test_rows_change_no_training_example_of_compression(frame, form):
    """Features that don't enter the oracle's truth; its truth itself is per row."""
    clean = prepare(COMPRESSION, frame, CompressionData(), form=form)
    tested = set(zip(clean.test.timestamp, clean.test.series, strict=True))
    names = list(clean.series_names)
    link = (frame["node_id"] + "->" + frame["peer_id"]).map(names.index)
    rows = [key in tested for key in zip(frame["timestamp"], link, strict=True)]
    poisoned = frame.copy()
    poisoned.loc[rows, ["throughput_mbps", "rtt_ms", "amst_transfer_rate"]] = 1e9
    found = prepare(COMPRESSION, poisoned, CompressionData(), form=form)
    assert same(found.train, clean.train)
    assert same(found.validation, clean.validation)
    assert (found.test.inputs[:, 0] == np.float32(1e9)).all()
    assert np.array_equal(found.test.gains, clean.test.gains)


def test_no_row_is_in_two_splits_of_compression(frame):
    data = prepare(COMPRESSION, frame, CompressionData())
    keys = [
        set(zip(e.timestamp, e.series, strict=True))
        for e in (data.train, data.validation, data.test)
    ]
    assert sum(map(len, keys)) == len(set.union(*keys)) == len(frame)
    assert set(GAIN_COLUMNS) <= set(frame)


def test_the_past_does_change_the_training_examples(frame):
    """The tests above can fail: poison in the training rows is seen."""
    clean = prepare(BANDWIDTH, frame, BandwidthData(), form="bandwidth_class")
    found = prepare(BANDWIDTH, poison(frame, START + 60 * 100), BandwidthData())
    assert not same(found.train, clean.train)
