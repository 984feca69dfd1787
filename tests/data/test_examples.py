import numpy as np
import pandas as pd
import pytest

from dwcp_ml.contract.errors import ErrorCode, TrainingFailed, UsageError
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
from tests.errors import about

START = 1_704_067_200
STEPS = 240
PREPARED = [
    (BANDWIDTH, BandwidthData()),
    (COMPRESSION, CompressionData()),
    (RELIABILITY, ReliabilityData()),
    (LATENCY, LatencyData()),
]


def incident(node, start, end):
    first, last = START + 60 * start, START + 60 * end
    return Incident(timestamp=first, node_id=node, incident_type="x", start=first, end=last)


INCIDENTS = [incident("n0", 10, 20), incident("n0", 220, 225), incident("n1", 215, 216)]


@pytest.fixture
def frame(write, many):
    return load(write(many), many.columns)


@pytest.fixture
def many(make):
    return make(links=3, steps=STEPS)


def parts(data):
    return {"train": data.train, "validation": data.validation, "test": data.test}


@pytest.mark.parametrize(("spec", "settings"), PREPARED, ids=lambda x: getattr(x, "name", ""))
def test_examples_have_the_shapes_of_the_contract(frame, spec, settings):
    for form in spec.forms:
        data = prepare(spec, frame, settings, incidents=INCIDENTS, form=form.name)
        assert (data.form, data.spec, data.cadence_seconds) == (form.name, spec, 60.0)
        for examples in parts(data).values():
            rows = len(examples)
            assert examples.inputs.shape == (rows, *spec.input.shape)
            assert examples.inputs.dtype == np.float32
            assert examples.timestamp.dtype == np.float64
            for column in (examples.timestamp, examples.series, examples.event):
                assert column.shape == (rows,)
            for column in (examples.series, examples.event):
                assert column.dtype == np.int64
            assert (np.diff(examples.timestamp) >= 0).all()
            assert set(examples.series) <= set(range(len(data.series_names)))
        assert len(data.train) > 0
        assert len(data.test) > 0


def test_bandwidth_windows_and_their_truth_are_rows_of_one_link(frame):
    data = prepare(BANDWIDTH, frame, BandwidthData())
    assert data.label_source is None
    links = {
        name: frame[frame["node_id"] + "->" + frame["peer_id"] == name]
        for name in data.series_names
    }
    for examples in parts(data).values():
        for k in range(0, len(examples), 17):
            link = links[data.series_names[examples.series[k]]].reset_index(drop=True)
            (last,) = np.flatnonzero(link["timestamp"] == examples.timestamp[k])
            window = link.loc[last - 9 : last]
            assert np.allclose(examples.inputs[k, :, 2], window["throughput_mbps"])
            assert np.allclose(examples.inputs[k, :, 0], window["rtt_ms"])
            assert examples.truth[k] == link.loc[last + 1, "throughput_mbps"]
            assert examples.truth.dtype == np.float64


def test_temporal_splits_hold_70_15_15_of_the_time(frame):
    data = prepare(BANDWIDTH, frame, BandwidthData())
    cuts = [START + 60 * 168, START + 60 * 204]
    assert [data.facts["validation_starts"], data.facts["test_starts"]] == cuts
    assert data.train.timestamp.max() + 60 < cuts[0]
    assert data.validation.timestamp.min() == cuts[0] + 9 * 60
    assert data.validation.timestamp.max() + 60 < cuts[1]
    assert data.test.timestamp.min() == cuts[1] + 9 * 60
    assert data.rows == {"train": 3 * 158, "validation": 3 * 26, "test": 3 * 26}


def test_no_window_crosses_a_gap(frame):
    gap = frame[~frame["timestamp"].between(START + 60 * 50, START + 60 * 52)]
    data = prepare(BANDWIDTH, gap, BandwidthData())
    after = data.train.timestamp - START
    assert not ((after >= 60 * 49) & (after < 60 * 62)).any()
    assert (after == 60 * 48).sum() == 3
    assert (after == 60 * 62).sum() == 3


def test_the_window_is_a_setting(frame):
    assert prepare(BANDWIDTH, frame, BandwidthData(window=4)).train.inputs.shape[1:] == (4, 7)
    assert prepare(LATENCY, frame, LatencyData(window=7)).train.inputs.shape[1:] == (7,)


def test_bandwidth_classes_follow_the_link_and_its_training_rows(frame):
    settings = BandwidthData()
    values = prepare(BANDWIDTH, frame, settings)
    classes = prepare(BANDWIDTH, frame, settings, form="bandwidth_class")
    names = frame["node_id"] + "->" + frame["peer_id"]
    trained = frame["timestamp"] < values.facts["validation_starts"]
    for index, name in enumerate(values.series_names):
        reference = frame.loc[trained & (names == name), "throughput_mbps"].quantile(0.95)
        share = values.test.truth[values.test.series == index] / reference
        expected = np.where(share >= 0.7, 0, np.where(share >= 0.4, 1, 2))
        assert classes.test.truth[classes.test.series == index].tolist() == expected.tolist()


def test_links_unseen_in_training_have_no_class(frame):
    late = frame[(frame["peer_id"] != "p1") | (frame["timestamp"] >= START + 60 * 210)]
    data = prepare(BANDWIDTH, late, BandwidthData(), form="bandwidth_class")
    assert data.facts["windows_of_links_unseen_in_training"] > 0
    assert "n0->p1" not in {data.series_names[k] for k in data.test.series}


def test_compression_is_split_by_class_and_seed(frame):
    data = prepare(COMPRESSION, frame, CompressionData(), seed=42)
    assert data.label_source == "measured"
    total = sum(data.rows.values())
    assert total == len(frame)
    for level in range(10):
        counts = [int((e.truth == level).sum()) for e in parts(data).values()]
        assert counts[1] == counts[2] == round(0.15 * sum(counts))
    again = prepare(COMPRESSION, frame, CompressionData(), seed=42)
    assert np.array_equal(again.test.inputs, data.test.inputs)
    other = prepare(COMPRESSION, frame, CompressionData(), seed=43)
    assert not np.array_equal(other.test.timestamp, data.test.timestamp)
    assert (data.test.gains.argmax(axis=1) == data.test.truth).all()


def test_compression_is_split_by_time_where_that_is_set(frame):
    settings = CompressionData(split="temporal")
    data = prepare(COMPRESSION, frame, settings)
    assert data.train.timestamp.max() < data.validation.timestamp.min()
    assert data.validation.timestamp.max() < data.test.timestamp.min()
    assert data.facts["test_starts"] == data.test.timestamp.min()
    assert sum(data.rows.values()) == len(frame)
    again = prepare(COMPRESSION, frame, settings, seed=7)
    assert np.array_equal(again.test.timestamp, data.test.timestamp)


def test_compression_types(frame):
    data = prepare(COMPRESSION, frame, CompressionData(), form="compression_type")
    hits = data.test.inputs[:, 4]
    level = data.test.gains.argmax(axis=1)
    expected = np.where(level == 0, 0, np.where(hits > 0.5, 1, 2))
    assert np.array_equal(data.test.truth, expected)


def test_without_measured_gains_the_cost_model_speaks(frame):
    data = prepare(COMPRESSION, frame.drop(columns="throughput_gain_0"), CompressionData())
    assert data.label_source == "cost_model"


def test_reliability_rows_are_positive_inside_incidents(frame):
    data = prepare(RELIABILITY, frame, ReliabilityData(), incidents=INCIDENTS)
    assert data.rows == {"train": 3 * 204, "validation": 0, "test": 3 * 36}
    assert data.label_source == "intervals"
    assert data.facts["incidents_with_rows"] == 3
    assert data.train.truth.sum() == 2 * 11  # n0 has two links
    assert data.test.truth.sum() == 2 * 6 + 2
    assert set(data.test.event) == {-1, 1, 2}
    assert np.array_equal(data.test.truth, data.test.event >= 0)


def test_reliability_without_intervals_uses_the_window(frame):
    moment = [Incident(timestamp=START + 60 * 230, node_id="n1", incident_type="x")]
    data = prepare(RELIABILITY, frame, ReliabilityData(incident_window_minutes=2), incidents=moment)
    assert data.label_source == "window"
    assert data.test.truth.sum() == 5


@pytest.mark.parametrize(
    ("incidents", "fault"),
    [
        (None, (ErrorCode.MISSING, "incidents")),
        ([], (ErrorCode.MISSING, "incidents")),
        (INCIDENTS[:1], (ErrorCode.NO_DATA, "incidents")),
        ([incident("unknown", 0, 1000)], (ErrorCode.NO_DATA, "incidents")),
    ],
)
def test_reliability_without_incidents_fails(frame, incidents, fault):
    with pytest.raises(TrainingFailed, check=about(*fault)):
        prepare(RELIABILITY, frame, ReliabilityData(), incidents=incidents)


def test_latency_windows_are_positive_if_any_step_is(frame):
    data = prepare(LATENCY, frame, LatencyData(window=5))
    assert data.label_source == "labelled"
    assert data.series_names == ("n0", "n1")
    minute = (data.train.timestamp - START) // 60
    positive = [any((m - k) % 10 >= 8 for k in range(5)) for m in minute]
    assert data.train.truth.tolist() == positive
    assert data.rows == {"train": 2 * 164, "validation": 2 * 32, "test": 2 * 32}


def test_every_episode_has_its_own_number(frame):
    data = prepare(LATENCY, frame, LatencyData(window=5))
    examples = data.train
    minute = ((examples.timestamp - START) // 60).astype(np.int64)
    names = {}
    for k in np.flatnonzero(examples.truth):
        latest = max(m for m in range(minute[k] - 4, minute[k] + 1) if m % 10 >= 8)
        episode = (int(examples.series[k]), latest // 10)
        assert names.setdefault(episode, examples.event[k]) == examples.event[k]
    assert len(set(names.values())) == len(names)
    assert (examples.event[~examples.truth] == -1).all()


def test_latency_labels_are_derived_per_node_on_training_rows(frame):
    bare = frame.drop(columns="is_high_latency")
    data = prepare(LATENCY, bare, LatencyData(window=2, derived_quantile=0.9))
    assert data.label_source == "derived"
    node = bare[bare["node_id"] == "n1"].drop_duplicates("timestamp")
    trained = node["timestamp"] < data.facts["validation_starts"]
    limit = node.loc[trained, "consensus_latency_ms"].quantile(0.9)
    own = data.test.series == data.series_names.index("n1")
    expected = (data.test.inputs[own].max(axis=1) > limit).tolist()
    assert data.test.truth[own].tolist() == expected


def test_no_window_says_the_longest_run(frame):
    with pytest.raises(
        TrainingFailed, match=r"No link has 200 consecutive rows .* longest run is 168"
    ):
        prepare(BANDWIDTH, frame, BandwidthData(window=199))
    with pytest.raises(TrainingFailed, check=about(ErrorCode.TOO_FEW, "300 rows of a node")):
        prepare(LATENCY, frame, LatencyData(window=300))


def test_an_empty_split_is_named(frame):
    with pytest.raises(TrainingFailed, check=about(ErrorCode.TOO_FEW, "test")):
        prepare(BANDWIDTH, frame[frame["timestamp"] < START + 60 * 40], BandwidthData())


def test_no_rows_and_foreign_settings_are_refused(frame):
    with pytest.raises(TrainingFailed, check=about(ErrorCode.NO_DATA)):
        prepare(LATENCY, frame.iloc[:0], LatencyData())
    with pytest.raises(UsageError, check=about(ErrorCode.WRONG_TYPE, "BandwidthData")):
        prepare(LATENCY, frame, BandwidthData())
    with pytest.raises(UsageError, check=about(ErrorCode.UNKNOWN_NAME, "other")):
        prepare(LATENCY, frame, LatencyData(), form="other")


def test_the_index_of_the_frame_does_not_matter(frame):
    moved = frame.set_index(pd.Index(range(1000, 1000 + len(frame))))
    for spec, settings in PREPARED:
        one = prepare(spec, frame, settings, incidents=INCIDENTS)
        two = prepare(spec, moved, settings, incidents=INCIDENTS)
        assert np.array_equal(one.train.inputs, two.train.inputs)
