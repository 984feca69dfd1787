"""A log that replays the test split gets the figures of the offline report; the rest is counted."""

import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from dwcp_ml.contract.errors import DataRefused, UsageError
from dwcp_ml.contract.examples import BandwidthData, CompressionData, LatencyData, ReliabilityData
from dwcp_ml.contract.models import MODELS
from dwcp_ml.contract.records import TrainingRecord
from dwcp_ml.data.examples import prepare
from dwcp_ml.data.incidents import read_incidents
from dwcp_ml.data.reading import load
from dwcp_ml.data.validation import validate
from dwcp_ml.evaluation import evaluate
from dwcp_ml.serving.prediction_log import PredictionLog
from dwcp_ml.stages.live import Sources, Unmatched, joined, live_accuracy, paired
from dwcp_ml.stages.live.losses import losses

SETTINGS = {
    "bandwidth_predictor": BandwidthData(),
    "compression_selector": CompressionData(),
    "reliability_detector": ReliabilityData(),
    "consensus_latency": LatencyData(),
}
VERSION = "20260101-000000"


def prepared(files, tmp_path, name, drop=()):
    """Return the data of one model as the offline report sees them."""
    spec = MODELS[name]
    telemetry, incidents = files
    if drop:
        frame = pd.read_csv(telemetry).drop(columns=list(drop))
        frame.to_csv(telemetry, index=False)
    clean = tmp_path / "clean"
    validate(telemetry, specs=[spec], incidents_path=incidents, output=clean)
    labels = [label for label in spec.labels if label not in drop]
    frame = load(clean / "telemetry.parquet", [*spec.needed_columns, *labels])
    return prepare(spec, frame, SETTINGS[name], incidents=read_incidents(incidents))


def stand_in(data, seed=3):
    """Return answers of some quality, with all outputs of the default form."""
    rng, test = np.random.default_rng(seed), data.test
    n = len(test)
    if data.spec.short_name == "bandwidth":
        # The baseline last value, and a little noise.
        last = test.inputs[:, -1, data.spec.features.index("throughput_mbps")]
        return {"next_throughput_mbps": (last * rng.normal(1, 0.01, n)).astype(np.float32)}
    if data.spec.short_name == "compression":
        level = np.where(rng.random(n) < 0.8, test.truth, rng.integers(0, 10, n))
        return {"compression_level": level, "probabilities": rng.random((n, 10), np.float32)}
    score = np.clip(0.6 * test.truth + rng.normal(0.2, 0.2, n), 0, 1).astype(np.float32)
    flag, error = ("is_anomaly", "anomaly_score")
    if data.spec.short_name == "latency":
        flag, error = ("is_high_latency", "reconstruction_error")
    return {flag: score >= 0.5, error: score}


def link_of(data, series):
    return data.series_names[series].replace("->", "/")


def replay(directory, data, predictions, version=VERSION, prefix="r", **changes):
    """Write the log that a server would: one request for each example of the test split."""
    log = PredictionLog(directory, queue_length=1_000_000, clock=lambda: 1e9)
    test = data.test
    for i in range(len(test)):
        fields = {
            "model": data.spec.name,
            "version": version,
            "digest": "d" * 64,
            "request_id": f"{prefix}{i}",
            "link": link_of(data, test.series[i]),
            "observed_at": float(test.timestamp[i]),
            "inputs": test.inputs[i : i + 1],
            "outputs": {name: values[i : i + 1] for name, values in predictions.items()},
        }
        fields |= {key: change(i) for key, change in changes.items()}
        log.offer(**fields)
    log.close(60)
    assert (log.written, log.dropped) == (len(test), 0)


def offline(data, predictions):
    record = TrainingRecord(
        model_name=data.spec.name,
        version=VERSION,
        form=data.form,
        success=True,
        training_date="2026-01-01T00:00:00+00:00",
        training_time_seconds=1.0,
        hyperparameters={},
        seed=42,
        threads=1,
    )
    return evaluate(data, predictions, record, data.spec.form().targets)[0]


def sources(files, tmp_path, **fields):
    given = {"log": tmp_path / "log", "data_path": files[0], "incidents_path": files[1]}
    return Sources(**{**given, **fields})


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("drop", [(), ("labels",)], ids=["labelled", "without labels"])
def test_a_replayed_test_split_gets_the_offline_figures(files, tmp_path, name, drop):
    dropped = MODELS[name].labels if drop else ()
    data = prepared(files, tmp_path, name, dropped)
    predictions = stand_in(data)
    replay(tmp_path / "log", data, predictions)
    (found,) = live_accuracy(sources(files, tmp_path)).results
    assert (found.joined, found.logged, found.unmatched) == (len(data.test), len(data.test), {})
    wanted = offline(data, predictions)
    live = {figure.metric: figure.value for figure in found.figures}
    assert set(wanted.target_metrics) < set(live)
    for metric, value in live.items():
        assert value == pytest.approx(wanted.achieved_metrics[metric], rel=1e-12), metric
    assert set(wanted.achieved_metrics) - set(live) <= {
        "reconstruction_mae",
        "gain_over_best_fixed",
    }
    assert found.label_source == data.label_source
    for figure in found.figures:
        assert figure.target == wanted.target_metrics.get(figure.metric)
        if figure.target is not None:
            assert figure.met == (figure.metric not in wanted.missed_targets)
            assert figure.lower <= figure.value <= figure.upper


@pytest.mark.parametrize("name", list(MODELS))
def test_the_mean_loss_is_the_error_rate(files, tmp_path, name):
    data = prepared(files, tmp_path, name)
    replay(tmp_path / "log", data, stand_in(data))
    frame = joined(sources(files, tmp_path))
    (found,) = live_accuracy(sources(files, tmp_path)).results
    assert len(frame) == found.joined
    assert frame["observed_at"].is_monotonic_increasing
    mean = frame["loss"].mean()
    if name == "bandwidth_predictor":
        assert 100 * mean == pytest.approx(found.figure("mape_percent").value)
    elif name == "compression_selector":
        assert 1 - mean == pytest.approx(found.figure("accuracy").value)
        assert frame["regret"].mean() == pytest.approx(found.figure("regret").value)
    else:
        right = 1 - mean
        test = data.test
        assert right == pytest.approx(np.mean(test.truth == stand_in(data)[_flag(name)]))


def _flag(name):
    return "is_anomaly" if name == "reliability_detector" else "is_high_latency"


def test_every_reason_is_counted(files, tmp_path):
    data = prepared(files, tmp_path, "bandwidth_predictor")
    end = int(pd.to_datetime(pd.read_csv(files[0])["timestamp"]).max().timestamp())
    link = link_of(data, 0)
    predictions = stand_in(data)
    changed = {
        0: {"link": None},
        1: {"link": "nobody/knows"},
        2: {"link": data.series_names[0].split("->")[0]},  # a node has no throughput of its own
        3: {"observed_at": float(end), "link": link},
        4: {"observed_at": end + 1e6, "link": link},
        5: {"observed_at": 1.0, "link": link},
        6: {"outputs": {"next_throughput_mbps": np.array([np.nan], np.float32)}},
        7: {"outputs": {"bandwidth_class": np.array([1])}},
    }

    def pick(field, usual):
        return lambda i: changed.get(i, {}).get(field, usual(i))

    test = data.test
    replay(
        tmp_path / "log",
        data,
        predictions,
        link=pick("link", lambda i: link_of(data, test.series[i])),
        observed_at=pick("observed_at", lambda i: float(test.timestamp[i])),
        outputs=pick("outputs", lambda i: {k: v[i : i + 1] for k, v in predictions.items()}),
    )
    (found,) = live_accuracy(sources(files, tmp_path)).results
    assert found.unmatched == {
        Unmatched.NO_LINK: 1,
        Unmatched.UNKNOWN_LINK: 2,
        Unmatched.PENDING: 2,
        Unmatched.NO_OBSERVATION: 1,
        Unmatched.INVALID: 1,
        Unmatched.OTHER_FORM: 1,
    }
    assert found.logged == len(test)
    assert found.joined == len(test) - 8


@pytest.mark.parametrize("level", [-1, 10, 2.5])
def test_a_level_out_of_range_is_no_answer(files, tmp_path, level):
    data = prepared(files, tmp_path, "compression_selector")
    predictions = stand_in(data)
    predictions["compression_level"] = predictions["compression_level"].astype(float)
    predictions["compression_level"][0] = level
    replay(tmp_path / "log", data, predictions)
    (found,) = live_accuracy(sources(files, tmp_path)).results
    assert found.unmatched == {Unmatched.INVALID: 1}


@pytest.mark.parametrize("name", ["reliability_detector", "consensus_latency"])
def test_a_score_that_is_no_number_is_no_answer(files, tmp_path, name):
    data = prepared(files, tmp_path, name)
    predictions = stand_in(data)
    score = "anomaly_score" if name == "reliability_detector" else "reconstruction_error"
    predictions[score][:3] = np.nan
    replay(tmp_path / "log", data, predictions)
    (found,) = live_accuracy(sources(files, tmp_path)).results
    assert found.unmatched == {Unmatched.INVALID: 3}
    assert found.figure("pr_auc").value is not None


def test_every_instance_of_a_request_counts(files, tmp_path):
    data = prepared(files, tmp_path, "reliability_detector")
    predictions = stand_in(data)
    log = PredictionLog(tmp_path / "log")
    outputs = {name: values[:4] for name, values in predictions.items()}
    moment = float(data.test.timestamp[0])
    log.offer(
        data.spec.name, VERSION, "d", "r", link_of(data, 0), moment, data.test.inputs[:4], outputs
    )
    log.close(30)
    frame = joined(sources(files, tmp_path))
    assert frame["row"].tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(frame["score"], predictions["anomaly_score"][:4])


def test_under_1_mbps_there_is_no_relative_loss():
    found = losses(
        MODELS["bandwidth_predictor"], np.array([2.0, 2.0, 0.0]), np.array([1.0, 0.5, 4])
    )
    np.testing.assert_array_equal(found, [1.0, np.nan, 1.0])


def test_a_retry_counts_once_and_another_version_counts_for_itself(files, tmp_path):
    data = prepared(files, tmp_path, "bandwidth_predictor")
    for _ in range(2):
        replay(tmp_path / "log", data, stand_in(data))
    replay(tmp_path / "log", data, stand_in(data, seed=9), version="20260102-000000")
    first, second = live_accuracy(sources(files, tmp_path)).results
    n = len(data.test)
    assert (first.version, first.logged, first.duplicates) == (VERSION, n, n)
    assert (second.version, second.logged, second.duplicates) == ("20260102-000000", n, 0)


def test_more_telemetry_joins_more_and_changes_nothing_that_was_joined(files, tmp_path):
    data = prepared(files, tmp_path, "bandwidth_predictor")
    replay(tmp_path / "log", data, stand_in(data))
    whole = pd.read_csv(files[0])
    early = tmp_path / "early.csv"
    times = np.sort(whole["timestamp"].unique())
    counts, frames = [], []
    for cut in (times[-40], times[-20], times[-1]):
        whole[whole["timestamp"] <= cut].to_csv(early, index=False)
        (found,) = live_accuracy(sources(files, tmp_path, data_path=early)).results
        waiting = found.unmatched.get(Unmatched.PENDING, 0)
        assert found.joined + waiting == found.logged
        counts.append(found.joined)
        frames.append(joined(sources(files, tmp_path, data_path=early)))
    assert counts == sorted(set(counts))
    key = ["request_id", "truth", "loss"]
    for less, more in pairwise(frames):
        again = more[more["request_id"].isin(less["request_id"])]
        pd.testing.assert_frame_equal(
            less[key].sort_values("request_id", ignore_index=True),
            again[key].sort_values("request_id", ignore_index=True),
        )


def test_without_observed_at_the_servers_own_clock_counts(files, tmp_path):
    data = prepared(files, tmp_path, "bandwidth_predictor")
    predictions, test = stand_in(data), data.test
    now = {"time": 0.0}
    log = PredictionLog(tmp_path / "log", queue_length=1_000_000, clock=lambda: now["time"])
    for i in range(len(test)):
        now["time"] = float(test.timestamp[i]) + 7.25
        outputs = {name: values[i : i + 1] for name, values in predictions.items()}
        log.offer(
            data.spec.name, VERSION, "d", f"r{i}", link_of(data, test.series[i]), None,
            test.inputs[i : i + 1], outputs,
        )  # fmt: skip
    log.close(60)
    (found,) = live_accuracy(sources(files, tmp_path)).results
    wanted = offline(data, predictions).achieved_metrics["mape_percent"]
    assert found.figure("mape_percent").value == pytest.approx(wanted)


def test_reliability_needs_incidents_and_takes_a_node_for_a_link(files, tmp_path):
    data = prepared(files, tmp_path, "reliability_detector")
    predictions = stand_in(data)
    nodes = [name.split("->")[0] for name in data.series_names]
    replay(tmp_path / "log", data, predictions, link=lambda i: nodes[data.test.series[i]])
    (found,) = live_accuracy(sources(files, tmp_path, incidents_path=None)).results
    assert found.unmatched == {Unmatched.NO_LABEL: len(data.test)}
    assert found.figures == ()
    (found,) = live_accuracy(sources(files, tmp_path)).results
    wanted = offline(data, predictions).achieved_metrics
    assert found.figure("recall").value == pytest.approx(wanted["recall"])
    files[1].write_text("[]")
    (found,) = live_accuracy(sources(files, tmp_path)).results
    assert found.joined == len(data.test)
    assert found.figure("recall").value is None


def test_incidents_without_an_interval_are_noted(files, tmp_path):
    data = prepared(files, tmp_path, "reliability_detector")
    replay(tmp_path / "log", data, stand_in(data))
    incidents = json.loads(files[1].read_text())
    for each in incidents:
        del each["start"], each["end"]
    files[1].write_text(json.dumps(incidents))
    (found,) = live_accuracy(sources(files, tmp_path)).results
    assert found.label_source == "window"
    assert "15 min either side" in found.notes[0]


def test_a_latency_window_with_a_gap_is_not_judged(files, tmp_path):
    data = prepared(files, tmp_path, "consensus_latency")
    replay(tmp_path / "log", data, stand_in(data))
    frame = pd.read_csv(files[0])
    node = data.series_names[0]
    hole = data.test.timestamp[0] + 60 * 5
    seconds = pd.to_datetime(frame["timestamp"]).astype("int64") // 10**9
    frame = frame[~((frame["node_id"] == node) & (seconds == hole))]
    frame.to_csv(files[0], index=False)
    (found,) = live_accuracy(sources(files, tmp_path)).results
    ends = data.test.timestamp[data.test.series == 0]
    across = np.sum((ends > hole) & (ends < hole + 60 * 20))
    assert found.unmatched == {
        Unmatched.NO_OBSERVATION: int(np.sum(ends == hole)),
        Unmatched.WINDOW_GAP: int(across),
    }


def test_two_versions_are_paired_by_request(files, tmp_path):
    data = prepared(files, tmp_path, "bandwidth_predictor")
    good, bad = stand_in(data), stand_in(data, seed=5)
    bad["next_throughput_mbps"] = bad["next_throughput_mbps"] * np.float32(1.3)
    replay(tmp_path / "log", data, good, version="a")
    mirrored = len(data.test) // 3
    ids = [f"r{i}" if i < mirrored else f"only{i}" for i in range(len(data.test))]
    replay(tmp_path / "log", data, bad, version="b", request_id=lambda i: ids[i])
    pairs = paired(joined(sources(files, tmp_path)), "bandwidth_predictor", "a", "b")
    assert len(pairs) == mirrored
    assert pairs["difference"].mean() > 0.1
    row = pairs.iloc[0]
    number = int(row["request_id"][1:])
    assert row["prediction_stable"] == good["next_throughput_mbps"][number]
    assert row["prediction_candidate"] == bad["next_throughput_mbps"][number]
    assert row["truth"] == data.test.truth[number]
    assert paired(joined(sources(files, tmp_path)), "bandwidth_predictor", "a", "c").empty


def test_since_until_and_models_choose(files, tmp_path):
    data = prepared(files, tmp_path, "bandwidth_predictor")
    replay(tmp_path / "log", data, stand_in(data))
    middle = float(data.test.timestamp[len(data.test) // 2])
    late = live_accuracy(sources(files, tmp_path, since=middle)).results[0]
    early = live_accuracy(sources(files, tmp_path, until=middle)).results[0]
    assert late.logged == np.sum(data.test.timestamp >= middle)
    assert early.logged + late.logged == len(data.test)
    other = live_accuracy(sources(files, tmp_path, models=[MODELS["consensus_latency"]]))
    assert (other.results, other.data) == ((), None)


def test_what_can_not_be_joined_is_refused_in_a_sentence(files, tmp_path):
    with pytest.raises(DataRefused, match="can't read the prediction log"):
        live_accuracy(sources(files, tmp_path))
    data = prepared(files, tmp_path, "bandwidth_predictor")
    replay(tmp_path / "log", data, stand_in(data))
    with pytest.raises(UsageError, match="tolerance"):
        live_accuracy(sources(files, tmp_path, tolerance_seconds=-1.0))
    with pytest.raises(UsageError, match="window of an incident"):
        live_accuracy(sources(files, tmp_path, incident_window_minutes=0.0))
    pd.read_csv(files[0]).drop(columns=["rtt_ms"]).to_csv(files[0], index=False)
    with pytest.raises(DataRefused, match="rtt_ms"):
        live_accuracy(sources(files, tmp_path))


def test_an_unknown_model_in_the_log_is_refused(files, tmp_path):
    log = PredictionLog(tmp_path / "log")
    log.offer("oracle", "1", "d", "r", None, None, np.ones((1, 6)), {"x": np.ones(1)})
    log.close(10)
    with pytest.raises(DataRefused, match="'oracle'"):
        live_accuracy(sources(files, tmp_path))


def test_two_bundles_under_one_version_are_noted(files, tmp_path):
    data = prepared(files, tmp_path, "bandwidth_predictor")
    replay(tmp_path / "log", data, stand_in(data), digest=lambda i: "ab"[i % 2] * 64)
    (found,) = live_accuracy(sources(files, tmp_path)).results
    assert found.digests == ("a" * 64, "b" * 64)
    assert "2 bundles answered" in found.notes[0]
