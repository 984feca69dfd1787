"""Every prediction of the log is joined with its ground truth, or counted with a reason."""

import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from dwcp_ml.contract.errors import DataRefused, ErrorCode
from dwcp_ml.monitoring import Unmatched, joined, live_accuracy, paired
from dwcp_ml.prediction_log.log import PredictionLog
from tests.errors import about
from tests.monitoring.replay import VERSION, fake_predictions, link_of, prepared, replay, sources

pytestmark = pytest.mark.slow


def test_every_reason_is_counted(files, tmp_path):
    data = prepared(files, tmp_path, "bandwidth_predictor")
    end = int(pd.to_datetime(pd.read_csv(files[0])["timestamp"]).max().timestamp())
    link = link_of(data, 0)
    predictions = fake_predictions(data)
    changed = {
        0: {"link": None},
        1: {"link": "unknown/link"},
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
    (result,) = live_accuracy(sources(files, tmp_path)).results
    assert result.unmatched == {
        Unmatched.NO_LINK: 1,
        Unmatched.UNKNOWN_LINK: 2,
        Unmatched.PENDING: 2,
        Unmatched.NO_OBSERVATION: 1,
        Unmatched.INVALID: 1,
        Unmatched.OTHER_FORM: 1,
    }
    assert result.logged == len(test)
    assert result.joined == len(test) - 8


@pytest.mark.parametrize("level", [-1, 10, 2.5])
def test_a_level_out_of_range_is_an_invalid_prediction(files, tmp_path, level):
    data = prepared(files, tmp_path, "compression_selector")
    predictions = fake_predictions(data)
    predictions["compression_level"] = predictions["compression_level"].astype(float)
    predictions["compression_level"][0] = level
    replay(tmp_path / "log", data, predictions)
    (result,) = live_accuracy(sources(files, tmp_path)).results
    assert result.unmatched == {Unmatched.INVALID: 1}


@pytest.mark.parametrize("name", ["reliability_detector", "consensus_latency"])
def test_a_score_that_is_not_a_number_is_an_invalid_prediction(files, tmp_path, name):
    data = prepared(files, tmp_path, name)
    predictions = fake_predictions(data)
    score = "anomaly_score" if name == "reliability_detector" else "reconstruction_error"
    predictions[score][:3] = np.nan
    replay(tmp_path / "log", data, predictions)
    (result,) = live_accuracy(sources(files, tmp_path)).results
    assert result.unmatched == {Unmatched.INVALID: 3}
    assert result.figure("pr_auc").value is not None


def test_every_instance_of_a_request_counts(files, tmp_path):
    data = prepared(files, tmp_path, "reliability_detector")
    predictions = fake_predictions(data)
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


def test_a_retry_counts_once_and_another_version_counts_for_itself(files, tmp_path):
    data = prepared(files, tmp_path, "bandwidth_predictor")
    for _ in range(2):
        replay(tmp_path / "log", data, fake_predictions(data))
    replay(tmp_path / "log", data, fake_predictions(data, seed=9), version="20260102-000000")
    first, second = live_accuracy(sources(files, tmp_path)).results
    n = len(data.test)
    assert (first.version, first.logged, first.duplicates) == (VERSION, n, n)
    assert (second.version, second.logged, second.duplicates) == ("20260102-000000", n, 0)


def test_more_telemetry_joins_more_and_changes_nothing_that_was_joined(files, tmp_path):
    data = prepared(files, tmp_path, "bandwidth_predictor")
    replay(tmp_path / "log", data, fake_predictions(data))
    whole = pd.read_csv(files[0])
    early = tmp_path / "early.csv"
    times = np.sort(whole["timestamp"].unique())
    counts, frames = [], []
    for cut in (times[-40], times[-20], times[-1]):
        whole[whole["timestamp"] <= cut].to_csv(early, index=False)
        (result,) = live_accuracy(sources(files, tmp_path, data_path=str(early))).results
        waiting = result.unmatched.get(Unmatched.PENDING, 0)
        assert result.joined + waiting == result.logged
        counts.append(result.joined)
        frames.append(joined(sources(files, tmp_path, data_path=str(early))))
    assert counts == sorted(set(counts))
    key = ["request_id", "ground_truth", "loss"]
    for less, more in pairwise(frames):
        again = more[more["request_id"].isin(less["request_id"])]
        pd.testing.assert_frame_equal(
            less[key].sort_values("request_id", ignore_index=True),
            again[key].sort_values("request_id", ignore_index=True),
        )


def test_a_latency_window_with_a_gap_is_not_evaluated(files, tmp_path):
    data = prepared(files, tmp_path, "consensus_latency")
    replay(tmp_path / "log", data, fake_predictions(data))
    frame = pd.read_csv(files[0])
    node = data.series_names[0]
    hole = data.test.timestamp[0] + 60 * 5  # of two rows: one alone is no gap
    seconds = pd.to_datetime(frame["timestamp"]).astype("int64") // 10**9
    frame = frame[~((frame["node_id"] == node) & seconds.isin([hole, hole + 60]))]
    frame.to_csv(files[0], index=False)
    (result,) = live_accuracy(sources(files, tmp_path)).results
    ends = data.test.timestamp[data.test.series == 0]
    across = np.sum((ends > hole + 60) & (ends < hole + 60 * 21))
    assert result.unmatched == {
        Unmatched.NO_OBSERVATION: int(np.sum((ends == hole) | (ends == hole + 60))),
        Unmatched.WINDOW_GAP: int(across),
    }


def test_two_versions_are_paired_by_request(files, tmp_path):
    data = prepared(files, tmp_path, "bandwidth_predictor")
    good, bad = fake_predictions(data), fake_predictions(data, seed=5)
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
    assert row["ground_truth"] == data.test.truth[number]
    assert paired(joined(sources(files, tmp_path)), "bandwidth_predictor", "a", "c").empty


def test_an_unknown_model_in_the_log_is_rejected(files, tmp_path):
    log = PredictionLog(tmp_path / "log")
    log.offer("oracle", "1", "d", "r", None, None, np.ones((1, 6)), {"x": np.ones(1)})
    log.close(10)
    with pytest.raises(DataRefused, check=about(ErrorCode.UNKNOWN_NAME, "oracle")):
        live_accuracy(sources(files, tmp_path))


def test_a_node_has_one_name_however_it_is_written(files, tmp_path):
    """pandas writes 60.0, the incidents " 60 " or "60.0", a client 60.0/61.0."""
    frame = pd.read_csv(files[0])
    names = sorted({*frame["node_id"], *frame["peer_id"]})
    numbers = {name: index + 60 for index, name in enumerate(names)}
    for name in ("node_id", "peer_id"):
        frame[name] = frame[name].map(numbers).astype(float)
    frame.to_csv(files[0], index=False)
    assert ".0," in files[0].read_text().splitlines()[1]
    incidents = json.loads(files[1].read_text())
    for index, incident in enumerate(incidents):
        number = numbers[incident["node_id"]]
        forms = (number, float(number), f"{number}.0", f" {number} ")
        incident["node_id"] = forms[index % len(forms)]
    files[1].write_text(json.dumps(incidents))
    data = prepared(files, tmp_path, "reliability_detector")
    test = data.test
    assert test.truth.any(), "no incident matched"

    def link(i):
        node, peer = link_of(data, test.series[i]).split("/")
        return (f"{node}.0/{peer}.0", f" {node} / {peer}", f"{node}/{peer}")[i % 3]

    replay(tmp_path / "log", data, fake_predictions(data), link=link)
    (result,) = live_accuracy(sources(files, tmp_path)).results
    assert (result.joined, result.unmatched) == (len(test), {})
