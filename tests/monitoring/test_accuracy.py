"""A log that replays the test split gets the metrics of the offline report."""

import json

import numpy as np
import pandas as pd
import pytest

from dwcp_ml.contract.errors import DataRefused, ErrorCode, UsageError
from dwcp_ml.contract.models import MODELS
from dwcp_ml.monitoring import Unmatched, joined, live_accuracy
from dwcp_ml.prediction_log.log import PredictionLog
from dwcp_ml.prediction_log.loss import losses
from tests.errors import about
from tests.monitoring.replay import (
    VERSION,
    fake_predictions,
    link_of,
    offline,
    prepared,
    replay,
    sources,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("drop", [(), ("labels",)], ids=["labelled", "without labels"])
def test_a_replayed_test_split_gets_the_offline_figures(files, tmp_path, name, drop):
    dropped = MODELS[name].labels if drop else ()
    data = prepared(files, tmp_path, name, dropped)
    predictions = fake_predictions(data)
    replay(tmp_path / "log", data, predictions)
    (result,) = live_accuracy(sources(files, tmp_path)).results
    assert (result.joined, result.logged, result.unmatched) == (len(data.test), len(data.test), {})
    expected = offline(data, predictions)
    live = {figure.metric: figure.value for figure in result.figures}
    assert {target.metric for target in expected.targets} < set(live)
    for metric, value in live.items():
        assert value == pytest.approx(expected.metrics[metric], rel=1e-12), metric
    assert set(expected.metrics) - set(live) <= {
        "gain_over_best_fixed",
    }
    assert result.label_source == data.label_source
    for figure in result.figures:
        assert figure.target == expected.target_of(figure.metric)
        if figure.target is not None:
            assert figure.met == (figure.metric not in expected.missed_targets)
            # A number of alarms has no interval: whole incidents are not resampled.
            if figure.metric != "false_alarms_per_link_day":
                assert figure.lower <= figure.value <= figure.upper


@pytest.mark.parametrize("name", list(MODELS))
def test_the_mean_loss_is_the_error_rate(files, tmp_path, name):
    data = prepared(files, tmp_path, name)
    replay(tmp_path / "log", data, fake_predictions(data))
    frame = joined(sources(files, tmp_path))
    (result,) = live_accuracy(sources(files, tmp_path)).results
    assert len(frame) == result.joined
    assert frame["observed_at"].is_monotonic_increasing
    mean = frame["loss"].mean()
    if name == "bandwidth_predictor":
        assert 100 * mean == pytest.approx(result.figure("mape_percent").value)
    elif name == "compression_selector":
        assert 1 - mean == pytest.approx(result.figure("accuracy").value)
        assert frame["regret"].mean() == pytest.approx(result.figure("regret").value)
    else:
        right = 1 - mean
        test = data.test
        assert right == pytest.approx(np.mean(test.truth == fake_predictions(data)[_flag(name)]))


def _flag(name):
    return "is_anomaly" if name == "reliability_detector" else "is_high_latency"


def test_under_1_mbps_there_is_no_relative_loss():
    found = losses("bandwidth_predictor", np.array([2.0, 2.0, 0.0]), np.array([1.0, 0.5, 4]))
    np.testing.assert_array_equal(found, [1.0, np.nan, 1.0])


def test_without_observed_at_the_servers_own_clock_counts(files, tmp_path):
    data = prepared(files, tmp_path, "bandwidth_predictor")
    predictions, test = fake_predictions(data), data.test
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
    (result,) = live_accuracy(sources(files, tmp_path)).results
    expected = offline(data, predictions).metrics["mape_percent"]
    assert result.figure("mape_percent").value == pytest.approx(expected)


def test_reliability_needs_incidents_and_takes_a_node_for_a_link(files, tmp_path):
    data = prepared(files, tmp_path, "reliability_detector")
    predictions = fake_predictions(data)
    nodes = [name.split("->")[0] for name in data.series_names]
    replay(tmp_path / "log", data, predictions, link=lambda i: nodes[data.test.series[i]])
    (result,) = live_accuracy(sources(files, tmp_path, incidents_path="")).results
    assert result.unmatched == {Unmatched.NO_LABEL: len(data.test)}
    assert result.figures == ()
    (result,) = live_accuracy(sources(files, tmp_path)).results
    expected = offline(data, predictions).metrics
    assert result.figure("recall").value == pytest.approx(expected["recall"])
    files[1].write_text("[]")
    (result,) = live_accuracy(sources(files, tmp_path)).results
    assert result.joined == len(data.test)
    assert result.figure("recall").value is None


def test_incidents_without_an_interval_are_noted(files, tmp_path):
    data = prepared(files, tmp_path, "reliability_detector")
    replay(tmp_path / "log", data, fake_predictions(data))
    incidents = json.loads(files[1].read_text())
    for each in incidents:
        del each["start"], each["end"]
    files[1].write_text(json.dumps(incidents))
    (result,) = live_accuracy(sources(files, tmp_path)).results
    assert result.label_source == "window"
    assert "15 min either side" in result.notes[0]


def test_since_until_and_models_filter_the_predictions(files, tmp_path):
    data = prepared(files, tmp_path, "bandwidth_predictor")
    replay(tmp_path / "log", data, fake_predictions(data))
    middle = float(data.test.timestamp[len(data.test) // 2])
    late = live_accuracy(sources(files, tmp_path, since=middle)).results[0]
    early = live_accuracy(sources(files, tmp_path, until=middle)).results[0]
    assert late.logged == np.sum(data.test.timestamp >= middle)
    assert early.logged + late.logged == len(data.test)
    other = live_accuracy(sources(files, tmp_path, models=[MODELS["consensus_latency"]]))
    assert (other.results, other.data) == ((), None)


def test_input_that_cannot_be_joined_is_rejected(files, tmp_path):
    with pytest.raises(DataRefused, check=about(ErrorCode.CANT_READ, "log")):
        live_accuracy(sources(files, tmp_path))
    data = prepared(files, tmp_path, "bandwidth_predictor")
    replay(tmp_path / "log", data, fake_predictions(data))
    with pytest.raises(UsageError, check=about(ErrorCode.OUT_OF_RANGE, "tolerance")):
        live_accuracy(sources(files, tmp_path, tolerance_seconds=-1.0))
    with pytest.raises(UsageError, check=about(ErrorCode.OUT_OF_RANGE, "incident_window")):
        live_accuracy(sources(files, tmp_path, incident_window_minutes=0.0))
    pd.read_csv(files[0]).drop(columns=["rtt_ms"]).to_csv(files[0], index=False)
    with pytest.raises(DataRefused, check=about(ErrorCode.CONTRACT, "missing_column")) as error:
        live_accuracy(sources(files, tmp_path))
    assert {defect.column for defect in error.value.report.defects} >= {"rtt_ms"}


def test_two_bundles_under_one_version_are_noted(files, tmp_path):
    data = prepared(files, tmp_path, "bandwidth_predictor")
    replay(tmp_path / "log", data, fake_predictions(data), digest=lambda i: "ab"[i % 2] * 64)
    (result,) = live_accuracy(sources(files, tmp_path)).results
    assert result.digests == ("a" * 64, "b" * 64)
    assert "2 bundles made predictions" in result.notes[0]
